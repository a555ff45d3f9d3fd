namespace HpcBatchNorm.Interop.Skia;

/// <summary>An image format, with Skia's numbers.</summary>
internal enum SkiaFormat
{
    Bmp = 0,
    Gif = 1,
    Jpeg = 3,
    Png = 4,
    Webp = 6,
}

/// <summary>How a decoding went, with Skia's numbers.</summary>
internal enum SkiaResult
{
    Success = 0,
    IncompleteInput = 1,
    ErrorInInput = 2,
}

/// <summary>An image decoder that takes image after image. Decodes to RGBA bytes without colour management. For one thread at a time.</summary>
internal abstract class ImageCodec : IDisposable
{
    /// <summary>Width of the open image in pixels.</summary>
    public int Width { get; protected set; }

    /// <summary>Height of the open image in pixels.</summary>
    public int Height { get; protected set; }

    /// <summary>Format of the open image, told by its content.</summary>
    public SkiaFormat Format { get; protected set; }

    /// <summary>Reads an image's header; false when it is none. The bytes must stay where they are until <see cref="Close"/>.</summary>
    public abstract bool Open(nint bytes, int length);

    /// <summary>The size nearest to a scale that the codec can decode to by itself.</summary>
    public abstract (int Width, int Height) ScaledSize(float scale);

    /// <summary>Begins to decode the columns from <paramref name="left"/> to before <paramref name="right"/> row by row, at a size of <see cref="ScaledSize"/>.</summary>
    public abstract bool StartRows(int width, int height, int left, int right);

    /// <summary>Passes over rows; false when there are not as many.</summary>
    public abstract bool SkipRows(int count);

    /// <summary>Decodes the next rows and returns how many of them the data held.</summary>
    public abstract int ReadRows(nint pixels, int count, int stride);

    /// <summary>Decodes the whole image, at a size of <see cref="ScaledSize"/>.</summary>
    public abstract SkiaResult ReadAll(nint pixels, int width, int height, int stride);

    /// <summary>Lets go of the image.</summary>
    public abstract void Close();

    public void Dispose()
    {
        Close();
        GC.SuppressFinalize(this);
    }
}
