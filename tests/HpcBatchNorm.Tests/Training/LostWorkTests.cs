using HpcBatchNorm.Interchange;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>What is trained is kept: by the clock, at a time limit, whatever those who watch do, and where files are damaged.</summary>
public sealed class LostWorkTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    private static readonly (string, string)[] Short = [("steps", "5"), ("eval-every", "0"), ("keep", "1")];

    [Fact]
    public void CheckpointTime_SavesByTheClock_AndChangesNothingElse()
    {
        string often = fixture.NewFolder(), never = fixture.NewFolder();
        (string, string)[] settings = [("steps", "8"), ("eval-every", "1"), ("keep", "1"), ("log-every", "1")];
        List<string[]> files = [];
        using var observer = new RecordingObserver { OnSaved = () => files.Add(Files(often)) };
        using var second = new RecordingObserver();

        TrainingResult timed = Train(often, observer, [.. settings, ("checkpoint-time", "0.001s")]);
        TrainingResult untimed = Train(never, second, [.. settings, ("checkpoint-time", "0")]);

        // After every step; those between regular ones go when the next regular one is there, and push none out. Step 6 may be the best, 8 is the last.
        Assert.Equal([1, 2, 3, 4, 5, 6, 7, 8], files.Select(f => int.Parse(f[^1][5..13], System.Globalization.CultureInfo.InvariantCulture)).Distinct());
        Assert.Contains("step-00000006.safetensors", files.First(f => f[^1] == "step-00000007.safetensors"));
        Assert.Equal(2, files.Count(f => f[^1] == "step-00000006.safetensors")); // before the evaluation, which may take hours, and after it
        Assert.Equal(Files(never), Files(often));
        Assert.Equal(second.Losses, observer.Losses);
        Assert.All(TrainingFixture.Tensors(untimed.Checkpoint), t => Assert.Equal(t.Value, TrainingFixture.Tensors(timed.Checkpoint)[t.Key]));
        using Checkpoint a = Checkpoint.Open(timed.Checkpoint), b = Checkpoint.Open(untimed.Checkpoint);
        Assert.Equal(a.Info.ConfigHash, b.Info.ConfigHash);
    }

    [Fact]
    public void CheckpointTime_IsOnUnlessItIsSwitchedOff_AndHashesAsBefore()
    {
        Assert.Equal("15m", TrainingSettings.Find("checkpoint-time").Get(TrainingSettings.Defaults));
        Assert.Equal(
            TrainingSettings.Hash(TrainingSettings.Defaults),
            TrainingSettings.Hash(TrainingSettings.Defaults with { CheckpointTime = TimeSpan.FromHours(1), MaxTime = TimeSpan.FromDays(1) }));
    }

    [Fact]
    public void MaxTime_SavesAndEnds_AndTheNextProcessGoesOnExactly()
    {
        string output = fixture.NewFolder();
        using var undisturbed = new RecordingObserver();
        TrainingResult expected = Train(fixture.NewFolder(), undisturbed, ("steps", "12"), ("eval-every", "0"));
        using var first = new RecordingObserver { OnStep = step => Thread.Sleep(step == 3 ? 2500 : 0) };

        TrainingResult stopped = Train(output, first, ("steps", "12"), ("eval-every", "0"), ("max-time", "2s"));
        using var second = new RecordingObserver();
        TrainingResult resumed = TrainingFixture.Run(new TrainingRequest { Resume = output, Flags = [("max-time", "0")] }, second);

        Assert.Equal(TrainingOutcome.TimeLimit, stopped.Outcome);
        Assert.InRange(stopped.Steps, 0, 3);
        Assert.Equal($"step-{stopped.Steps:00000000}.safetensors", Path.GetFileName(stopped.Checkpoint));
        Assert.Contains("\"outcome\":\"time_limit\"", File.ReadAllText(Path.Combine(output, "metrics.jsonl")), StringComparison.Ordinal);
        Assert.Equal(undisturbed.Losses, [.. first.Losses, .. second.Losses]);
        Assert.All(TrainingFixture.Tensors(expected.Checkpoint), t => Assert.Equal(t.Value, TrainingFixture.Tensors(resumed.Checkpoint)[t.Key]));
    }

    [Fact]
    public void ObserverThatThrows_EndsTheRunWithItsOwnError_AndTheStateIsSaved()
    {
        string output = fixture.NewFolder();
        using var observer = new RecordingObserver { OnStep = step => _ = step == 3 ? throw new IOException("the log's disk is full") : 0 };

        IOException error = Assert.Throws<IOException>(() => Train(output, observer, Short));

        Assert.Equal("the log's disk is full", error.Message);
        Assert.Equal(["step-00000003.safetensors"], Files(output));
    }

    [Fact]
    public void EveryCheckpointDamaged_ResumeAuto_BeginsAgainAndKeepsThemAside()
    {
        string output = fixture.NewFolder();
        using var observer = new RecordingObserver();
        TrainingResult expected = Train(output, observer, [.. Short, ("keep", "2"), ("checkpoint-every", "1")]);
        Dictionary<string, float[]> tensors = TrainingFixture.Tensors(expected.Checkpoint);
        string[] before = Files(output);
        File.WriteAllBytes(Path.Combine(output, "checkpoints", before[0]), []);
        Damage(expected.Checkpoint);
        (string, string)[] flags = fixture.Flags(output, [.. Short, ("keep", "2"), ("checkpoint-every", "1")]);

        using var second = new RecordingObserver();
        TrainingResult again = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = flags, Resume = TrainingRequest.Auto }, second);

        Assert.Contains(second.Notes, n => n.StartsWith("warning: every checkpoint", StringComparison.Ordinal) && n.Contains("BEGINNING", StringComparison.Ordinal));
        Assert.Equal((TrainingOutcome.Completed, 5L), (again.Outcome, (long)second.Losses.Count));
        Assert.All(tensors, t => Assert.Equal(t.Value, TrainingFixture.Tensors(again.Checkpoint)[t.Key]));
        Assert.Equal(before, Directory.GetFiles(Path.Combine(output, "checkpoints", "set-aside")).Select(Path.GetFileName).Order());
        Assert.Equal(TrainingOutcome.AlreadyComplete, TrainingFixture.Run(new TrainingRequest { Flags = flags, Resume = TrainingRequest.Auto }, second).Outcome);
    }

    [Fact]
    public void EveryCheckpointDamaged_WithoutAuto_IsNotOverwritten()
    {
        string output = fixture.NewFolder();
        using var observer = new RecordingObserver();
        Damage(Train(output, observer, Short).Checkpoint);

        UserErrorException named = Assert.Throws<UserErrorException>(() => TrainingFixture.Run(new TrainingRequest { Resume = output }, observer));
        UserErrorException begun = Assert.Throws<UserErrorException>(() => Train(output, observer, Short));

        Assert.Contains("holds no good checkpoint", named.Message, StringComparison.Ordinal);
        Assert.Contains("keeps damaged files aside", named.Message, StringComparison.Ordinal);
        Assert.Contains("already holds a run", begun.Message, StringComparison.Ordinal);
        Assert.Equal(["step-00000005.safetensors"], Files(output));
    }

    [Fact]
    public void CheckpointOfALaterProgram_IsNotTakenForDamaged()
    {
        string output = fixture.NewFolder();
        Directory.CreateDirectory(Path.Combine(output, "checkpoints"));
        SafetensorsFile.Write(
            Path.Combine(output, "checkpoints", "step-00000005.safetensors"), [new SafetensorsTensor("x", "F32", [1])],
            [new("format", "hpcbn-checkpoint"), new("format_version", "9")], (_, bytes) => bytes.Clear());
        using var observer = new RecordingObserver();

        UserErrorException error = Assert.Throws<UserErrorException>(() =>
            TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(output, Short), Resume = TrainingRequest.Auto }, observer));

        Assert.Contains("has checkpoint version 9", error.Message, StringComparison.Ordinal);
        Assert.Contains("beginning again would lose them", error.Message, StringComparison.Ordinal);
        Assert.Equal(["step-00000005.safetensors"], Files(output));
    }

    [Fact]
    public void ResumeFromAnEarlierCheckpoint_KeepsWhatItWrites()
    {
        string output = fixture.NewFolder();
        using var observer = new RecordingObserver();
        Train(output, observer, [.. Short, ("keep", "9"), ("checkpoint-every", "1")]);
        string earlier = Path.Combine(output, "checkpoints", "step-00000002.safetensors");

        // Stopped before it reaches the steps that are there already.
        using var second = new RecordingObserver { StopAfter = 3 };
        TrainingResult stopped = TrainingFixture.Run(new TrainingRequest { Resume = earlier, Flags = [("learning-rate", "0.001"), ("keep", "1")] }, second);
        using var third = new RecordingObserver();
        TrainingFixture.Run(new TrainingRequest { Resume = output }, third);

        Assert.Equal("step-00000003.safetensors", Path.GetFileName(stopped.Checkpoint));
        Assert.Equal(2, third.Losses.Count);
        Assert.Equal(3, Directory.GetFiles(Path.Combine(output, "checkpoints", "set-aside")).Length);
        Assert.Contains(second.Notes, n => n.StartsWith("3 checkpoints of later steps than 2", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("90s", "1m30s")]
    [InlineData("15m", "15m")]
    [InlineData("11h45m", "11h45m")]
    [InlineData("1.5h", "1h30m")]
    [InlineData("11:45:00", "11h45m")]
    [InlineData("1-12:00:30", "1d12h30s")]
    [InlineData("2d", "2d")]
    [InlineData("0.25s", "0.25s")]
    [InlineData("0", "0")]
    public void Durations_AreReadAsPeopleAndQueuesWriteThem(string text, string written)
    {
        TimeSpan time = DurationText.Parse(text);
        Assert.Equal(written, DurationText.Format(time));
        Assert.Equal(time, DurationText.Parse(written));
    }

    [Theory]
    [InlineData("")]
    [InlineData("30")]
    [InlineData("-5m")]
    [InlineData("90d")]
    [InlineData("1e400s")]
    [InlineData("soon")]
    public void Durations_WithoutAUnit_AreRefused(string text) =>
        Assert.Contains("15m", Assert.Throws<UserErrorException>(() => TrainingSettings.Find("max-time").Set(TrainingSettings.Defaults, text)).Message, StringComparison.Ordinal);

    private TrainingResult Train(string output, RecordingObserver observer, params (string, string)[] settings) =>
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(output, settings) }, observer);

    private static string[] Files(string run) => [.. Directory.GetFiles(Path.Combine(run, "checkpoints")).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal)];

    private static void Damage(string path)
    {
        byte[] bytes = File.ReadAllBytes(path);
        bytes[^100] ^= 1;
        File.WriteAllBytes(path, bytes);
    }
}
