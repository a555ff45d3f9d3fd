using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>How <see cref="CaseBuilder.BatchNorm"/> lays out a batch normalization.</summary>
internal sealed record BatchNormForm
{
    public BatchNormStatistics Statistics { get; init; }

    /// <summary>Keep running statistics during training.</summary>
    public bool Running { get; init; } = true;

    /// <summary>Give the backward pass dst for its ReLU mask instead of letting it recompute the mask from src.</summary>
    public bool MaskFromDst { get; init; }

    /// <summary>The forward pass makes its batch statistics only.</summary>
    public bool StatisticsAlone { get; init; }

    /// <summary>dst over src; no backward pass then, as src is gone.</summary>
    public bool DstOverSrc { get; init; }

    /// <summary>diffSrc over diffDst, or over src.</summary>
    public bool DiffSrcOverDiffDst { get; init; }

    public bool DiffSrcOverSrc { get; init; }

    /// <summary>diffResidual over diffDst.</summary>
    public bool DiffResidualOverDiffDst { get; init; }

    /// <summary>A second diffDst.</summary>
    public bool SecondDiffDst { get; init; }

    /// <summary>dst and diffDst are slices of wider tensors, from this channel on; 0 for whole tensors.</summary>
    public int SliceOffset { get; init; }

    /// <summary>src is a slice of something wider, from this channel on; 0 for a whole tensor.</summary>
    public int SrcSliceOffset { get; init; }

    /// <summary>No backward pass.</summary>
    public bool ForwardOnly { get; init; }

    /// <summary>Layout of activations; scale, shift and statistics follow it, as in a plan.</summary>
    public TensorLayout Layout { get; init; } = TensorLayout.Blocked;

    public TensorFill? Src { get; init; }

    public float AveragingFactor { get; init; } = 0.1f;

    /// <summary>Batch renormalization instead of batch normalization.</summary>
    public BatchRenormalization? Renormalization { get; init; }
}

/// <summary>Collects the tensors, fills and operations of one case; knows what the operands of each operation look like.</summary>
internal sealed class CaseBuilder(string name, InputKind kind, Precision precision = Precision.Fp32)
{
    private readonly Dictionary<Tensor, TensorFill> _inputs = new(ReferenceEqualityComparer.Instance);
    private readonly List<Operation> _operations = [];

    /// <summary>The usual fill of data: small integers, or uniform in [-1, 1).</summary>
    public TensorFill Data => kind == InputKind.Exact ? Fills.Integers(-3, 3) : Fills.Uniform(-1, 1);

    public VerificationCase Build(string options = "", StepContext context = default) =>
        new(name, kind, _operations, _inputs) { Options = options, Context = context, Precision = precision, Seed = 1 };

    public void Add(Operation operation) => _operations.Add(operation);

    /// <summary>The only operation of a type so far.</summary>
    public T Operation<T>()
        where T : Operation => _operations.OfType<T>().Single();

    /// <summary>A tensor that starts with values. Unless told otherwise, activations and gradients have the precision's type, all else single precision.</summary>
    public Tensor Input(
        string tensorName, Shape shape, TensorFill? fill = null, TensorRole role = TensorRole.Activation, TensorLayout layout = TensorLayout.Blocked,
        DataType? type = null, Tensor? like = null)
    {
        Tensor tensor = new(tensorName, shape, role, layout, type ?? TypeOf(role)) { LayoutLike = like };
        _inputs.Add(tensor, fill ?? Data);
        return tensor;
    }

    /// <summary>A tensor an operation makes.</summary>
    public Tensor Output(
        string tensorName, Shape shape, TensorRole role = TensorRole.Activation, TensorLayout layout = TensorLayout.Blocked, DataType? type = null, Tensor? like = null) =>
        new(tensorName, shape, role, layout, type ?? TypeOf(role)) { LayoutLike = like };

    /// <summary>The weights that a layer multiplies, in the precision's type, and the gradient, which lies like them only where it has their type.</summary>
    private Tensor Weights(Shape shape, TensorFill? fill) =>
        Input("weights", shape, fill, TensorRole.Parameter, TensorLayout.Opaque, precision.ActivationType());

