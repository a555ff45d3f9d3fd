using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using static HpcBatchNorm.Tests.Reference.ReferenceRun;

namespace HpcBatchNorm.Tests.Reference;

/// <summary>Local response normalization, fully connected layers and nonlinearities.</summary>
public sealed class ReferenceLayerTests
{
    [Fact]
    public void Lrn_ThreeChannels_MatchesHandComputation()
    {
        // Size 3, alpha 3, beta 1, K 1: s = 1 + sum of squares around: 1+1+4 = 6, 1+1+4+9 = 15, 1+4+9 = 14; dst = src/s.
        LrnCase c = new(new LrnSpec(new Shape(1, 3, 1, 1), Size: 3, Alpha: 3, Beta: 1));
        using ReferenceRun run = new(c.Forward);
        run[c.Src] = [1, 2, 3];
        run.Execute();
        AssertEqual([1.0 / 6, 2.0 / 15, 3.0 / 14], run[c.Dst]);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(5)]
    [InlineData(9)]
    public void LrnBackward_AnyWindow_MatchesFiniteDifferences(int size)
    {
        LrnCase c = new(new LrnSpec(new Shape(2, 6, 2, 2), size, Alpha: 0.7f, Beta: 0.75f, K: 1.5f));
        Dictionary<Tensor, double[]> inputs = new() { [c.Src] = Random(c.Src, 1, -2, 2) };
        GradientCheck.Verify([c.Forward], [c.Backward], inputs, c.Dst, c.DiffDst, (c.Src, c.DiffSrc));
    }

    [Fact]
    public void InnerProduct_TwoImages_MatchesHandComputation()
    {
        // weights 1 2 / 3 4, bias 10 20; src 1 1 | 2 -1: dst 13 27 | 10 22.
        InnerProductCase c = new(new InnerProductSpec(new Shape(2, 2, 1, 1), 2));
        using ReferenceRun run = new(c.Forward, c.BackwardData, c.BackwardWeights);
        run[c.Src] = [1, 1, 2, -1];
        run[c.Weights] = [1, 2, 3, 4];
        run[c.Bias!] = [10, 20];
        run[c.DiffDst] = [1, 0, 0, 1];
        run.Execute();
        Assert.Equal([13, 27, 10, 22], run[c.Dst]);
        Assert.Equal([1, 2, 3, 4], run[c.DiffSrc]);
        Assert.Equal([1, 1, 2, -1], run[c.DiffWeights]);
        Assert.Equal([1, 1], run[c.DiffBias!]);
    }

    [Theory]
    [InlineData(1, 1, 1, true)]
    [InlineData(5, 1, 1, false)]
    [InlineData(3, 3, 2, true)]
    public void InnerProductBackward_AnyShape_MatchesFiniteDifferences(int channels, int height, int width, bool bias)
    {
        InnerProductCase c = new(new InnerProductSpec(new Shape(3, channels, height, width), 4, bias));
        Dictionary<Tensor, double[]> inputs = new() { [c.Src] = Random(c.Src, 1), [c.Weights] = Random(c.Weights, 2) };
        List<(Tensor, Tensor)> gradients = [(c.Src, c.DiffSrc), (c.Weights, c.DiffWeights)];
        if (bias)
        {
            inputs[c.Bias!] = Random(c.Bias!, 3);
            gradients.Add((c.Bias!, c.DiffBias!));
        }

        GradientCheck.Verify([c.Forward], [c.BackwardData, c.BackwardWeights], inputs, c.Dst, c.DiffDst, [.. gradients]);
    }

    [Fact]
    public void InnerProduct_EqualsConvolutionOverTheWholeImage()
    {
        InnerProductCase c = new(new InnerProductSpec(new Shape(3, 5, 4, 7), 6));
        ConvolutionForward whole = new("conv", new ConvolutionSpec(c.Src.Shape, 6, 4, 7, Bias: true), c.Src, c.Weights, c.Bias, Float64("conv.dst", c.Dst.Shape));
        using ReferenceRun run = new(c.Forward, whole);
        run[c.Src] = Random(c.Src, 1);
        run[c.Weights] = Random(c.Weights, 2);
        run[c.Bias!] = Random(c.Bias!, 3);
        run.Execute();
        AssertEqual(run[whole.Dst], run[c.Dst], 1e-14);
    }

