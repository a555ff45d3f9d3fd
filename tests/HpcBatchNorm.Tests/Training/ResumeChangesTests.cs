using System.Text.Json;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>The table of docs/long-runs.md about what may change when a run is resumed, line by line. An epoch has 24 images, 6 steps of 4.</summary>
public sealed class ResumeChangesTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    private static readonly (string, string)[] Length = [("steps", "6"), ("eval-every", "0"), ("average-decay", "0.5")];

    [Fact]
    public void WhatSaysHowARunIsWatchedAndKept_ChangesNoNumber()
    {
        using var observer = new RecordingObserver();
        TrainingResult expected = Begin(observer, fixture.NewFolder(), Length);

        using var second = new RecordingObserver();
        TrainingResult resumed = Resume(
            second, Stopped(3, Length), ("workers", "3"), ("log-every", "1"), ("keep", "9"), ("checkpoint-every", "1"), ("checkpoint-time", "0.001s"), ("max-time", "1h"));

        Assert.Equal(observer.Losses[3..], second.Losses);
        AssertSameTensors(expected.Checkpoint, resumed.Checkpoint);
    }

    [Theory]
    [InlineData("threads", "1")]
    [InlineData("backend", "reference")]
    [InlineData("conv-algorithm", "direct")]
    [InlineData("bn-algorithm", "library")]
    [InlineData("no-fuse", "bn-relu")]
    [InlineData("recompute", "bn")]
    public void WhatSaysWhereItIsComputed_ChangesLastBitsOnly(string name, string value)
    {
        Setting setting = TrainingSettings.Find(name);
        value = setting.Choices.Count > 0 && !setting.Choices.Contains(value) ? setting.Choices[^1] : value;
        using var observer = new RecordingObserver();
        Begin(observer, fixture.NewFolder(), Length);

        using var second = new RecordingObserver();
        Resume(second, Stopped(3, Length), (name, value));

        // The library's batch normalization for SSE, on batches of a few images, has been seen 1.4e-3 apart after three steps.
        using Backend backend = Backend.Create(TrainingFixture.Backend);
        double tolerance = name == "bn-algorithm" && backend.Description.Contains(", SSE", StringComparison.Ordinal) ? 5e-3 : 1e-3;
        Assert.All(observer.Losses[3..].Zip(second.Losses), pair => Assert.Equal(pair.First, pair.Second, tolerance));
        Assert.True(setting.Get(TrainingSettings.Defaults) == value || (name == "backend" && value == TrainingFixture.Backend) || second.Notes.Any(n => n.StartsWith($"changed on resume: {name} was", StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData("learning-rate", "0.001")]
    [InlineData("momentum", "0.5")]
    [InlineData("image-size", "12")]
    [InlineData("shuffle", "fixed")]
    [InlineData("epsilon", "0.1")]
    [InlineData("dropout", "0.4")]
    [InlineData("freeze-bn", "true")]
    [InlineData("ghost-batch", "2")]
    [InlineData("average-decay", "0.9")]
    public void AnythingElseOfTheTraining_IsAllowedAndSaid(string name, string value)
    {
        using var observer = new RecordingObserver();

        TrainingResult resumed = Resume(observer, Stopped(3, Length), (name, value));

        Assert.Equal((TrainingOutcome.Completed, 6), (resumed.Outcome, resumed.Steps));
        Assert.Contains(observer.Notes, n => n.StartsWith($"changed on resume: {name} was", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("batch-norm", "false", "another network")]
    [InlineData("initial-checkpoint", "other", "has its weights already")]
    public void AnotherNetwork_IsRefused(string name, string value, string because)
    {
        using var observer = new RecordingObserver();
        string run = Stopped(2, Length);
        UserErrorException error = Assert.Throws<UserErrorException>(() => Resume(observer, run, (name, value)));
        Assert.Contains(because, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("(inception-tiny) than inception-tiny", error.Message, StringComparison.Ordinal);
    }

    // After 9 steps of 4 the run is at epoch 1.5, 12 images into the second.
    [Theory]
    [InlineData("batch-size", "8", 5, 3, 13)] // the 12 images left make one whole step of 8, the epoch's last
    [InlineData("batch-size", "2", 18, 12, 27)]
    [InlineData("batch-size", "6", 6, 4, 15)]
    [InlineData("accumulate", "2", 5, 3, 13)]
    [InlineData("accumulate", "3", 3, 2, 12)]
    public void OtherImagesPerStep_GoesOnAfterTheImagesSeen(string name, string value, int dataStep, int perEpoch, int lastStep)
    {
        (string, string)[] settings = [("epochs", "3"), ("eval-every", "0"), ("log-every", "1"), ("schedule", "step"), ("milestones", "2"), ("gamma", "0.1")];
        string run = Stopped(9, settings);
        using var observer = new RecordingObserver();

        TrainingResult result = Resume(observer, run, (name, value));

        Assert.Equal((TrainingOutcome.Completed, lastStep), (result.Outcome, result.Steps));
        Assert.Equal(lastStep - 9, 3 * perEpoch - dataStep);
        (long Step, double Epoch, double Rate)[] lines = [.. Lines(run)];
        Assert.Equal(Enumerable.Range(1, lastStep).Select(s => (long)s), lines.Select(l => l.Step));
        Assert.Equal((double)(dataStep + 1) / perEpoch, lines[9].Epoch, 1e-5);
        Assert.Equal(3, lines[^1].Epoch);
        Assert.All(lines, l => Assert.Equal(l.Epoch > 2 + 1e-9 ? 0.002 : 0.02, l.Rate, 1e-8));
        Assert.Contains(observer.Notes, n => n.Contains($"{perEpoch} steps of {24 / perEpoch} images, it had 6 of 4", StringComparison.Ordinal));
    }

    [Fact]
    public void OtherImagesPerStep_KeepsTheImagesOfALengthInSteps_UnlessItIsGivenAnew()
    {
        (string, string)[] settings = [("steps", "12"), ("eval-every", "0")];
        using var observer = new RecordingObserver();

        TrainingResult kept = Resume(observer, Stopped(6, settings), ("batch-size", "8"));
        TrainingResult given = Resume(observer, Stopped(6, settings), ("batch-size", "8"), ("steps", "12"));

        Assert.Equal((9, 24), (kept.Steps, kept.Images));
        Assert.Equal((12, 48), (given.Steps, given.Images));
    }

    [Fact]
    public void ResumeAfterOtherImagesPerStep_IsExactAgain()
    {
        (string, string)[] settings = [("epochs", "3"), ("eval-every", "0.5"), ("log-every", "3"), ("keep", "20")];
        string whole = Stopped(9, settings), parts = Stopped(9, settings);
        using var observer = new RecordingObserver();
        TrainingResult expected = Resume(observer, whole, ("batch-size", "8"));

        using var first = new RecordingObserver { StopAfter = 11 };
        Resume(first, parts, ("batch-size", "8"));
        using var second = new RecordingObserver();
        TrainingResult resumed = Resume(second, parts);

        Assert.Equal(observer.Losses, [.. first.Losses, .. second.Losses]);
        Assert.Equal(File.ReadAllBytes(expected.Checkpoint), File.ReadAllBytes(resumed.Checkpoint));
        Assert.Equal(Lines(whole), Lines(parts));
        Assert.Equal(expected.Evaluations, resumed.Evaluations);
        Assert.Equal([0.5, 1, 1.667, 2, 2.667, 3], expected.Evaluations.Select(e => Math.Round(e.Epoch, 3)));
    }

    [Fact]
    public void AverageDecay_SwitchedOff_LeavesTheAveragesBehind()
    {
        using var observer = new RecordingObserver();
        TrainingResult result = Resume(observer, Stopped(3, Length), ("average-decay", "0"));

        Assert.Equal(TrainingOutcome.Completed, result.Outcome);
        Assert.DoesNotContain(TrainingFixture.Tensors(result.Checkpoint).Keys, n => n.EndsWith(".average", StringComparison.Ordinal));
        Assert.Contains(observer.Notes, n => n.Contains("moving averages", StringComparison.Ordinal) && n.EndsWith("are evaluated.", StringComparison.Ordinal));
    }

    [Fact]
    public void AverageDecay_SwitchedOn_BeginsAtTheWeights()
    {
        using var observer = new RecordingObserver();
        string run = Stopped(3, ("steps", "4"), ("eval-every", "0"));
        Dictionary<string, float[]> before = TrainingFixture.Tensors(Path.Combine(run, "checkpoints", "step-00000003.safetensors"));

        // After one step with decay 0.75: 0.75 times the weights before it and 0.25 times those after it.
        TrainingResult result = Resume(observer, run, ("average-decay", "0.75"));

        Dictionary<string, float[]> after = TrainingFixture.Tensors(result.Checkpoint);
        Assert.Equal(before.Keys.Count(n => !n.EndsWith(".momentum", StringComparison.Ordinal)), after.Keys.Count(n => n.EndsWith(".average", StringComparison.Ordinal)));
        Assert.All(after["fc.weights.average"].Select((v, i) => (v, i)), x => Assert.Equal(0.75f * before["fc.weights"][x.i] + 0.25f * after["fc.weights"][x.i], x.v, 1e-6));
        Assert.Contains(observer.Notes, n => n.Contains("they begin at its values", StringComparison.Ordinal));
    }

    /// <summary>As files were written before they said how many images a step has.</summary>
    [Fact]
    public void ImagesPerStep_OfAnOlderCheckpoint_IsReadFromItsConfiguration()
    {
        using var checkpoint = Checkpoint.Open(Path.Combine(Stopped(2, [.. Length, ("accumulate", "2")]), "checkpoints", "step-00000002.safetensors"));
        Assert.Equal(8, checkpoint.Info.ImagesPerStep);
        Assert.Equal(8, DataPosition.ImagesPerStep(checkpoint.Info with { ImagesPerStep = 0 }, "older"));
    }

    private string Stopped(int step, params (string, string)[] settings)
    {
        string output = fixture.NewFolder();
        using var observer = new RecordingObserver { StopAfter = step };
        Begin(observer, output, settings);
        return output;
    }

    private TrainingResult Begin(RecordingObserver observer, string output, params (string, string)[] settings) =>
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(output, settings) }, observer);

    private static TrainingResult Resume(RecordingObserver observer, string run, params (string, string)[] settings) =>
        TrainingFixture.Run(new TrainingRequest { Resume = run, Flags = settings }, observer);

    private static IEnumerable<(long Step, double Epoch, double Rate)> Lines(string run) =>
        from line in File.ReadLines(Path.Combine(run, "metrics.jsonl"))
        let json = JsonDocument.Parse(line).RootElement
        where json.GetProperty("type").GetString() == "train"
        select (json.GetProperty("step").GetInt64(), json.GetProperty("epoch").GetDouble(), json.GetProperty("learning_rate").GetDouble());

    private static void AssertSameTensors(string expected, string actual)
    {
        Dictionary<string, float[]> tensors = TrainingFixture.Tensors(actual);
        Assert.All(TrainingFixture.Tensors(expected), t => Assert.True(t.Value.AsSpan().SequenceEqual(tensors[t.Key]), $"'{t.Key}' differs"));
    }
}
