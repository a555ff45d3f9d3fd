using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Cudnn;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Tests.Cudnn;

/// <summary>
/// The cudnn backend without a GPU, on the stub. It shows that our kernels compute what they should, that every call is made with the right arguments and
/// that nothing relies on when the device does its work; not how fast, nor what real cuDNN does. And what becomes of every kind of failure.
/// </summary>
[Collection(StubDevice.Collection)]
public sealed partial class StubTests : CudnnTests
{
    [Fact]
    [Trait("Category", "Slow")]
    [Trait("Category", "Nightly")]
    public void HardCases_ThreadsAndBlocksInReverseOrder_MatchTheReference()
    {
        // What forgets a barrier, or merges partial sums in the order of arrival, gives other values.
        using Backend backend = Create();
        StubDevice.Set("thread_order", 1);
        AssertAllPass(backend, HardCases.For(backend.Traits).Where(c => c.Kind == InputKind.Random && !c.Name.StartsWith("convolution/", StringComparison.Ordinal)));
    }

    [Fact]
    public void Steps_OnStagedImages_StreamsInTheOtherOrder_GiveTheSameBits()
    {
        // With the streams' order turned round, what waits for no event comes too early or too late.
        AlwaysSet = ("stream_order", 1);
        try
        {
            Steps_OnStagedImages_GiveTheBitsOfPlainSteps();
        }
        finally
        {
            AlwaysSet = null;
        }
    }

    [Fact]
    public void Steps_AsOneRecording_WhereSearchesDiffer_GiveTheBitsOfKernelByKernel()
    {
        AlwaysSet = ("searches_differ", 1);
        try
        {
            Steps_AsOneRecording_GiveTheBitsOfKernelByKernel(false);
        }
        finally
        {
            AlwaysSet = null;
        }
    }

    [Fact]
    public void Search_WhoseFirstTimesHoldTheLoadingOfKernels_FindsTheFastest()
    {
        string[] expected = Implementations(new BackendOptions());
        AlwaysSet = ("first_search_slow", 1);
        try
        {
            Assert.Equal(expected, Implementations(new BackendOptions()));
            Assert.Contains(expected, i => i.StartsWith("cudnn implicit-precomp-gemm", StringComparison.Ordinal));
        }
        finally
        {
            AlwaysSet = null;
        }
    }

    [Theory]
    [InlineData(2000)]
    [InlineData(3000)]
    public void Search_WhoseFastestIsRefused_TakesTheNext(int status)
    {
        using Backend backend = Create();
        StubDevice.Set("refuse_fastest", status);
        VerificationCase convolution = HardCases.For(backend.Traits).Single(c => c.Name == "convolution/bias/random");
        CaseResult result = Verifier.Run(backend, Reference, convolution);
        Assert.True(result.Passed, result.Describe());
        Assert.Contains(result.Tensors, t => t.Implementation.StartsWith("cudnn implicit-gemm", StringComparison.Ordinal));
        Assert.DoesNotContain(result.Tensors, t => t.Implementation.StartsWith("cudnn implicit-precomp-gemm", StringComparison.Ordinal));
    }

    [Fact]
    public void Backend_OnAThreadThatNeverUsedTheDevice_Works()
    {
        // A context is current for a thread of the operating system; every operation has to make it so. The module is loaded here, and the other thread
        // begins with looking up a kernel of it.
        using Backend backend = Create();
        Shape shape = new(1, 8, 2, 2);
        Tensor src = new("src", shape, TensorRole.Activation), dst = new("dst", shape, TensorRole.Activation);
        new OperationRunner(backend, new Copy("copy", src, dst)).Dispose();
        Exception? error = null;
        var thread = new Thread(() =>
        {
            try
            {
                using var runner = new OperationRunner(backend, new ActivationForward("relu", ActivationKind.Relu, src, dst));
                runner.Execute();
                using TrainingSession session = SmallSession(backend);
                session.Execute(default);
                backend.Synchronize();
            }
            catch (Exception e)
            {
                error = e;
            }
        });
        thread.Start();
        thread.Join();
        Assert.True(error is null, $"{error}");
        AssertClean();
    }

