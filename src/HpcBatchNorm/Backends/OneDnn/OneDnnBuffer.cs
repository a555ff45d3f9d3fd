using System.Runtime.CompilerServices;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.OneDnn;

/// <summary>
/// A tensor as libhbn sees it. Plain and blocked layouts follow from the shape. An opaque tensor has the format that the first kernel using it
/// (or one that must lie like it) decided; that format is kept once, by the tensor all the others follow.
/// </summary>
internal sealed class OneDnnBuffer : DeviceBuffer
{
    private readonly OneDnnBuffer? _parent;
    private readonly OneDnnBuffer? _layoutLike;
    private readonly int _block;
    private HbnFormatHandle? _format;

    public OneDnnBuffer(Tensor tensor, OneDnnBuffer? parent, OneDnnBuffer? layoutLike, int channelBlock)
        : base(tensor, parent)
    {
        if (tensor.DataType is DataType.Float64 or DataType.Float16)
        {
            throw new NotSupportedException($"'{tensor.Name}' is {tensor.DataType}, which the backend onednn does not take.");
        }

        if (layoutLike is not null && (layoutLike.Tensor.Shape != tensor.Shape || layoutLike.Tensor.DataType != tensor.DataType))
        {
            throw new ArgumentException(
                $"'{tensor.Name}' {tensor.Shape} {tensor.DataType} must lie like '{layoutLike.Tensor.Name}' {layoutLike.Tensor.Shape} {layoutLike.Tensor.DataType}, which has another shape or type.");
        }

        if (tensor.IsSlice && (tensor.Layout == TensorLayout.Opaque || tensor.DataType == DataType.UInt8))
        {
            throw new NotSupportedException($"'{tensor.Name}' is a slice of channels of a tensor whose channels are not separate in memory.");
        }

        _parent = parent;
        _layoutLike = tensor.Layout == TensorLayout.Opaque ? layoutLike : null;
        _block = Layout == TensorLayout.Blocked ? channelBlock : 1;
    }

    /// <inheritdoc/>
    public override long Bytes
    {
        get
        {
            if (Layout == TensorLayout.Opaque)
            {
                return LayoutOwner.FormatBytes();
            }

            Shape shape = Tensor.Shape;
            long channels = (shape.C + _block - 1) / _block * (long)_block;
            return shape.N * channels * shape.Area * ElementBytes;
        }
    }

    /// <summary>Bytes from one image to the next, for plain and blocked layouts.</summary>
    public long ImageBytes => (Tensor.Root.Shape.C + _block - 1) / _block * (long)_block * Tensor.Shape.Area * ElementBytes;

    /// <summary>The layout, that of another tensor where this one must follow it.</summary>
    public TensorLayout Layout => LayoutOwner.Tensor.Layout;

    /// <summary>True for an opaque tensor that no kernel has used yet.</summary>
    public bool IsUndecided => Layout == TensorLayout.Opaque && LayoutOwner._format is null;

    /// <inheritdoc/>
    protected override long ViewOffsetBytes
    {
        get
        {
            // Whole blocks; the place within a block is part of the description.
            long blocks = Tensor.RootChannelOffset / _block - _parent!.Tensor.RootChannelOffset / _block;
            return blocks * _block * Tensor.Shape.Area * ElementBytes;
        }
    }

    private int ElementBytes => Tensor.DataType.Bytes();

    private OneDnnBuffer LayoutOwner => Tensor.Layout != TensorLayout.Opaque ? this : _parent?.LayoutOwner ?? _layoutLike?.LayoutOwner ?? this;

    /// <summary>Takes over the format a kernel decided.</summary>
    public void Decide(HbnFormatHandle format)
    {
        if (IsUndecided && !format.IsInvalid)
        {
            LayoutOwner._format = format;
        }
        else
        {
            format.Dispose();
        }
    }

    /// <summary>libhbn's description. Its format stays alive as long as this buffer.</summary>
    public HbnTensor Describe() => new()
    {
        StructSize = Unsafe.SizeOf<HbnTensor>(),
        DataType = Tensor.DataType switch { DataType.Int32 => Hbn.Int32, DataType.UInt8 => Hbn.UInt8, DataType.BFloat16 => Hbn.BFloat16, _ => Hbn.Float32 },
        Layout = Layout switch { TensorLayout.Plain => Hbn.Plain, TensorLayout.Blocked => Hbn.Blocked, _ => Hbn.Opaque },
        N = Tensor.Shape.N,
        C = Tensor.Shape.C,
        H = Tensor.Shape.H,
        W = Tensor.Shape.W,
        RootChannels = Tensor.Root.Shape.C,
        ChannelOffset = Tensor.RootChannelOffset,
        Format = LayoutOwner._format?.DangerousGetHandle() ?? 0,
    };

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _format?.Dispose();
            _format = null;
        }

        base.Dispose(disposing);
    }

    private long FormatBytes()
    {
        if (_format is null)
        {
            return 0;
        }

        NativeException.ThrowIfFailed(Hbn.hbn_format_query(_format, out long bytes), $"the layout of '{Tensor.Name}'");
        return bytes;
    }
}
