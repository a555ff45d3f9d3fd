using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>Runs with other optimizers and rules go on bit for bit, and what they are is in the checkpoint.</summary>
public sealed class OptimizerResumeTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    [Theory]
    [InlineData("optimizer", "adamw")]
    [InlineData("optimizer", "lamb")]
    [InlineData("freeze", "conv1/*,*.shift")]
    [InlineData("rate-factors", "*=0.25,fc=2")]
    [InlineData("no-decay", "conv*,fc")]
    [InlineData("mixup", "0.2")]
    [InlineData("cutmix", "1")]
    [InlineData("loss", "bce")]
    [InlineData("random-erasing", "0.5")]
    [InlineData("auto-augment", "rand")]
    [InlineData("interpolation", "bicubic")]
    [InlineData("cycle-epochs", "0.5", "schedule", "cosine")]
    public void Resume_IsExact(string setting, string value, string beside = "shuffle", string besideValue = "global")
    {
        (string, string)[] settings = [("steps", "8"), ("eval-every", "0"), ("average-decay", "0.5"), ("decay-scale-and-shift", "true"), (beside, besideValue), (setting, value)];
        string whole = fixture.NewFolder(), parts = fixture.NewFolder();
        using RecordingObserver undisturbed = new(), first = new() { StopAfter = 3 }, second = new();
        TrainingResult expected = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(whole, settings) }, undisturbed);
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(parts, settings) }, first);
        TrainingResult resumed = TrainingFixture.Run(new TrainingRequest { Resume = parts }, second);

        Assert.Equal(undisturbed.Losses, [.. first.Losses, .. second.Losses]);
        Assert.Equal(File.ReadAllBytes(expected.Checkpoint), File.ReadAllBytes(resumed.Checkpoint));
        Assert.Contains($"\n{setting}: ", Checkpoint.Open(resumed.Checkpoint).Info.Config, StringComparison.Ordinal);
    }

    /// <summary>Each of them changes what is trained on, or how: the losses are others from the first or second step on.</summary>
    [Theory]
    [InlineData("mixup", "0.4")]
    [InlineData("cutmix", "1")]
    [InlineData("loss", "bce")]
    [InlineData("random-erasing", "1")]
    [InlineData("auto-augment", "trivial")]
    [InlineData("auto-augment", "rand")]
    [InlineData("interpolation", "bicubic")]
    public void Setting_ReachesTheSteps(string setting, string value)
    {
        List<float> Losses(params (string, string)[] settings)
        {
            using var observer = new RecordingObserver();
            TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(fixture.NewFolder(), [("steps", "3"), ("eval-every", "0"), .. settings]) }, observer);
            return observer.Losses;
        }

        Assert.NotEqual(Losses(), Losses((setting, value)));
    }

    /// <summary>With a rate of 0 no evaluation is better than the first: two more and the run ends, as it does when it is stopped between them.</summary>
    [Fact]
    public void Patience_EndsTheRun_AndCountsOnAfterAStop()
    {
        (string, string)[] settings = [("steps", "60"), ("eval-every", "1"), ("learning-rate", "0"), ("weight-decay", "0"), ("averaging-factor", "0"), ("patience", "2")];
        using RecordingObserver whole = new(), first = new() { StopAfter = 14 }, second = new();
        TrainingResult expected = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(fixture.NewFolder(), settings) }, whole);
        string parts = fixture.NewFolder();
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(parts, settings) }, first);
        TrainingResult resumed = TrainingFixture.Run(new TrainingRequest { Resume = parts }, second);

        Assert.Equal((TrainingOutcome.StoppedEarly, 18), (expected.Outcome, expected.Steps)); // evaluations after 6, 12 and 18
        Assert.Equal((TrainingOutcome.StoppedEarly, 18), (resumed.Outcome, resumed.Steps));
        Assert.Contains("has not improved in 2 evaluations since step 6", expected.StopReason, StringComparison.Ordinal);
    }

    [Fact]
    public void Resume_WithAnotherOptimizer_IsRefused()
    {
        string output = fixture.NewFolder();
        using var observer = new RecordingObserver();
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(output, ("steps", "2"), ("eval-every", "0")) }, observer);

        UserErrorException error = Assert.Throws<UserErrorException>(() => TrainingFixture.Run(new TrainingRequest { Resume = output, Flags = [("optimizer", "adamw"), ("steps", "4")] }, observer));
        Assert.Contains("was trained with optimizer sgd, whose state adamw cannot go on from", error.Message, StringComparison.Ordinal);
    }

    /// <summary>The second moments of a step are those of its gradients alone: a run that begins with other weights begins without them.</summary>
    [Fact]
    public void Checkpoint_HoldsBothMoments()
    {
        using var observer = new RecordingObserver();
        TrainingResult result = TrainingFixture.Run(
            new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(fixture.NewFolder(), ("steps", "2"), ("eval-every", "0"), ("optimizer", "adamw")) }, observer);
        Dictionary<string, float[]> tensors = TrainingFixture.Tensors(result.Checkpoint);

        Assert.Contains("fc.weights.momentum", tensors.Keys);
        Assert.All(tensors["fc.weights.second_moment"], v => Assert.True(v >= 0));
        Assert.Contains(tensors["fc.weights.second_moment"], v => v > 0);
    }
}
