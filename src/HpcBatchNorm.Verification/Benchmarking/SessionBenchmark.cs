using System.Diagnostics;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification.Benchmarking;

/// <summary>One operation of a plan, timed within whole steps.</summary>
/// <param name="Name">Layer.</param>
/// <param name="Operation">What it does: <c>convolution backward-data</c>.</param>
/// <param name="Implementation">What does the work, in the backend's words.</param>
/// <param name="Seconds">Median over the steps.</param>
/// <param name="Flops">Floating-point operations of the direct method, two per multiply-add; 0 for operations bound by memory.</param>
/// <param name="Bytes"><see cref="Operation.MinimumBytes"/>.</param>
/// <param name="LeastSeconds">What the machine needs for them at best; null where its limits were not measured.</param>
internal sealed record BenchmarkRow(string Name, string Operation, string Implementation, double Seconds, double Flops, double Bytes, double? LeastSeconds)
{
    /// <summary>10^9 operations per second; 0 for operations bound by memory. Above the machine's limit where an algorithm needs fewer (Winograd).</summary>
    public double Gflops => Flops / Seconds / 1e9;

    /// <summary>10^9 bytes per second. Above memory's limit where caches hold the data.</summary>
    public double GigabytesPerSecond => Bytes / Seconds / 1e9;

    /// <summary>Share of the machine's limit that was reached, arithmetic or memory, whichever binds.</summary>
    public double? ShareOfLimit => LeastSeconds / Seconds;

    /// <summary>Several rows as one.</summary>
    public static BenchmarkRow Sum(string name, string operation, IReadOnlyCollection<BenchmarkRow> rows) => new(
        name, operation, string.Join(", ", rows.Select(r => r.Implementation).Distinct()), rows.Sum(r => r.Seconds), rows.Sum(r => r.Flops),
        rows.Sum(r => r.Bytes), rows.All(r => r.LeastSeconds is not null) ? rows.Sum(r => r.LeastSeconds) : null);
}

/// <summary>When one operation of one step ran, for traces; times in seconds from the start of that step.</summary>
internal readonly record struct BenchmarkSpan(int Row, double Start, double Seconds);

/// <summary>What <see cref="SessionBenchmark"/> measured.</summary>
internal sealed record BenchmarkResult
{
    /// <summary>
    /// Seconds of each whole step, upload of the batch and reading of the result included; where a device takes the next step's images while it computes, as in
    /// a training, that upload is beside the step.
    /// </summary>
    public required IReadOnlyList<double> StepSeconds { get; init; }

    /// <summary>Images per step.</summary>
    public required int Batch { get; init; }

    /// <summary>One row per operation, in order.</summary>
    public required IReadOnlyList<BenchmarkRow> Rows { get; init; }

    /// <summary>The last profiled step, operation by operation.</summary>
    public required IReadOnlyList<BenchmarkSpan> Spans { get; init; }

    /// <summary>
    /// Largest share of a step that can have been spent outside the backend's kernels: every operation charged with the time of the smallest one the
    /// backend has (a call through all layers that does next to nothing), and what a step takes beyond its operations.
    /// </summary>
    public required double OutsideShare { get; init; }

    /// <summary>Managed bytes allocated per step in steady state.</summary>
    public required double AllocatedBytesPerStep { get; init; }

    /// <summary>Planned bytes: arena and state.</summary>
    public required long PlannedBytes { get; init; }

    /// <summary>Peak resident memory of this process in MB.</summary>
    public required double PeakMemoryMb { get; init; }

    /// <summary>Most memory of the device that the backend held, in MB; null where there is no device.</summary>
    public required double? PeakDeviceMemoryMb { get; init; }

    /// <summary>The machine's limits, where the backend measures them.</summary>
    public required MachineLimits? Limits { get; init; }

    /// <summary>Median of <see cref="StepSeconds"/>.</summary>
    public double MedianSeconds => Median(StepSeconds);

    /// <summary>Images per second of the median step.</summary>
    public double ImagesPerSecond => Batch / MedianSeconds;

    /// <summary>The middle value; of an even number the mean of the two in the middle.</summary>
    internal static double Median(IReadOnlyList<double> values)
    {
        double[] sorted = [.. values.Order()];
        int middle = sorted.Length / 2;
        return sorted.Length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }
}

/// <summary>Times whole steps of a network, then every operation of it within whole steps, on random pixels and labels.</summary>
internal static class SessionBenchmark
{
    /// <summary>The first steps touch memory and generate code.</summary>
    private const int WarmupSteps = 2;

    /// <summary>Runs it.</summary>
    /// <param name="backend">The backend.</param>
    /// <param name="network">The network, with its initial parameters.</param>
    /// <param name="options">A <see cref="TrainingOptions"/> or <see cref="InferenceOptions"/>.</param>
    /// <param name="steps">Steps timed as a whole, and as many profiled; at least 1.</param>
    public static BenchmarkResult Run(Backend backend, Network network, PlanOptions options, int steps)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(steps, 1);
        (Session prepared, Action step) = Prepare(backend, network, options);
        using Session session = prepared;
        for (int i = 0; i < WarmupSteps; i++)
        {
            step();
        }

        double[] seconds = new double[steps];
        int timed = 0;
        long allocated = ManagedAllocation.Measure(steps, () =>
        {
            long start = Stopwatch.GetTimestamp();
            step();
            seconds[timed++ % steps] = Stopwatch.GetElapsedTime(start).TotalSeconds;
        });
        (double[] operations, BenchmarkSpan[] spans, double[] beyond) = Profile(session, steps);
        double peak = ProcessMemory.PeakMb();
        double? devicePeak = backend.PeakDeviceBytes / 1e6;

