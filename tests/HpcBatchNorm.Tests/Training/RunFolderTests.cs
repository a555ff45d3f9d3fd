using HpcBatchNorm.Data;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>Somebody deletes, moves or reuses a run's folder while it trains, or the data set changes before it goes on.</summary>
public sealed class RunFolderTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    private static readonly (string, string)[] Settings = [("steps", "8"), ("eval-every", "0"), ("checkpoint-every", "2"), ("keep", "9")];

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void FolderDeletedOrMoved_WhatWasTrainedIsSaved_AndGoesOnExactly(bool deleted)
    {
        string output = fixture.NewFolder(), away = fixture.NewFolder();
        using var observer = new RecordingObserver { OnStep = At(3, () => Remove(output, deleted ? null : away)) };

        UserErrorException error = Assert.Throws<UserErrorException>(() => Train(output, observer, Settings));

        string saved = Path.Combine(output, "checkpoints", "step-00000004.safetensors");
        Assert.Contains("was deleted, moved, or begun anew by another process", error.Message, StringComparison.Ordinal);
        Assert.Contains($"What was trained is in '{saved}'; resume '{output}' to go on.", error.Message, StringComparison.Ordinal);
        Assert.Equal([saved], Directory.GetFiles(Path.Combine(output, "checkpoints")));
        if (!deleted)
        {
            Assert.Equal("step-00000002.safetensors", Path.GetFileName(Assert.Single(Directory.GetFiles(Path.Combine(away, "checkpoints")))));
        }

        using var second = new RecordingObserver();
        TrainingResult resumed = TrainingFixture.Run(new TrainingRequest { Resume = output }, second);
        using var undisturbed = new RecordingObserver();
        TrainingResult expected = Train(fixture.NewFolder(), undisturbed, Settings);
        Assert.Equal(undisturbed.Losses, [.. observer.Losses, .. second.Losses]);
        Assert.Equal(File.ReadAllBytes(expected.Checkpoint), File.ReadAllBytes(resumed.Checkpoint));
    }

    [Fact]
    public void FolderBegunAnewByAnotherRun_IsLeftToIt()
    {
        string output = fixture.NewFolder();
        RunDirectory? another = null;
        using var observer = new RecordingObserver
        {
            OnStep = At(5, () =>
            {
                Directory.Delete(output, recursive: true);
                another = new RunDirectory(output, 0, 0);
            }),
        };

        UserErrorException error = Assert.Throws<UserErrorException>(() => Train(output, observer, Settings));

        Assert.Contains($"resume '{output}-2' to go on", error.Message, StringComparison.Ordinal);
        Assert.Equal(["lock", "metrics.jsonl", "summary.csv"], Directory.GetFileSystemEntries(output).Select(Path.GetFileName).Order());
        Assert.Equal("step-00000006.safetensors", Path.GetFileName(Assert.Single(Directory.GetFiles(Path.Combine(output + "-2", "checkpoints")))));
        another!.Dispose();
        Assert.False(File.Exists(Path.Combine(output, "lock")));
    }

    [Fact]
    public void Lock_ThatWasTakenAway_IsTakenAnew()
    {
        string folder = Directory.CreateDirectory(fixture.NewFolder()).FullName, path = Path.Combine(folder, "lock");
        using (RunLock first = RunLock.Take(folder))
        {
            Assert.Contains("is in use by another hpcbn", Assert.Throws<UserErrorException>(() => RunLock.Take(folder)).Message, StringComparison.Ordinal);
            File.Delete(path);
            using RunLock second = RunLock.Take(folder);
            first.Dispose();
            Assert.True(File.Exists(path));
            Assert.Throws<UserErrorException>(() => RunLock.Take(folder));
        }

        Assert.False(File.Exists(path));
    }

    [Fact]
    public void RunsNewestFirst_GoByWhenTheyWrote_NotByTheirNames()
    {
        string root = fixture.NewFolder();
        void Run(string name, int hour)
        {
            string checkpoint = Path.Combine(Directory.CreateDirectory(Path.Combine(root, name, "checkpoints")).FullName, "step-00000001.safetensors");
            File.WriteAllBytes(checkpoint, []);
            File.SetLastWriteTimeUtc(checkpoint, new DateTime(2026, 10, 25, hour, 0, 0, DateTimeKind.Utc));
        }

        Run("20261025-024500-before-the-clock-went-back", 0);
        Run("20261025-021500-after", 1);
        Directory.CreateDirectory(Path.Combine(root, "20991231-000000-without-a-checkpoint"));
        Assert.Equal(["20261025-021500-after", "20261025-024500-before-the-clock-went-back", "20991231-000000-without-a-checkpoint"],
            CheckpointStore.RunsNewestFirst(root).Select(Path.GetFileName));
    }

    [Fact]
    public void DataSetWithOtherImages_IsSaid()
    {
        string output = fixture.NewFolder(), larger = fixture.NewFolder();
        SampleGenerator.Write(larger, new SampleOptions { Classes = 3, TrainPerClass = 9, ValidationPerClass = 3, ImageSize = 16 }, TestContext.Current.CancellationToken);
        using var first = new RecordingObserver { StopAfter = 2 };
        Train(output, first, Settings);

        using RecordingObserver same = new() { StopAfter = 3 }, other = new();
        TrainingFixture.Run(new TrainingRequest { Resume = output }, same);
        TrainingFixture.Run(new TrainingRequest { Resume = output, Flags = [("data", larger)] }, other);

        Assert.DoesNotContain(same.Notes, note => note.Contains("training images, it had", StringComparison.Ordinal));
        Assert.Contains(other.Notes, note => note.StartsWith("warning: ", StringComparison.Ordinal) && note.Contains("has 27 training images, it had 24", StringComparison.Ordinal));
    }

    private static void Remove(string folder, string? to)
    {
        if (to is null)
        {
            Directory.Delete(folder, recursive: true);
        }
        else
        {
            Directory.Move(folder, to);
        }
    }

    private static Action<long> At(long wanted, Action action) => step =>
    {
        if (step == wanted)
        {
            action();
        }
    };

    private TrainingResult Train(string output, RecordingObserver observer, params (string, string)[] settings) =>
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(output, settings) }, observer);
}
