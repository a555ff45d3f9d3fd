using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using static HpcBatchNorm.Tests.Reference.ReferenceRun;

namespace HpcBatchNorm.Tests.Reference;

public sealed class ReferenceConvolutionTests
{
    /// <summary>Strides, one-sided paddings, dilation, groups, depthwise, 1x1, odd sizes, and a plane of more than one tile.</summary>
    public static TheoryData<ConvolutionSpec> Geometries { get; } =
    [
        ConvolutionSpec.Square(new Shape(2, 3, 5, 6), 4, kernel: 3, pad: 1),
        ConvolutionSpec.Square(new Shape(1, 3, 9, 8), 2, kernel: 3, stride: 2, pad: 1, bias: true),
        ConvolutionSpec.Square(new Shape(2, 5, 4, 4), 3, kernel: 1, bias: true),
        ConvolutionSpec.Square(new Shape(1, 2, 7, 5), 2, kernel: 1, stride: 3),
        ConvolutionSpec.Square(new Shape(1, 4, 6, 6), 6, kernel: 3, pad: 1, groups: 2, bias: true),
        ConvolutionSpec.Square(new Shape(2, 3, 9, 9), 24, kernel: 7, stride: 2, pad: 3, groups: 3),
        new ConvolutionSpec(new Shape(2, 2, 7, 6), 3, KernelH: 2, KernelW: 3, StrideH: 2, StrideW: 1, PadTop: 1, PadLeft: 0, PadBottom: 0, PadRight: 2, Bias: true),
        new ConvolutionSpec(new Shape(1, 2, 9, 11), 2, KernelH: 3, KernelW: 2, StrideH: 1, StrideW: 3, PadTop: 2, PadLeft: 4, PadBottom: 1, PadRight: 0, DilationH: 2, DilationW: 3),
        ConvolutionSpec.Square(new Shape(1, 1, 1, 1), 2, kernel: 3, pad: 1, bias: true),
        ConvolutionSpec.Square(new Shape(1, 1, 19, 23), 1, kernel: 3, pad: 1),
    ];

    [Fact]
    public void Forward_StrideTwoWithOneSidedPadding_MatchesHandComputation()
    {
        // src:  1  2  3  4    weights: 1 2 3    one row of padding above, one column to the right:
        //       5  6  7  8             4 5 7      window (0,0) sees row 0, columns 0-2:  4*1 + 5*2 + 7*3 = 35
        //       9 10 11 12                        window (0,1) sees row 0, columns 2-3:  4*3 + 5*4 = 32
        //                                         window (1,0): 5 + 12 + 21 + 36 + 50 + 77 = 201;  (1,1): 7 + 16 + 44 + 60 = 127
        ConvolutionSpec spec = new(new Shape(1, 1, 3, 4), 1, KernelH: 2, KernelW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadRight: 1, Bias: true);
        Fixture f = new(spec);
        using ReferenceRun run = new(f.Forward);
        run[f.Src] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        run[f.Weights] = [1, 2, 3, 4, 5, 7];
        run[f.Bias!] = [100];
        run.Execute();
        Assert.Equal([135, 132, 301, 227], run[f.Dst]);
    }

    [Theory]
    [MemberData(nameof(Geometries))]
    public void Forward_AnyGeometry_MatchesTheDefinition(ConvolutionSpec spec)
    {
        Fixture f = new(spec);
        using ReferenceRun run = new(f.Forward);
        foreach ((Tensor tensor, double[] values) in f.Inputs)
        {
            run[tensor] = values;
        }

        run.Execute();
        AssertEqual(ByDefinition(spec, f.Inputs[f.Src], f.Inputs[f.Weights], f.Bias is null ? null : f.Inputs[f.Bias]), run[f.Dst]);
    }

    [Theory]
    [MemberData(nameof(Geometries))]
    public void Backward_AnyGeometry_MatchesFiniteDifferences(ConvolutionSpec spec)
    {
        Fixture f = new(spec);
        (Tensor, Tensor)[] gradients = [(f.Src, f.DiffSrc), (f.Weights, f.DiffWeights)];
        GradientCheck.Verify(
            [f.Forward], [f.BackwardData, f.BackwardWeights], f.Inputs, f.Dst, f.DiffDst,
            f.Bias is null ? gradients : [.. gradients, (f.Bias, f.DiffBias!)]);
    }

    [Fact]
    public void Forward_FusedRelu_ClampsNegativeOutputsOnly()
    {
        Fixture f = new(ConvolutionSpec.Square(new Shape(1, 2, 5, 5), 3, kernel: 3, pad: 1, bias: true));
        using ReferenceRun plain = new(f.Forward), fused = new(f.Forward with { Relu = true });
        foreach ((Tensor tensor, double[] values) in f.Inputs)
        {
            plain[tensor] = values;
            fused[tensor] = values;
        }

        plain.Execute();
        fused.Execute();
        double[] expected = plain[f.Dst];
        Assert.Contains(expected, y => y < 0);
        Assert.Equal([.. expected.Select(y => Math.Max(0, y))], fused[f.Dst]);
    }

