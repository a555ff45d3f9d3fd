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
    public void Resume_IsExact(string setting, string value)
    {
        (string, string)[] settings = [("steps", "8"), ("eval-every", "0"), ("average-decay", "0.5"), ("decay-scale-and-shift", "true"), (setting, value)];
        string whole = fixture.NewFolder(), parts = fixture.NewFolder();
        using RecordingObserver undisturbed = new(), first = new() { StopAfter = 3 }, second = new();
        TrainingResult expected = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(whole, settings) }, undisturbed);
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(parts, settings) }, first);
        TrainingResult resumed = TrainingFixture.Run(new TrainingRequest { Resume = parts }, second);

        Assert.Equal(undisturbed.Losses, [.. first.Losses, .. second.Losses]);
        Assert.Equal(File.ReadAllBytes(expected.Checkpoint), File.ReadAllBytes(resumed.Checkpoint));
        Assert.Contains($"\n{setting}: ", Checkpoint.Open(resumed.Checkpoint).Info.Config, StringComparison.Ordinal);
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
