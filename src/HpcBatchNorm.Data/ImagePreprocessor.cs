namespace HpcBatchNorm.Data;

/// <summary>How raw pixels lie in memory: row after row without gaps, a byte per value.</summary>
public enum PixelFormat
{
    /// <summary>One byte per pixel.</summary>
    Grey = 1,

    /// <summary>Red, green, blue.</summary>
    Rgb = 3,

    /// <summary>Red, green, blue and a fourth byte that is ignored.</summary>
    Rgba = 4,
}

/// <summary>What a network takes of an image. Defaults are those of evaluation.</summary>
public sealed record PreprocessingOptions
{
    /// <summary>Width and height S of the network's input in pixels.</summary>
    public required int Size { get; init; }

    /// <summary>Values per pixel: 3 for R, G, B, or 1 for grey (colours become their luma).</summary>
    public int Channels { get; init; } = 3;

    /// <summary>S divided by the short side the image is resized to before its centre is cropped.</summary>
    public double CropFraction { get; init; } = 0.875;

    /// <summary>The filter that images are resized with.</summary>
    public Interpolation Interpolation { get; init; }

    /// <summary>Values of 128 and more become 255, the others 0.</summary>
    public bool Binarize { get; init; }

    /// <summary>Bytes of one preprocessed image: S * S * channels.</summary>
    public int ImageBytes => checked(Size * Size * Channels);
}

/// <summary>
/// Makes of a picture the very pixels that evaluation makes of it: decodes it, resizes it until its short side has round(S / crop fraction) pixels, cuts
/// out the central S x S pixels and rounds them to bytes, row by row, R, G, B (NHWC). Normalization to floating point is the session's work.
/// Keeps its buffers and allocates nothing once they have grown; one thread at a time, so that several threads take one each.
/// </summary>
public sealed class ImagePreprocessor : IDisposable
{
    private const long MostPixels = 100_000_000;
    private const int Rgba = 4;
    private const int MostKeptBytes = 64 << 20;

    private readonly ImageDecoder _decoder = new();
    private readonly Resampler _resampler;
    private readonly CropPipeline _pipeline;
    private byte[] _encoded = [];
    private byte[] _rows = [];
    private int _inside;
    private bool _disposed;

    /// <summary>Creates a preprocessor.</summary>
    /// <exception cref="UserErrorException">An option is out of its range; the message names it.</exception>
    public ImagePreprocessor(PreprocessingOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        new LoaderOptions { BatchSize = 1, ImageSize = options.Size, Channels = options.Channels, CropFraction = options.CropFraction }.Validate();
        Options = options;
        _resampler = new Resampler(options.Size) { Interpolation = options.Interpolation };
        _pipeline = new CropPipeline(_decoder, _resampler, options.Size);
    }

    /// <summary>What it makes of images.</summary>
    public PreprocessingOptions Options { get; }

    /// <summary>Preprocesses the content of an image file: JPEG, PNG, WebP or BMP, recognised by content.</summary>
    /// <param name="encoded">The file's bytes.</param>
    /// <param name="pixels">Takes <see cref="PreprocessingOptions.ImageBytes"/> bytes; unchanged unless the result is <see cref="ImageStatus.Ok"/>.</param>
    /// <returns>What became of the image.</returns>
    /// <exception cref="ArgumentException"><paramref name="pixels"/> has another length.</exception>
    public ImageStatus TryProcess(ReadOnlySpan<byte> encoded, Span<byte> pixels)
    {
        Enter(pixels);
        try
        {
            if (_encoded.Length < encoded.Length)
            {
                _encoded = new byte[encoded.Length + encoded.Length / 4];
            }

            encoded.CopyTo(_encoded);
            ImageStatus status = _decoder.Open(_encoded, encoded.Length);
            if (status == ImageStatus.Ok)
            {
                status = _pipeline.Center(Options.CropFraction);
            }

            if (status == ImageStatus.Ok)
            {
                _pipeline.Store(pixels, Options.Channels, Options.Binarize);
            }

            return status;
        }
        finally
        {
            _decoder.Close();
            Trim(ref _encoded);
            Leave();
        }
    }

    /// <summary>The same, with an exception for an image that cannot be used.</summary>
    /// <exception cref="InvalidImageException">The bytes are no image, or a damaged one; the message says what is wrong.</exception>
    /// <exception cref="ArgumentException"><paramref name="pixels"/> has another length than <see cref="PreprocessingOptions.ImageBytes"/>.</exception>
    public void Process(ReadOnlySpan<byte> encoded, Span<byte> pixels)
    {
        ImageStatus status = TryProcess(encoded, pixels);
        if (status != ImageStatus.Ok)
        {
            throw new InvalidImageException(status);
        }
    }