    private Tensor DiffWeights(Tensor weights) => Output(
        "diffWeights", weights.Shape, TensorRole.ParameterGradient, TensorLayout.Opaque, like: weights.DataType == DataType.Float32 ? weights : null);

    private DataType TypeOf(TensorRole role) => role is TensorRole.Activation or TensorRole.Gradient ? precision.ActivationType() : DataType.Float32;

    /// <summary>An input that is a slice of a wider one, <paramref name="offset"/> channels before and after it; the whole when offset is 0.</summary>
    public Tensor InputSlice(string tensorName, Shape shape, int offset, TensorRole role = TensorRole.Activation, TensorLayout layout = TensorLayout.Blocked) => offset == 0
        ? Input(tensorName, shape, role: role, layout: layout)
        : Input(tensorName + ".whole", shape.WithChannels(shape.C + 2 * offset), role: role, layout: layout).Slice(tensorName, offset, shape.C);

    /// <summary>An output that is a slice of a wider tensor, whose other channels hold values that must stay.</summary>
    public Tensor OutputSlice(
        string tensorName, Shape shape, int offset, TensorRole role = TensorRole.Activation, TensorLayout layout = TensorLayout.Blocked) =>
        offset == 0 ? Output(tensorName, shape, role, layout) : InputSlice(tensorName, shape, offset, role, layout);

    /// <summary>The forward pass of a convolution that is added to a residual, in its place or beside it, with ReLU if asked.</summary>
    public CaseBuilder ConvolutionOnto(ConvolutionSpec spec, bool inPlace, bool relu)
    {
        spec.Validate(name);
        Tensor src = Input("src", spec.Src), weights = Weights(spec.Weights, kind == InputKind.Exact ? Fills.Integers(-2, 2) : null);
        Tensor? bias = spec.Bias ? Input("bias", spec.BiasShape, role: TensorRole.Parameter, layout: TensorLayout.Plain) : null;
        Tensor residual = Input("residual", spec.Dst);
        Tensor dst = inPlace ? residual.Alias("dst", TensorRole.Activation) : Output("dst", spec.Dst);
        Add(new ConvolutionForward("conv", spec, src, weights, bias, dst, relu, residual));
        return this;
    }

    /// <summary>All three passes of a convolution; with an offset, src and dst are slices of something wider.</summary>
    public CaseBuilder Convolution(
        ConvolutionSpec spec, bool backwardData = true, bool backward = true, bool relu = false, TensorLayout srcLayout = TensorLayout.Blocked,
        TensorFill? src = null, int sliceOffset = 0)
    {
        spec.Validate(name);
        Tensor images = sliceOffset == 0 ? Input("src", spec.Src, src, layout: srcLayout) : InputSlice("src", spec.Src, sliceOffset);
        Tensor weights = Weights(spec.Weights, kind == InputKind.Exact ? Fills.Integers(-2, 2) : null);
        Tensor? bias = spec.Bias ? Input("bias", spec.BiasShape, role: TensorRole.Parameter, layout: TensorLayout.Plain) : null;
        Add(new ConvolutionForward("conv", spec, images, weights, bias, OutputSlice("dst", spec.Dst, sliceOffset), relu));
        if (!backward)
        {
            return this;
        }

        Tensor diffDst = Input("diffDst", spec.Dst, role: TensorRole.Gradient);
        if (backwardData)
        {
            Add(new ConvolutionBackwardData("conv", spec, diffDst, weights, Output("diffSrc", spec.Src, TensorRole.Gradient)));
        }

        Add(new ConvolutionBackwardWeights("conv", spec, images, diffDst,
            DiffWeights(weights),
            spec.Bias ? Output("diffBias", spec.BiasShape, TensorRole.ParameterGradient, TensorLayout.Plain) : null));
        return this;
    }

