using HpcBatchNorm.Interop;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Tests.Distributed;

/// <summary>What ranks learn of their launcher and their machine, and what they compare.</summary>
public class LauncherTests
{
    [Theory]
    [InlineData("", 1, "")]
    [InlineData("OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=0", 4, "mpirun")]
    [InlineData("OMPI_COMM_WORLD_SIZE=1", 1, "")]
    [InlineData("PMI_SIZE=3", 3, "mpiexec")]
    [InlineData("SLURM_STEP_NUM_TASKS=8 SLURM_NTASKS=8", 8, "srun")]
    [InlineData("SLURM_NTASKS=8 SLURM_JOB_ID=5", 1, "")] // a batch script itself, whose job has eight tasks
    [InlineData("OMPI_COMM_WORLD_SIZE=2 SLURM_STEP_NUM_TASKS=1", 2, "mpirun")] // mpirun in a job
    [InlineData("PMI_SIZE=many", 1, "")]
    public void Detect_KnowsTheLaunchers(string environment, int ranks, string name)
    {
        Dictionary<string, string> variables = environment.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(v => v.Split('=')).ToDictionary(v => v[0], v => v[1]);
        Assert.Equal(new Launcher(ranks, name), Launcher.Detect(variables.GetValueOrDefault));
    }

    [Fact]
    public void Join_ByItself_LoadsNothing() =>
        Assert.Same(Communicator.Alone, Communicator.Join(_ => null, () => throw new InvalidOperationException("looked for MPI")));

    [Fact]
    public void Join_WithoutMpi_IsRefused()
    {
        UserErrorException error = Assert.Throws<UserErrorException>(
            () => Communicator.Join(v => v == "OMPI_COMM_WORLD_SIZE" ? "2" : null, () => MpiLibrary.Probe("/nowhere/libhbn_mpi.so", [])));
        Assert.StartsWith("mpirun started 2 processes, but MPI cannot be used here: /nowhere/libhbn_mpi.so: not there;", error.Message, StringComparison.Ordinal);
        Assert.Contains("HBN_MPI_PATH is set to '/nowhere/libhbn_mpi.so': correct it or unset it.", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("0-7", "0-7", "0-7", false, 8, 4, false)] // two ranks that share all: half each
    [InlineData("0-3", "4-7", "0-7", false, 4, 4, false)] // a socket each
    [InlineData("0-3,8-11", "4-7,12-15", "0-15", true, 8, 4, false)] // of two processors per core
    [InlineData("0", "1", "0-63", false, 1, 1, true)] // bound to a core each, and 62 idle
    [InlineData("0-7", "0-7", "0-7", false, 2, 1, false)] // a quota of 2
    [InlineData("0", "0", "0-1", false, 1, 1, false)]
    public void Placement_SharesWhatRanksMayUse(string mine, string other, string online, bool hyperthreads, int quota, int share, bool warned)
    {
        Placement placement = Placement.Choose(mine, [mine, other], online, hyperthreads, quota);
        Assert.Equal((share, warned), (placement.Share, placement.Warning.Length > 0));
        Assert.Contains($"processors {mine} of {online}", placement.Description, StringComparison.Ordinal);
    }

    [Fact]
    public void Fingerprints_NameTheFirstDifference()
    {
        string[][] ranks = [["setting seed\t1", "kernels (x)\tabc by 8 threads"], ["setting seed\t1", "kernels (x)\tabc by 4 threads"], ["setting seed\t2", "kernels (x)\tabc by 8 threads"]];
        Assert.Equal(
            "The ranks do not have the same setting seed: a has 1, c has 2. Start all ranks with the same program, settings and data.",
            Fingerprint.Difference(ranks, ["a", "b", "c"]));
        Assert.Null(Fingerprint.Difference(ranks[..2], ["a", "b"]));
    }

    [Fact]
    public void Mistake_OfOneRank_IsThrownOnAll()
    {
        string[] messages = ThreadRanks.Run(3, ranks => Assert.Throws<AgreedException>(
            () => ranks.OneBeforeOthers(() => ranks.Rank == 1 ? throw new UserErrorException("no data") : 1)).Message);
        Assert.All(messages, m => Assert.Matches(@"^rank 1 \(.*\): no data$", m));
        Assert.Equal([1, 1], ThreadRanks.Run(2, ranks => ranks.Together(() => 1)));
    }

    [Fact]
    public void Gather_BringsWhatEachGives_OfAnyLength() =>
        Assert.All(ThreadRanks.Run(3, ranks => ranks.AllGather(new byte[ranks.Rank])), all => Assert.Equal([0, 1, 2], all.Select(b => b.Length)));

    [Fact]
    public void Ranks_OfAConfiguration_MustBeThoseStarted()
    {
        var request = new TrainingRequest { Recipe = "quick", Flags = [("ranks", "4")] };
        UserErrorException error = Assert.Throws<UserErrorException>(() => request.Prepare(_ => { }));
        Assert.Contains("ranks is 4 (flag), but this is one process by itself", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void LearningRate_IsScaledWhereItIsAskedFor()
    {
        RunConfig config = new TrainingConfigBuilder().Set("learning-rate", "0.1").Set("learning-rate-batch", "32").Set("batch-size", "16").Set("ranks", "4").Config;
        Assert.Equal(0.2f, config.EffectiveLearningRate);
        Assert.Equal(0.2f, new LearningRateSchedule(config with { Schedule = ScheduleKind.Constant }, 10, 100).At(5));
        Assert.Equal(0.1f, (config with { LearningRateBatch = 0 }).EffectiveLearningRate);
    }
}
