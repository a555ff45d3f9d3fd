using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>
/// Max or average pooling (<see cref="PoolingSpec"/>): windows of any extent, strides in each direction, padding of each side. With <see cref="Ceil"/> the
/// number of outputs is rounded up instead of down: the last window may hang over the end, but begins inside the image or its leading padding.
/// </summary>
public sealed record PoolingLayer : Layer
{
    internal const string MaxTypeName = "max_pooling";
    internal const string AverageTypeName = "average_pooling";

    /// <summary>Describes a pooling; extents and padding may be given as one number: <c>new PoolingLayer(PoolingKind.Max, 3, 2, pad: 1)</c>.</summary>
    /// <param name="kind">Maximum, or average with or without the padding.</param>
    /// <param name="kernel">Rows and columns of the window.</param>
    /// <param name="stride">Rows and columns between windows; the kernel's when null, so that windows lie side by side.</param>
    /// <param name="pad">Padding around the image.</param>
    /// <param name="ceil">Round the number of outputs up.</param>
    public PoolingLayer(PoolingKind kind, Extent kernel, Extent? stride = null, Padding pad = default, bool ceil = false)
    {
        Kind = kind;
        Kernel = kernel;
        Stride = stride ?? kernel;
        Pad = pad;
        Ceil = ceil;
    }

    /// <summary>Maximum, or average with or without the padding.</summary>
    public PoolingKind Kind { get; init; }

    /// <summary>Rows and columns of the window.</summary>
    public Extent Kernel { get; init; }

    /// <summary>Rows and columns between windows.</summary>
    public Extent Stride { get; init; }

    /// <summary>Padding around the image.</summary>
    public Padding Pad { get; init; }

    /// <summary>Round the number of outputs up.</summary>
    public bool Ceil { get; init; }

    /// <inheritdoc/>
    public override string Type => Kind == PoolingKind.Max ? MaxTypeName : AverageTypeName;

    /// <inheritdoc/>
    public override string Description => $"{(Kind == PoolingKind.Max ? "max" : "average")} pooling {Kernel.WithStride(Stride)}";

    /// <summary>The operation for an input of this shape.</summary>
    internal PoolingSpec Spec(Shape src) =>
        new PoolingSpec(src, Kind, Kernel.Height, Kernel.Width, Stride.Height, Stride.Width, Pad.Top, Pad.Left, Pad.Bottom, Pad.Right).Rounded(Ceil);

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        PoolingSpec spec = Spec(inputs[0]);
        spec.Validate(name);
        return spec.Dst;
    }

    internal static PoolingLayer ReadMax(LayerReader reader) => Read(reader, PoolingKind.Max);

    internal static PoolingLayer ReadAverage(LayerReader reader) =>
        Read(reader, reader.Flag("include_padding", false) ? PoolingKind.AverageIncludePadding : PoolingKind.AverageExcludePadding);

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
        writer.Write("kernel", Kernel);
        writer.Write("stride", Stride, unless: Kernel);
        writer.Write("pad", Pad, unless: 0);
        writer.Write("ceil", Ceil, unless: false);
        writer.Write("include_padding", Kind == PoolingKind.AverageIncludePadding, unless: false);
    }

    internal override void LowerTraining(ITrainingLowering lowering) => Train(lowering, Spec);

    internal override void LowerInference(IInferenceLowering lowering) => Pool(lowering, Spec);

    internal override OnnxValue WriteOnnx(OnnxWriter writer)
    {
        // Rounding up is in the padding already, so that the model means the same to readers that round up differently.
        string src = writer.Maps();
        PoolingSpec spec = Spec(writer.InputShape());
        List<(string, object)> attributes =
        [
            ("kernel_shape", new long[] { spec.KernelH, spec.KernelW }), ("strides", new long[] { spec.StrideH, spec.StrideW }),
            ("pads", new long[] { spec.PadTop, spec.PadLeft, spec.PadBottom, spec.PadRight }),
        ];
        if (spec.Kind != PoolingKind.Max)
        {
            attributes.Add(("count_include_pad", spec.Kind == PoolingKind.AverageIncludePadding ? 1L : 0L));
        }

        return new OnnxValue(writer.Node(spec.Kind == PoolingKind.Max ? "MaxPool" : "AveragePool", [src], attributes), IsMatrix: false);
    }

    private static PoolingLayer Read(LayerReader reader, PoolingKind kind)
    {
        Extent kernel = reader.Extent("kernel");
        return new PoolingLayer(kind, kernel, reader.Extent("stride", kernel), reader.Padding("pad", 0), reader.Flag("ceil", false));
    }

    internal static void Train(ITrainingLowering lowering, Func<Shape, PoolingSpec> specFor)
    {
        Tensor src = lowering.InLayout(lowering.Input(), TensorLayout.Blocked);
        PoolingSpec spec = specFor(src.Shape);
        Tensor? workspace = spec.Kind == PoolingKind.Max
            ? new Tensor($"{lowering.Name}.workspace", spec.Dst, TensorRole.Workspace, TensorLayout.Opaque, DataType.UInt8) : null;
        lowering.Emit(new PoolingForward(lowering.Name, spec, src, lowering.NewValue(TensorLayout.Blocked), workspace));
        lowering.Backward(() =>
        {
            Tensor diffDst = lowering.Gradient;
            lowering.Contribute(0, TensorLayout.Blocked, diffSrc => new PoolingBackward(lowering.Name, spec, diffDst, workspace, diffSrc));
        });
    }

    internal static void Pool(IInferenceLowering lowering, Func<Shape, PoolingSpec> specFor)
    {
        Tensor src = lowering.InLayout(lowering.Input(), TensorLayout.Blocked);
        lowering.Emit(new PoolingForward(lowering.Name, specFor(src.Shape), src, lowering.NewValue(TensorLayout.Blocked), null));
    }
}

/// <summary>The mean over all positions of each channel.</summary>
public sealed record GlobalAveragePoolingLayer : Layer
{
    internal const string TypeName = "global_average_pooling";

    /// <inheritdoc/>
    public override string Type => TypeName;

    /// <inheritdoc/>
    public override string Description => "global average pooling";

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => PoolingSpec.GlobalAverage(inputs[0]).Dst;

    internal static GlobalAveragePoolingLayer Read(LayerReader _) => new();

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
    }

    internal override void LowerTraining(ITrainingLowering lowering) => PoolingLayer.Train(lowering, PoolingSpec.GlobalAverage);

    internal override void LowerInference(IInferenceLowering lowering) => PoolingLayer.Pool(lowering, PoolingSpec.GlobalAverage);

    internal override OnnxValue WriteOnnx(OnnxWriter writer) => new(writer.Node("GlobalAveragePool", [writer.Maps()]), IsMatrix: false);
}