    /// <summary>
    /// The passes of a convolution that read src, which normalize it on its way in; before them the batch normalization that makes the statistics. With an offset, src is a
    /// slice of something wider.
    /// </summary>
    public CaseBuilder NormalizingConvolution(ConvolutionSpec spec, bool relu, TensorFill? src = null, int sliceOffset = 0, float epsilon = 1e-5f)
    {
        spec.Validate(name);
        BatchNormSpec normalization = new(spec.Src, epsilon, Relu: relu);
        BatchNorm(normalization, new BatchNormForm { StatisticsAlone = true, Src = src, SrcSliceOffset = sliceOffset, ForwardOnly = true });
        BatchNormForward forward = Operation<BatchNormForward>();
        SourceNormalization onReading = new(normalization, forward.Scale, forward.Shift, forward.Mean!, forward.Variance!);
        Tensor weights = Weights(spec.Weights, null);
        Tensor? bias = spec.Bias ? Input("bias", spec.BiasShape, role: TensorRole.Parameter, layout: TensorLayout.Plain) : null;
        Add(new ConvolutionForward("conv", spec, forward.Src, weights, bias, Output("dst", spec.Dst)) { Normalization = onReading });
        Tensor diffDst = Input("diffDst", spec.Dst, role: TensorRole.Gradient);
        Tensor? diffBias = spec.Bias ? Output("diffBias", spec.BiasShape, TensorRole.ParameterGradient, TensorLayout.Plain) : null;
        Add(new ConvolutionBackwardWeights("conv", spec, forward.Src, diffDst, DiffWeights(weights), diffBias) { Normalization = onReading });
        return this;
    }

    /// <summary>Batch normalization and its gradients.</summary>
    public CaseBuilder BatchNorm(BatchNormSpec spec, BatchNormForm? form = null)
    {
        form ??= new BatchNormForm();
        bool batch = form.Statistics == BatchNormStatistics.Batch, exact = kind == InputKind.Exact;
        Shape p = spec.Parameters;
        Tensor Parameter(string n, TensorFill fill, TensorRole role) => Input(n, p, fill, role, form.Layout);
        Tensor Made(string n, TensorRole role) => Output(n, role == TensorRole.BatchStatistic ? spec.Statistics : p, role, form.Layout);

        TensorFill fill = form.Src ?? (exact ? Fills.ExactMean(spec.PerActivation) : Fills.Normal(0.3, 1.5));
        Tensor src = form.SrcSliceOffset == 0
            ? Input("src", spec.Src, fill, layout: form.Layout)
            : Input("src.whole", spec.Src.WithChannels(spec.Src.C + 2 * form.SrcSliceOffset), fill, layout: form.Layout).Slice("src", form.SrcSliceOffset, spec.Src.C);
        Tensor scale = Parameter("scale", exact ? Fills.PowersOfTwo : Fills.Uniform(0.5, 1.5), TensorRole.Parameter);
        Tensor shift = Parameter("shift", exact ? Fills.Integers(-2, 2) : Fills.Uniform(-1, 1), TensorRole.Parameter);
        Tensor? residual = spec.Residual ? Input("residual", spec.Src, layout: form.Layout) : null;
        Tensor? dst = form.StatisticsAlone ? null : form.DstOverSrc ? src.Alias("dst", TensorRole.Activation) : OutputSlice("dst", spec.Src, form.SliceOffset, layout: form.Layout);
        Tensor? runningMean = batch && !form.Running ? null : Parameter("runningMean", Fills.Uniform(-0.5, 0.5), TensorRole.RunningStatistic);
        Tensor? runningVariance = batch && !form.Running ? null : Parameter("runningVariance", Fills.Uniform(0.5, 2), TensorRole.RunningStatistic);
        Tensor? mean = batch ? Made("mean", TensorRole.BatchStatistic) : null, variance = batch ? Made("variance", TensorRole.BatchStatistic) : null;
        Tensor? r = form.Renormalization is null ? null : Made("r", TensorRole.BatchStatistic), d = r is null ? null : Made("d", TensorRole.BatchStatistic);
        Add(new BatchNormForward("bn", spec)
        {
            Src = src,
            Dst = dst,
            Scale = scale,
            Shift = shift,
            Residual = residual,
            Statistics = form.Statistics,
            Mean = mean,
            Variance = variance,
            RunningMean = runningMean,
            RunningVariance = runningVariance,
            AveragingFactor = form.AveragingFactor,
            Renormalization = form.Renormalization,
            R = r,
            D = d,
        });
        if (form.DstOverSrc || form.ForwardOnly)
        {
            return this;
        }

        bool maskFromDst = spec.Relu && (form.MaskFromDst || spec.Residual);
        Tensor diffDst = InputSlice("diffDst", spec.Src, form.SliceOffset, TensorRole.Gradient, form.Layout);
        Tensor diffSrc = form.DiffSrcOverDiffDst ? diffDst.Alias("diffSrc", TensorRole.Gradient)
            : form.DiffSrcOverSrc ? src.Alias("diffSrc", TensorRole.Gradient)
            : Output("diffSrc", spec.Src, TensorRole.Gradient, form.Layout);
        Add(new BatchNormBackward("bn", spec)
        {
            Src = src,
            Dst = maskFromDst ? dst : null,
            Scale = scale,
            Shift = shift,
            Statistics = form.Statistics,
            Mean = mean ?? runningMean!,
            Variance = variance ?? runningVariance!,
            DiffDst = diffDst,
            DiffSrc = diffSrc,
            DiffScale = Made("diffScale", TensorRole.ParameterGradient),
            DiffShift = Made("diffShift", TensorRole.ParameterGradient),
            DiffResidual = !spec.Residual ? null : form.DiffResidualOverDiffDst ? diffDst.Alias("diffResidual", TensorRole.Gradient)
                : Output("diffResidual", spec.Src, TensorRole.Gradient, form.Layout),
            R = r,
            D = d,
            SecondDiffDst = form.SecondDiffDst ? Input("secondDiffDst", spec.Src, role: TensorRole.Gradient, layout: form.Layout) : null,
        });
        return this;
    }

