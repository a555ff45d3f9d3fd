using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Diagnosers;
using BenchmarkDotNet.Filters;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Reports;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using HpcBatchNorm.Operations;
using Perfolizer.Horology;

namespace HpcBatchNorm.Benchmarks;

/// <summary>Short iterations (a kernel takes milliseconds), allocated bytes, and a column with the rate that the time amounts to.</summary>
internal sealed class OperationBenchmarkConfig : ManualConfig
{
    /// <summary>The reference takes a second or so for this much; beyond it, it is left out.</summary>
    private const double ReferenceLimitGflop = 1.2;

    public OperationBenchmarkConfig()
    {
        // In process: a kernel of milliseconds gains nothing from a process of its own, whose project would build library and native code anew.
        if (!OwnJob.IsReplaced)
        {
            AddJob(Job.Default.WithToolchain(InProcessEmitToolchain.Instance).WithWarmupCount(3).WithIterationCount(12).WithIterationTime(TimeInterval.FromMilliseconds(250)));
        }

        WithSummaryStyle(SummaryStyle.Default.WithMaxParameterColumnWidth(40));
        AddDiagnoser(MemoryDiagnoser.Default);
        AddColumn(new RateColumn("GFLOP/s", "Floating-point operations of direct convolution, two per multiply-add, over the mean time", Gflop));
        AddColumn(new RateColumn("GB/s", "Bytes that must move at least once, over the mean time", Gbyte));
        AddColumn(new RateColumn("% of limit", "Least time the machine needs, by its measured multiply-add and triad limits, over the mean time; Winograd can exceed 100", LeastSeconds, 100));
        AddFilter(new SimpleFilter(b => Timed(b) is not null && (Backend(b) != "reference" || Gflop(b) is not > ReferenceLimitGflop)));
    }

    private static double? Gflop(BenchmarkCase benchmark) => Timed(benchmark) is { Flops: > 0 } operation ? operation.Flops / 1e9 : null;

    private static double? Gbyte(BenchmarkCase benchmark) => Timed(benchmark)?.MinimumBytes / 1e9;

    /// <summary>The operation a benchmark times; null when its layer has none of that direction.</summary>
    private static Operation? Timed(BenchmarkCase benchmark)
    {
        string layer = (string)benchmark.Parameters[nameof(ConvolutionBenchmarks.Layer)]!;
        int batch = (int)benchmark.Parameters[nameof(OperationBenchmarks.Batch)]!;
        return BnInceptionLayers.Case(layer, batch, BnInceptionLayers.AnyTraits, PrecisionOf(benchmark)).Operations
            .SingleOrDefault(o => o.GetType().Name.EndsWith(benchmark.Descriptor.WorkloadMethod.Name, StringComparison.Ordinal));
    }

    private static double? LeastSeconds(BenchmarkCase benchmark) =>
        MeasuredLimits.Of(Backend(benchmark)) is { } limits && Timed(benchmark) is { } operation
            ? limits.LeastSeconds(PrecisionOf(benchmark), operation.Flops, operation.MinimumBytes) : null;

    private static Precision PrecisionOf(BenchmarkCase benchmark) => (Precision)benchmark.Parameters[nameof(OperationBenchmarks.Precision)]!;

    private static string Backend(BenchmarkCase benchmark) => (string)benchmark.Parameters[nameof(OperationBenchmarks.BackendName)]!;
}
