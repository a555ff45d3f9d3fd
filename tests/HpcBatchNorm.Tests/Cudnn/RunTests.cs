using System.Text.Json;
using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tests.Cli;
using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Cudnn;

/// <summary>Whole runs of <c>hpcbn train</c> on the stub, each in a process of its own: images staged ahead, the loss scale kept and shown.</summary>
[Collection(StubDevice.Collection)]
public sealed class RunTests : IDisposable
{
    private readonly TrainingFixture _fixture = new();

    [Fact]
    [Trait("Category", "Slow")]
    public async Task TrainInFp16_ResumedInTheMiddle_IsTheSameBitForBit()
    {
        _ = StubDevice.Libraries;
        string whole = Path.Combine(_fixture.Folder, "whole"), cut = Path.Combine(_fixture.Folder, "cut");

        // A scale that overflows at first: steps before and after the cut are left out, or not, for the same reason. Half an epoch after the cut
        // statistics are frozen, so that no image may be staged for the session that ends there.
        await TrainAsync([.. _fixture.Flags(whole,
            ("backend", "cudnn"), ("precision", "fp16"), ("loss-scale", "16777216"), ("loss-scale-growth", "2"), ("steps", "8"), ("checkpoint-every", "4"), ("keep", "9"),
            ("freeze-bn-after", "1"), ("eval-every", "0"))
            .GroupBy(f => f.Name).Select(g => g.Last()).SelectMany(f => new[] { $"--{f.Name}", f.Value })]);
        CopyFolder(whole, cut);
        File.Delete(CheckpointPath(cut, 8));

        await TrainAsync(["--resume", cut, "--steps", "8"]);

        Dictionary<string, float[]> expected = TrainingFixture.Tensors(CheckpointPath(whole, 8)), actual = TrainingFixture.Tensors(CheckpointPath(cut, 8));
        Assert.Equal(expected.Keys.Order(), actual.Keys.Order());
        Assert.All(expected, t => Assert.Equal(t.Value, actual[t.Key]));
        Assert.Equal(LossScales(whole), LossScales(cut));
        Assert.InRange(KeptScale(whole, 4).SkippedSteps, 1, 4);
        Assert.Equal(KeptScale(whole, 8), KeptScale(cut, 8));
    }

    [Fact]
    public async Task Train_WithoutOutput_KeepsItsAlgorithmsInTheRunsFolder()
    {
        _ = StubDevice.Libraries;
        string current = _fixture.NewFolder();
        Directory.CreateDirectory(current);

        await TrainInAsync(current, [.. _fixture.Flags("", ("backend", "cudnn"), ("steps", "1"), ("eval-every", "0"))
            .Where(f => f.Name != "output").GroupBy(f => f.Name).Select(g => g.Last()).SelectMany(f => new[] { $"--{f.Name}", f.Value })]);

        Assert.Equal([Path.Combine(current, "runs")], Directory.GetFileSystemEntries(current));
        Assert.True(File.Exists(Path.Combine(Assert.Single(Directory.GetDirectories(Path.Combine(current, "runs"))), "algorithms.json")));
    }

    public void Dispose() => _fixture.Dispose();

    private static Task TrainAsync(string[] flags) => TrainInAsync(Path.GetTempPath(), flags);

    private static async Task TrainInAsync(string folder, string[] flags)
    {
        using HpcbnProcess process = HpcbnProcess.Start(folder, ["train", .. flags], (CudaSearch.OverrideVariable, StubDevice.Folder), ("XDG_CACHE_HOME", StubDevice.CacheFolder));
        int exit = await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.True(exit == 0, process.Output);
    }

    private static string CheckpointPath(string run, long step) => Path.Combine(run, "checkpoints", FormattableString.Invariant($"step-{step:00000000}.safetensors"));

    private static LossScale KeptScale(string run, long step)
    {
        using Checkpoint checkpoint = Checkpoint.Open(CheckpointPath(run, step));
        return checkpoint.Info.LossScale!.Value;
    }

    /// <summary>The loss scales and skipped steps of all training lines.</summary>
    private static (double, long)[] LossScales(string run) =>
    [
        .. File.ReadLines(Path.Combine(run, "metrics.jsonl")).Select(l => JsonDocument.Parse(l).RootElement).Where(l => l.GetProperty("type").GetString() == "train")
            .Select(l => (l.GetProperty("loss_scale").GetDouble(), l.GetProperty("skipped_steps").GetInt64())),
    ];

    private static void CopyFolder(string from, string to)
    {
        foreach (string file in Directory.EnumerateFiles(from, "*", SearchOption.AllDirectories))
        {
            string target = Path.Combine(to, Path.GetRelativePath(from, file));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(file, target);
        }
    }
}
