using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Planning;

/// <summary>What happens to those who use a session from two threads, after its end, or together with another.</summary>
public class SessionSafetyTests
{
    private const int Batch = 2;
    private const int Size = 16;
    private const int Classes = 5;

    public static TheoryData<string> Backends => [.. Backend.Probe().Where(p => p.Available && p.Name is "onednn" or "reference").Select(p => p.Name)];

    [Theory]
    [MemberData(nameof(Backends))]
    public void Session_UsedByTwoThreads_RefusesTheSecondAndAnswersTheFirstRightly(string name)
    {
        using Backend backend = Backend.Create(name, new BackendOptions { Threads = 1 });
        using ForwardSession session = Create(backend);
        byte[] pixels = Pixels(1);
        float[] expected = Forward(session, pixels);
        int right = 0, wrong = 0, refused = 0;
        Parallel.For(0, 4, new ParallelOptions { MaxDegreeOfParallelism = 4 }, thread =>
        {
            for (int i = 0; i < 100; i++)
            {
                try
                {
                    bool equal = Forward(session, pixels).AsSpan().SequenceEqual(expected);
                    Interlocked.Increment(ref equal ? ref right : ref wrong);
                }
                catch (InvalidOperationException error)
                {
                    Assert.Contains("One thread at a time", error.Message, StringComparison.Ordinal);
                    Interlocked.Increment(ref refused);
                }
            }
        });
        Assert.Equal(0, wrong);
        Assert.Equal(400, right + refused);
        Assert.True(right > 0);
    }

    [Fact]
    public async Task Session_CalledWhileAnotherThreadIsInside_SaysSo()
    {
        using var inside = new ManualResetEventSlim();
        using var leave = new ManualResetEventSlim();
        bool wait = false;
        using var backend = new AlteredBackend
        {
            Concurrent = false,
            After = (_, _) =>
            {
                if (wait)
                {
                    inside.Set();
                    leave.Wait(TimeSpan.FromSeconds(30)); // a call that is let in must fail the test, not wait for ever
                }
            },
        };
        ForwardSession session = Create(backend);
        ForwardSession other = Create(backend);
        wait = true;
        Task step = Task.Run(() => session.Execute(default), TestContext.Current.CancellationToken);
        inside.Wait(TestContext.Current.CancellationToken);
        float[] values = new float[session.Plan.Probabilities.Shape.Count];
        Assert.Throws<InvalidOperationException>(() => session.Read(session.Plan.Probabilities, values));
        Assert.Throws<InvalidOperationException>(() => session.Write(session.Plan.Pixels, Pixels(1)));
        Assert.Throws<InvalidOperationException>(() => session.Execute(default));
        Assert.Throws<InvalidOperationException>(session.Dispose);
        Assert.Throws<InvalidOperationException>(() => other.Execute(default)); // this backend does not allow two sessions at once
        wait = false;
        leave.Set();
        await step;
        session.Read(session.Plan.Probabilities, values);
        session.Dispose();
        other.Dispose();
    }

    [Theory]
    [MemberData(nameof(Backends))]
    public void Sessions_OfOneBackendOnTwoThreads_AnswerAsOne(string name)
    {
        using Backend backend = Backend.Create(name, new BackendOptions { Threads = 1 });
        Assert.True(backend.ConcurrentSessions);
        using ForwardSession first = Create(backend);
        using ForwardSession second = first.Share();
        using ForwardSession third = Create(backend);
        byte[][] pixels = [Pixels(1), Pixels(2), Pixels(3)];
        float[][] expected = [.. pixels.Select(p => Forward(first, p))];
        ForwardSession[] sessions = [first, second, third];
        int wrong = 0;
        Thread[] threads = [.. Enumerable.Range(0, 3).Select(t => new Thread(() =>
        {
            for (int i = 0; i < 60; i++)
            {
                int which = (i + t) % 3;
                if (!Forward(sessions[t], pixels[which]).AsSpan().SequenceEqual(expected[which]))
                {
                    Interlocked.Increment(ref wrong);
                }
            }
        }))];
        Array.ForEach(threads, t => t.Start());
        Array.ForEach(threads, t => t.Join());
        Assert.Equal(0, wrong);
    }

