namespace HpcBatchNorm.Tensors;

/// <summary>How a tensor lies in memory.</summary>
public enum TensorLayout
{
    /// <summary>Dense NCHW (for UInt8 pixels: dense NHWC).</summary>
    Plain,

    /// <summary>The backend's own layout for activations (oneDNN: channels in blocks; reference: NCHW). Padded channels hold zeros.</summary>
    Blocked,

    /// <summary>Decided by the first kernel that uses the tensor: convolution weights and workspaces.</summary>
    Opaque,
}

/// <summary>What a tensor is for; decides how long it lives and what a checkpoint keeps.</summary>
public enum TensorRole
{
    /// <summary>Pixels written by the caller before a step.</summary>
    Input,

    /// <summary>Class indices written by the caller before a step.</summary>
    Label,

    /// <summary>Output of a forward operation; lives while something still reads it.</summary>
    Activation,

    /// <summary>Gradient of the loss with respect to an activation.</summary>
    Gradient,

    /// <summary>Learned: weights, bias, scale, shift. Persistent.</summary>
    Parameter,

    /// <summary>
    /// A parameter rounded to the 16-bit type that convolutions and fully connected layers multiply in; made anew from the parameter, the master, at
    /// the start of every training step. Outlives a step, but no checkpoint keeps it.
    /// </summary>
    ParameterCopy,

    /// <summary>Gradient of the loss with respect to a parameter.</summary>
    ParameterGradient,

    /// <summary>Mean of a parameter's gradients over the micro-batches of a step; outlives them, but no checkpoint keeps it.</summary>
    GradientSum,

    /// <summary>The optimizer's velocity of a parameter, or its moving average of gradients. Persistent.</summary>
    Momentum,

    /// <summary>Batch mean or biased batch variance, written forward and read backward.</summary>
    BatchStatistic,

    /// <summary>Running or population mean and unbiased variance. Persistent.</summary>
    RunningStatistic,

    /// <summary>Moving average of a parameter or running statistic (weight averaging). Persistent.</summary>
    Average,

    /// <summary>Bytes a forward operation keeps for its backward twin; contents belong to the backend.</summary>
    Workspace,

    /// <summary>Loss, probabilities, gradient scale: small results read by the caller or by other operations.</summary>
    Result,

    /// <summary>What the loss's gradient is multiplied by, and how that came to be (loss scaling). Persistent; a checkpoint keeps it in its metadata.</summary>
    LossScale,

    /// <summary>The optimizer's moving average of squared gradients (Adam's second moment). Persistent.</summary>
    SecondMoment,
}

/// <summary>
/// A named value in a plan: pure data, no memory. A backend makes a <c>DeviceBuffer</c> of it.
/// A tensor with a <see cref="Parent"/> is a view of its parent's memory: channels
/// [<see cref="ChannelOffset"/>, <see cref="ChannelOffset"/> + C) of every image (a concatenation slice),
/// some of its rows (one layer's share of weights that several layers have together),
/// or the whole of it under another name (an in-place result).
/// </summary>
public sealed class Tensor
{
    /// <summary>Creates a tensor that owns its memory.</summary>
    public Tensor(string name, Shape shape, TensorRole role, TensorLayout layout = TensorLayout.Plain, DataType dataType = DataType.Float32)
    {
        if (!shape.IsValid)
        {
            throw new ArgumentException($"Tensor '{name}' has the shape {shape}; every extent must be at least 1.", nameof(shape));
        }

        Name = name;
        Shape = shape;
        Role = role;
        Layout = layout;
        DataType = dataType;
    }

    /// <summary>The name, unique in a plan: <c>inception_3a/3x3/conv.dst</c>.</summary>
    public string Name { get; }

    /// <summary>Logical extent.</summary>
    public Shape Shape { get; }

    /// <summary>What the tensor is for.</summary>
    public TensorRole Role { get; }

    /// <summary>How it lies in memory.</summary>
    public TensorLayout Layout { get; }

