using System.Diagnostics;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification.Benchmarking;

/// <summary>Times single layers, forward and backward, each alone on memory of its own.</summary>
internal static class LayerBenchmark
{
    /// <summary>Enough images for statistics over a batch, few enough for the reference.</summary>
    private const int VerificationBatch = 2;

    private static readonly TimeSpan Duration = TimeSpan.FromMilliseconds(300);

    /// <summary>One row per direction.</summary>
    /// <param name="backend">The backend.</param>
    /// <param name="reference">What to verify against first, on a small batch; null to time at once.</param>
    /// <param name="problem">The layer.</param>
    /// <param name="precision">The precision the backend computes in, for <paramref name="limits"/>.</param>
    /// <param name="limits">The machine's limits, for shares; null for none.</param>
    /// <exception cref="UserErrorException">The backend's results are wrong; nothing was timed.</exception>
    public static IReadOnlyList<BenchmarkRow> Run(Backend backend, Backend? reference, ShapeProblem problem, Precision precision, MachineLimits? limits)
    {
        if (reference is not null)
        {
            CaseResult verified = Verifier.Run(backend, reference, Case(WithBatch(problem, VerificationBatch)));
            if (!verified.Passed)
            {
                throw new UserErrorException($"Not timed, as it differs from the reference. {verified.Describe()}");
            }
        }

        VerificationCase timed = Case(problem);
        using OperationRunner runner = new(backend, timed.Operations);
        foreach ((Tensor tensor, TensorFill fill) in timed.Inputs)
        {
            double[] values = new double[tensor.Shape.Count];
            fill(tensor.Shape, new RandomSequence(timed.Seed, stream: 0), values);
            runner.Write(tensor, values);
        }

        runner.Execute();
        return [.. runner.Kernels.Select(kernel => SessionBenchmark.Row(kernel, problem.Name, MedianSeconds(backend, kernel), precision, limits))];
    }

    private static VerificationCase Case(ShapeProblem problem) => LayerCases.FromShapes([problem], "").Single(c => c.Kind == InputKind.Random);

    private static ShapeProblem WithBatch(ShapeProblem problem, int batch) => problem with
    {
        Convolution = problem.Convolution is { } c ? c with { Src = c.Src with { N = batch } } : null,
        BatchNorm = problem.BatchNorm is { } b ? b with { Src = b.Src with { N = batch } } : null,
    };

    private static double MedianSeconds(Backend backend, Kernel kernel)
    {
        List<double> seconds = [];
        long begin = Stopwatch.GetTimestamp();
        while (seconds.Count < 5 || Stopwatch.GetElapsedTime(begin) < Duration)
        {
            long start = Stopwatch.GetTimestamp();
            kernel.Execute(default);
            backend.Synchronize();
            seconds.Add(Stopwatch.GetElapsedTime(start).TotalSeconds);
        }

        return BenchmarkResult.Median(seconds);
    }
}