    [Fact]
    public void Backends_OneAfterTheOther_RetainTheContextOnce()
    {
        Create().Dispose();
        long before = StubDevice.Calls("cuDevicePrimaryCtxRetain");
        Create().Dispose();
        using Backend backend = Create();
        Assert.Equal(before, StubDevice.Calls("cuDevicePrimaryCtxRetain"));
    }

    [Fact]
    public void Device_ThatSomebodyElseResets_SaysSo()
    {
        Backend backend = Create();
        DeviceMemory memory = backend.Allocate(1 << 10);
        StubDevice.Set("device_reset", 1);
        NativeException error = Assert.Throws<NativeException>(backend.Synchronize);
        Assert.Contains("CUDA_ERROR_CONTEXT_IS_DESTROYED (709)", error.Message, StringComparison.Ordinal);
        Assert.Contains("Something else in this process has reset the device", error.Message, StringComparison.Ordinal);
        memory.Dispose();
        backend.Dispose();
        Backend second = Create();
        StubDevice.Set("device_reset", 1);

        // Found out only when things are taken down: there is nothing to free, and nothing throws.
        second.Dispose();
        StubDevice.Reset();
    }

    [Theory]
    [InlineData(2000)]
    [InlineData(3000)]
    public void Convolutions_ThatTheLibraryRefuses_RunOnOurKernels(int status)
    {
        using Backend backend = Create();
        StubDevice.Set("refuse_groups", status);
        VerificationCase depthwise = HardCases.For(backend.Traits).Single(c => c.Name == "convolution/depthwise/random");
        CaseResult result = Verifier.Run(backend, Reference, depthwise);
        Assert.True(result.Passed, result.Describe());
        Assert.All(result.Tensors, t => Assert.Equal("native direct", t.Implementation));
    }

    /// <summary>A search on memory that is aligned better than the tensors would promise an algorithm that then refuses to run.</summary>
    [Theory]
    [InlineData(3, true)]
    [InlineData(8, false)]
    public void Convolutions_IntoASlice_AreSearchedWhereItBegins(int firstChannel, bool refused)
    {
        using Backend backend = Create();
        StubDevice.Set("alignment", 16);
        VerificationCase convolution = new CaseBuilder("convolution/odd-slice", InputKind.Random)
            .Convolution(ConvolutionSpec.Square(new(2, 8, 5, 5), 8, 3, pad: 1, bias: true), backward: false, relu: true, sliceOffset: firstChannel).Build();
        CaseResult result = Verifier.Run(backend, Reference, convolution);
        Assert.True(result.Passed, result.Describe());
        Assert.All(result.Tensors, t => Assert.Equal(refused, t.Implementation == "native direct"));
    }

    [Fact]
    public void Backend_WhenDisposed_HasGivenEverythingBack()
    {
        // What tests before this one left to the garbage collector is given back whenever a backend next uses the device.
        long before = StubDevice.Allocated;
        using (Backend first = Create())
        {
            using TrainingSession session = SmallSession(first);
            session.Execute(default);
            Assert.True(StubDevice.Allocated > before);
        }

        Assert.InRange(StubDevice.Allocated, 0, before);
        AssertClean();
    }

    [Fact]
    public void Memory_ThatIsForgotten_IsGivenBackByTheThreadThatUsesTheDevice()
    {
        using Backend backend = Create();
        Forget(backend);
        long before = StubDevice.Allocated;
        for (int i = 0; i < 50 && StubDevice.Allocated >= before; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            backend.Synchronize();
        }

        Assert.InRange(StubDevice.Allocated, 0, before - (1 << 20));
        AssertClean();

        static void Forget(Backend backend) => _ = backend.Allocate(1 << 20);
    }

