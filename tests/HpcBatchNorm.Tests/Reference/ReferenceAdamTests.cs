using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using static HpcBatchNorm.Tests.Reference.ReferenceRun;

namespace HpcBatchNorm.Tests.Reference;

/// <summary>AdamW and LAMB, by hand.</summary>
public sealed class ReferenceAdamTests
{
    // beta1 = 1/2, beta2 = 3/4, e = 1/4, epsilon = 1/2, decay 1/2, gradient 2 twice.
    // 1: m = 1, v = 1; m/(1-1/2) = 2, v/(1-3/4) = 4; u = 2/(2+1/2) + 1/2 = 1.3; w = 1 - 1.3/4 = 0.675.
    // 2: m = 3/2, v = 7/4; m/(3/4) = 2, v/(7/16) = 4; u = 0.8 + 0.3375 = 1.1375; w = 0.675 - 0.284375 = 0.390625.
    [Fact]
    public void AdamW_TwoSteps_MatchHandComputation()
    {
        Update c = new(o => o with { WeightDecay = 0.5f });
        using ReferenceRun run = c.Run([1], [2]);
        run.Execute(step: 0, learningRate: 0.25f);
        AssertEqual([1], run[c.First]);
        AssertEqual([1], run[c.Second]);
        AssertEqual([0.675], run[c.Parameter]);
        run.Execute(step: 1, learningRate: 0.25f);
        AssertEqual([1.5], run[c.First]);
        AssertEqual([1.75], run[c.Second]);
        AssertEqual([0.390625], run[c.Parameter]);
    }

    /// <summary>Scale 1/2 makes the gradient 1 (m = 1/2, v = 1/4; u = 1/(1+1/2) = 2/3), a factor of 3/4 the rate 3/16: w = 1 - 1/8.</summary>
    [Fact]
    public void AdamW_GradientScaleAndRateFactor_MatchHandComputation()
    {
        Update c = new(o => o with { RateFactor = 0.75f }, scaled: true);
        using ReferenceRun run = c.Run([1], [2]);
        run[c.Scale!] = [0.5];
        run.Execute(learningRate: 0.25f);
        AssertEqual([0.5], run[c.First]);
        AssertEqual([0.25], run[c.Second]);
        AssertEqual([0.875], run[c.Parameter]);
    }

    // w = (3, 4), norm 5; gradient (2, 0): u = (2/(2+1/2), 0), norm 0.8; ratio 6.25; w = 3 - 6.25 * 0.8 / 4. The first is of length rate * norm(w) then.
    // w = 0: ratio 1, u = 0.8. Gradient and moments 0: u = 0, ratio 1, nothing moves.
    [Theory]
    [InlineData(new[] { 3.0, 4.0 }, new[] { 2.0, 0.0 }, new[] { 1.75, 4.0 })]
    [InlineData(new[] { 0.0, 0.0 }, new[] { 2.0, 0.0 }, new[] { -0.2, 0.0 })]
    [InlineData(new[] { 3.0, 4.0 }, new[] { 0.0, 0.0 }, new[] { 3.0, 4.0 })]
    public void Lamb_OneStep_HasTheLengthOfTheTensor(double[] parameter, double[] gradient, double[] expected)
    {
        Update c = new(o => o with { TrustRatio = true }, elements: 2);
        using ReferenceRun run = c.Run(parameter, gradient);
        run.Execute(learningRate: 0.25f);
        AssertEqual(expected, run[c.Parameter]);
    }

    /// <summary>Decay is part of the step whose norm is taken: u = 0.8 + 1/2 * 2 = 1.8, ratio 2/1.8, so w = 2 - 2/4.</summary>
    [Fact]
    public void Lamb_WeightDecay_IsInTheStepsNorm()
    {
        Update c = new(o => o with { TrustRatio = true, WeightDecay = 0.5f });
        using ReferenceRun run = c.Run([2], [2]);
        run.Execute(learningRate: 0.25f);
        AssertEqual([1.5], run[c.Parameter]);
    }

    [Fact]
    public void AdamW_Overflow_ChangesNothingAndDoesNotCount()
    {
        Update c = new(o => o with { WeightDecay = 0.5f }, lossScaled: true);
        using ReferenceRun run = c.Run([1], [2]);
        run[c.LossScale!] = [1024, 0, 1, 1];
        run.Execute(step: 0, learningRate: 0.25f);
        Assert.Equal([1.0], run[c.Parameter]);
        Assert.Equal([0.0], run[c.First]);

        // The step after it is the first update: the numbers of the first step by hand.
        run[c.LossScale!] = [512, 1, 0, 1];
        run.Execute(step: 1, learningRate: 0.25f);
        AssertEqual([0.675], run[c.Parameter]);
    }

    [Theory]
    [InlineData(1.0, 0.9, 1e-8f)]
    [InlineData(0.9, -0.1, 1e-8f)]
    [InlineData(0.9, 0.9, 0f)]
    public void AdamW_NumbersThatCannotBe_AreRefused(double beta1, double beta2, float epsilon)
    {
        Update c = new(o => o with { Beta1 = beta1, Beta2 = beta2, Epsilon = epsilon });
        Assert.Contains("expected betas in [0, 1) and an epsilon above 0", Assert.Throws<ArgumentException>(() => c.Run([1], [1])).Message, StringComparison.Ordinal);
    }

    private sealed class Update
    {
        private readonly AdamUpdate _operation;

        public Update(Func<AdamUpdate, AdamUpdate> change, int elements = 1, bool scaled = false, bool lossScaled = false)
        {
            Shape shape = Shape.Vector(elements);
            (Parameter, Gradient) = (Float64("w", shape, TensorRole.Parameter), Float64("g", shape));
            (First, Second) = (Float64("m", shape, TensorRole.Momentum), Float64("v", shape, TensorRole.SecondMoment));
            Scale = scaled ? Float64("scale", Shape.Vector(1)) : null;
            LossScale = lossScaled ? Float64("lossScale", UpdateLossScale.State, TensorRole.LossScale) : null;
            _operation = change(new AdamUpdate("adam", [Parameter], [Gradient], [First], [Second], Scale) { Beta1 = 0.5, Beta2 = 0.75, Epsilon = 0.5f, LossScale = LossScale });
        }

        public Tensor Parameter { get; }

        public Tensor Gradient { get; }

        public Tensor First { get; }

        public Tensor Second { get; }

        public Tensor? Scale { get; }

        public Tensor? LossScale { get; }

        public ReferenceRun Run(double[] parameter, double[] gradient)
        {
            ReferenceRun run = new(_operation);
            run[Parameter] = parameter;
            run[Gradient] = gradient;
            run[First] = run[Second] = new double[parameter.Length];
            return run;
        }
    }
}