    /// <summary>A pooling and its gradient; with an offset all its tensors are slices of wider ones, from that channel on.</summary>
    public CaseBuilder Pooling(PoolingSpec spec, TensorFill? fill = null, int sliceOffset = 0)
    {
        spec.Validate(name);
        Tensor src = sliceOffset == 0 ? Input("src", spec.Src, fill) : InputSlice("src", spec.Src, sliceOffset), dst = OutputSlice("dst", spec.Dst, sliceOffset);
        Tensor? workspace = spec.Kind == PoolingKind.Max ? Workspace(spec.Dst) : null;
        Add(new PoolingForward("pool", spec, src, dst, workspace));
        Add(new PoolingBackward(
            "pool", spec, InputSlice("diffDst", spec.Dst, sliceOffset, TensorRole.Gradient), workspace, OutputSlice("diffSrc", spec.Src, sliceOffset, TensorRole.Gradient)));
        return this;
    }

    /// <summary>Local response normalization and its gradient.</summary>
    public CaseBuilder LocalResponse(LrnSpec spec)
    {
        Tensor src = Input("src", spec.Src, Fills.Normal(0, 2)), workspace = Workspace(spec.Src);
        Add(new LrnForward("lrn", spec, src, Output("dst", spec.Src), workspace));
        Add(new LrnBackward("lrn", spec, src, Input("diffDst", spec.Src, role: TensorRole.Gradient), workspace, Output("diffSrc", spec.Src, TensorRole.Gradient)));
        return this;
    }

    /// <summary>A fully connected layer and its gradients; <paramref name="logits"/>: dst stays in single precision.</summary>
    public CaseBuilder InnerProduct(InnerProductSpec spec, bool logits = false)
    {
        spec.Validate(name);
        Tensor src = Input("src", spec.Src, layout: TensorLayout.Plain);
        Tensor weights = Weights(spec.Weights, null);
        Tensor? bias = spec.Bias ? Input("bias", spec.BiasShape, role: TensorRole.Parameter, layout: TensorLayout.Plain) : null;
        Add(new InnerProductForward("fc", spec, src, weights, bias, Output("dst", spec.Dst, layout: TensorLayout.Plain, type: logits ? DataType.Float32 : null)));
        Tensor diffDst = Input("diffDst", spec.Dst, role: TensorRole.Gradient, layout: TensorLayout.Plain);
        Add(new InnerProductBackwardData("fc", spec, diffDst, weights, Output("diffSrc", spec.Src, TensorRole.Gradient, TensorLayout.Plain)));
        Add(new InnerProductBackwardWeights("fc", spec, src, diffDst,
            DiffWeights(weights),
            spec.Bias ? Output("diffBias", spec.BiasShape, TensorRole.ParameterGradient, TensorLayout.Plain) : null));
        return this;
    }

    private static Tensor Workspace(Shape shape) => new("workspace", shape, TensorRole.Workspace, TensorLayout.Opaque, DataType.UInt8);
}