    /// <summary>Preprocesses pixels that are decoded already.</summary>
    /// <param name="raw">Width * height pixels, row after row from the top, without gaps.</param>
    /// <param name="width">Pixels per row.</param>
    /// <param name="height">Rows.</param>
    /// <param name="format">Bytes per pixel and their order.</param>
    /// <param name="pixels">Takes <see cref="PreprocessingOptions.ImageBytes"/> bytes.</param>
    /// <exception cref="InvalidImageException">There are no pixels, since width or height are less than 1, or more than 100 million; the message says which.</exception>
    /// <exception cref="ArgumentException">A length does not fit.</exception>
    public void Process(ReadOnlySpan<byte> raw, int width, int height, PixelFormat format, Span<byte> pixels)
    {
        long count = (long)width * height, bytes = count * (int)format;
        if (!Enum.IsDefined(format))
        {
            throw new ArgumentException($"{(int)format} is no pixel format.", nameof(format));
        }

        if (width < 1 || height < 1)
        {
            throw new InvalidImageException(ImageStatus.Empty, FormattableString.Invariant(
                $"The image has a width of {width} and a height of {height}; expected at least 1 pixel of each."));
        }

        // The last condition is for images of a few columns, whose rows are padded.
        if (count > MostPixels || (long)Math.Max(width, Resampler.RowAlignment / Rgba) * height > MostPixels)
        {
            throw new InvalidImageException(ImageStatus.TooLarge);
        }

        if (raw.Length != bytes)
        {
            throw new ArgumentException(FormattableString.Invariant($"{width} x {height} pixels of format {format} are {bytes} bytes; {raw.Length} were given."), nameof(raw));
        }

        Enter(pixels);
        try
        {
            int stride = checked((width * Rgba + Resampler.RowAlignment - 1) & -Resampler.RowAlignment);
            if (_rows.Length < (long)stride * height)
            {
                _rows = new byte[checked(stride * height)];
            }

            Expand(raw, width, height, (int)format, stride);
            _resampler.Resize(_rows, width, height, stride, ImageCrop.Center(width, height, Options.Size, Options.CropFraction));
            _pipeline.Store(pixels, Options.Channels, Options.Binarize);
        }
        finally
        {
            Trim(ref _rows);
            Leave();
        }
    }

    /// <summary>Frees the decoder. A second call does nothing.</summary>
    public void Dispose()
    {
        if (!_disposed)
        {
            _disposed = true;
            _decoder.Dispose();
        }
    }

    private void Expand(ReadOnlySpan<byte> raw, int width, int height, int bytesPerPixel, int stride)
    {
        for (int y = 0; y < height; y++)
        {
            ReadOnlySpan<byte> from = raw.Slice(y * width * bytesPerPixel, width * bytesPerPixel);
            Span<byte> row = _rows.AsSpan(y * stride, width * Rgba);
            if (bytesPerPixel == Rgba)
            {
                from.CopyTo(row);
                continue;
            }

            for (int x = 0; x < width; x++)
            {
                ReadOnlySpan<byte> pixel = from[(x * bytesPerPixel)..];
                (byte green, byte blue) = bytesPerPixel == 1 ? (pixel[0], pixel[0]) : (pixel[1], pixel[2]);
                (row[4 * x], row[4 * x + 1], row[4 * x + 2], row[4 * x + 3]) = (pixel[0], green, blue, byte.MaxValue);
            }
        }
    }

    private void Enter(Span<byte> pixels)
    {
        if (Interlocked.Exchange(ref _inside, 1) != 0)
        {
            throw new InvalidOperationException("Two threads use an image preprocessor at once. It keeps buffers; give each thread one of its own.");
        }

        try
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            if (pixels.Length != Options.ImageBytes)
            {
                throw new ArgumentException(FormattableString.Invariant(
                    $"An image of {Options.Size} x {Options.Size} x {Options.Channels} takes {Options.ImageBytes} bytes; there is room for {pixels.Length}."), nameof(pixels));
            }
        }
        catch
        {
            Leave();
            throw;
        }
    }

    private void Leave() => Volatile.Write(ref _inside, 0);

    private static void Trim(ref byte[] buffer)
    {
        if (buffer.Length > MostKeptBytes)
        {
            buffer = [];
        }
    }
}
