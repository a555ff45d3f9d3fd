using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using static HpcBatchNorm.Tests.Reference.ReferenceRun;

namespace HpcBatchNorm.Tests.Reference;

/// <summary>What follows from the paper's equations without any number worked out: sections 3 (Algorithm 1 and its gradients), 3.1, 3.2 and 3.3.</summary>
public sealed class BatchNormIdentityTests
{
    [Theory]
    [InlineData(1e-5f)]
    [InlineData(0.5f)]
    public void Normalized_HasMeanZeroAndExactSecondMoment(float epsilon)
    {
        // (1/m) sum xhat = 0 and (1/m) sum xhat^2 = s2/(s2 + epsilon), per channel.
        BatchNormCase c = new(new BatchNormSpec(new Shape(4, 3, 5, 2), epsilon));
        Array.Fill(c.Inputs[c.Scale], 1);
        Array.Fill(c.Inputs[c.Shift], 0);
        using ReferenceRun run = c.Run();
        double[][] normalized = ByChannel(run[c.Dst], c.Src.Shape);
        double[] variance = run[c.Variance];
        for (int k = 0; k < 3; k++)
        {
            Assert.Equal(0, normalized[k].Average(), 1e-14);
            Assert.Equal(variance[k] / (variance[k] + epsilon), normalized[k].Average(x => x * x), 1e-14);
        }
    }

    [Fact]
    public void DiffSrc_SumsToZeroAndIsOrthogonalToNormalized()
    {
        // sum dx = 0 always; sum dx * xhat = 0 when epsilon is 0: the gradient moves neither mean nor variance.
        BatchNormCase c = new(new BatchNormSpec(new Shape(4, 3, 5, 2), Epsilon: 0));
        Array.Fill(c.Inputs[c.Scale], 1);
        Array.Fill(c.Inputs[c.Shift], 0);
        using ReferenceRun run = c.Run();
        double[][] gradient = ByChannel(run[c.DiffSrc], c.Src.Shape), normalized = ByChannel(run[c.Dst], c.Src.Shape);
        for (int k = 0; k < 3; k++)
        {
            Assert.True(gradient[k].Max(Math.Abs) > 0.1);
            Assert.Equal(0, gradient[k].Sum(), 1e-12);
            Assert.Equal(0, Dot(gradient[k], normalized[k]), 1e-12);
        }
    }

    [Fact]
    public void DiffSrc_OfTwoValuesPerStatistic_Vanishes()
    {
        // The Jacobian has rank m - 2: with m = 2 the outputs are +-1 whatever the inputs.
        BatchNormCase c = new(new BatchNormSpec(new Shape(2, 6, 1, 1), Epsilon: 0));
        using ReferenceRun run = c.Run();
        Assert.All(run[c.DiffSrc], g => Assert.Equal(0, g, 1e-12));
        Assert.Contains(run[c.DiffScale], g => Math.Abs(g) > 0.1);
    }

    [Fact]
    public void ConvolutionalForm_EqualsPerActivationFormOnReshapedInput()
    {
        // Section 3.2: a feature map of m images of p x q is a mini-batch of m*p*q values.
        Shape image = new(3, 4, 2, 5);
        Shape matrix = Shape.Matrix(image.N * image.Area, image.C);
        BatchNormCase conv = new(new BatchNormSpec(image, Relu: true), averagingFactor: 0.25f);
        BatchNormCase flat = new(new BatchNormSpec(matrix, PerActivation: true), averagingFactor: 0.25f);
        BatchNormForward forward = flat.Forward with { Spec = flat.Forward.Spec with { Relu = true } };
        BatchNormBackward backward = flat.Backward with { Spec = forward.Spec };
        using ReferenceRun expected = conv.Run(), actual = new(forward, backward);
        actual[flat.Src] = Reshape(expected[conv.Src]);
        actual[flat.DiffDst] = Reshape(expected[conv.DiffDst]);
        actual[flat.Scale] = expected[conv.Scale];
        actual[flat.Shift] = expected[conv.Shift];
        actual[flat.RunningMean!] = conv.Inputs[conv.RunningMean!];
        actual[flat.RunningVariance!] = conv.Inputs[conv.RunningVariance!];
        actual.Execute();

        AssertEqual(Reshape(expected[conv.Dst]), actual[flat.Dst], 1e-13);
        AssertEqual(Reshape(expected[conv.DiffSrc]), actual[flat.DiffSrc], 1e-12);
        AssertEqual(expected[conv.DiffScale], actual[flat.DiffScale], 1e-12);
        AssertEqual(expected[conv.DiffShift], actual[flat.DiffShift], 1e-12);
        AssertEqual(expected[conv.RunningMean!], actual[flat.RunningMean!], 1e-13);
        AssertEqual(expected[conv.RunningVariance!], actual[flat.RunningVariance!], 1e-13);

        double[] Reshape(double[] nchw)
        {
            double[] rows = new double[nchw.Length];
            for (int i = 0; i < nchw.Length; i++)
            {
                int n = i / image.ImageCount, channel = i / image.Area % image.C, position = i % image.Area;
                rows[(n * image.Area + position) * image.C + channel] = nchw[i];
            }

            return rows;
        }
    }

