using HpcBatchNorm.Interop;
using HpcBatchNorm.Tests.Cli;

namespace HpcBatchNorm.Tests.Distributed;

/// <summary>The command in several processes, started by Open MPI's mpirun; skipped with the reason where there is none, and failing where HBN_REQUIRE names mpi.</summary>
internal static class Mpi
{
    /// <summary>The tests run as root in containers, with more processes than cores, and with a thread each.</summary>
    private static readonly (string Name, string Value)[] Environment =
    [
        ("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"), ("OMPI_MCA_rmaps_base_oversubscribe", "1"), ("OMPI_MCA_hwloc_base_binding_policy", "none"),
        ("OMPI_MCA_btl_vader_single_copy_mechanism", "none"), ("OMP_NUM_THREADS", "1"),
    ];

    /// <summary>Starts <c>mpirun -np ranks hpcbn ...</c>.</summary>
    public static HpcbnProcess Start(string workingDirectory, int ranks, IReadOnlyList<string> args, params (string Name, string Value)[] environment)
    {
        bool required = (System.Environment.GetEnvironmentVariable("HBN_REQUIRE") ?? "").Split(',', StringSplitOptions.TrimEntries).Contains("mpi");
        bool launcher = (System.Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Any(f => File.Exists(Path.Combine(f, "mpirun")));
        Assert.SkipUnless(required || (launcher && MpiLibrary.Found.Loaded), launcher ? MpiLibrary.Found.Text : "mpirun is not installed: apt-get install openmpi-bin");
        return HpcbnProcess.Start(
            workingDirectory, FormattableString.Invariant($"exec mpirun -np {ranks} \"$@\""), args, [.. Environment, .. environment]);
    }

    /// <summary>Runs it to its end; returns its exit code and what it said.</summary>
    public static async Task<(int Code, string Output)> RunAsync(string workingDirectory, int ranks, IReadOnlyList<string> args, CancellationToken token, params (string Name, string Value)[] environment)
    {
        using HpcbnProcess process = Start(workingDirectory, ranks, args, environment);
        int code = await process.WaitForExitAsync(token);
        return (code, process.Output);
    }
}
