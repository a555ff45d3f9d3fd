using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Experiments;

/// <summary>
/// One layer of weights and the batch normalization behind it, forward and backward in double precision (the reference backend): what section 2 and 3.3
/// of the paper argue about. Scale is 1, shift 0.
/// </summary>
internal sealed class NormalizedLayer : IDisposable
{
    /// <summary>Outputs or channels of the layer.</summary>
    public const int Outputs = 8;

    private const int Images = 32, Inputs = 12, Rows = 6;

    private readonly OperationRunner _runner;
    private readonly Tensor _src, _weights, _dst, _diffDst, _diffSrc, _diffWeights;
    private readonly Tensor? _diffBias;

    /// <param name="backend">The reference backend.</param>
    /// <param name="convolutional">A 3x3 convolution over images instead of a fully connected layer.</param>
    /// <param name="epsilon">Batch normalization's.</param>
    /// <param name="bias">A bias before batch normalization.</param>
    /// <param name="constantStatistics">The gradient takes mean and variance for constants.</param>
    public NormalizedLayer(Backend backend, bool convolutional, float epsilon, bool bias = false, bool constantStatistics = false)
    {
        Shape input = convolutional ? new Shape(Images, Inputs, Rows, Rows) : Shape.Matrix(Images, Inputs);
        ConvolutionSpec convolution = ConvolutionSpec.Square(input, Outputs, 3, pad: 1, bias: bias);
        var product = new InnerProductSpec(input, Outputs, bias);
        Shape output = convolutional ? convolution.Dst : product.Dst;
        var norm = new BatchNormSpec(output, epsilon);
        Tensor Make(string name, Shape shape, TensorRole role = TensorRole.Activation) => new(name, shape, role, dataType: DataType.Float64);
        _src = Make("src", input);
        _weights = Make("weights", convolutional ? convolution.Weights : product.Weights, TensorRole.Parameter);
        Tensor? shared = bias ? Make("bias", Shape.Vector(Outputs), TensorRole.Parameter) : null;
        Tensor middle = Make("middle", output), scale = Make("scale", norm.Parameters, TensorRole.Parameter), shift = Make("shift", norm.Parameters, TensorRole.Parameter);
        Tensor mean = Make("mean", norm.Statistics, TensorRole.BatchStatistic), variance = Make("variance", norm.Statistics, TensorRole.BatchStatistic);
        _dst = Make("dst", output);
        _diffDst = Make("diffDst", output, TensorRole.Gradient);
        Tensor diffMiddle = Make("diffMiddle", output, TensorRole.Gradient);
        _diffSrc = Make("diffSrc", input, TensorRole.Gradient);
        _diffWeights = Make("diffWeights", _weights.Shape, TensorRole.ParameterGradient);
        _diffBias = bias ? Make("diffBias", Shape.Vector(Outputs), TensorRole.ParameterGradient) : null;
        _runner = new OperationRunner(backend,
        [
            convolutional ? new ConvolutionForward("layer", convolution, _src, _weights, shared, middle) : new InnerProductForward("layer", product, _src, _weights, shared, middle),
            new BatchNormForward("bn", norm) { Src = middle, Dst = _dst, Scale = scale, Shift = shift, Mean = mean, Variance = variance, AveragingFactor = 0 },
            new BatchNormBackward("bn", norm)
            {
                Src = middle, Scale = scale, Shift = shift,
                Statistics = constantStatistics ? BatchNormStatistics.Running : BatchNormStatistics.Batch, Mean = mean, Variance = variance,
                DiffDst = _diffDst, DiffSrc = diffMiddle, DiffScale = Make("diffScale", norm.Parameters, TensorRole.ParameterGradient),
                DiffShift = Make("diffShift", norm.Parameters, TensorRole.ParameterGradient),
            },
            convolutional ? new ConvolutionBackwardData("layer", convolution, diffMiddle, _weights, _diffSrc) : new InnerProductBackwardData("layer", product, diffMiddle, _weights, _diffSrc),
            convolutional ? new ConvolutionBackwardWeights("layer", convolution, _src, diffMiddle, _diffWeights, _diffBias)
                : new InnerProductBackwardWeights("layer", product, _src, diffMiddle, _diffWeights, _diffBias),
        ]);
        _runner.Write(scale, [.. Enumerable.Repeat(1.0, Outputs)]);
        _runner.Write(shift, new double[Outputs]);
        _runner.Write(_src, Random(_src.Shape, 1));
        _runner.Write(_diffDst, Random(_diffDst.Shape, 2));
        if (shared is not null)
        {
            _runner.Write(shared, Random(shared.Shape, 3));
        }
    }

    /// <summary>The weights, the same in every layer.</summary>
    public double[] Weights => Random(_weights.Shape, 4);

    /// <summary>Forward and backward with weights of its own times a factor.</summary>
    public (double[] Dst, double[] DiffSrc, double[] DiffWeights, double[] DiffBias) Run(double factor)
    {
        _runner.Write(_weights, [.. Weights.Select(w => factor * w)]);
        _runner.Execute();
        return (_runner.ReadDouble(_dst), _runner.ReadDouble(_diffSrc), _runner.ReadDouble(_diffWeights), _diffBias is null ? [] : _runner.ReadDouble(_diffBias));
    }

    /// <summary>The gradient that arrives at the output.</summary>
    public double[] Arriving => _runner.ReadDouble(_diffDst);

    /// <inheritdoc/>
    public void Dispose() => _runner.Dispose();

    private static double[] Random(Shape shape, uint stream)
    {
        var random = new RandomSequence(1, stream);
        double[] values = new double[shape.Count];
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = random.NextGaussian();
        }

        return values;
    }
}
