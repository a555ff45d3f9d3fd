using HpcBatchNorm.Backends;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Tests.Cli;

namespace HpcBatchNorm.Tests.Native;

/// <summary>How many threads compute: what was asked for, what the environment says, what quotas leave, and what OpenMP then really gives.</summary>
public sealed class ThreadTeamTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("hbn-groups").FullName;

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Theory]
    [InlineData(3, "2", 3, "as asked for")]
    [InlineData(0, "2", 2, "from OMP_NUM_THREADS")]
    [InlineData(0, " 4, 2", 4, "from OMP_NUM_THREADS")]
    [InlineData(0, "", 0, "one per core")]
    [InlineData(0, "many", 0, "one per core")]
    [InlineData(0, null, 0, "one per core")]
    public void Choose_AskedBeforeVariableBeforeCores(int asked, string? variable, int wanted, string reason)
    {
        ThreadTeam team = ThreadTeam.Choose(asked, variable, new ControlGroups(_root));
        Assert.Equal((wanted, 0, reason), (team.Wanted, team.Most, team.Reason));
    }

    [Theory]
    [InlineData(5000, null)]
    [InlineData(-1, null)]
    [InlineData(0, "5000")]
    public void Choose_MoreThanAnyMachineHas_IsTheUsersMistake(int asked, string? variable) =>
        Assert.Contains("4096", Assert.Throws<UserErrorException>(() => ThreadTeam.Choose(asked, variable, new ControlGroups(_root))).Message, StringComparison.Ordinal);

    [Fact]
    public void Create_WithFiveThousandThreads_IsTheUsersMistake()
    {
        OneDnn.Create().Dispose();
        UserErrorException error = Assert.Throws<UserErrorException>(() => Backend.Create("onednn", new BackendOptions { Threads = 5000 }));
        Assert.Equal("The number of threads is 5000; it must be 0 (one per core) or at most 4096.", error.Message);
    }

    [Fact]
    public void Quota_OfNestedGroupsInVersion2_IsTheSmallest()
    {
        Write("proc/self/mountinfo", "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n");
        Write("proc/self/cgroup", "0::/system.slice/job.scope/step\n");
        Write("sys/fs/cgroup/system.slice/cpu.max", "400000 100000\n");
        Write("sys/fs/cgroup/system.slice/job.scope/cpu.max", "150000 100000\n");
        Write("sys/fs/cgroup/system.slice/job.scope/step/cpu.max", "max 100000\n");

        ThreadTeam team = ThreadTeam.Choose(0, null, new ControlGroups(_root));

        Assert.Equal(1.5, ThreadTeam.ProcessorQuota(new ControlGroups(_root)));
        Assert.Equal((0, 2, "one per core, within a CPU quota of 1.5"), (team.Wanted, team.Most, team.Reason));
    }

    [Fact]
    public void Quota_OfVersion1_IsRead()
    {
        Write("proc/self/mountinfo", "33 20 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
        Write("proc/self/cgroup", "4:cpu,cpuacct:/slurm/job_7\n1:name=systemd:/x\n");
        Write("sys/fs/cgroup/cpu,cpuacct/slurm/job_7/cpu.cfs_quota_us", "-1\n");
        Write("sys/fs/cgroup/cpu,cpuacct/slurm/job_7/cpu.cfs_period_us", "100000\n");
        Write("sys/fs/cgroup/cpu,cpuacct/slurm/cpu.cfs_quota_us", "20000\n");
        Write("sys/fs/cgroup/cpu,cpuacct/slurm/cpu.cfs_period_us", "100000\n");

        Assert.Equal(0.2, ThreadTeam.ProcessorQuota(new ControlGroups(_root)));
        Assert.Equal(1, ThreadTeam.Choose(0, null, new ControlGroups(_root)).Most);
    }

    [Fact]
    public void Quota_OfNoGroup_IsNone() => Assert.Null(ThreadTeam.ProcessorQuota(new ControlGroups(_root)));

    /// <summary>OpenMP reads its variables when the process starts. Before, oneDNN planned for a team that it did not get, left gradients unwritten and then hung.</summary>
    [Theory]
    [InlineData("OMP_THREAD_LIMIT", "1", "1 thread of the 4 wanted (OpenMP gives no more)")]
    [InlineData("OMP_THREAD_LIMIT", "3", "3 threads of the 4 wanted (OpenMP gives no more)")]
    [InlineData("OMP_DYNAMIC", "true", "4 threads: from OMP_NUM_THREADS")]
    [InlineData("OMP_MAX_ACTIVE_LEVELS", "0", "of the 4 wanted (OpenMP gives no more)")]
    public async Task Info_UnderALimitOfOpenMP_SaysTheTeamThatIsGiven(string variable, string value, string expected)
    {
        OneDnn.Create().Dispose();
        using HpcbnProcess process = HpcbnProcess.Start(Path.GetTempPath(), ["info"], (variable, value), ("OMP_NUM_THREADS", "4"));
        Assert.Equal(0, await process.WaitForExitAsync(TestContext.Current.CancellationToken));
        await Task.Delay(100, TestContext.Current.CancellationToken);
        Assert.Contains(expected, process.Output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("OMP_THREAD_LIMIT", "1")]
    [InlineData("OMP_THREAD_LIMIT", "3")]
    [InlineData("OMP_DYNAMIC", "true")]
    [InlineData("OMP_MAX_ACTIVE_LEVELS", "0")]
    public async Task Verify_UnderALimitOfOpenMP_WritesEveryGradient(string variable, string value)
    {
        OneDnn.Create().Dispose();
        using HpcbnProcess process = HpcbnProcess.Start(
            Path.GetTempPath(), ["verify", "--case", "convolution/3x3/random"], (variable, value), ("OMP_NUM_THREADS", "4"), ("OMP_WAIT_POLICY", "passive"));
        int exitCode = await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        await Task.Delay(100, TestContext.Current.CancellationToken);
        Assert.True(exitCode == 0, process.Output);
    }

    [Theory]
    [InlineData("/var/cache/me", "/home/me", "/var/cache/me/hpcbn")]
    [InlineData("", "/home/me", "/home/me/.cache/hpcbn")]
    [InlineData("cache", "/home/me", "/home/me/.cache/hpcbn")]
    [InlineData(null, "", null)]
    [InlineData("cache", "", null)]
    public void CacheFolder_IsAFullPathOrNone(string? cacheHome, string home, string? expected) => Assert.Equal(expected, UserCache.FolderOf(cacheHome, home));

    private void Write(string path, string text)
    {
        string file = Path.Combine(_root, path);
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.WriteAllText(file, text);
    }
}