    [Fact]
    public void Allocate_MoreThanThereIs_SaysHowMuchIsFree()
    {
        using Backend backend = Create();
        StubDevice.Set("memory", 1 << 20);
        OutOfMemoryException error = Assert.Throws<OutOfMemoryException>(() => backend.Allocate(1L << 30));
        Assert.Contains("has no 1074 MB left", error.Message, StringComparison.Ordinal);
        Assert.Contains("smaller batch", error.Message, StringComparison.Ordinal);
        StubDevice.Reset();
        backend.Allocate(1 << 20).Dispose();
    }

    [Fact]
    public void Fault_InAKernel_StaysTheErrorOfEveryLaterCall()
    {
        Backend backend = Create();
        Shape shape = new(1, 8, 2, 2);
        Tensor src = new("src", shape, TensorRole.Activation), dst = new("dst", shape, TensorRole.Activation);
        var runner = new OperationRunner(backend, new ActivationForward("relu", ActivationKind.Relu, src, dst));
        StubDevice.Set("fault_at_launch", 1);
        runner.Execute();

        NativeException first = Assert.Throws<NativeException>(() => runner.ReadDouble(dst));
        Assert.Contains("CUDA_ERROR_LAUNCH_FAILED (719)", first.Message, StringComparison.Ordinal);
        Assert.Contains("start it again", first.Message, StringComparison.Ordinal);

        // The first error is kept, whatever fails afterwards; and nothing throws while things are taken down.
        NativeException second = Assert.Throws<NativeException>(() => runner.Execute());
        Assert.Equal(first.Message, second.Message);
        runner.Dispose();
        backend.Dispose();
        StubDevice.Reset();
    }

    [Theory]
    [InlineData("fail:cudnnConvolutionForward", 5000, typeof(NativeException), "CUDNN_STATUS_EXECUTION_FAILED (5000)")]
    [InlineData("fail:cudnnConvolutionForward", 4004, typeof(OutOfMemoryException), "DEVICE_ALLOCATION_FAILED (4004)")]
    [InlineData("fail:cuLaunchKernel", 1, typeof(NativeException), "CUDA_ERROR_INVALID_VALUE (1)")]
    public void Failure_OfACall_NamesTheOperationAndTheStatus(string function, int status, Type expected, string text)
    {
        using Backend backend = Create();
        ConvolutionSpec spec = ConvolutionSpec.Square(new(1, 8, 4, 4), 8, 3, pad: 1, bias: true);
        Tensor src = new("src", spec.Src, TensorRole.Activation), weights = new("weights", spec.Weights, TensorRole.Parameter, TensorLayout.Opaque);
        Tensor bias = new("bias", spec.BiasShape, TensorRole.Parameter), dst = new("dst", spec.Dst, TensorRole.Activation);
        using var runner = new OperationRunner(backend, new ConvolutionForward("conv1", spec, src, weights, bias, dst));
        runner.Execute();
        StubDevice.Set(function, status);

        Exception error = Assert.ThrowsAny<Exception>(() => runner.Execute());

        Assert.IsType(expected, error);
        Assert.Contains("convolution forward 'conv1'", error.Message, StringComparison.Ordinal);
        Assert.Contains(text, error.Message, StringComparison.Ordinal);
        runner.Execute();
    }