        // Last, since the probes take memory of their own.
        MachineLimits? limits = backend.MeasureLimits();
        BenchmarkRow[] rows = [.. session.Prepared.Kernels.Select((kernel, i) => Row(kernel, kernel.Operation.Name, operations[i], options.Precision, limits))];
        double median = BenchmarkResult.Median(seconds);
        return new BenchmarkResult
        {
            StepSeconds = seconds,
            Batch = options.Batch,
            Rows = rows,
            Spans = spans,
            OutsideShare = Math.Min(1, (rows.Length * SmallestOperationSeconds(backend) + BenchmarkResult.Median(beyond)) / median),
            AllocatedBytesPerStep = (double)allocated / steps,
            PlannedBytes = session.Prepared.ArenaBytes + session.Prepared.StateBytes,
            PeakMemoryMb = peak,
            PeakDeviceMemoryMb = devicePeak,
            Limits = limits,
        };
    }

    /// <summary>A session with initial parameters, and a step of it on random pixels and labels. The caller disposes of the session.</summary>
    public static (Session Session, Action Step) Prepare(Backend backend, Network network, PlanOptions options)
    {
        Session session = options is TrainingOptions training
            ? new TrainingSession(backend, network, training)
            : new ForwardSession(backend, network, (InferenceOptions)options, NetworkState.Initial(network.Infer(options.Batch, options.Height, options.Width), seed: 1));
        return (session, Step(session));
    }

    /// <summary>What a kernel's time amounts to.</summary>
    internal static BenchmarkRow Row(Kernel kernel, string name, double seconds, Precision precision, MachineLimits? limits)
    {
        Operation o = kernel.Operation;
        return new BenchmarkRow(name, o.Kind, kernel.Implementation, seconds, o.Flops, o.MinimumBytes, limits?.LeastSeconds(precision, o.Flops, o.MinimumBytes));
    }

    private static Action Step(Session session)
    {
        Plan plan = session.Plan;
        var random = new RandomSequence(1, 1);
        byte[] pixels = new byte[plan.Pixels.Shape.Count];
        foreach (ref byte pixel in pixels.AsSpan())
        {
            pixel = (byte)random.NextBelow(256);
        }

        int[] labels = new int[plan.Pixels.Shape.N];
        foreach (ref int label in labels.AsSpan())
        {
            label = (int)random.NextBelow((uint)plan.Probabilities.Shape.C);
        }

        float[] probabilities = new float[plan.Probabilities.Shape.Count];

        // A learning rate of 0: the same work, and no step can make the numbers of the next one unusual.
        if (session is not TrainingSession training)
        {
            return () => ((ForwardSession)session).Forward(pixels, probabilities);
        }

        if (!training.CanStage)
        {
            return () => training.Step(pixels, labels, default);
        }

        // As a training does: the next images are on their way while the device computes.
        Action next = () => training.Stage(pixels, labels);
        next();
        return () => training.StepStaged(default, next);
    }

    /// <summary>
    /// The plan operation by operation, by the device's clock where there is one; what a profiled step takes beyond its operations is the cost of asking them
    /// in turn.
    /// </summary>
    private static (double[] Seconds, BenchmarkSpan[] Spans, double[] Beyond) Profile(Session session, int steps)
    {
        IReadOnlyList<Kernel> kernels = session.Prepared.Kernels;
        double[][] seconds = [.. kernels.Select(_ => new double[steps])];
        double[] beyond = new double[steps];
        var spans = new BenchmarkSpan[kernels.Count];
        using DeviceClock? clock = session.Backend.CreateClock(kernels.Count + 1);
        for (int step = 0; step < steps; step++)
        {
            long start = Stopwatch.GetTimestamp(), before = start;
            clock?.Mark(0);
            for (int i = 0; i < kernels.Count; i++)
            {
                session.ExecuteOperation(i, default);
                if (clock is not null)
                {
                    clock.Mark(i + 1);
                    continue;
                }

                session.Backend.Synchronize();
                long after = Stopwatch.GetTimestamp();
                seconds[i][step] = Stopwatch.GetElapsedTime(before, after).TotalSeconds;
                spans[i] = new BenchmarkSpan(i, Stopwatch.GetElapsedTime(start, before).TotalSeconds, seconds[i][step]);
                before = after;
            }

            for (int i = 0; clock is not null && i < kernels.Count; i++)
            {
                seconds[i][step] = clock.Seconds(i, i + 1);
                spans[i] = new BenchmarkSpan(i, clock.Seconds(0, i), seconds[i][step]);
            }

            beyond[step] = Stopwatch.GetElapsedTime(start).TotalSeconds - seconds.Sum(s => s[step]);
        }

        return ([.. seconds.Select(BenchmarkResult.Median)], spans, beyond);
    }

    /// <summary>A copy of one block of channels: dispatch, the call into native code and back, and hardly any work.</summary>
    private static double SmallestOperationSeconds(Backend backend)
    {
        const int Calls = 20_000;
        Shape shape = new(1, backend.Traits.ChannelBlock, 1, 1);
        using OperationRunner runner = new(
            backend, new Copy("smallest", new Tensor("src", shape, TensorRole.Activation, TensorLayout.Blocked), new Tensor("dst", shape, TensorRole.Activation, TensorLayout.Blocked)));
        double best = double.PositiveInfinity;
        for (int run = 0; run < 5; run++)
        {
            long start = Stopwatch.GetTimestamp();
            for (int i = 0; i < Calls; i++)
            {
                runner.Execute();
            }

            backend.Synchronize();
            best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalSeconds / Calls);
        }

        return best;
    }
}
