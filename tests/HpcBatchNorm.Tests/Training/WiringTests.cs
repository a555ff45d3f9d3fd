using System.Globalization;
using System.Text.Json;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>
/// That a setting reaches what it is for, seen in what a run does: in its losses, its files and its evaluations, not in another object made by the same function.
/// </summary>
public sealed class WiringTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    /// <summary>Two epochs of six steps; without variation of images but what is asked for.</summary>
    private static readonly (string, string)[] Plain =
        [("steps", "12"), ("eval-every", "0"), ("dropout", "0"), ("min-area", "1"), ("mirror", "false"), ("photometric", "0"), ("shuffle", "none"), ("average-decay", "0"), ("log-every", "1")];

    [Theory]
    [InlineData("min-area", "0.3")]
    [InlineData("mirror", "true")]
    [InlineData("photometric", "1")]
    public void Augmentation_ReachesTheImagesThatAreTrainedOn(string name, string value)
    {
        List<float> plain = Run().Losses, changed = Run((name, value)).Losses;

        Assert.NotEqual(plain, changed);
        Assert.Equal(plain, Run().Losses);
    }

    /// <summary>In the second epoch the same images meet, in the order they have or in a random one, or others do.</summary>
    [Fact]
    public void Shuffle_DecidesWhichImagesMeet()
    {
        // With a learning rate of nearly nothing a batch's loss is a name for its images.
        static string[] Names(IEnumerable<float> losses) => [.. losses.Select(l => l.ToString("0.0000", CultureInfo.InvariantCulture))];
        Dictionary<string, string[]> seen = new[] { "none", "fixed", "global", "shard" }.ToDictionary(s => s, s => Names(Run(("shuffle", s), ("learning-rate", "1e-12"), ("momentum", "0"), ("weight-decay", "0")).Losses));

        Assert.Equal(seen["none"][..6], seen["none"][6..]);
        Assert.Equal(seen["fixed"][..6], seen["fixed"][6..]);
        Assert.NotEqual(seen["global"][..6].Order(), seen["global"][6..].Order());
        Assert.NotEqual(seen["shard"][..6].Order(), seen["shard"][6..].Order());
        Assert.Equal(4, seen.Values.Select(v => string.Join(' ', v)).Distinct().Count());
    }

    /// <summary>Averages are what evaluations see: training is the same without them, evaluations are not.</summary>
    [Fact]
    public void AverageDecay_ChangesEvaluationsAlone()
    {
        (List<float> losses, RecordingObserver plain) = Run(("eval-every", "1"), ("learning-rate", "0.1"));
        (List<float> averagedLosses, RecordingObserver averaged) = Run(("eval-every", "1"), ("learning-rate", "0.1"), ("average-decay", "0.9"));

        Assert.Equal(losses, averagedLosses);
        Assert.NotEmpty(plain.Evaluations);
        Assert.All(plain.Evaluations.Zip(averaged.Evaluations), pair => Assert.NotEqual(pair.First.Loss, pair.Second.Loss));
    }

    /// <summary>A rate of step n is used in step n, and written beside it: 0.4, 0.3, 0.2, 0.1.</summary>
    [Fact]
    public void LearningRate_IsLoggedForTheStepItWasUsedIn()
    {
        string output = fixture.NewFolder();
        Run(output, ("steps", "4"), ("schedule", "linear"), ("learning-rate", "0.4"), ("log-every", "1"));

        (long Step, double Rate)[] logged = [.. Lines(output, "train").Select(l => (l.GetProperty("step").GetInt64(), Math.Round(l.GetProperty("learning_rate").GetDouble(), 6)))];

        Assert.Equal([(1, 0.4), (2, 0.3), (3, 0.2), (4, 0.1)], logged);
    }

    /// <summary>The rate falls after epoch 1, six steps: the state after six steps is that of a constant rate, the state after seven is not.</summary>
    [Fact]
    public void LearningRate_IsUsedInItsStep()
    {
        string constant = fixture.NewFolder(), falling = fixture.NewFolder();
        (string, string)[] common = [("steps", "7"), ("checkpoint-every", "1"), ("keep", "9"), ("learning-rate", "0.1")];
        Run(constant, [.. common]);
        Run(falling, [.. common, ("schedule", "step"), ("milestones", "1"), ("gamma", "0.5")]);

        foreach ((long step, bool same) in new[] { (5L, true), (6, true), (7, false) })
        {
            string Weights(string run) => string.Join(' ', TrainingFixture.Tensors(new CheckpointStore(Path.Combine(run, "checkpoints"), 9).PathOf(step))["conv1/conv.weights"].Take(20));
            Assert.Equal(same, Weights(constant) == Weights(falling));
        }
    }

    [Fact]
    public void StepWindow_RatesAreImagesAndWaitOverItsSeconds()
    {
        var window = new StepWindow();
        window.Add(2, seconds: 0.5, waited: 0.1);
        window.Add(4, seconds: 1.5, waited: 0.3);

        Assert.Equal(32, window.ImagesPerSecond(32));
        Assert.Equal(0.2, window.WaitShare, 1e-12);
        Assert.Equal(3, window.MeanLoss);
        Assert.Equal(0, new StepWindow().ImagesPerSecond(32));
    }

    /// <summary>Of a run with accumulation too: images per second times seconds are the images of its steps, by the clock of the lines.</summary>
    [Fact]
    public void ImagesPerSecond_CountsEveryImageOfAStep()
    {
        string one = fixture.NewFolder();
        Run(one, ("steps", "4"), ("log-every", "4"), ("accumulate", "3"));
        JsonElement line = Assert.Single(Lines(one, "train")), start = Lines(one, "start")[0];

        // 4 steps of 3 batches of 4 images, between the start and this line. The rest of that time is not steps.
        double elapsed = line.GetProperty("seconds").GetDouble() - start.GetProperty("seconds").GetDouble();
        Assert.InRange(line.GetProperty("images_per_second").GetDouble(), 48 / (elapsed + 0.01), double.MaxValue);
    }

    /// <summary>torch.optim.SGD's form by name: after one step its momentum is the gradient, ours the gradient times minus the rate, and the weights are the same.</summary>
    [Fact]
    public void MomentumForm_ReachesTheOptimizer()
    {
        Dictionary<string, float[]> State(string form)
        {
            string output = fixture.NewFolder();
            Run(output, ("steps", "1"), ("momentum-form", form), ("learning-rate", "0.25"), ("weight-decay", "0"));
            return TrainingFixture.Tensors(new CheckpointStore(Path.Combine(output, "checkpoints"), 9).PathOf(1));
        }

        Dictionary<string, float[]> ours = State("sutskever"), theirs = State("pytorch");

        Assert.Contains(theirs["conv1/conv.weights.momentum"], v => v != 0);
        Assert.Equal(theirs["conv1/conv.weights.momentum"].Select(g => -0.25f * g), ours["conv1/conv.weights.momentum"]);
        Assert.All(ours["conv1/conv.weights"].Zip(theirs["conv1/conv.weights"]), w => Assert.Equal(w.First, w.Second, 1e-6f));
    }

    /// <summary>Two configurations that differ in what was added lately have different hashes; those that do not set it keep theirs.</summary>
    [Theory]
    [InlineData("momentum-form", "pytorch", "sutskever")]
    [InlineData("warmup-form", "pytorch", "reached")]
    public void NewSettings_AreHashedWhereChanged(string name, string other, string usual)
    {
        string plain = TrainingSettings.Hash(new RunConfig());

        Assert.Equal(plain, TrainingSettings.Hash(new TrainingConfigBuilder().Set(name, usual).Config));
        Assert.NotEqual(plain, TrainingSettings.Hash(new TrainingConfigBuilder().Set(name, other).Config));
    }

    private (List<float> Losses, RecordingObserver Observer) Run(params (string Name, string Value)[] settings) => Run(fixture.NewFolder(), settings);

    private (List<float> Losses, RecordingObserver Observer) Run(string output, params (string Name, string Value)[] settings)
    {
        using var observer = new RecordingObserver();
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = [.. fixture.Flags(output), .. Plain, .. settings] }, observer);
        return (observer.Losses, observer);
    }

    private static JsonElement[] Lines(string run, string type) =>
        [.. File.ReadLines(Path.Combine(run, "metrics.jsonl")).Select(l => JsonDocument.Parse(l).RootElement).Where(l => l.GetProperty("type").GetString() == type)];
}