    [Theory]
    [InlineData(1e-3)]
    [InlineData(0.1)]
    [InlineData(10)]
    [InlineData(1e3)]
    public void ScaledWeights_LeaveOutputAndInputGradientAlone(double a)
    {
        // Section 3.3: BN((aW)u) = BN(Wu), the same derivative by u, and 1/a of the derivative by the weights; exact for epsilon = 0.
        foreach (Layer layer in new[] { Layer.Convolution(epsilon: 0), Layer.InnerProduct(epsilon: 0) })
        {
            Layer.Result one = layer.Run(weightFactor: 1), scaled = layer.Run(weightFactor: a);
            AssertEqual(one.Dst, scaled.Dst, 1e-10);
            AssertEqual(one.DiffSrc, scaled.DiffSrc, 1e-10);
            AssertEqual(one.DiffWeights, [.. scaled.DiffWeights.Select(g => g * a)], 1e-10);
        }
    }

    [Theory]
    [InlineData(0.5)]
    [InlineData(10)]
    public void ScaledWeights_WithEpsilon_StayWithinItsShareOfTheVariance(double a)
    {
        foreach (Layer layer in new[] { Layer.Convolution(epsilon: 1e-5f), Layer.InnerProduct(epsilon: 1e-5f) })
        {
            Layer.Result one = layer.Run(weightFactor: 1), scaled = layer.Run(weightFactor: a);
            Assert.All(one.Variance, v => Assert.True(v >= 1, $"variance {v}: the bound is for variances of at least 1"));
            AssertEqual(one.Dst, scaled.Dst, 1e-4);
            AssertEqual(one.DiffSrc, scaled.DiffSrc, 1e-4);
        }
    }

    [Fact]
    public void WeightGradient_IsOrthogonalToEachFilter()
    {
        // d/da BN((aW)u) = 0, so the gradient has no component along the filter: plain SGD never shrinks its norm.
        foreach (Layer layer in new[] { Layer.Convolution(epsilon: 0), Layer.InnerProduct(epsilon: 0) })
        {
            Layer.Result result = layer.Run(weightFactor: 1);
            int filter = layer.Weights.Shape.ImageCount;
            for (int o = 0; o < layer.Weights.Shape.N; o++)
            {
                double[] w = result.Weights[(o * filter)..((o + 1) * filter)], g = result.DiffWeights[(o * filter)..((o + 1) * filter)];
                double norms = Math.Sqrt(Dot(w, w) * Dot(g, g));
                Assert.True(norms > 1e-3);
                Assert.True(Math.Abs(Dot(w, g)) <= 1e-10 * norms);
            }
        }
    }

    [Theory]
    [InlineData(BatchNormStatistics.Batch, true)]
    [InlineData(BatchNormStatistics.Running, false)]
    public void BiasBeforeNormalization_GetsNoGradientThroughBatchStatistics(BatchNormStatistics statistics, bool vanishes)
    {
        // Section 2: only a gradient that flows through the mean cancels the bias; with constant statistics it must not vanish.
        foreach (Layer layer in new[] { Layer.Convolution(1e-5f, statistics), Layer.InnerProduct(1e-5f, statistics) })
        {
            Layer.Result result = layer.Run(weightFactor: 1);
            double largest = result.DiffBias.Max(Math.Abs) / result.DiffWeights.Max(Math.Abs);
            Assert.Equal(vanishes, largest <= 1e-12);
            Assert.Equal(!vanishes, largest > 1e-3);
        }
    }

    [Fact]
    public void FoldedConvolution_EqualsConvolutionThenInferenceNormalization()
    {
        // Section 3.1: W' = W * scale/sqrt(Var + epsilon) per filter, b' = shift + (b - E) * scale/sqrt(Var + epsilon).
        Layer layer = Layer.Convolution(1e-3f, BatchNormStatistics.Running);
        Layer.Result result = layer.Run(weightFactor: 1);

        using ReferenceRun folded = new(layer.Convolutional!);
        folded[layer.Convolutional!.Src] = layer.Inputs[layer.Convolutional.Src];
        BatchNormCase bn = layer.Normalization;
        double[] weights = [.. layer.Inputs[layer.Weights]], bias = [.. layer.Inputs[layer.Bias]];
        int filter = layer.Weights.Shape.ImageCount;
        for (int o = 0; o < bias.Length; o++)
        {
            double factor = bn.Inputs[bn.Scale][o] / Math.Sqrt(bn.Inputs[bn.RunningVariance!][o] + (double)1e-3f);
            foreach (ref double w in weights.AsSpan(o * filter, filter))
            {
                w *= factor;
            }

            bias[o] = bn.Inputs[bn.Shift][o] + (bias[o] - bn.Inputs[bn.RunningMean!][o]) * factor;
        }

        folded[layer.Weights] = weights;
        folded[layer.Bias] = bias;
        folded.Execute();
        AssertEqual(result.Dst, folded[layer.Convolutional.Dst], 1e-13);
    }

