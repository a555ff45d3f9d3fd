using System.Runtime.InteropServices;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Interop.Skia;

namespace HpcBatchNorm.Data;

/// <summary>What became of an image.</summary>
public enum ImageStatus
{
    /// <summary>It was decoded.</summary>
    Ok,

    /// <summary>The file has no bytes.</summary>
    Empty,

    /// <summary>The bytes are of no known image format.</summary>
    NotAnImage,

    /// <summary>The file ends before the image does.</summary>
    Truncated,

    /// <summary>The image data contradict themselves.</summary>
    Corrupt,

    /// <summary>More than 100 million pixels.</summary>
    TooLarge,

    /// <summary>A JPEG of more than 100 scans, each of which costs a pass over all pixels; no camera or encoder writes so many.</summary>
    TooManyScans,
}

/// <summary>
/// Decodes a part of a JPEG, PNG, WebP, BMP or GIF image (of an animation the first) to RGBA bytes, by content, not by name; grey, palette and CMYK images (Adobe's inverted CMYK
/// included) come out as RGB, transparency is ignored. EXIF orientation and embedded colour profiles are ignored, as in every published ImageNet
/// training. The only class that knows the codec. Keeps its buffers; one per thread.
/// </summary>
/// <remarks>
/// Of a JPEG only the rows and columns asked for are reconstructed, at the smallest size of 1/8 to 8/8 that still has enough pixels: the inverse
/// transform of fewer coefficients is the cheapest antialiasing filter there is. A file without an end marker is decoded whole, to find out whether it
/// is complete.
/// </remarks>
internal sealed class ImageDecoder : IDisposable
{
    /// <summary>
    /// What a header may claim before any memory is taken: 400 MB of pixels. A file of a hundred bytes can claim a thousand times as much.
    /// </summary>
    private const long MostPixels = 100_000_000;

    /// <summary>A buffer that one huge image has made larger than this is given back with it.</summary>
    private const long MostKeptBytes = 64 << 20;

    private const long LeastBytes = 1 << 20;
    private const int Eighths = 8;

    private readonly ImageCodec _codec;
    private AlignedMemory _pixels = new(LeastBytes);
    private GCHandle _pin;
    private bool _open, _hasEndMarker;
    private int _windowOffset;
    private byte[]? _bare;
    private int _bytesPerPixel;

    /// <summary>Decodes with the codec that fits this process.</summary>
    public ImageDecoder()
        : this(SkiaSharpCodec.Create())
    {
    }

    /// <summary>Decodes with a given codec, which it owns.</summary>
    internal ImageDecoder(ImageCodec codec) => _codec = codec;

    private static ReadOnlySpan<byte> StartMarker => [0xFF, 0xD8];

    private static ReadOnlySpan<byte> EndMarker => [0xFF, 0xD9];

    /// <summary>Width of the opened image in pixels.</summary>
    public int Width { get; private set; }

    /// <summary>Height of the opened image in pixels.</summary>
    public int Height { get; private set; }

    /// <summary>Memory kept for pixels.</summary>
    public long BufferBytes => _pixels.Bytes;

    /// <summary>The pixels of the last <see cref="Decode"/>.</summary>
    public DecodedWindow Window { get; private set; }

    /// <summary>
    /// Rows of <see cref="Window"/>: RGBA bytes, <see cref="DecodedWindow.Stride"/> apart, each readable up to a multiple of
    /// <see cref="Resampler.RowAlignment"/>.
    /// </summary>
    public ReadOnlySpan<byte> Pixels =>
        AlignedMemory.AsSpan<byte>(_pixels.Address + _windowOffset, (Window.Height - 1) * Window.Stride + Stride(Window.Width));