    [Theory]
    [InlineData("fail:cudnnCreate", 1008, "one of its parts cannot be loaded")]
    [InlineData("fail:cudnnCreate", 1002, "two installations are mixed")]
    public void Create_WithABrokenInstallation_SaysWhatIsWrong(string function, int status, string text)
    {
        CudaLibraries libraries = StubDevice.Libraries;
        StubDevice.Reset();
        StubDevice.Set(function, status);
        NativeException error = Assert.Throws<NativeException>(() => CudnnBackend.Open(new BackendOptions(), libraries, StubDevice.CacheFolder));
        Assert.Contains(text, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Kernels_ThatDoNotCompile_FailWithTheCompilersLog()
    {
        CudaLibraries libraries = StubDevice.Libraries;
        StubDevice.Reset();
        string empty = Directory.CreateTempSubdirectory("hbn-empty-cache").FullName;
        using Backend backend = CudnnBackend.Open(new BackendOptions(), libraries, empty);
        StubDevice.Set("compile_error", 1);
        Shape shape = new(1, 8, 2, 2);
        NativeException error = Assert.Throws<NativeException>(() => new OperationRunner(backend, new ActivationForward(
            "relu", ActivationKind.Relu, new Tensor("src", shape, TensorRole.Activation), new Tensor("dst", shape, TensorRole.Activation))));
        Assert.Contains("batch_norm.cu(1): error", error.Message, StringComparison.Ordinal);
        Directory.Delete(empty, recursive: true);
    }

    [Fact]
    public void CachedKernels_ThatAreDamaged_AreCompiledAgain()
    {
        CudaLibraries libraries = StubDevice.Libraries;
        StubDevice.Reset();
        string folder = Directory.CreateTempSubdirectory("hbn-damaged-cache").FullName;
        for (int run = 0; run < 2; run++)
        {
            using Backend backend = CudnnBackend.Open(new BackendOptions(), libraries, folder);
            using TrainingSession session = SmallSession(backend);
            session.Execute(default);
            foreach (string file in Directory.EnumerateFiles(folder))
            {
                File.WriteAllText(file, "damaged");
            }
        }

        Directory.Delete(folder, recursive: true);
    }

    /// <summary>A file that a loader may well take, with one byte that is another: machine code is not to be tried.</summary>
    [Fact]
    public void CachedKernels_WithOneOtherByte_AreCompiledAgain()
    {
        CudaLibraries libraries = StubDevice.Libraries;
        StubDevice.Reset();
        string folder = Directory.CreateTempSubdirectory("hbn-changed-cache").FullName;
        long Compiled()
        {
            long before = StubDevice.Calls("nvrtcCompileProgram");
            using Backend backend = CudnnBackend.Open(new BackendOptions(), libraries, folder);
            using TrainingSession session = SmallSession(backend);
            session.Execute(default);
            return StubDevice.Calls("nvrtcCompileProgram") - before;
        }

        Assert.True(Compiled() > 0);
        Assert.Equal(0, Compiled());
        foreach (string file in Directory.EnumerateFiles(folder))
        {
            byte[] content = File.ReadAllBytes(file);
            content[^1] ^= 1;
            File.WriteAllBytes(file, content);
        }

        Assert.True(Compiled() > 0);
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public void Interop_SharedContextStreamAndMemory_OneAddsToWhatTheOtherMade()
    {
        // The caller's side is played by a backend of its own: its context, its stream, its memory.
        using Backend owner = Create();
        using DeviceMemory memory = owner.Allocate(2 * 64 * sizeof(float));
        using Backend shared = CudnnBackend.Share(new BackendOptions(), StubDevice.Libraries, CudaInterop.Context(owner), CudaInterop.Stream(owner), StubDevice.CacheFolder);
        Shape shape = new(1, 8, 2, 4);
        Tensor src = new("src", shape, TensorRole.Activation), dst = new("dst", shape, TensorRole.Activation);
        float[] values = [.. Enumerable.Range(0, 64).Select(i => i - 32f)], result = new float[64];
        using (DeviceMemory first = CudaInterop.Borrow(memory.Address, 64 * sizeof(float)), second = CudaInterop.Borrow(memory.Address + 64 * sizeof(float), 64 * sizeof(float)))
        using (var runner = new OperationRunner(shared, new ActivationForward("relu", ActivationKind.Relu, src, dst)))
        {
            runner.Place(src, first);
            runner.Place(dst, second);
            Assert.Throws<ArgumentException>(() => runner.Place(new Tensor("strange", shape, TensorRole.Activation), first));
            using DeviceMemory small = CudaInterop.Borrow(memory.Address, 64);
            Assert.Contains("takes 256 bytes", Assert.Throws<ArgumentException>(() => runner.Place(src, small)).Message, StringComparison.Ordinal);
            runner.Write(src, values);
            runner.Execute();
        }

        // The owner finds the result where it lent the memory.
        using (DeviceMemory lent = CudaInterop.Borrow(memory.Address + 64 * sizeof(float), 64 * sizeof(float)))
        using (var reader = new OperationRunner(owner, new ActivationForward("copy", ActivationKind.Relu, src, dst)))
        {
            reader.Place(dst, lent);
            reader.Read(dst, result);
        }

        Assert.Equal(values.Select(v => Math.Max(0, v)), result);
        Assert.Throws<ArgumentException>(() => CudaInterop.Share(0, 1));
        Assert.Throws<ArgumentException>(() => CudaInterop.Context(Reference));
        AssertClean();
    }

    [Fact]
    public void Bench_StagesTheNextImages_AndHasTheDevicesClockAndMemory()
    {
        using Backend backend = Create();
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10 });
        (Session session, Action step) = SessionBenchmark.Prepare(backend, network, Small);
        using (session)
        {
            step();

            // What the step left on its way is the next one's; a step that uploads for itself leaves nothing.
            Assert.True(float.IsFinite(((TrainingSession)session).StepStaged(default)));
        }

        using DeviceClock clock = backend.CreateClock(2)!;
        clock.Mark(0);
        clock.Mark(1);
        Assert.InRange(clock.Seconds(0, 1), 1e-9, 1);
        Assert.InRange(backend.PeakDeviceBytes!.Value, 1 << 16, long.MaxValue);
        AssertClean();
    }

    [Fact]
    public void EveryBoundFunction_HasBeenCalled()
    {
        using (Backend backend = Create())
        {
            AssertAllPass(backend, HardCases.For(backend.Traits).Where(c => c.Name is "convolution/bias/random" or "batch-norm/basic/random"));
            using TrainingSession session = SmallSession(backend);
            for (int step = 0; step < 4; step++)
            {
                session.Execute(new StepContext(step, 0.1f));
            }

            CudaDevice device = ((CudnnBackend)backend).Device!;
            using CudaEvent start = device.CreateEvent(timing: true), end = device.CreateEvent(timing: true);
            start.Record();
            end.Record();
            end.WaitOnHost();
            Assert.True(end.Since(start) > 0);
        }

        // What this test needs it calls itself, so that it holds alone too, whatever ran before it.
        BatchNorm_OfTheLibrary_MatchesTheReference();
        NormalizedBothWays(Precision.Fp32);
        Steps_OnStagedImages_GiveTheBitsOfPlainSteps();
        Interop_SharedContextStreamAndMemory_OneAddsToWhatTheOtherMade();
        Kernels_ThatDoNotCompile_FailWithTheCompilersLog();
        Allocate_MoreThanThereIs_SaysHowMuchIsFree();
        Failure_OfACall_NamesTheOperationAndTheStatus("fail:cudnnConvolutionForward", 5000, typeof(NativeException), "5000");
        Failure_OfACall_NamesTheOperationAndTheStatus("fail:cuLaunchKernel", 1, typeof(NativeException), "CUDA_ERROR_INVALID_VALUE (1)"); // the driver's names and texts of errors
        Convolutions_WithBiasResidualAndReluInOneCall_MatchTheReference();
        AveragesOfOneRank_GiveTheBitsOfNone_AlsoInARecording(true);
        Nccl_ThatHasLostARank_IsAborted();
        Nccl_ThatFails_SaysWhatAndWhy("fail:ncclAllReduce", 6, "(6)");
        string[] never = [.. StubDevice.Libraries.BoundFunctions.Where(f => StubDevice.Calls(f) == 0)];
        Assert.True(never.Length == 0, $"bound but never called: {string.Join(", ", never)}");
    }

    /// <summary>A setting of the stub for every backend that is made.</summary>
    private (string Name, long Value)? AlwaysSet { get; set; }

    private protected override Backend Create(BackendOptions? options = null) => StubDevice.Create(options, AlwaysSet);

    private protected override void AssertClean() => Assert.Equal("", StubDevice.Problem);
}
