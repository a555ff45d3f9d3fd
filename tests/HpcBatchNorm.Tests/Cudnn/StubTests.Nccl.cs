using HpcBatchNorm.Backends;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Cudnn;

/// <content>NCCL: every function it is bound to, the order of streams, every error. The stub's other ranks have what makes the mean a multiple of ours.</content>
public sealed partial class StubTests
{
    /// <summary>The stream for computing last: what does not wait for the averages takes the gradients as they were.</summary>
    [Fact]
    public void Averages_StreamsInTheOtherOrder_GiveTheSameBits()
    {
        AlwaysSet = ("stream_order", 1);
        try
        {
            AveragesOfOneRank_GiveTheBitsOfNone_AlsoInARecording(false);
        }
        finally
        {
            AlwaysSet = null;
        }
    }

    /// <summary>A mean that doubles every gradient, which a network without batch normalization turns into steps of twice the rate, bit for bit.</summary>
    [Fact]
    public void Averages_AreOfEveryGradient_AndThereBeforeTheUpdate()
    {
        float[] Train(int factor, float rate)
        {
            using Backend backend = Create();
            StubDevice.Set("nccl_factor", factor);
            backend.Collectives = new OneRank();
            using TrainingSession session = RankedSession(backend, Small with { Ranks = 2, ClipNorm = 0, AverageDecay = 0, WeightDecay = 0 }, batchNorm: false);
            for (int step = 0; step < 4; step++)
            {
                StepOf(session, step, rate);
            }

            return [.. session.State.Where(s => s.Tensor.Role == TensorRole.Parameter).SelectMany(s =>
            {
                float[] values = new float[s.Tensor.Shape.Count];
                session.Read(s.Tensor, values);
                return values;
            })];
        }

        Assert.Equal(Train(100, 0.02f), Train(200, 0.01f));
        AssertClean();
    }

    [Theory]
    [InlineData("fail:ncclCommInitRank", 5, "connecting rank 0 of 1: NCCL reports invalid usage (5): the stand-in was told to fail; two ranks may have been given the same GPU")]
    [InlineData("fail:ncclAllReduce", 6, "all-reduce start 'gradients': NCCL reports remote process exited or there was a network error (6)")]
    [InlineData("fail:ncclGroupEnd", 6, "all-reduce start 'gradients': NCCL reports remote")]
    [InlineData("fail:ncclGetUniqueId", 2, "making an id for the ranks: NCCL reports unhandled system error (2)")]
    public void Nccl_ThatFails_SaysWhatAndWhy(string function, int status, string message)
    {
        using Backend backend = Create();
        backend.Collectives = new OneRank();
        StubDevice.Set(function, status);
        Exception error = Assert.ThrowsAny<Exception>(() => Average(backend));
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.True(error is NativeException or UserErrorException);

        // What failed once works the next time: no group is left open.
        Assert.Equal([2f, 4, 6], Average(backend));
        AssertClean();
    }

    /// <summary>A rank that is gone shows at the next average, and the kernels that wait for it are ended.</summary>
    [Fact]
    public void Nccl_ThatHasLostARank_IsAborted()
    {
        using Backend backend = Create();
        backend.Collectives = new OneRank();
        long before = StubDevice.Calls("ncclCommAbort");
        StubDevice.Set("nccl_async_error", 6);
        NativeException error = Assert.Throws<NativeException>(() => Average(backend));
        Assert.Contains("NCCL reports remote process exited", error.Message, StringComparison.Ordinal);
        Assert.Equal(before + 1, StubDevice.Calls("ncclCommAbort"));
        AssertClean();
    }

    [Fact]
    public void Nccl_ThatIsTooOldOrMissing_IsSaidBeforeAnybodyWaits()
    {
        CudaLibraries stub = StubDevice.Libraries;
        StubDevice.Reset();
        StubDevice.Set("nccl_version", 20900);
        Assert.Contains("version 2.9.0 found, 2.10.0 or later expected", In(StubDevice.Folder).Nccl.Problem, StringComparison.Ordinal);
        StubDevice.Reset();
        string folder = Directory.CreateTempSubdirectory("hbn-no-nccl").FullName;
        foreach (string file in Directory.EnumerateFiles(StubDevice.Folder, "lib*").Where(f => !f.Contains("nccl", StringComparison.Ordinal)))
        {
            File.CreateSymbolicLink(Path.Combine(folder, Path.GetFileName(file)), file);
        }

        using (Backend backend = Backends.Cudnn.CudnnBackend.Open(new BackendOptions(), In(folder), StubDevice.CacheFolder))
        {
            backend.Collectives = new OneRank();
            UserErrorException error = Assert.Throws<UserErrorException>(() => Average(backend));
            Assert.Contains($"libnccl.so.2 not found in HBN_CUDA_PATH = {folder}", error.Message, StringComparison.Ordinal);
            Assert.Contains("pip install nvidia-nccl-cu12", error.Message, StringComparison.Ordinal);
        }

        Directory.Delete(folder, recursive: true);
        Assert.True(stub.Nccl.Usable, stub.Nccl.Problem);

        static CudaLibraries In(string folder) => new(new CudaSearch(name => name == CudaSearch.OverrideVariable ? folder : null));
    }

    /// <summary>Three numbers and their mean, which is twice as much.</summary>
    private static float[] Average(Backend backend)
    {
        var gradient = new Tensor("gradient", Shape.Vector(3), TensorRole.ParameterGradient);
        var start = new AllReduceStart("gradients", [gradient]);
        using var runner = new OperationRunner(backend, start, new AllReduceFinish(start));
        StubDevice.Set("nccl_factor", 200);
        runner.Write(gradient, (ReadOnlySpan<float>)[1, 2, 3]);
        runner.Execute();
        float[] mean = new float[3];
        runner.Read(gradient, mean);
        return mean;
    }
}