    [Theory]
    [MemberData(nameof(Backends))]
    public void SharedSession_TakesOnlyItsActivations_AndAnswersTheSameBitForBit(string name)
    {
        using Backend backend = Backend.Create(name, new BackendOptions { Threads = 1 });
        ForwardSession first = Create(backend);
        byte[] pixels = Pixels(4);
        float[] expected = Forward(first, pixels);
        ForwardSession second = first.Share(), third = second.Share();
        PreparedPlan prepared = second.Prepared;
        Tensor weights = first.Plan.State.First(s => s.Tensor.Role == TensorRole.Parameter).Tensor;
        Assert.Equal(first.Prepared[weights].Address, prepared[weights].Address);
        Assert.NotEqual(first.Prepared[first.Plan.Pixels].Address, prepared[first.Plan.Pixels].Address);
        Assert.InRange(prepared.WeightBytes, first.Plan.State.Where(s => s.Tensor.Role == TensorRole.Parameter).Sum(s => s.Tensor.Bytes), prepared.StateBytes);
        // What is left are pixels and probabilities: nothing that grows with the parameters.
        Assert.InRange(prepared.StateBytes - prepared.WeightBytes, 1, 16 * (first.Plan.Pixels.Bytes + first.Plan.Probabilities.Bytes) + 256);
        Assert.Equal(first.Prepared.Kernels.Select(k => (k.Implementation, k.Conversions)), prepared.Kernels.Select(k => (k.Implementation, k.Conversions)));
        Assert.Equal(expected, Forward(second, pixels));
        Assert.Equal(expected, Forward(third, pixels));
        Assert.Throws<InvalidOperationException>(() => first.Write(weights, new float[weights.Shape.Count]));
        first.Dispose(); // the weights stay for the others
        Assert.Equal(expected, Forward(second, pixels));
        second.Dispose();
        second.Dispose();
        Assert.Equal(expected, Forward(third, pixels));
        third.Write(weights, new float[weights.Shape.Count]); // its own by now
        Assert.NotEqual(expected, Forward(third, pixels));
        third.Dispose();
    }

    [Fact]
    public void Share_WithBatchStatistics_IsRefused()
    {
        using Backend backend = Backend.Create("reference");
        using ForwardSession session = Create(backend, statistics: BatchNormStatistics.Batch);
        Assert.Throws<InvalidOperationException>(session.Share);
    }

    [Theory]
    [MemberData(nameof(Backends))]
    public void SharedArena_OutlivesTheSessionItBelongsTo(string name)
    {
        using Backend backend = Backend.Create(name, new BackendOptions { Threads = 1 });
        var owner = new TrainingSession(backend, Network, new TrainingOptions { Batch = Batch, Height = Size, Width = Size });
        var options = new InferenceOptions { Batch = Batch, Height = Size, Width = Size };
        NetworkState state = owner.ReadNetworkState();
        using var borrower = new ForwardSession(backend, Network, options, state, owner.Arena);
        using var alone = new ForwardSession(backend, Network, options, state);
        Assert.Same(owner.Arena, borrower.Arena);
        owner.Dispose();
        Assert.Throws<ObjectDisposedException>(() => owner.Arena);
        using var another = new ForwardSession(backend, Network, options, state, borrower.Arena);
        byte[] pixels = Pixels(5);
        Assert.Equal(Forward(alone, pixels), Forward(borrower, pixels));
        Assert.Equal(Forward(alone, pixels), Forward(another, pixels));
        DeviceMemory arena = borrower.Arena;
        another.Dispose();
        borrower.Dispose();
        Assert.Throws<ObjectDisposedException>(() => arena.Address);
        Assert.Throws<ObjectDisposedException>(() => new ForwardSession(backend, Network, options, state, arena));
    }