    /// <summary>Reads the header. The buffer must stay unchanged until <see cref="Close"/>.</summary>
    public ImageStatus Open(byte[] encoded, int length)
    {
        Close();
        if (length == 0)
        {
            return ImageStatus.Empty;
        }

        _pin = GCHandle.Alloc(encoded, GCHandleType.Pinned);
        _open = _codec.Open(_pin.AddrOfPinnedObject(), length);
        // Some files carry padding after the marker.
        int tail = Math.Min(length, 64);
        _hasEndMarker = encoded.AsSpan(length - tail, tail).LastIndexOf(EndMarker) >= 0;
        if (!_open)
        {
            return !encoded.AsSpan(0, length).StartsWith(StartMarker) ? ImageStatus.NotAnImage
                : _hasEndMarker ? ImageStatus.Corrupt : ImageStatus.Truncated;
        }

        (Width, Height) = (_codec.Width, _codec.Height);
        // The second condition is for images of a few columns, whose rows are padded.
        if ((long)Width * Height > MostPixels || (long)Stride(Width) * Height > 4 * MostPixels)
        {
            return ImageStatus.TooLarge;
        }

        return _codec.Format == SkiaFormat.Jpeg && JpegScans.AreTooMany(encoded.AsSpan(0, length)) ? ImageStatus.TooManyScans : ImageStatus.Ok;
    }

    /// <summary>Opens what a source has read: reads a file's header, or takes bare pixels. The buffer must stay unchanged until <see cref="Close"/>.</summary>
    /// <exception cref="ArgumentException">The buffer does not hold what the source says it has read.</exception>
    public ImageStatus Open(byte[] buffer, StoredImage image)
    {
        if (buffer is null || image.Length < 0 || image.Length > buffer.Length || !Enum.IsDefined(image.Encoding))
        {
            string extents = image.Encoding == ImageEncoding.File ? "" : FormattableString.Invariant($", {image.Width}x{image.Height} pixels");
            throw new ArgumentException(FormattableString.Invariant(
                $"An image source says that it has read {image.Length} bytes ({image.Encoding}{extents}) into a buffer of {buffer?.Length ?? 0}. A source replaces a buffer that is too small, and returns how many bytes it has read and what they are (StoredImage.File, Grey or Rgb)."), nameof(image));
        }

        if (image.Encoding == ImageEncoding.File)
        {
            return Open(buffer, image.Length);
        }

        Close();
        long pixels = (long)image.Width * image.Height;
        if (image.Width < 1 || image.Height < 1 || pixels > MostPixels)
        {
            return pixels == 0 ? ImageStatus.Empty : ImageStatus.TooLarge;
        }

        int bytesPerPixel = image.Encoding == ImageEncoding.Rgb ? 3 : 1;
        if (image.Length != pixels * bytesPerPixel)
        {
            throw new ArgumentException(FormattableString.Invariant(
                $"An image source says that it has read {image.Length} bytes of an image of {image.Width}x{image.Height} pixels of {bytesPerPixel} bytes, which has {pixels * bytesPerPixel}."), nameof(image));
        }

        (_bare, _bytesPerPixel, Width, Height) = (buffer, bytesPerPixel, image.Width, image.Height);
        return ImageStatus.Ok;
    }

    /// <summary>
    /// Decodes the pixels inside [left, right) x [top, bottom) to <see cref="Window"/>, reduced by the codec to no less than
    /// <paramref name="smallestScale"/> of the full size.
    /// </summary>
    public ImageStatus Decode(int left, int top, int right, int bottom, double smallestScale)
    {
        if (_bare is not null)
        {
            Expand(_bare, left, top, right, bottom);
            return ImageStatus.Ok;
        }

        if (!_open)
        {
            throw new InvalidOperationException("No image is open.");
        }

        int eighths = Eighths;
        (int width, int height) = (Width, Height);
        bool isJpeg = _codec.Format == SkiaFormat.Jpeg;
        if (isJpeg && smallestScale < 1)
        {
            eighths = Math.Max(1, (int)Math.Ceiling(smallestScale * Eighths));
            (int Width, int Height) scaled = _codec.ScaledSize(eighths / (float)Eighths);
            if (scaled == (Scaled(Width, eighths), Scaled(Height, eighths)))
            {
                (width, height) = scaled;
            }
            else
            {
                eighths = Eighths;
            }
        }

        double scale = eighths / (double)Eighths;
        int x = left * eighths / Eighths, y = top * eighths / Eighths;
        int columns = Math.Min(Scaled(right, eighths), width) - x, rows = Math.Min(Scaled(bottom, eighths), height) - y;
        if (isJpeg && _hasEndMarker)
        {
            int stride = Stride(columns);
            Reserve((long)stride * rows);
            _windowOffset = 0;
            if (_codec.StartRows(width, height, x, x + columns) && (y == 0 || _codec.SkipRows(y)))
            {
                Window = new DecodedWindow(x, y, columns, rows, stride, scale);
                return _codec.ReadRows(_pixels.Address, rows, stride) == rows ? ImageStatus.Ok : ImageStatus.Truncated;
            }
        }

        int fullStride = Stride(width);
        Reserve((long)fullStride * height + Resampler.RowAlignment);
        _windowOffset = y * fullStride + x * 4;
        Window = new DecodedWindow(x, y, columns, rows, fullStride, scale);
        return _codec.ReadAll(_pixels.Address, width, height, fullStride) switch
        {
            SkiaResult.Success => ImageStatus.Ok,
            SkiaResult.IncompleteInput => ImageStatus.Truncated,
            _ => ImageStatus.Corrupt,
        };
    }

