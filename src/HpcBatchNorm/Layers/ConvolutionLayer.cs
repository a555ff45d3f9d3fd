using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>
/// A two-dimensional convolution (<see cref="ConvolutionSpec"/>): kernels of any extent, strides and dilation in each direction, padding of each side, groups
/// (as many as channels: depthwise), with or without a bias.
/// </summary>
public sealed record ConvolutionLayer : Layer, IAffineLayer
{
    internal const string TypeName = "convolution";

    /// <inheritdoc/>
    public override string Type => TypeName;

    /// <summary>Describes a convolution; extents and padding may be given as one number: <c>new ConvolutionLayer(64, 3, pad: 1)</c>.</summary>
    /// <param name="outputChannels">Channels of the output.</param>
    /// <param name="kernel">Rows and columns of the kernel.</param>
    /// <param name="initializer">Of the weights; <see cref="Initializer.He"/> when null. A bias begins with zeros.</param>
    /// <param name="stride">Rows and columns between outputs; 1 when null.</param>
    /// <param name="pad">Zeros around the image.</param>
    /// <param name="dilation">Rows and columns between the kernel's taps; 1, adjacent taps, when null.</param>
    /// <param name="groups">Groups of channels that are convolved apart; must divide the channels of input and output.</param>
    /// <param name="bias">Adds a learned number per output channel.</param>
    public ConvolutionLayer(
        int outputChannels, Extent kernel, Initializer? initializer = null, Extent? stride = null, Padding pad = default, Extent? dilation = null, int groups = 1,
        bool bias = false)
    {
        OutputChannels = outputChannels;
        Kernel = kernel;
        Initializer = initializer ?? Initializer.He;
        Stride = stride ?? 1;
        Pad = pad;
        Dilation = dilation ?? 1;
        Groups = groups;
        Bias = bias;
    }

    /// <summary>Channels of the output.</summary>
    public int OutputChannels { get; init; }

    /// <summary>Rows and columns of the kernel.</summary>
    public Extent Kernel { get; init; }

    /// <summary>Initial weights.</summary>
    public Initializer Initializer { get; init; }

    /// <summary>Rows and columns between outputs.</summary>
    public Extent Stride { get; init; }

    /// <summary>Zeros around the image.</summary>
    public Padding Pad { get; init; }

    /// <summary>Rows and columns between the kernel's taps; 1 means adjacent.</summary>
    public Extent Dilation { get; init; }

    /// <summary>Groups of channels that are convolved apart.</summary>
    public int Groups { get; init; }

    /// <summary>Adds a learned number per output channel.</summary>
    public bool Bias { get; init; }

    /// <inheritdoc/>
    public override string Description =>
        $"convolution {Kernel.WithStride(Stride)}, {OutputChannels}{(Dilation == 1 ? "" : $", dilation {(Dilation.IsSquare ? $"{Dilation.Height}" : $"{Dilation}")}")}" +
        $"{(Groups > 1 ? $", {Groups} groups" : "")}{(Bias ? ", bias" : "")}";

    /// <summary>True for a dense 1x1 convolution at every position: it mixes channels only.</summary>
    internal bool IsPointwise => Kernel == 1 && Stride == 1 && Pad == 0 && Groups == 1;

    /// <inheritdoc/>
    internal override bool BackwardReadsDst => false;

