using System.Text.RegularExpressions;
using HpcBatchNorm.Data;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>Resuming is exact, in everything a run leaves; beginning with another run's weights is something else.</summary>
public sealed partial class ResumeTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    /// <summary>Every shuffle mode there is.</summary>
    public static TheoryData<ShuffleMode> ShuffleModes { get; } = [.. Enum.GetValues<ShuffleMode>()];

    [Theory]
    [MemberData(nameof(ShuffleModes))]
    public void Resume_InTheMiddleOfEverything_LeavesTheSameFiles(ShuffleMode shuffle)
    {
        // An epoch has 6 steps; log lines come every 4, evaluations after 3, 6, 9, ... The stops fall between all of them.
        (string, string)[] settings =
        [
            ("steps", "15"), ("eval-every", "0.5"), ("log-every", "4"), ("average-decay", "0.5"), ("clip-norm", "5"), ("dropout", "0.3"),
            ("shuffle", shuffle.ToString()), ("keep", "9"),
        ];
        string whole = fixture.NewFolder(), parts = fixture.NewFolder();
        using var undisturbed = new RecordingObserver();
        TrainingResult expected = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(whole, settings) }, undisturbed);

        List<float> losses = [];
        TrainingResult result;
        int stop = 2, workers = 3;
        do
        {
            using var observer = new RecordingObserver { StopAfter = stop };
            (string, string)[] flags = stop < 15 ? [("workers", $"{workers--}")] : [("workers", "1")];
            result = TrainingFixture.Run(
                stop == 2 ? new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(parts, [.. settings, .. flags]) } : new TrainingRequest { Resume = parts, Flags = flags },
                observer);
            losses.AddRange(observer.Losses);
            stop += 5;
            workers = Math.Max(workers, 1);
        }
        while (result.Outcome == TrainingOutcome.Interrupted);

        Assert.Equal(undisturbed.Losses, losses);
        Assert.Equal(File.ReadAllBytes(expected.Checkpoint), File.ReadAllBytes(result.Checkpoint));
        Assert.Equal(Comparable(whole), Comparable(parts));
        Assert.Equal(expected.TrainLoss, result.TrainLoss);
    }

    [Fact]
    public void Resume_AfterAStopInTheFinalEvaluation_MakesIt()
    {
        string whole = fixture.NewFolder(), stopped = fixture.NewFolder();
        using var undisturbed = new RecordingObserver();
        TrainingResult expected = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(whole, ("steps", "4")) }, undisturbed);
        using var first = new RecordingObserver { StopAfter = 4 };
        TrainingResult interrupted = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(stopped, ("steps", "4")) }, first);
        using var second = new RecordingObserver();
        TrainingResult resumed = TrainingFixture.Run(new TrainingRequest { Resume = stopped }, second);

        Assert.Equal((TrainingOutcome.Interrupted, 4), (interrupted.Outcome, interrupted.Steps));
        Assert.Equal((TrainingOutcome.Completed, 4), (resumed.Outcome, resumed.Steps));
        Assert.Equal(expected.Validation! with { Seconds = 0 }, resumed.Validation! with { Seconds = 0 });
        Assert.Equal(File.ReadAllBytes(expected.Checkpoint), File.ReadAllBytes(resumed.Checkpoint));
        Assert.Equal(Comparable(whole), Comparable(stopped));
        Assert.Equal(TrainingOutcome.AlreadyComplete, TrainingFixture.Run(new TrainingRequest { Resume = stopped }, second).Outcome);
    }

    [Fact]
    public void Keep_LeavesTheNewestAndTheBest_AndTheReportListsThem()
    {
        string output = fixture.NewFolder();
        using var observer = new RecordingObserver();
        TrainingResult result = TrainingFixture.Run(
            new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(output, ("steps", "10"), ("checkpoint-every", "1"), ("eval-every", "0.5"), ("keep", "3")) }, observer);

        int best = observer.Evaluations.FindIndex(e => e.Top1 == result.BestTop1);
        int[] evaluated = [3, 6, 9, 10];
        string[] expected = [.. new[] { evaluated[best], 8, 9, 10 }.Distinct().Order().Select(s => $"step-{s:00000000}.safetensors")];
        Assert.Equal(expected, Directory.GetFiles(Path.Combine(output, "checkpoints")).Select(Path.GetFileName).Order());
        string report = File.ReadAllText(result.Report);
        Assert.All(expected, name => Assert.Contains(name, report, StringComparison.Ordinal));
        string row = report.Split('\n').Single(line => line.Contains($">step-{evaluated[best]:00000000}.safetensors</td>", StringComparison.Ordinal));
        Assert.Contains("best</td>", row, StringComparison.Ordinal);
    }

    [Fact]
    public void InitialCheckpoint_GivesWeightsAndStatisticsOnly()
    {
        using var observer = new RecordingObserver();
        TrainingResult first = Train(observer, ("steps", "5"), ("average-decay", "0.5"));

        // With a learning rate of 0 the state after a step is the state before, but for running statistics and their averages.
        TrainingResult second = Train(observer, ("steps", "1"), ("average-decay", "0.5"), ("learning-rate", "0"), ("weight-decay", "0"), ("initial-checkpoint", first.Checkpoint));

        Dictionary<string, float[]> before = TrainingFixture.Tensors(first.Checkpoint), after = TrainingFixture.Tensors(second.Checkpoint);
        Assert.Equal(1, second.Steps);
        Assert.Contains(observer.Notes, n => n.StartsWith("Begins with the weights of", StringComparison.Ordinal));
        Assert.DoesNotContain(observer.Notes, n => n.StartsWith("warning", StringComparison.Ordinal));
        Assert.All(after.Where(t => t.Key.EndsWith("weights", StringComparison.Ordinal)), t => Assert.Equal(before[t.Key + ".average"], t.Value));
        Assert.NotEqual(before["conv1/conv.weights.momentum"], after["conv1/conv.weights.momentum"]);
    }

    [Fact]
    public void InitialCheckpoint_MadeForSomethingElse_IsSaid()
    {
        using var observer = new RecordingObserver();
        TrainingResult first = Train(observer, ("steps", "1"), ("eval-every", "0"), ("pixel-mean", "120"), ("unpadded-pools", "true"));

        Train(observer, ("steps", "1"), ("eval-every", "0"), ("initial-checkpoint", first.Checkpoint));

        string[] warnings = [.. observer.Notes.Where(n => n.StartsWith("warning", StringComparison.Ordinal))];
        Assert.Equal(2, warnings.Length);
        Assert.Contains("images with a pixel-mean of 120, this run has 128. Set pixel-mean to what it was.", warnings[0], StringComparison.Ordinal);
        Assert.Contains("2 layers are others than in this run's, the first 'inception_3c/pool'", warnings[1], StringComparison.Ordinal);
    }

    [Fact]
    public void InitialCheckpoint_OfOtherClasses_NeedsResetClassifier()
    {
        using var observer = new RecordingObserver();
        TrainingResult first = Train(observer, ("steps", "2"), ("eval-every", "0"));
        string data = fixture.NewFolder();
        SampleGenerator.Write(data, new SampleOptions { Classes = 5, TrainPerClass = 2, ValidationPerClass = 1, ImageSize = 16 }, TestContext.Current.CancellationToken);
        (string, string)[] settings = [("data", data), ("steps", "1"), ("eval-every", "0"), ("learning-rate", "0"), ("weight-decay", "0"), ("initial-checkpoint", first.Checkpoint)];

        UserErrorException error = Assert.Throws<UserErrorException>(() => Train(observer, settings));
        Assert.Contains("tells 3 classes apart, the data set has 5. Set reset-classifier", error.Message, StringComparison.Ordinal);

        TrainingResult second = Train(observer, [.. settings, ("reset-classifier", "true")]);
        Dictionary<string, float[]> before = TrainingFixture.Tensors(first.Checkpoint), after = TrainingFixture.Tensors(second.Checkpoint);
        Assert.Equal(before["inception_5b/1x1/conv.weights"], after["inception_5b/1x1/conv.weights"]);
        Assert.Equal(before["fc.weights"].Length / 3 * 5, after["fc.weights"].Length);
    }

    [Fact]
    public void InitialCheckpoint_Misused_IsRefused()
    {
        using var observer = new RecordingObserver();
        TrainingResult first = Train(observer, ("steps", "1"), ("eval-every", "0"));

        Assert.Contains("reset-classifier needs initial-checkpoint",
            Assert.Throws<UserErrorException>(() => Train(observer, ("steps", "1"), ("reset-classifier", "true"))).Message, StringComparison.Ordinal);
        Assert.Contains("has its weights already",
            Assert.Throws<UserErrorException>(() => TrainingFixture.Run(new TrainingRequest { Resume = first.RunDirectory, Flags = [("initial-checkpoint", first.Checkpoint)] }, observer)).Message,
            StringComparison.Ordinal);
        Assert.Contains("does not exist",
            Assert.Throws<UserErrorException>(() => Train(observer, ("steps", "1"), ("initial-checkpoint", fixture.NewFolder()))).Message, StringComparison.Ordinal);
    }

    private TrainingResult Train(RecordingObserver observer, params (string, string)[] settings) =>
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(fixture.NewFolder(), settings) }, observer);

    /// <summary>The lines of metrics.jsonl and summary.csv without times, speeds and memory.</summary>
    private static string[] Comparable(string run) =>
    [
        .. File.ReadLines(Path.Combine(run, "metrics.jsonl")).Where(line => !OncePerProcess().IsMatch(line)).Select(line => Measured().Replace(line, "")),
        .. File.ReadLines(Path.Combine(run, "summary.csv")).Select(line => string.Join(',', line.Split(',')[..7])),
    ];

    [GeneratedRegex("\"type\":\"(start|end)\"")]
    private static partial Regex OncePerProcess();

    [GeneratedRegex("\"(images_per_second|data_wait_share|peak_memory_mb|seconds|time)\":(\"[^\"]*\"|[^,}\"]+),?")]
    private static partial Regex Measured();
}