    private static double[][] ByChannel(double[] values, Shape shape) =>
        [.. Enumerable.Range(0, shape.C).Select(c => values.Where((_, i) => i / shape.Area % shape.C == c).ToArray())];

    /// <summary>A linear layer with a bias, batch normalization after it, and all backward operations.</summary>
    private sealed class Layer
    {
        private readonly Operation[] _operations;
        private readonly Tensor _diffSrc;
        private readonly Tensor _diffWeights;
        private readonly Tensor _diffBias;

        private Layer(BatchNormCase bn, Tensor src, Tensor weights, Operation forward, Func<Tensor, Tensor, Tensor, Operation[]> backward)
        {
            Normalization = bn;
            Weights = weights;
            Bias = Float64("bias", bn.Scale.Shape, TensorRole.Parameter);
            _diffSrc = Float64("diffU", src.Shape);
            _diffWeights = Float64("diffWeights", weights.Shape, TensorRole.ParameterGradient);
            _diffBias = Float64("diffBias", Bias.Shape, TensorRole.ParameterGradient);
            forward = forward switch
            {
                ConvolutionForward c => Convolutional = c with { Bias = Bias },
                InnerProductForward p => p with { Bias = Bias },
                _ => throw new NotSupportedException(),
            };
            _operations = [forward, bn.Forward, bn.Backward, .. backward(_diffSrc, _diffWeights, _diffBias)];
            Inputs = new() { [src] = Random(src, 21, -3, 3), [weights] = Random(weights, 22, -2, 2), [Bias] = Random(Bias, 23) };
        }

        public BatchNormCase Normalization { get; }

        public Tensor Weights { get; }

        public Tensor Bias { get; }

        public ConvolutionForward? Convolutional { get; }

        public Dictionary<Tensor, double[]> Inputs { get; }

        public static Layer Convolution(float epsilon, BatchNormStatistics statistics = BatchNormStatistics.Batch)
        {
            ConvolutionSpec spec = ConvolutionSpec.Square(new Shape(3, 2, 5, 5), 4, kernel: 3, stride: 2, pad: 1, bias: true);
            BatchNormCase bn = new(new BatchNormSpec(spec.Dst, epsilon), statistics);
            Tensor src = Float64("u", spec.Src), weights = Float64("weights", spec.Weights, TensorRole.Parameter);
            return new Layer(bn, src, weights, new ConvolutionForward("conv", spec, src, weights, null, bn.Src), (diffSrc, diffWeights, diffBias) =>
            [
                new ConvolutionBackwardData("conv", spec, bn.DiffSrc, weights, diffSrc),
                new ConvolutionBackwardWeights("conv", spec, src, bn.DiffSrc, diffWeights, diffBias),
            ]);
        }

        public static Layer InnerProduct(float epsilon, BatchNormStatistics statistics = BatchNormStatistics.Batch)
        {
            InnerProductSpec spec = new(new Shape(8, 6, 1, 1), 4);
            BatchNormCase bn = new(new BatchNormSpec(spec.Dst, epsilon), statistics);
            Tensor src = Float64("u", spec.Src), weights = Float64("weights", spec.Weights, TensorRole.Parameter);
            return new Layer(bn, src, weights, new InnerProductForward("fc", spec, src, weights, null, bn.Src), (diffSrc, diffWeights, diffBias) =>
            [
                new InnerProductBackwardData("fc", spec, bn.DiffSrc, weights, diffSrc),
                new InnerProductBackwardWeights("fc", spec, src, bn.DiffSrc, diffWeights, diffBias),
            ]);
        }

        public Result Run(double weightFactor)
        {
            using ReferenceRun run = new(_operations);
            Normalization.Set(run);
            foreach ((Tensor tensor, double[] values) in Inputs)
            {
                run[tensor] = tensor == Weights ? [.. values.Select(w => w * weightFactor)] : values;
            }

            run.Execute();
            return new Result(
                run[Normalization.Dst], run[_diffSrc], run[Weights], run[_diffWeights], run[_diffBias],
                Normalization.Forward.Variance is null ? [] : run[Normalization.Variance]);
        }

        public sealed record Result(double[] Dst, double[] DiffSrc, double[] Weights, double[] DiffWeights, double[] DiffBias, double[] Variance);
    }
}