    public static TheoryData<ActivationKind> Functions() => [.. Enum.GetValues<ActivationKind>()];

    [Theory]
    [InlineData(ActivationKind.Relu, new double[] { 0, 0, 2 })]
    [InlineData(ActivationKind.Sigmoid, new double[] { 0.2689414213699951, 0.5, 0.8807970779778823 })]
    [InlineData(ActivationKind.Tanh, new double[] { -0.7615941559557649, 0, 0.9640275800758169 })]
    [InlineData(ActivationKind.Gelu, new double[] { -0.15865525393145705, 0, 1.9544997361036416 })]
    [InlineData(ActivationKind.Silu, new double[] { -0.2689414213699951, 0, 1.7615941559557649 })]
    [InlineData(ActivationKind.HardSwish, new double[] { -1.0 / 3, 0, 5.0 / 3 })]
    public void Activation_KnownPoints_MatchPublishedValues(ActivationKind function, double[] expected)
    {
        ActivationCase c = new(function, new Shape(1, 3, 1, 1));
        using ReferenceRun run = new(c.Forward);
        run[c.Src] = [-1, 0, 2];
        run.Execute();
        AssertEqual(expected, run[c.Dst], 1e-15);
    }

    [Fact]
    public void Relu_AtZero_HasDerivativeZero()
    {
        ActivationCase c = new(ActivationKind.Relu, new Shape(1, 3, 1, 1));
        using ReferenceRun run = new(c.Forward, c.Backward);
        run[c.Src] = [-1, 0, 2];
        run[c.DiffDst] = [5, 6, 7];
        run.Execute();
        Assert.Equal([0, 0, 7], run[c.DiffSrc]);
    }

    /// <summary>P(X &lt;= -x) of the standard normal distribution at 1, 3, 5 and 10 deviations, from tables; the reference changes its way of computing at 3.</summary>
    [Fact]
    public void Gelu_LowerTail_IsThatOfTheNormalDistribution()
    {
        double[] x = [-1, -3, -5, -10], tail = [0.158655253931457, 1.3498980316300945e-3, 2.866515718791939e-7, 7.619853024160526e-24];
        ActivationCase c = new(ActivationKind.Gelu, new Shape(1, 4, 1, 1));
        using ReferenceRun run = new(c.Forward);
        run[c.Src] = x;
        run.Execute();
        Assert.All(run[c.Dst], (y, i) => Assert.InRange(y / (x[i] * tail[i]), 1 - 1e-12, 1 + 1e-12));
    }

    [Fact]
    public void HardSwish_AtItsCorners_HasTheOuterDerivative()
    {
        ActivationCase c = new(ActivationKind.HardSwish, new Shape(1, 5, 1, 1));
        using ReferenceRun run = new(c.Forward, c.Backward);
        run[c.Src] = [-4, -3, 0, 3, 4];
        run[c.DiffDst] = [2, 2, 2, 2, 2];
        run.Execute();
        Assert.Equal([0, 0, 0, 3, 4], run[c.Dst]);
        Assert.Equal([0, 0, 1, 2, 2], run[c.DiffSrc]);
    }

