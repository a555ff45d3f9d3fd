using BenchmarkDotNet.Running;
using HpcBatchNorm.Benchmarks;

if (args is ["sweep", string hpcbn, string folder])
{
    return Sweep.Run(hpcbn, folder);
}

// A job from the command line (--job dry) replaces ours, and runs in this process as ours do.
BenchmarkSwitcher.FromAssembly(typeof(OperationBenchmarks).Assembly).Run(OwnJob.IsReplaced ? [.. args, "--inProcess"] : args);
return 0;

namespace HpcBatchNorm.Benchmarks
{
    /// <summary>Whether the benchmarks' own number of iterations counts.</summary>
    internal static class OwnJob
    {
        /// <summary>True when the command line names a job.</summary>
        public static bool IsReplaced { get; } = Environment.GetCommandLineArgs().Any(a => a is "--job" or "-j");
    }
}
