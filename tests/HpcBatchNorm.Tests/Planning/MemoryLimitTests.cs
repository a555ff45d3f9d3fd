using System.Globalization;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Cli;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Planning;

/// <summary>What a process may still take is read from made-up machines; a plan that needs more is refused before anything is taken.</summary>
public sealed class MemoryLimitTests : IDisposable
{
    private const long Gb = 1_000_000_000;

    private readonly string _root = Directory.CreateTempSubdirectory("hpcbn-machine").FullName;

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Fact]
    public void Machine_HasWhatIsFreeAndItsSwap()
    {
        Put("proc/meminfo", "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    2000000 kB\nSwapFree: 500000 kB\n");
        Assert.Equal(new AvailableMemory(2_560_000_000, "of the machine's 16.4 GB"), MachineMemory.Available(_root));
    }

    [Fact]
    public void ControlGroupV2_LimitOfAnyGroupAbove_Holds()
    {
        Machine(freeGb: 100);
        Put("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
        Put("proc/self/cgroup", "0::/slurm/job_7/step_0\n");
        Put("sys/fs/cgroup/slurm/job_7/step_0/memory.max", "max\n");
        Put("sys/fs/cgroup/slurm/job_7/memory.max", $"{4 * Gb}\n");
        Put("sys/fs/cgroup/slurm/job_7/memory.current", $"{3 * Gb}\n");
        Put("sys/fs/cgroup/slurm/job_7/memory.stat", $"anon {Gb}\ninactive_file {2 * Gb}\n");
        Put("sys/fs/cgroup/slurm/memory.max", $"{64 * Gb}\n");
        Put("sys/fs/cgroup/slurm/memory.current", "0\n");

        AvailableMemory found = MachineMemory.Available(_root)!.Value;
        Assert.Equal(3 * Gb, found.Bytes);
        Assert.Contains("of the 4.0 GB that the control group", found.Limit, StringComparison.Ordinal);
        Assert.Contains("job_7'", found.Limit, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("/docker/abc", "/docker/abc")] // a container that sees the group's path from outside
    [InlineData("/", "/docker/abc")]
    public void ControlGroupV1_IsFoundBelowItsMount(string mountRoot, string group)
    {
        Machine(freeGb: 100);
        string folder = "sys/fs/cgroup/memory" + (mountRoot == "/" ? group : "");
        Put("proc/self/mountinfo", $"31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n32 23 0:28 {mountRoot} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
        Put("proc/self/cgroup", $"7:cpu,cpuacct:/\n5:memory:{group}\n");
        Put($"{folder}/memory.limit_in_bytes", $"{2 * Gb}\n");
        Put($"{folder}/memory.usage_in_bytes", $"{Gb}\n");
        Put($"{folder}/memory.stat", "cache 1\ntotal_inactive_file 250000000\n");
        Assert.Equal(1_250_000_000, MachineMemory.Available(_root)!.Value.Bytes);

        Put($"{folder}/memory.limit_in_bytes", "9223372036854771712\n");
        Assert.Contains("of the machine's", MachineMemory.Available(_root)!.Value.Limit, StringComparison.Ordinal);
    }

    [Fact]
    public void AddressSpace_IsWhatIsLeftOfIt()
    {
        Machine(freeGb: 100);
        Put("proc/self/limits", "Limit  Soft Limit  Hard Limit  Units\nMax address space         8000000000           unlimited            bytes\n");
        Put("proc/self/status", "Name: x\nVmSize:\t 5000000 kB\n");
        Assert.Equal(2_880_000_000, MachineMemory.Available(_root)!.Value.Bytes);
    }

    [Fact]
    public void NothingIsSaid_NothingIsLimited() => Assert.Null(MachineMemory.Available(_root));

    [Fact]
    public void PlanLargerThanMemory_IsRefusedWithItsSizesAndWhatWouldFit()
    {
        Network network = NetworkSource.Resolve("inception-tiny", new NetworkOptions { Classes = 10 });
        var options = new TrainingOptions { Batch = 64, Height = 32, Width = 32 };
        using var unlimited = new AlteredBackend();
        using var prepared = new PreparedPlan(unlimited, TrainingSession.PlanFor(unlimited.Traits, network, options));
        long arena = prepared.ArenaBytes, state = prepared.StateBytes;

        // Room for half the arena: half the batch.
        using var small = new AlteredBackend { Memory = new(state + arena / 2, "of the test's") };
        string message = Assert.Throws<UserErrorException>(() => new TrainingSession(small, network, options)).Message;

        Assert.Contains(string.Create(CultureInfo.InvariantCulture, $"inception-tiny with batches of 64 images of 32 x 32 pixels needs {(arena + state) / 1e9:0.00} GB"), message, StringComparison.Ordinal);
        Assert.Contains("of the test's are left", message, StringComparison.Ordinal);
        Assert.Contains("Reduce batch-size (about 32 would fit, and accumulate", message, StringComparison.Ordinal);

        using var tiny = new AlteredBackend { Memory = new(state, "of the test's") };
        Assert.Contains("smaller image-size or network", Assert.Throws<UserErrorException>(() => new TrainingSession(tiny, network, options)).Message, StringComparison.Ordinal);
        using var enough = new AlteredBackend { Memory = new(state + arena, "of the test's") };
        new TrainingSession(enough, network, options).Dispose();
    }

    [Theory]
    [InlineData("40", true)]
    [InlineData("255", true)]
    [InlineData("256", false)]
    [InlineData("unlimited", false)]
    public void TooFewOpenFiles_AreASentence(string limit, bool said)
    {
        string? problem = ProcessLimits.Problem($"Limit                     Soft Limit           Hard Limit           Units     \nMax open files            {limit}                 {limit}                 files     \n");
        Assert.Equal(said, problem is not null);
        Assert.Equal(said, problem?.StartsWith($"this process may have only {limit} files open", StringComparison.Ordinal) ?? false);
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task TooFewOpenFiles_OfAProcess_AreNoAssemblyLoadError()
    {
        using Cli.HpcbnProcess process = Cli.HpcbnProcess.Start(_root, "ulimit -n 40; exec \"$@\"", ["info"]);
        Assert.Equal(ExitCode.Failed, await process.WaitForExitAsync(TestContext.Current.CancellationToken));
        Assert.StartsWith("error: this process may have only 40 files open at once", process.Output, StringComparison.Ordinal);
    }

    private void Machine(long freeGb) => Put("proc/meminfo", $"MemTotal: {freeGb * Gb / 1024} kB\nMemAvailable: {freeGb * Gb / 1024} kB\n");

    private void Put(string file, string text)
    {
        string path = Path.Combine(_root, file);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllText(path, text);
    }
}