    [Theory]
    [InlineData(ActivationKind.Gelu)]
    [InlineData(ActivationKind.Tanh)]
    public void ActivationBackward_TheOtherTensor_IsRefused(ActivationKind function)
    {
        ActivationBackward right = new ActivationCase(function, new Shape(1, 3, 1, 1)).Backward;
        foreach (ActivationBackward wrong in new[] { right with { Src = right.Dst, Dst = right.Src }, right with { Src = right.Kept, Dst = right.Kept }, right with { Src = null, Dst = null } })
        {
            Assert.Contains($"reads {(function == ActivationKind.Gelu ? "src" : "dst")}", Assert.Throws<ArgumentException>(wrong.Validate).Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [MemberData(nameof(Functions))]
    public void ActivationBackward_AnyFunction_MatchesFiniteDifferences(ActivationKind function)
    {
        ActivationCase c = new(function, new Shape(2, 3, 2, 3));
        Dictionary<Tensor, double[]> inputs = new() { [c.Src] = GradientCheck.AwayFromKinks(c.Src, 1) };
        GradientCheck.Verify([c.Forward], [c.Backward], inputs, c.Dst, c.DiffDst, (c.Src, c.DiffSrc));
    }

    [Theory]
    [MemberData(nameof(Functions))]
    public void Activation_InPlace_EqualsSeparate(ActivationKind function)
    {
        Shape shape = new(2, 3, 2, 3);
        ActivationCase separate = new(function, shape), inPlace = new(function, shape, inPlace: true);
        Assert.NotEqual(function.GradientReadsSrc(), inPlace.Dst.Root == inPlace.Src);
        using ReferenceRun expected = new(separate.Forward, separate.Backward), actual = new(inPlace.Forward, inPlace.Backward);
        foreach ((ReferenceRun run, ActivationCase c) in new[] { (expected, separate), (actual, inPlace) })
        {
            run[c.Src] = Random(c.Src, 1);
            run[c.DiffDst] = Random(c.DiffDst, 2);
            run.Execute();
        }

        Assert.Equal(expected[separate.Dst], actual[inPlace.Dst]);
        Assert.Equal(expected[separate.DiffSrc], actual[inPlace.DiffSrc]);
    }

    private sealed class LrnCase
    {
        public LrnCase(LrnSpec spec)
        {
            Src = Float64("src", spec.Src);
            Dst = Float64("dst", spec.Src);
            DiffDst = Float64("diffDst", spec.Src);
            DiffSrc = Float64("diffSrc", spec.Src);
            Tensor workspace = new("workspace", spec.Src, TensorRole.Workspace, TensorLayout.Opaque, DataType.UInt8);
            Forward = new LrnForward("lrn", spec, Src, Dst, workspace);
            Backward = new LrnBackward("lrn", spec, Src, DiffDst, workspace, DiffSrc);
        }

        public Tensor Src { get; }

        public Tensor Dst { get; }

        public Tensor DiffDst { get; }

        public Tensor DiffSrc { get; }

        public LrnForward Forward { get; }

        public LrnBackward Backward { get; }
    }

    private sealed class InnerProductCase
    {
        public InnerProductCase(InnerProductSpec spec)
        {
            Src = Float64("src", spec.Src);
            Weights = Float64("weights", spec.Weights, TensorRole.Parameter);
            Bias = spec.Bias ? Float64("bias", spec.BiasShape, TensorRole.Parameter) : null;
            Dst = Float64("dst", spec.Dst);
            DiffDst = Float64("diffDst", spec.Dst);
            DiffSrc = Float64("diffSrc", spec.Src);
            DiffWeights = Float64("diffWeights", spec.Weights, TensorRole.ParameterGradient);
            DiffBias = spec.Bias ? Float64("diffBias", spec.BiasShape, TensorRole.ParameterGradient) : null;
            Forward = new InnerProductForward("fc", spec, Src, Weights, Bias, Dst);
            BackwardData = new InnerProductBackwardData("fc", spec, DiffDst, Weights, DiffSrc);
            BackwardWeights = new InnerProductBackwardWeights("fc", spec, Src, DiffDst, DiffWeights, DiffBias);
        }

        public Tensor Src { get; }

        public Tensor Weights { get; }

        public Tensor? Bias { get; }

        public Tensor Dst { get; }

        public Tensor DiffDst { get; }

        public Tensor DiffSrc { get; }

        public Tensor DiffWeights { get; }

        public Tensor? DiffBias { get; }

        public InnerProductForward Forward { get; }

        public InnerProductBackwardData BackwardData { get; }

        public InnerProductBackwardWeights BackwardWeights { get; }
    }

    private sealed class ActivationCase
    {
        public ActivationCase(ActivationKind function, Shape shape, bool inPlace = false)
        {
            Src = Float64("src", shape);
            Dst = inPlace && !function.GradientReadsSrc() ? Src.Alias("dst", TensorRole.Activation) : Float64("dst", shape);
            DiffDst = Float64("diffDst", shape);
            DiffSrc = inPlace ? DiffDst.Alias("diffSrc", TensorRole.Gradient) : Float64("diffSrc", shape);
            Forward = new ActivationForward("act", function, Src, Dst);
            Backward = ActivationBackward.Of("act", function, Src, Dst, DiffDst, DiffSrc);
        }

        public Tensor Src { get; }

        public Tensor Dst { get; }

        public Tensor DiffDst { get; }

        public Tensor DiffSrc { get; }

        public ActivationForward Forward { get; }

        public ActivationBackward Backward { get; }
    }
}
