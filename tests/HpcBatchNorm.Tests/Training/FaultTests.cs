using System.Text.Json;
using HpcBatchNorm.Data;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>What the world does to a run: each ends with one line that helps, the last good checkpoint intact, and goes on exactly.</summary>
public sealed class FaultTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    [Fact]
    public void DiskFull_DuringACheckpoint_KeepsTheLastGoodOne_AndGoesOnExactly()
    {
        using SmallDisk disk = SmallDisk.MountOrSkip(megabytes: 32);
        string output = Path.Combine(disk.Path, "run");
        (string, string)[] settings = [("steps", "6"), ("checkpoint-every", "2"), ("eval-every", "0"), ("keep", "5")];
        using var observer = new RecordingObserver { OnStep = Steps.At(3, disk.Fill) };

        UserErrorException error = Assert.Throws<UserErrorException>(() => Train(output, observer, settings));

        Assert.Contains("No space left on device", error.Message, StringComparison.Ordinal);
        Assert.Contains("step-00000002.safetensors'; put that right, then resume", error.Message, StringComparison.Ordinal);
        AssertOnlyWholeFiles(output, "step-00000002.safetensors");

        disk.Free();
        using var second = new RecordingObserver();
        TrainingResult resumed = TrainingFixture.Run(new TrainingRequest { Resume = output }, second);
        using var undisturbed = new RecordingObserver();
        TrainingResult expected = Train(fixture.NewFolder(), undisturbed, settings);
        Assert.Equal(File.ReadAllBytes(expected.Checkpoint), File.ReadAllBytes(resumed.Checkpoint));
    }

    [Fact]
    public void DiskFull_DuringMetrics_LeavesNoHalfLine()
    {
        using SmallDisk disk = SmallDisk.MountOrSkip(megabytes: 16);
        string output = Path.Combine(disk.Path, "run");
        using var observer = new RecordingObserver { OnStep = Steps.At(3, disk.Fill) };

        // A line of metrics each step: what is left of the file's last page holds about twenty.
        UserErrorException error = Assert.Throws<UserErrorException>(() =>
            Train(output, observer, ("steps", "90"), ("checkpoint-every", "2"), ("eval-every", "0"), ("log-every", "1"), ("checkpoint-every", "0")));

        Assert.Contains("No space left on device", error.Message, StringComparison.Ordinal);
        Assert.Contains("No checkpoint had been written", error.Message, StringComparison.Ordinal);
        string[] lines = File.ReadAllLines(Path.Combine(output, "metrics.jsonl"));
        Assert.All(lines, line => JsonDocument.Parse(line).Dispose());
        Assert.True(lines.Length is > 3 and < 90, $"{lines.Length} lines");
    }

    [Fact]
    public void DiskFull_DuringTheReport_KeepsTheFinalCheckpoint()
    {
        using SmallDisk disk = SmallDisk.MountOrSkip(megabytes: 16);
        string output = Path.Combine(disk.Path, "run");
        using var observer = new RecordingObserver { OnSaved = disk.Fill };

        UserErrorException error = Assert.Throws<UserErrorException>(() => Train(output, observer, ("steps", "2"), ("eval-every", "0")));

        Assert.Contains("No space left on device", error.Message, StringComparison.Ordinal);
        AssertOnlyWholeFiles(output, "step-00000002.safetensors");
        Assert.False(File.Exists(Path.Combine(output, "report.html")));

        disk.Free();
        using var second = new RecordingObserver();
        TrainingResult resumed = TrainingFixture.Run(new TrainingRequest { Resume = output }, second);
        Assert.Equal(TrainingOutcome.AlreadyComplete, resumed.Outcome);
        Assert.True(File.Exists(resumed.Report));
    }

    [Fact]
    public void FolderReadOnly_IsNamed()
    {
        using SmallDisk disk = SmallDisk.MountOrSkip(megabytes: 1, readOnly: true);
        string output = Path.Combine(disk.Path, "run");
        using var observer = new RecordingObserver();

        UserErrorException error = Assert.Throws<UserErrorException>(() => Train(output, observer, ("steps", "1")));

        Assert.StartsWith($"The run's folder '{output}' cannot be written: ", error.Message, StringComparison.Ordinal);
        Assert.Contains("set output to another folder", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void DataVanished_SavesWhatIsTrained_AndGoesOnExactly()
    {
        string data = ClassFolders(), output = fixture.NewFolder();
        (string, string)[] settings = [("data", data), ("steps", "12"), ("eval-every", "0"), ("batch-size", "4")];
        using var undisturbed = new RecordingObserver();
        TrainingResult expected = Train(fixture.NewFolder(), undisturbed, settings);
        using var observer = new RecordingObserver { OnStep = Steps.At(2, () => Directory.Move(data, data + "-away")) };

        UserErrorException error = Assert.Throws<UserErrorException>(() => Train(output, observer, settings));

        Assert.Contains("cannot be read", error.Message, StringComparison.Ordinal);
        string saved = $"step-{observer.Losses.Count:00000000}.safetensors";
        Assert.Contains(saved, error.Message, StringComparison.Ordinal);
        AssertOnlyWholeFiles(output, saved);

        Directory.Move(data + "-away", data);
        using var second = new RecordingObserver();
        TrainingResult resumed = TrainingFixture.Run(new TrainingRequest { Resume = output }, second);
        Assert.Equal(undisturbed.Losses, [.. observer.Losses, .. second.Losses]);
        Assert.Equal(File.ReadAllBytes(expected.Checkpoint), File.ReadAllBytes(resumed.Checkpoint));
    }

    [Fact]
    public void FolderInUse_ByAnotherRun_IsLeftAlone()
    {
        string output = fixture.NewFolder();
        string metrics = Path.Combine(output, "metrics.jsonl");
        UserErrorException? error = null;
        using var intruder = new RecordingObserver();
        using var observer = new RecordingObserver
        {
            OnStep = Steps.At(3, () =>
            {
                string before = File.ReadAllText(metrics);
                error = Assert.Throws<UserErrorException>(() => TrainingFixture.Run(new TrainingRequest { Resume = output }, intruder));
                Assert.Equal(before, File.ReadAllText(metrics));
            }),
        };

        TrainingResult result = Train(output, observer, ("steps", "4"), ("checkpoint-every", "1"), ("eval-every", "0"));

        Assert.Equal($"'{Path.GetRelativePath(Directory.GetCurrentDirectory(), output)}' is in use by another hpcbn. Wait until it has ended, or set output to another folder.", error?.Message);
        Assert.Equal((TrainingOutcome.Completed, 4), (result.Outcome, result.Steps));
        Assert.Empty(intruder.Losses);
        Assert.False(File.Exists(Path.Combine(output, "lock")));

        // What a killed process leaves is no obstacle.
        File.WriteAllText(Path.Combine(output, "lock"), "");
        Assert.Equal(TrainingOutcome.AlreadyComplete, TrainingFixture.Run(new TrainingRequest { Resume = output }, intruder).Outcome);
    }

    private TrainingResult Train(string output, RecordingObserver observer, params (string, string)[] settings) =>
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(output, settings) }, observer);

    private static void AssertOnlyWholeFiles(string output, params string[] checkpoints)
    {
        Assert.Equal(checkpoints, Directory.GetFiles(Path.Combine(output, "checkpoints")).Select(Path.GetFileName).Order());
        Assert.All(Directory.GetFiles(Path.Combine(output, "checkpoints")), path => Checkpoint.Open(path).Dispose());
        Assert.Empty(Directory.GetFiles(output, "*.partial"));
    }

    /// <summary>The fixture's training images as files, which can vanish while archives that are open cannot.</summary>
    private string ClassFolders()
    {
        string folder = fixture.NewFolder();
        using ImageDataset dataset = ImageDataset.Open(fixture.Data, DatasetSplit.Train);
        byte[] buffer = [];
        for (int i = 0; i < dataset.Count; i++)
        {
            int length = dataset.ReadEncoded(i, ref buffer);
            string path = Path.Combine(folder, dataset.ClassNames[dataset.Label(i)], $"{i}.jpeg");
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            File.WriteAllBytes(path, buffer.AsSpan(0, length));
        }

        return folder;
    }

    private static class Steps
    {
        public static Action<long> At(long wanted, Action action) => step =>
        {
            if (step == wanted)
            {
                action();
            }
        };
    }
}
