using System.Text.Json;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Tests.Training;

public sealed class TrainerTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    [Fact]
    [Trait("Category", "Slow")]
    public void Resume_AfterAStopMidEpoch_GivesTheSameBitsAsNoStop()
    {
        string whole = fixture.NewFolder(), halves = fixture.NewFolder();
        (string, string)[] length = [("steps", "9"), ("average-decay", "0.5"), ("clip-norm", "5")];
        using var observer = new RecordingObserver();
        TrainingResult expected = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(whole, length) }, observer);
        using var first = new RecordingObserver { StopAfter = 4 };
        TrainingResult stopped = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(halves, length) }, first);
        using var second = new RecordingObserver();
        TrainingResult resumed = TrainingFixture.Run(new TrainingRequest { Resume = stopped.RunDirectory }, second);

        Assert.Equal(TrainingOutcome.Completed, expected.Outcome);
        Assert.Equal((TrainingOutcome.Interrupted, 4), (stopped.Outcome, stopped.Steps));
        Assert.Equal((TrainingOutcome.Completed, 9), (resumed.Outcome, resumed.Steps));
        Assert.Equal(observer.Losses, [.. first.Losses, .. second.Losses]);
        AssertSameTensors(expected.Checkpoint, resumed.Checkpoint);
        Assert.Equal(expected.Validation! with { Seconds = 0 }, resumed.Validation! with { Seconds = 0 });

        Assert.Equal(expected.Evaluations, resumed.Evaluations);
        Assert.Equal((9L, expected.Validation!.Top1), (resumed.Evaluations[^1].Step, resumed.Evaluations[^1].Top1));
        Assert.True(resumed.Evaluations.Count > 1);

        // The metrics of both halves are in one file, each step once.
        string[] steps = MetricSteps(halves, "train");
        Assert.Equal(steps.Distinct(), steps);
        Assert.Equal(MetricSteps(whole, "eval"), MetricSteps(halves, "eval"));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Resume_WithAccumulationAndFreezing_GivesTheSameBitsAsNoStop()
    {
        string whole = fixture.NewFolder(), halves = fixture.NewFolder();
        (string, string)[] settings =
            [("steps", "7"), ("batch-size", "2"), ("accumulate", "3"), ("freeze-bn-after", "0.5"), ("freeze-scale-and-shift", "true"), ("eval-every", "0")];
        using var observer = new RecordingObserver();
        TrainingResult expected = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(whole, settings) }, observer);
        using var first = new RecordingObserver { StopAfter = 4 };
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(halves, settings) }, first);
        using var second = new RecordingObserver();
        TrainingResult resumed = TrainingFixture.Run(new TrainingRequest { Resume = halves }, second);

        // 24 images make 4 steps of 3 x 2; half an epoch is over after step 2, before and not after the stop.
        Assert.Equal((7, 42), (expected.Steps, expected.Images));
        Assert.Contains(observer.Notes, n => n.Contains("frozen from step 2", StringComparison.Ordinal));
        Assert.DoesNotContain(second.Notes, n => n.Contains("frozen from step", StringComparison.Ordinal));
        Assert.Equal(observer.Losses, [.. first.Losses, .. second.Losses]);
        AssertSameTensors(expected.Checkpoint, resumed.Checkpoint);
    }

    [Fact]
    public void Run_NetworkForDigitsWithoutData_SaysWhatItNeeds()
    {
        using var observer = new RecordingObserver();
        var request = new TrainingRequest { Flags = [("model", "mnist-mlp"), ("output", fixture.NewFolder())] };

        string message = Assert.Throws<UserErrorException>(() => TrainingFixture.Run(request, observer)).Message;

        Assert.Contains("MNIST", message, StringComparison.Ordinal);
        Assert.Contains("Set data to", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Run_NetworkForDigitsOnColourPictures_Warns()
    {
        using var observer = new RecordingObserver();
        var request = new TrainingRequest { Recipe = "mnist", Flags = [("data", fixture.Data), ("backend", TrainingFixture.Backend), ("batch-size", "4"), ("steps", "1"), ("eval-every", "0"), ("output", fixture.NewFolder())] };

        TrainingFixture.Run(request, observer);

        Assert.Contains(observer.Notes, n => n.StartsWith("warning:", StringComparison.Ordinal) && n.Contains("MNIST", StringComparison.Ordinal));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Run_LeavesAFolderThatExplainsItself()
    {
        string output = fixture.NewFolder();
        using var observer = new RecordingObserver();
        TrainingResult result = TrainingFixture.Run(
            new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(output, ("epochs", "1.5"), ("eval-every", "0.5"), ("keep", "1")) }, observer);

        // 1.5 epochs of 6 steps, evaluated after steps 3, 6 and 9; the newest checkpoint and the best are kept.
        Assert.Equal(9, result.Steps);
        Assert.Equal(36, result.Images);
        Assert.Equal(["3", "6", "9"], MetricSteps(output, "eval"));
        Assert.Equal(["2", "4", "6", "8", "9"], MetricSteps(output, "train"));
        string[] summary = File.ReadAllLines(Path.Combine(output, "summary.csv"));
        Assert.Equal("epoch,step,train_loss,val_loss,val_top1,val_top5,learning_rate,images_per_second,data_wait_share,seconds", summary[0]);
        Assert.Equal(["0.5,3,", "1,6,", "1.5,9,"], summary.Skip(1).Select(l => l[..(l.IndexOf(',', l.IndexOf(',', StringComparison.Ordinal) + 1) + 1)]));
        Assert.InRange(Directory.GetFiles(Path.Combine(output, "checkpoints")).Length, 1, 2);
        Assert.True(File.Exists(result.Checkpoint));
        string report = File.ReadAllText(result.Report);
        Assert.Contains("<svg", report, StringComparison.Ordinal);
        Assert.DoesNotContain("http://", report.Replace("http://www.w3.org", "", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.All(observer.Evaluations, e => Assert.Equal(9, e.Images));

        // The written configuration makes the same run again.
        using var again = new RecordingObserver();
        TrainingFixture.Run(new TrainingRequest { ConfigFile = Path.Combine(output, "config.yaml"), Flags = [("output", fixture.NewFolder())] }, again);
        Assert.Equal(observer.Losses, again.Losses);

        // Evaluating the checkpoint gives what the run printed.
        EvaluationResult evaluated = new EvaluationRequest { Checkpoints = [result.Checkpoint] }.Run(_ => { }, stop: TestContext.Current.CancellationToken);
        Assert.Equal(result.Validation! with { Seconds = 0 }, evaluated with { Seconds = 0 });

        // An ensemble of a network with itself is that network.
        EvaluationResult ensemble = new EvaluationRequest { Checkpoints = [result.Checkpoint, result.Checkpoint] }.Run(_ => { }, stop: TestContext.Current.CancellationToken);
        Assert.Equal((evaluated.Top1, evaluated.Top5), (ensemble.Top1, ensemble.Top5));
        Assert.Equal(evaluated.Loss, ensemble.Loss, 1e-6);

        // A second run does not overwrite the first.
        UserErrorException error = Assert.Throws<UserErrorException>(() =>
            TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(output) }, again));
        Assert.Contains("already holds a run", error.Message, StringComparison.Ordinal);

        // Resuming a complete run does nothing and says so.
        Assert.Equal(TrainingOutcome.AlreadyComplete, TrainingFixture.Run(new TrainingRequest { Resume = output }, again).Outcome);
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void ResumeAuto_NewestCheckpointDamaged_UsesTheOneBeforeAndSaysSo()
    {
        string output = fixture.NewFolder();
        (string, string)[] flags = fixture.Flags(output, ("steps", "4"), ("checkpoint-every", "1"), ("eval-every", "0"));
        using var observer = new RecordingObserver();
        TrainingResult expected = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = flags, Resume = TrainingRequest.Auto }, observer);
        Assert.Contains(observer.Notes, n => n.Contains("starting from the beginning", StringComparison.Ordinal));
        Dictionary<string, float[]> tensors = TrainingFixture.Tensors(expected.Checkpoint);
        byte[] bytes = File.ReadAllBytes(expected.Checkpoint);
        bytes[^1000] ^= 0x10;
        File.WriteAllBytes(expected.Checkpoint, bytes);
        File.WriteAllText(Path.Combine(output, "checkpoints", "step-00000005.safetensors.partial"), "what a killed process left");

        using var second = new RecordingObserver();
        TrainingResult resumed = TrainingFixture.Run(new TrainingRequest { Flags = flags, Resume = TrainingRequest.Auto }, second);

        Assert.Contains(second.Notes, n => n.Contains("step-00000004", StringComparison.Ordinal) && n.Contains("damaged", StringComparison.Ordinal));
        Assert.Single(second.Losses);
        AssertSameTensors(tensors, TrainingFixture.Tensors(resumed.Checkpoint));
        Assert.Empty(Directory.GetFiles(Path.Combine(output, "checkpoints"), "*.partial"));
        Assert.Equal(["2", "4"], MetricSteps(output, "train"));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Run_LossNotFinite_StopsAndKeepsTheLastGoodCheckpoint()
    {
        string output = fixture.NewFolder();
        using var observer = new RecordingObserver();
        TrainingResult result = TrainingFixture.Run(
            new TrainingRequest
            {
                Recipe = "quick",
                Flags = fixture.Flags(output, ("steps", "30"), ("batch-norm", "false"), ("learning-rate", "1e15"), ("checkpoint-every", "1"), ("eval-every", "0")),
            },
            observer);

        Assert.Equal(TrainingOutcome.LossNotFinite, result.Outcome);
        Assert.True(result.Steps < 30);
        // The first step's loss is that of the initial weights: its update, of finite numbers still, was kept.
        Assert.EndsWith(FormattableString.Invariant($"step-{1:00000000}.safetensors"), result.Checkpoint, StringComparison.Ordinal);
        Assert.All(TrainingFixture.Tensors(result.Checkpoint), t => Assert.All(t.Value, v => Assert.True(float.IsFinite(v))));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Resume_WithAnotherNetwork_NamesTheDifference()
    {
        using var observer = new RecordingObserver();
        TrainingResult result = TrainingFixture.Run(
            new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(fixture.NewFolder(), ("steps", "1"), ("eval-every", "0")) }, observer);

        UserErrorException error = Assert.Throws<UserErrorException>(() => TrainingFixture.Run(
            new TrainingRequest { Resume = result.Checkpoint, Flags = [("batch-norm", "false"), ("steps", "2")] }, observer));

        Assert.Contains("another network", error.Message, StringComparison.Ordinal);
        Assert.Contains(observer.Notes, n => n.Contains("batch-norm was auto, is false", StringComparison.Ordinal));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Run_StepsBetweenLogLines_AllocateNothing()
    {
        Assert.SkipWhen(TrainingFixture.Backend == "reference", "only fast backends promise not to allocate");
        // The loader has time to be ahead: waiting for a batch registers a wait, which allocates.
        using var observer = new RecordingObserver { OnStep = _ => Thread.Sleep(20) };
        TrainingFixture.Run(
            new TrainingRequest
            {
                Recipe = "quick",
                Flags = [.. fixture.Flags(fixture.NewFolder(), ("steps", "60"), ("eval-every", "0")), ("log-every", "1000")],
            },
            observer);

        // The first steps compile, and on a machine with other work a batch may be late after all.
        long[] perStep = [.. observer.AllocatedBytes.Zip(observer.AllocatedBytes.Skip(1), (before, after) => after - before).Skip(20)];
        Assert.True(perStep.Count(bytes => bytes != 0) <= 4, string.Join(' ', perStep));
    }

    private static void AssertSameTensors(string expected, string actual) =>
        AssertSameTensors(TrainingFixture.Tensors(expected), TrainingFixture.Tensors(actual));

    private static void AssertSameTensors(Dictionary<string, float[]> expected, Dictionary<string, float[]> actual)
    {
        Assert.Equal(expected.Keys.Order(), actual.Keys.Order());
        foreach ((string name, float[] values) in expected)
        {
            Assert.True(values.AsSpan().SequenceEqual(actual[name]), $"'{name}' differs");
        }
    }

    private static string[] MetricSteps(string run, string type) =>
    [
        .. File.ReadLines(Path.Combine(run, "metrics.jsonl"))
            .Select(line => JsonDocument.Parse(line).RootElement)
            .Where(line => line.GetProperty("type").GetString() == type)
            .Select(line => line.GetProperty("step").GetRawText()),
    ];
}