    /// <summary>Lets go of the encoded bytes.</summary>
    public void Close()
    {
        _bare = null;
        _codec.Close();
        _open = false;
        if (_pin.IsAllocated)
        {
            _pin.Free();
        }

        if (_pixels.Bytes > MostKeptBytes)
        {
            _pixels.Dispose();
            _pixels = new AlignedMemory(LeastBytes);
        }
    }

    public void Dispose()
    {
        Close();
        _codec.Dispose();
        _pixels.Dispose();
    }

    /// <summary>
    /// Bare pixels as RGBA. Of colours the window is what was asked for, as of a decoded file; of grey it is the whole image, whose pixels beyond a training
    /// crop therefore count within the filter's reach: so it has always been for MNIST, and runs that were begun must go on to the bit.
    /// </summary>
    private void Expand(ReadOnlySpan<byte> bare, int left, int top, int right, int bottom)
    {
        const uint Replicate = 0x00010101, Opaque = 0xFF000000;
        int stride = Stride(Width);
        Reserve((long)stride * Height + Resampler.RowAlignment);
        bool whole = _bytesPerPixel == 1;
        Window = whole ? new DecodedWindow(0, 0, Width, Height, stride, 1) : new DecodedWindow(left, top, right - left, bottom - top, stride, 1);
        _windowOffset = whole ? 0 : top * stride + left * 4;
        Span<uint> rows = AlignedMemory.AsSpan<uint>(_pixels.Address, stride / 4 * Height);
        for (int y = 0; y < Height; y++)
        {
            Span<uint> row = rows.Slice(y * (stride / 4), Width);
            ReadOnlySpan<byte> values = bare.Slice(y * Width * _bytesPerPixel, Width * _bytesPerPixel);
            if (_bytesPerPixel == 1)
            {
                for (int x = 0; x < row.Length; x++)
                {
                    row[x] = values[x] * Replicate | Opaque;
                }
            }
            else
            {
                for (int x = 0; x < row.Length; x++)
                {
                    row[x] = values[3 * x] | (uint)values[3 * x + 1] << 8 | (uint)values[3 * x + 2] << 16 | Opaque;
                }
            }
        }
    }

    private static int Scaled(int extent, int eighths) => (int)(((long)extent * eighths + Eighths - 1) / Eighths);

    private static int Stride(int width) => (width * 4 + Resampler.RowAlignment - 1) & -Resampler.RowAlignment;

    private void Reserve(long bytes)
    {
        if (_pixels.Bytes < bytes)
        {
            _pixels.Dispose();
            _pixels = new AlignedMemory(bytes + bytes / 4);
        }
    }
}

/// <summary>
/// Decoded pixels: the rectangle at (X, Y) of Width x Height pixels of the image reduced by the codec to <paramref name="Scale"/> of its size.
/// </summary>
internal readonly record struct DecodedWindow(int X, int Y, int Width, int Height, int Stride, double Scale)
{
    /// <summary>A rectangle of the full-size image, in pixels of the window.</summary>
    public ImageCrop ToWindow(ImageCrop crop) => new(crop.X * Scale - X, crop.Y * Scale - Y, crop.Width * Scale, crop.Height * Scale, crop.Mirror);
}