    [Theory]
    [MemberData(nameof(Backends))]
    public void EveryMember_AfterDispose_ThrowsObjectDisposedException(string name)
    {
        Backend backend = Backend.Create(name, new BackendOptions { Threads = 1 });
        ForwardSession forward = Create(backend);
        var training = new TrainingSession(backend, Network, new TrainingOptions { Batch = Batch, Height = Size, Width = Size });
        Plan plan = forward.Plan;
        Operation operation = plan.Operations[^1];
        var runner = new OperationRunner(backend, operation);
        Tensor tensor = plan.Probabilities;
        float[] floats = new float[tensor.Shape.Count];
        double[] doubles = new double[tensor.Shape.Count];
        byte[] pixels = Pixels(1);
        int[] labels = new int[Batch];
        Kernel kernel = forward.Prepared.Kernels[0];
        DeviceBuffer buffer = forward.Prepared[tensor];
        DeviceMemory memory = forward.Arena;
        for (int i = 0; i < 2; i++)
        {
            forward.Dispose();
            training.Dispose();
            runner.Dispose();
        }

        Action[] calls =
        [
            () => forward.Execute(default), () => forward.ExecuteOperation(0, default), () => forward.Forward(pixels, floats), () => forward.Forward(pixels, "fc", floats),
            () => forward.Read(tensor, floats), () => forward.Read(tensor, doubles), () => forward.Write(tensor, floats), () => forward.Write(tensor, doubles),
            () => forward.Write(plan.Pixels, pixels), () => forward.Write(tensor, labels), () => forward.Share(), () => _ = forward.Arena, () => _ = forward.Prepared[tensor],
            () => training.Step(pixels, labels, default), () => training.Stage(pixels, labels), () => training.StepStaged(default), () => training.FindNotFinite(), () => training.FindNotFiniteState(),
            () => training.ReadNetworkState(), () => training.ReadProbabilities(floats), () => _ = training.LossScale, () => training.LossScale = null,
            () => training.Continue(training.Options),
            () => runner.Execute(), () => runner.Read(tensor, floats), () => runner.ReadDouble(tensor), () => runner.Write(tensor, floats), () => runner.Write(tensor, doubles),
            () => runner.Write(tensor, labels), () => runner.Write(tensor, pixels), () => _ = runner[tensor],
            () => kernel.Execute(default), () => backend.Read(buffer, floats), () => backend.Write(buffer, floats), () => _ = memory.Address,
        ];
        Assert.All(calls, call => Assert.Throws<ObjectDisposedException>(call));

        ForwardSession last = Create(backend);
        buffer = last.Prepared[tensor];
        backend.Dispose();
        backend.Dispose();
        Action[] ofBackend =
        [
            () => last.Execute(default), () => last.Forward(pixels, floats), () => backend.Allocate(64), () => backend.CreateKernel(operation, new BufferMap(backend)),
            () => backend.CreateKernels([operation], new BufferMap(backend)), () => backend.CreateBuffer(tensor, null, null), () => backend.Read(buffer, floats),
            () => backend.Read(buffer, doubles), () => backend.Write(buffer, floats), () => backend.Write(buffer, doubles), () => backend.Write(buffer, pixels),
            () => backend.Write(buffer, labels), () => backend.MeasureLimits(), () => backend.Synchronize(), () => backend.Record([]), () => backend.CreateStaging(64),
            () => Create(backend),
        ];
        Assert.All(ofBackend, call => Assert.Throws<ObjectDisposedException>(call));
        last.Dispose(); // in the wrong order, and harmless
    }

    [Fact]
    public void Addresses_CannotBeSetFromOutside()
    {
        Assert.All(new[] { typeof(DeviceBuffer), typeof(Kernel), typeof(DeviceMemory), typeof(StagingBuffer) }, type => Assert.All(
            type.GetProperties(), p => Assert.True(p.PropertyType != typeof(nint) || p.SetMethod is not { IsPublic: true }, $"{type.Name}.{p.Name}")));
    }

    private static Network Network { get; } = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes });

    private static ForwardSession Create(Backend backend, BatchNormStatistics statistics = BatchNormStatistics.Running)
    {
        using var reference = Backend.Create("reference");
        using var initial = new TrainingSession(reference, Network, new TrainingOptions { Batch = Batch, Height = Size, Width = Size, Seed = 3 });
        var options = new InferenceOptions { Batch = Batch, Height = Size, Width = Size, Statistics = statistics };
        return new ForwardSession(backend, Network, options, initial.ReadNetworkState());
    }

    private static byte[] Pixels(int seed)
    {
        byte[] pixels = new byte[Batch * Size * Size * 3];
        new Random(seed).NextBytes(pixels);
        return pixels;
    }

    private static float[] Forward(ForwardSession session, byte[] pixels)
    {
        float[] probabilities = new float[Batch * Classes];
        session.Forward(pixels, probabilities);
        return probabilities;
    }
}
