using System.Text.Json;
using HpcBatchNorm.Cli;
using HpcBatchNorm.Data;
using HpcBatchNorm.Tests.Cli;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Distributed;

/// <summary>hpcbn in several processes on real MPI. An epoch has 24 images, which 2 ranks of 4 take in 3 steps.</summary>
[Trait("Category", "Slow")]
public sealed class MpiTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    [Theory]
    [InlineData(4, "batch-norm", "false")]
    [InlineData(2, "sync-bn", "true")]
    public async Task EqualsOneProcessWithTheWholeBatch(int ranks, string name, string value)
    {
        (string, string)[] settings = [(name, value), ("dropout", "0"), ("activation", "sigmoid"), ("steps", "10"), ("eval-every", "0"), ("learning-rate", "0.01")];
        string together = fixture.NewFolder(), alone = fixture.NewFolder();
        (int code, string output) = await Mpi.RunAsync(fixture.Folder, ranks, Train(together, [.. settings, ("batch-size", $"{12 / ranks}")]), TestContext.Current.CancellationToken);
        Assert.True(code == 0, output);
        Assert.Contains(FormattableString.Invariant($"a step is {ranks} ranks x {12 / ranks} images = 12"), output, StringComparison.Ordinal);

        using var observer = new RecordingObserver();
        TrainingResult expected = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = [.. fixture.Flags(alone), .. settings, ("batch-size", "12"), ("threads", "1")] }, observer);

        RankSessionTests.AssertClose(TrainingFixture.Tensors(expected.Checkpoint), TrainingFixture.Tensors(Newest(together)), 1e-5);
        Assert.Equal((observer.Losses[^1] + observer.Losses[^2]) / 2, Losses(together)[^1], 1e-5); // a line has the mean of its two steps
    }

    /// <summary>Two groups of two ranks, each of which exchanges statistics without the other.</summary>
    [Fact]
    public async Task SyncBatchNormOfGroups_EqualsOneProcessWithGhostBatches()
    {
        (string, string)[] settings = [("dropout", "0"), ("activation", "sigmoid"), ("steps", "3"), ("eval-every", "0"), ("learning-rate", "0.01")];
        string together = fixture.NewFolder(), alone = fixture.NewFolder();
        (int code, string output) = await Mpi.RunAsync(
            fixture.Folder, 4, Train(together, [.. settings, ("sync-bn", "true"), ("sync-bn-ranks", "2"), ("batch-size", "3")]), TestContext.Current.CancellationToken);
        Assert.True(code == 0, output);
        Assert.Contains("batch normalization sees 6", output, StringComparison.Ordinal);

        using var observer = new RecordingObserver();
        TrainingResult expected = TrainingFixture.Run(
            new TrainingRequest { Recipe = "quick", Flags = [.. fixture.Flags(alone), .. settings, ("batch-size", "12"), ("ghost-batch", "6"), ("threads", "1")] }, observer);

        RankSessionTests.AssertClose(
            TrainingFixture.Tensors(expected.Checkpoint), TrainingFixture.Tensors(Newest(together)), 1e-5, name => !name.Contains("running", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("fp32")]
    [InlineData("bf16")]
    public async Task SameRanks_SameBits(string wire)
    {
        byte[][] runs = new byte[2][];
        for (int i = 0; i < runs.Length; i++)
        {
            string folder = fixture.NewFolder();
            (int code, string output) = await Mpi.RunAsync(fixture.Folder, 2, Train(folder, ("steps", "6"), ("name", "same"), ("gradient-wire", wire)), TestContext.Current.CancellationToken);
            Assert.True(code == 0, output);
            runs[i] = File.ReadAllBytes(Newest(folder));
        }

        Assert.Equal(runs[0], runs[1]);
    }

    /// <summary>An epoch of 24 images: one step of 2 ranks x 3, one of 3 x 3, three of 1 x 3. What the steps took is asked of loaders at the places that the checkpoints say.</summary>
    [Fact]
    public async Task Resume_WithOtherRanks_TakesEveryImageOfTheEpochOnce()
    {
        string folder = fixture.NewFolder();
        List<int> seen = [];
        foreach ((int ranks, int from, int to) in new[] { (2, 0, 1), (3, 1, 2), (1, 2, 5) })
        {
            (string, string)[] length = [("steps", $"{to}"), ("log-every", "1")];
            string[] args = from == 0 ? Train(folder, [.. length, ("batch-size", "3")]) : ["train", "--resume", folder, "--steps", $"{to}"];
            (int code, string output) = await Mpi.RunAsync(fixture.Folder, ranks, args, TestContext.Current.CancellationToken);
            Assert.True(code == 0, output);
            seen.AddRange(Images(Newest(folder), ranks, from, to));
        }

        Assert.Equal(Enumerable.Range(0, 24), seen.Order());
        double[] epochs = [.. Lines(folder, "train").Select(l => l.GetProperty("epoch").GetDouble())];
        Assert.Equal((5, 0.25, 1.0), (epochs.Length, epochs[0], epochs[4]));
        Assert.All(Losses(folder), l => Assert.InRange(l, 0.1, 4));
    }

    [Fact]
    public async Task Evaluation_CountsEveryImageOnce_AndEqualsThatOfOneProcess()
    {
        string folder = fixture.NewFolder(), result = Path.Combine(fixture.Folder, "evaluation.json");
        (int code, string output) = await Mpi.RunAsync(
            fixture.Folder, 2, [.. Train(folder, ("steps", "4"), ("eval-every", "1")), "--result", result], TestContext.Current.CancellationToken);
        Assert.True(code == 0, output);

        using var display = new StringWriter();
        string second = $"{result}.alone";
        Assert.Equal(0, CommandLine.Run(["eval", "--checkpoint", Newest(folder), "--data", fixture.Data, "--result", second], display, display));
        JsonElement together = JsonDocument.Parse(File.ReadAllText(result)).RootElement, alone = JsonDocument.Parse(File.ReadAllText(second)).RootElement;
        Assert.Equal(9, alone.GetProperty("images").GetInt64());
        Assert.Equal(alone.GetProperty("top1").GetDouble(), together.GetProperty("val_top1").GetDouble());
        Assert.Equal(alone.GetProperty("loss").GetDouble(), together.GetProperty("val_loss").GetDouble(), 1e-6);
    }

    [Fact]
    public async Task SignalToAnyRank_SavesOnceAndEndsAll()
    {
        string folder = fixture.NewFolder();
        CancellationToken token = TestContext.Current.CancellationToken;
        using HpcbnProcess process = Mpi.Start(fixture.Folder, 2, Train(folder, ("steps", "100000"), ("keep", "9")));
        await process.WaitForAsync("step 2/3", token);

        await SignalAsync("TERM", rank: 1, folder);

        Assert.Equal(ExitCode.Terminated, await process.WaitForExitAsync(token));
        Assert.Contains("hpcbn train --resume", process.Output, StringComparison.Ordinal);
        Assert.Single(Directory.GetFiles(Path.Combine(folder, "checkpoints"), "*.safetensors"));
    }

    [Fact]
    public async Task RankThatIsKilled_EndsTheJob_AndTheRunGoesOnFromItsLastCheckpoint()
    {
        string folder = fixture.NewFolder();
        CancellationToken token = TestContext.Current.CancellationToken;
        using HpcbnProcess process = Mpi.Start(fixture.Folder, 2, Train(folder, ("steps", "100000"), ("checkpoint-every", "5")));
        await process.WaitForAsync("step-00000010", token);

        await SignalAsync("KILL", rank: 1, folder);

        Assert.NotEqual(0, await process.WaitForExitAsync(token));
        using (Checkpoint checkpoint = CheckpointStore.OpenNewest(Path.Combine(folder, "checkpoints"), _ => { })!)
        {
            long step = checkpoint.Info.Step;
            (int code, string output) = await Mpi.RunAsync(fixture.Folder, 2, ["train", "--output", folder, "--resume", "auto", "--steps", $"{step + 2}"], token);
            Assert.True(code == 0, output);
            Assert.Contains($"going on after step {step}", output, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task RankThatHangs_IsNamedWithinTheTimeLimit()
    {
        string folder = fixture.NewFolder();
        CancellationToken token = TestContext.Current.CancellationToken;
        using HpcbnProcess process = Mpi.Start(fixture.Folder, 2, Train(folder, ("steps", "100000"), ("checkpoint-every", "5"), ("rank-timeout", "2s")));
        await process.WaitForAsync("step-00000010", token);

        await SignalAsync("STOP", rank: 1, folder);

        Assert.NotEqual(0, await process.WaitForExitAsync(token));
        Assert.Matches(@"error: rank 0 .*: .*rank 1 \(.*\) has not answered rank 0 .* for 2 s \(rank-timeout\)", process.Output);
        Assert.NotNull(CheckpointStore.OpenNewest(Path.Combine(folder, "checkpoints"), _ => { }));
    }

    [Fact]
    public async Task DiskFullOnRank0_EndsAllWithOneMessage_AndTheRunGoesOnOnceThereIsRoom()
    {
        using SmallDisk disk = SmallDisk.MountOrSkip(8);
        string folder = Path.Combine(disk.Path, "run");
        CancellationToken token = TestContext.Current.CancellationToken;
        using (HpcbnProcess process = Mpi.Start(fixture.Folder, 2, Train(folder, ("steps", "100000"), ("checkpoint-every", "5"), ("keep", "2"))))
        {
            await process.WaitForAsync("step-00000010", token);
            disk.Fill();
            Assert.Equal(1, await process.WaitForExitAsync(token));
            Assert.Single(process.Output.Split('\n'), l => l.StartsWith("error:", StringComparison.Ordinal));
            Assert.Contains(folder, process.Output, StringComparison.Ordinal);
        }

        disk.Free();
        long step;
        using (Checkpoint checkpoint = CheckpointStore.OpenNewest(Path.Combine(folder, "checkpoints"), _ => { })!)
        {
            step = checkpoint.Info.Step;
        }

        (int code, string output) = await Mpi.RunAsync(fixture.Folder, 2, ["train", "--output", folder, "--resume", "auto", "--steps", $"{step + 2}"], token);
        Assert.True(code == 0, output);
    }

    [Theory]
    [InlineData("learning-rate", "0.5", "setting learning-rate: rank 0 .* has 0.01, rank 1 .* has 0.5")]
    [InlineData("data", "/nowhere", @"error: rank 1 \(.*\): .*/nowhere")]
    public async Task RanksThatDiffer_AreRefused(string setting, string value, string message)
    {
        string folder = fixture.NewFolder();
        string[] args = Train(folder, ("steps", "2"), ("learning-rate", "0.01"));
        using HpcbnProcess process = Mpi.Start(
            fixture.Folder, 2, ["sh", "-c", $"if [ \"$OMPI_COMM_WORLD_RANK\" = 1 ]; then exec \"$@\" --{setting} {value}; else exec \"$@\"; fi", "sh", .. HpcbnProcess.Command, .. args]);

        Assert.NotEqual(0, await process.WaitForExitAsync(TestContext.Current.CancellationToken));
        Assert.Matches(message, process.Output);
        Assert.False(Directory.Exists(folder));
    }

    /// <summary>The images that steps of a run took, by the place in the data of a checkpoint at their end.</summary>
    private List<int> Images(string path, int ranks, int from, int to)
    {
        using Checkpoint checkpoint = Checkpoint.Open(path);
        using ImageDataset data = ImageDataset.Open(fixture.Data, DatasetSplit.Train);
        RunConfig config = EvaluationSetup.Configure(checkpoint, []);
        Assert.Equal((ranks, ranks * 3), (config.Optimizer.Ranks, checkpoint.Info.ImagesPerStep));
        List<int> images = [];
        for (int rank = 0; rank < ranks; rank++)
        {
            LoaderOptions options = TrainingSetup.Loading(config, checkpoint.ReadNetwork()) with { Share = new LoaderShare(rank, ranks), Shift = checkpoint.Info.Shift };
            using var loader = new BatchLoader(data, options, from - checkpoint.Info.Offset);
            for (int step = from; step < to; step++)
            {
                images.AddRange(loader.Next(TestContext.Current.CancellationToken).Indices);
            }
        }

        return images;
    }

    private string[] Train(string output, params (string Name, string Value)[] more) =>
        ["train", "--recipe", "quick", .. fixture.Flags(output, [("eval-every", "0"), .. more]).GroupBy(f => f.Name).SelectMany(g => new[] { $"--{g.Key}", g.Last().Value })];

    private static string Newest(string folder) => Directory.GetFiles(Path.Combine(folder, "checkpoints"), "*.safetensors").Order(StringComparer.Ordinal).Last();

    private static double[] Losses(string folder) => [.. Lines(folder, "train").Select(l => l.GetProperty("loss").GetDouble())];

    private static IEnumerable<JsonElement> Lines(string folder, string type) =>
        File.ReadLines(Path.Combine(folder, "metrics.jsonl")).Select(l => JsonDocument.Parse(l).RootElement).Where(l => l.GetProperty("type").GetString() == type);

    /// <summary>Sends a signal to one rank of the job that writes to a folder, which it is known by.</summary>
    private static async Task SignalAsync(string signal, int rank, string folder)
    {
        foreach (string process in Directory.GetDirectories("/proc").Where(d => Path.GetFileName(d).All(char.IsAsciiDigit)))
        {
            try
            {
                if (File.ReadAllText($"{process}/cmdline").Contains(folder, StringComparison.Ordinal)
                    && File.ReadAllText($"{process}/environ").Split('\0').Contains(FormattableString.Invariant($"OMPI_COMM_WORLD_RANK={rank}")))
                {
                    using System.Diagnostics.Process kill = System.Diagnostics.Process.Start("/bin/sh", ["-c", $"kill -s {signal} {Path.GetFileName(process)}"]);
                    await kill.WaitForExitAsync();
                    return;
                }
            }
            catch (Exception error) when (error is IOException or UnauthorizedAccessException)
            {
                // A process that has gone meanwhile, or is not ours.
            }
        }

        Assert.Fail($"rank {rank} was not found");
    }
}
