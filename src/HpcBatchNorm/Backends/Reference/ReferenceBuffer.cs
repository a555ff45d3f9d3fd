using System.Numerics;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>
/// A tensor as doubles in NCHW order (UInt8 pixels: NHWC). One image is contiguous; consecutive images lie <see cref="_imageStride"/> elements
/// apart, which for a slice is the image size of the tensor it is cut from. All access goes image by image, so slices need no special case.
/// </summary>
internal sealed class ReferenceBuffer : DeviceBuffer
{
    private readonly long _imageStride;
    private readonly long _viewOffset;
    private long _elements;

    public ReferenceBuffer(Tensor tensor, ReferenceBuffer? parent)
        : base(tensor, parent)
    {
        _imageStride = parent?._imageStride ?? tensor.Shape.ImageCount;
        _viewOffset = (long)tensor.ChannelOffset * tensor.Shape.Area;
        _elements = tensor.Shape.Count;
    }

    public override long Bytes => _elements * sizeof(double);

    /// <summary>True for 16-bit tensors and for state a checkpoint keeps in single precision; see <see cref="ReferenceBackend"/>.</summary>
    public bool IsRounded =>
        Tensor.DataType.IsNarrow()
        || (Tensor.DataType == DataType.Float32
            && Tensor.Role is TensorRole.Parameter or TensorRole.Momentum or TensorRole.SecondMoment or TensorRole.RunningStatistic or TensorRole.Average);

    protected override long ViewOffsetBytes => _viewOffset * sizeof(double);

    private bool IsPixels => Tensor.DataType == DataType.UInt8 && Tensor.Layout == TensorLayout.Plain;

    /// <summary>Image <paramref name="n"/>: C*H*W values.</summary>
    public Span<double> Image(int n) => At(n * _imageStride, Tensor.Shape.ImageCount);

    /// <summary>Channel <paramref name="c"/> of image <paramref name="n"/>: H*W values.</summary>
    public Span<double> Plane(int n, int c) => At(n * _imageStride + (long)c * Tensor.Shape.Area, Tensor.Shape.Area);

    /// <summary>A per-channel vector, or any other tensor of one image.</summary>
    public Span<double> Vector => Image(0);

    /// <summary>Makes room for a workspace of <paramref name="elements"/> values, whatever shape its tensor was given.</summary>
    public void Reserve(long elements) => _elements = Math.Max(_elements, elements);

    /// <summary>Values [<paramref name="start"/>, <paramref name="start"/> + <paramref name="count"/>) of a workspace.</summary>
    public Span<double> Workspace(long start, int count) => At(start, count);

    internal override void RoundStored()
    {
        if (IsRounded)
        {
            Round();
        }
    }

    public void Round()
    {
        DataType type = Tensor.DataType;
        for (int n = 0; n < Tensor.Shape.N; n++)
        {
            foreach (ref double value in Image(n))
            {
                value = type.Round(value);
            }
        }
    }

    /// <summary>Sets the values given in logical NCHW order, rounded to the tensor's data type.</summary>
    public void Write<T>(ReadOnlySpan<T> values)
        where T : unmanaged, INumber<T>
    {
        int imageCount = Tensor.Shape.ImageCount;
        for (int n = 0; n < Tensor.Shape.N; n++)
        {
            Span<double> image = Image(n);
            ReadOnlySpan<T> from = values.Slice(n * imageCount, imageCount);
            for (int i = 0; i < imageCount; i++)
            {
                image[StoredIndex(i)] = Tensor.DataType.Round(double.CreateTruncating(from[i]));
            }
        }
    }

    /// <summary>Sets the values given in the order in which they are stored (pixels: NHWC).</summary>
    public void WriteStored(ReadOnlySpan<byte> values)
    {
        int imageCount = Tensor.Shape.ImageCount;
        for (int n = 0; n < Tensor.Shape.N; n++)
        {
            Span<double> image = Image(n);
            for (int i = 0; i < imageCount; i++)
            {
                image[i] = values[n * imageCount + i];
            }
        }
    }

    /// <summary>Gets the values in logical NCHW order.</summary>
    public void Read<T>(Span<T> values)
        where T : unmanaged, INumber<T>
    {
        int imageCount = Tensor.Shape.ImageCount;
        for (int n = 0; n < Tensor.Shape.N; n++)
        {
            Span<double> image = Image(n);
            Span<T> to = values.Slice(n * imageCount, imageCount);
            for (int i = 0; i < imageCount; i++)
            {
                to[i] = T.CreateTruncating(image[StoredIndex(i)]);
            }
        }
    }

    private Span<double> At(long element, int count) =>
        AlignedMemory.AsSpan<double>(Address + (nint)(element * sizeof(double)), count);

    /// <summary>Where element <paramref name="i"/> (CHW order) of an image is stored: there, but pixels are in HWC order.</summary>
    private int StoredIndex(int i)
    {
        if (!IsPixels)
        {
            return i;
        }

        (int channel, int position) = Math.DivRem(i, Tensor.Shape.Area);
        return position * Tensor.Shape.C + channel;
    }
}