    [Fact]
    public void AllPasses_OnSlicesOfWiderTensors_EqualDenseOnes()
    {
        ConvolutionSpec spec = ConvolutionSpec.Square(new Shape(2, 3, 5, 6), 4, kernel: 3, stride: 2, pad: 1);
        Fixture dense = new(spec), sliced = new(spec, Slice);
        using ReferenceRun expected = new(dense.Forward, dense.BackwardData, dense.BackwardWeights);
        using ReferenceRun actual = new(sliced.Forward, sliced.BackwardData, sliced.BackwardWeights);
        foreach ((ReferenceRun run, Fixture f) in new[] { (expected, dense), (actual, sliced) })
        {
            run[f.Src] = Random(f.Src, 1);
            run[f.Weights] = Random(f.Weights, 2);
            run[f.DiffDst] = Random(f.DiffDst, 3);
            run.Execute();
        }

        Assert.Equal(expected[dense.Dst], actual[sliced.Dst]);
        Assert.Equal(expected[dense.DiffSrc], actual[sliced.DiffSrc]);
        Assert.Equal(expected[dense.DiffWeights], actual[sliced.DiffWeights]);

        static Tensor Slice(string name, Shape shape) => Float64("wide." + name, shape.WithChannels(shape.C + 5)).Slice(name, 2, shape.C);
    }

    [Fact]
    public void AllPasses_AnyThreadCount_GiveTheSameBits()
    {
        Fixture f = new(ConvolutionSpec.Square(new Shape(2, 8, 30, 30), 16, kernel: 3, pad: 1, bias: true));
        double[][] first = Run(threads: 1);
        foreach (int threads in new[] { 2, 5 })
        {
            double[][] again = Run(threads);
            for (int i = 0; i < first.Length; i++)
            {
                Assert.Equal(first[i], again[i]);
            }
        }

        double[][] Run(int threads)
        {
            using ReferenceRun run = new(new BackendOptions { Threads = threads }, f.Forward, f.BackwardData, f.BackwardWeights);
            foreach ((Tensor tensor, double[] values) in f.Inputs)
            {
                run[tensor] = values;
            }

            run[f.DiffDst] = Random(f.DiffDst, 3);
            run.Execute();
            return [run[f.Dst], run[f.DiffSrc], run[f.DiffWeights], run[f.DiffBias!]];
        }
    }

    /// <summary>The sum in ConvolutionSpec's documentation, written as it stands.</summary>
    private static double[] ByDefinition(ConvolutionSpec spec, double[] src, double[] weights, double[]? bias)
    {
        Shape s = spec.Src, d = spec.Dst, w = spec.Weights;
        double[] dst = new double[d.Count];
        for (int n = 0, at = 0; n < d.N; n++)
        {
            for (int o = 0; o < d.C; o++)
            {
                int g = o / (d.C / spec.Groups);
                for (int y = 0; y < d.H; y++)
                {
                    for (int x = 0; x < d.W; x++, at++)
                    {
                        double sum = bias?[o] ?? 0;
                        for (int c = 0; c < w.C; c++)
                        {
                            for (int i = 0; i < w.H; i++)
                            {
                                for (int j = 0; j < w.W; j++)
                                {
                                    int row = y * spec.StrideH - spec.PadTop + i * spec.DilationH;
                                    int column = x * spec.StrideW - spec.PadLeft + j * spec.DilationW;
                                    if (row >= 0 && row < s.H && column >= 0 && column < s.W)
                                    {
                                        sum += weights[((o * w.C + c) * w.H + i) * w.W + j]
                                            * src[((n * s.C + g * w.C + c) * s.H + row) * s.W + column];
                                    }
                                }
                            }
                        }

                        dst[at] = sum;
                    }
                }
            }
        }

        return dst;
    }

    private sealed class Fixture
    {
        public Fixture(ConvolutionSpec spec, Func<string, Shape, Tensor>? activation = null)
        {
            activation ??= (name, shape) => Float64(name, shape);
            Src = activation("src", spec.Src);
            Weights = Float64("weights", spec.Weights, TensorRole.Parameter);
            Bias = spec.Bias ? Float64("bias", spec.BiasShape, TensorRole.Parameter) : null;
            Dst = activation("dst", spec.Dst);
            DiffDst = activation("diffDst", spec.Dst);
            DiffSrc = activation("diffSrc", spec.Src);
            DiffWeights = Float64("diffWeights", spec.Weights, TensorRole.ParameterGradient);
            DiffBias = spec.Bias ? Float64("diffBias", spec.BiasShape, TensorRole.ParameterGradient) : null;
            Forward = new ConvolutionForward("conv", spec, Src, Weights, Bias, Dst);
            BackwardData = new ConvolutionBackwardData("conv", spec, DiffDst, Weights, DiffSrc);
            BackwardWeights = new ConvolutionBackwardWeights("conv", spec, Src, DiffDst, DiffWeights, DiffBias);
            Inputs = new() { [Src] = Random(Src, 1), [Weights] = Random(Weights, 2) };
            if (Bias is not null)
            {
                Inputs[Bias] = Random(Bias, 3);
            }
        }

        public Tensor Src { get; }

        public Tensor Weights { get; }

        public Tensor? Bias { get; }

        public Tensor Dst { get; }

        public Tensor DiffDst { get; }

        public Tensor DiffSrc { get; }

        public Tensor DiffWeights { get; }

        public Tensor? DiffBias { get; }

        public ConvolutionForward Forward { get; }

        public ConvolutionBackwardData BackwardData { get; }

        public ConvolutionBackwardWeights BackwardWeights { get; }

        public Dictionary<Tensor, double[]> Inputs { get; }
    }
}
