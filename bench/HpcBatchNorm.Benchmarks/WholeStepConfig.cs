using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Diagnosers;
using BenchmarkDotNet.Engines;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Benchmarks;

/// <summary>One call per iteration, which takes from milliseconds to seconds; allocated bytes; for whole steps images per second and what the machine's limit allows.</summary>
internal sealed class WholeStepConfig : ManualConfig
{
    public WholeStepConfig()
    {
        if (!OwnJob.IsReplaced)
        {
            AddJob(Job.Default.WithToolchain(InProcessEmitToolchain.Instance).WithStrategy(RunStrategy.Monitoring).WithWarmupCount(2).WithIterationCount(7).WithInvocationCount(1).WithUnrollFactor(1));
        }

        AddDiagnoser(MemoryDiagnoser.Default);
        AddColumn(new RateColumn("img/s", "Images per second of the mean time", Images));
        AddColumn(new RateColumn("GFLOP/s", "Floating-point operations of direct convolution, two per multiply-add, over the mean time", b => Flops(b) / 1e9));
        AddColumn(new RateColumn("% of peak", "Of the multiply-adds the machine was measured to do; Winograd can exceed 100", PeakSeconds, 100));
    }

    private static bool IsStep(BenchmarkCase benchmark) => benchmark.Descriptor.Type == typeof(SessionBenchmarks);

    private static double? Images(BenchmarkCase benchmark) =>
        IsStep(benchmark) ? (int)benchmark.Parameters[nameof(SessionBenchmarks.Batch)]! : benchmark.Descriptor.Type == typeof(LoaderBenchmarks) ? 32 : null;

    private static double? Flops(BenchmarkCase benchmark) =>
        IsStep(benchmark) ? SessionBenchmarks.Flops(benchmark.Descriptor.WorkloadMethod.Name, (int)benchmark.Parameters[nameof(SessionBenchmarks.Batch)]!) : null;

    private static double? PeakSeconds(BenchmarkCase benchmark) =>
        IsStep(benchmark) && MeasuredLimits.Of((string)benchmark.Parameters[nameof(SessionBenchmarks.BackendName)]!) is { } limits
            ? Flops(benchmark) / (limits.Gflops((Precision)benchmark.Parameters[nameof(SessionBenchmarks.Precision)]!) * 1e9) : null;
}