    /// <summary>The operation for an input of this shape.</summary>
    internal ConvolutionSpec Spec(Shape src) => new(
        src, OutputChannels, Kernel.Height, Kernel.Width, Stride.Height, Stride.Width, Pad.Top, Pad.Left, Pad.Bottom, Pad.Right, Dilation.Height, Dilation.Width,
        Groups, Bias);

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        ConvolutionSpec spec = Spec(inputs[0]);
        spec.Validate(name);
        return spec.Dst;
    }

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters(IReadOnlyList<Shape> inputs)
    {
        ConvolutionSpec spec = Spec(inputs[0]);
        return IAffineLayer.ParametersOf(spec.Weights, Bias ? spec.BiasShape : null, Initializer);
    }

    /// <inheritdoc/>
    public override long MultiplyAdds(IReadOnlyList<Shape> inputs) => Spec(inputs[0]).Flops / 2;

    internal static ConvolutionLayer Read(LayerReader reader) => new(
        reader.Whole("outputs"), reader.Extent("kernel"), stride: reader.Extent("stride", 1), pad: reader.Padding("pad", 0), dilation: reader.Extent("dilation", 1),
        groups: reader.Whole("groups", 1), bias: reader.Flag("bias", false), initializer: reader.Initializer("initializer", Initializer.He));

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
        writer.Write("outputs", OutputChannels);
        writer.Write("kernel", Kernel);
        writer.Write("stride", Stride, unless: 1);
        writer.Write("pad", Pad, unless: 0);
        writer.Write("dilation", Dilation, unless: 1);
        writer.Write("groups", Groups, unless: 1);
        writer.Write("bias", Bias, unless: false);
        writer.Write("initializer", Initializer, unless: Initializer.He);
    }

    internal override void LowerTraining(ITrainingLowering lowering)
    {
        Tensor src = Src(lowering);
        ConvolutionSpec spec = Spec(src.Shape);
        (Tensor weights, Tensor? bias, Tensor diffWeights, Tensor? diffBias) = IAffineLayer.Learn(lowering, Bias);
        SourceNormalization? normalization = lowering.InputNormalization;
        lowering.Emit(new ConvolutionForward(lowering.Name, spec, src, weights, bias, lowering.NewValue(TensorLayout.Blocked)) { Normalization = normalization });
        lowering.Backward(() =>
        {
            Tensor diffDst = lowering.Gradient;
            if (lowering.Learns)
            {
                lowering.Emit(new ConvolutionBackwardWeights(lowering.Name, spec, lowering.ForBackward(0, src), diffDst, diffWeights, diffBias) { Normalization = normalization });
            }

            lowering.Contribute(0, TensorLayout.Blocked, diffSrc => new ConvolutionBackwardData(lowering.Name, spec, diffDst, weights, diffSrc));
        });
    }

    internal override void LowerInference(IInferenceLowering lowering)
    {
        Tensor src = Src(lowering);
        (Tensor weights, Tensor? bias) = lowering.AddWeights(Bias, OutputChannels);
        Tensor? residual = lowering.FuseResidualWithConvolution();
        bool relu = residual is not null || lowering.FuseReluWithConvolution();
        Tensor dst = residual is null ? lowering.NewValue(TensorLayout.Blocked) : lowering.NewValueOver(residual);
        lowering.Emit(new ConvolutionForward(lowering.Name, Spec(src.Shape) with { Bias = bias is not null }, src, weights, bias, dst, relu, residual));
    }

    internal override OnnxValue WriteOnnx(OnnxWriter writer)
    {
        string src = writer.Maps();
        ConvolutionSpec spec = Spec(writer.InputShape());
        Shape shape = spec.Weights;
        IReadOnlyList<string> parameters = writer.Weights(Bias, shape, [shape.N, shape.C, shape.H, shape.W]);
        return new OnnxValue(
            writer.Node("Conv", [src, .. parameters],
                ("kernel_shape", new long[] { spec.KernelH, spec.KernelW }), ("strides", new long[] { spec.StrideH, spec.StrideW }),
                ("pads", new long[] { spec.PadTop, spec.PadLeft, spec.PadBottom, spec.PadRight }),
                ("dilations", new long[] { spec.DilationH, spec.DilationW }), ("group", (long)spec.Groups)),
            IsMatrix: false);
    }

    /// <summary>The first convolution reads the prepared images as they are; all others read the backend's own layout.</summary>
    private static Tensor Src(ILowering lowering) => lowering.ReadsImages ? lowering.Input() : lowering.InLayout(lowering.Input(), TensorLayout.Blocked);
}