    /// <summary>Element type.</summary>
    public DataType DataType { get; }

    /// <summary>Bytes of all elements, without padding.</summary>
    public long Bytes => Shape.Count * DataType.Bytes();

    /// <summary>The tensor whose memory this one is a view of, or null when it owns its memory.</summary>
    public Tensor? Parent { get; private init; }

    /// <summary>First channel of <see cref="Parent"/> that this view covers.</summary>
    public int ChannelOffset { get; private init; }

    /// <summary>First row (N) of <see cref="Parent"/> that this view covers.</summary>
    internal int RowOffset { get; private init; }

    /// <summary>True when the tensor is some rows of its parent: it can be read and written from the host, but no operation takes it.</summary>
    internal bool IsRows { get; private init; }

    /// <summary>For an <see cref="TensorLayout.Opaque"/> tensor: the tensor whose physical layout it must share (momentum follows weights).</summary>
    internal Tensor? LayoutLike { get; init; }

    /// <summary>The tensor that owns the memory: this one, or the last parent.</summary>
    public Tensor Root => Parent?.Root ?? this;

    /// <summary>True when the tensor covers only some channels of its parent, so that its images are not adjacent in memory.</summary>
    public bool IsSlice => Parent is not null && (Parent.IsSlice || Shape.C != Parent.Shape.C);

    /// <summary>First channel of <see cref="Root"/> that this tensor covers.</summary>
    internal int RootChannelOffset => Parent is null ? 0 : ChannelOffset + Parent.RootChannelOffset;

    /// <summary>A view of <paramref name="channels"/> channels of this tensor from <paramref name="channelOffset"/> on.</summary>
    public Tensor Slice(string name, int channelOffset, int channels)
    {
        if (channelOffset < 0 || channels < 1 || channelOffset + channels > Shape.C)
        {
            throw new ArgumentOutOfRangeException(nameof(channelOffset),
                $"Slice '{name}' takes channels {channelOffset} to {channelOffset + channels} of '{Name}', which has {Shape.C}.");
        }

        return new Tensor(name, Shape.WithChannels(channels), Role, Layout, DataType) { Parent = this, ChannelOffset = channelOffset };
    }

    /// <summary>A view of <paramref name="rows"/> rows of this tensor from <paramref name="rowOffset"/> on, for transfers from and to the host.</summary>
    internal Tensor Rows(string name, int rowOffset, int rows)
    {
        if (Parent is not null || rowOffset < 0 || rows < 1 || rowOffset + rows > Shape.N)
        {
            throw new ArgumentOutOfRangeException(nameof(rowOffset),
                $"'{name}' takes rows {rowOffset} to {rowOffset + rows} of '{Name}', which has {Shape.N}{(Parent is null ? "" : " and is a view itself")}.");
        }

        return new Tensor(name, Shape with { N = rows }, Role, Layout, DataType) { Parent = this, RowOffset = rowOffset, IsRows = true };
    }

    /// <summary>The same memory under another name and role: an operation that works in place writes its result here.</summary>
    internal Tensor Alias(string name, TensorRole role) => new(name, Shape, role, Layout, DataType) { Parent = this };

    /// <summary>
    /// The same memory in another layout; the caller knows that both lie alike in memory (one position per image, channels a multiple of the block).
    /// </summary>
    internal Tensor Relabel(TensorLayout layout) => new($"{Name} ({layout.ToString().ToLowerInvariant()})", Shape, Role, layout, DataType) { Parent = this };

    /// <summary>Name, shape and what is unusual about the layout.</summary>
    public override string ToString() =>
        $"{Name} {Shape}{(Layout == TensorLayout.Blocked ? "" : " " + Layout.ToString().ToLowerInvariant())}{(DataType.IsNarrow() ? " " + DataType.ToString().ToLowerInvariant() : "")}" +
        (Parent is null ? "" : IsSlice ? $" = {Root.Name}[{RootChannelOffset}..{RootChannelOffset + Shape.C}]" : $" = {Root.Name}");
}
