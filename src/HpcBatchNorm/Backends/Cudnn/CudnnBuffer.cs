using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>
/// A tensor as a matrix: a row per position (n, h, w), a column per channel, consecutive rows <see cref="RowStride"/> elements apart (the channels of the
/// tensor that owns the memory). Convolution weights (K, C, R, S) lie the same way, which is cuDNN's KRSC.
/// </summary>
internal sealed class CudnnBuffer : DeviceBuffer
{
    /// <summary>Bytes that a thread moves at a time, at most.</summary>
    private const int WidestAccess = 16;

    private readonly CudnnBuffer? _parent;
    private long _bytes;

    public CudnnBuffer(Tensor tensor, CudnnBuffer? parent)
        : base(tensor, parent)
    {
        if (tensor.DataType == DataType.Float64)
        {
            throw new NotSupportedException($"'{tensor.Name}' is Float64, which only the reference backend takes.");
        }

        Shape shape = tensor.Shape;
        _parent = parent;
        RowStride = parent?.RowStride ?? shape.C;
        PaddedColumns = shape.C;
        if ((long)shape.N * shape.Area * RowStride > int.MaxValue)
        {
            throw new NotSupportedException(FormattableString.Invariant(
                $"'{tensor.Name}' {shape} has {(long)shape.N * shape.Area * RowStride:N0} elements; the GPU's kernels and cuDNN count to {int.MaxValue:N0}. Use a smaller batch or a smaller image."));
        }

        _bytes = tensor.Role == TensorRole.Workspace ? 0 : shape.Count * ElementBytes;
    }

    /// <inheritdoc/>
    public override long Bytes => _bytes;

    /// <summary>Elements from one position to the next.</summary>
    public int RowStride { get; private set; }

    /// <summary>Channels of a row with the zeros behind them (<see cref="Pad"/>): <see cref="Columns"/> where there are none.</summary>
    public int PaddedColumns { get; private set; }

    /// <summary>Positions of all images.</summary>
    public int Rows => Tensor.Shape.N * Tensor.Shape.Area;

    /// <summary>Channels.</summary>
    public int Columns => Tensor.Shape.C;

    public int ElementBytes => Tensor.DataType.Bytes();

    /// <summary>True when rows follow one another without a gap.</summary>
    public bool IsDense => RowStride == Columns;

    /// <summary>True when 16 bytes of channels can be moved at a time.</summary>
    public bool IsWide
    {
        get
        {
            int width = WidestAccess / ElementBytes;
            return Columns % width == 0 && RowStride % width == 0 && Tensor.RootChannelOffset % width == 0;
        }
    }

    /// <summary>Bytes from an address that the widest access can take to the tensor's first, for a slice that begins at an odd channel.</summary>
    public long Misalignment => (_parent is null ? 0 : _parent.Misalignment + ViewOffsetBytes) % WidestAccess;

    /// <inheritdoc/>
    protected override long ViewOffsetBytes => Tensor.IsRows
        ? (long)Tensor.RowOffset * Tensor.Shape.Area * RowStride * ElementBytes
        : (long)Tensor.ChannelOffset * ElementBytes;

    /// <summary>
    /// Makes room for more channels, which whoever writes the tensor sets to zero. Of a tensor that owns its memory, before the kernels that read it are made.
    /// </summary>
    public void Pad(int columns)
    {
        RowStride = PaddedColumns = columns;
        _bytes = (long)Rows * columns * ElementBytes;
    }

    /// <summary>Makes room for a workspace, whose size only its kernels know.</summary>
    public void Reserve(long bytes)
    {
        if (_parent is not null)
        {
            _parent.Reserve(bytes);
        }

        _bytes = Math.Max(_bytes, bytes);
    }
}
