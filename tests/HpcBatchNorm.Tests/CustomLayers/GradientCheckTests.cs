using HpcBatchNorm.Layers;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification;
using OwnLayer;

namespace HpcBatchNorm.Tests.CustomLayers;

/// <summary>The check for layers of one's own: passes what is right, and finds each planted fault by name.</summary>
public class GradientCheckTests
{
    private static readonly Shape Small = new(3, 4, 2, 3);

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void RightLayers_Pass(ulong seed)
    {
        foreach ((CustomLayer layer, Shape[] inputs) in new (CustomLayer, Shape[])[]
        {
            (new FaultyNorm(), [Small]), (new FaultyNorm(), [new Shape(8, 3, 1, 1)]), (new SwitchableNorm(), [Small]), (new SwitchableNorm(), [new Shape(2, 5, 4, 4)]),
            (new GatedSum(), [Small, Small]), (new LeakyRelu(), [new Shape(2, 8, 5, 5)]),
        })
        {
            GradientCheckResult result = GradientCheck.Run(layer, inputs, seed);
            Assert.True(result.Passed, result.Describe());
            Assert.True(result.Worst!.Worst.Bound < 0.02, result.Describe());
        }
    }

    [Theory]
    [InlineData(Fault.WrongSign, "diffSrc")]
    [InlineData(Fault.MissingScale, "diffSrc")]
    [InlineData(Fault.MissingFactor, "diffSrc")]
    [InlineData(Fault.NoMeanTerm, "diffSrc")]
    [InlineData(Fault.NoVarianceTerm, "diffSrc")]
    [InlineData(Fault.LastImageOnly, "diffSrc")]
    public void WrongGradient_IsFound(Fault fault, string role)
    {
        GradientCheckResult result = GradientCheck.Run(new FaultyNorm(fault), [Small]);
        Assert.False(result.Passed, result.Describe());
        Assert.Empty(result.Problems);
        TensorResult failed = result.Gradients.First(g => g.Failed > 0);
        Assert.Equal(role, failed.Role);
        Assert.Equal("with batch statistics", failed.Operation);
        Assert.Contains($"\n  {role} with batch statistics: {failed.Failed} of ", result.Describe(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(Fault.MissingParameterGradient, "Backward: 4 of 4 elements of gradient of 'scale' are not set.")]
    [InlineData(Fault.UnsetDiffSrc, "Backward: 24 of 72 elements of diffSrc are not set.")]
    [InlineData(Fault.AddedParameterGradient, "Backward: gradient of 'scale' depends on what was in memory before the call")]
    [InlineData(Fault.AddedDiffSrc, "Backward: diffSrc depends on what was in memory before the call")]
    [InlineData(Fault.UnsetDst, "Forward in training: 1 of 72 elements of dst are not set.")]
    [InlineData(Fault.UnsetSaved, "Forward in training: 1 of 4 elements of the saved tensor 'deviation' are not set.")]
    [InlineData(Fault.StateInField, "Forward in training: a second call with the same inputs gives other values in dst")]
    [InlineData(Fault.Random, "Forward in training: a second call with the same inputs gives other values in dst")]
    [InlineData(Fault.SavedInField, "changes when Forward was called for other inputs in between")]
    [InlineData(Fault.BatchStatisticsAtInference, "the output of an image changes with the other images of its batch")]
    [InlineData(Fault.Throws, "It threw DivideByZeroException: on purpose")]
    [InlineData(Fault.ThrowsInBackward, "It threw DivideByZeroException: on purpose")]
    [InlineData(Fault.UpdateAtInference, "the running statistic 'running_mean' is kept as it is here")]
    [InlineData(Fault.UnknownName, "the layer declares no learned parameter 'gain'; it declares 'scale'")]
    [InlineData(Fault.NotFinite, "Forward in training: 72 of 72 elements of dst are not finite.")]
    public void BrokenRule_IsNamed(Fault fault, string problem)
    {
        GradientCheckResult result = GradientCheck.Run(new FaultyNorm(fault), [Small]);
        Assert.False(result.Passed);
        Assert.Contains(result.Problems, p => p.Contains(problem, StringComparison.Ordinal));
        Assert.Contains(problem, result.Describe(), StringComparison.Ordinal);
    }

    [Fact]
    public void GradientThroughRunningStatistics_IsFoundThereOnly()
    {
        GradientCheckResult result = GradientCheck.Run(new FaultyNorm(Fault.FlowThroughRunning), [Small]);
        Assert.False(result.Passed);
        Assert.All(result.Gradients.Where(g => g.Failed > 0), g => Assert.Equal("with running statistics", g.Operation));
    }

    [Fact]
    public void Kinks_AreLeftOutAndCounted()
    {
        // Steps everywhere: no derivative settles.
        GradientCheckResult result = GradientCheck.Run(new LeakyRelu(Quantum: 0.01f), [Small]);
        Assert.Contains(result.Problems, p => p.Contains("finite differences do not settle", StringComparison.Ordinal));
    }

    [Fact]
    public void LargeShapes_AreRefused()
    {
        ArgumentException error = Assert.Throws<ArgumentException>(() => GradientCheck.Run(new LeakyRelu(), [new Shape(32, 64, 56, 56)]));
        Assert.Contains("use shapes of some hundred elements", error.Message, StringComparison.Ordinal);
    }
}
