using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

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

/// <summary>
/// Skia's image decoder through the C interface of libSkiaSharp. SkiaSharp's own classes make four garbage-collected objects with finalizers of every
/// image; this one object takes image after image. Decodes to RGBA bytes without colour management.
/// </summary>
/// <remarks>
/// The interface belongs to SkiaSharp and may change with it, so the library's version is checked once against the one these declarations were
/// compared with, and a test compares the structs with SkiaSharp's.
/// </remarks>
internal sealed unsafe partial class SkiaCodec : IDisposable
{
    /// <summary>Skia's version that the declarations below belong to: the second number of the SkiaSharp package's.</summary>
    public const int Milestone = 154;

    private const string Library = "libSkiaSharp";
    private const int Rgba8888 = 4, OpaqueAlpha = 1, UnpremultipliedAlpha = 3;

    private static readonly Lazy<int> LoadedMilestone = new(() => sk_version_get_milestone());

    private nint _data, _codec;
    private bool _opaque;

    ~SkiaCodec() => Close();

    /// <summary>Width of the open image in pixels.</summary>
    public int Width { get; private set; }

    /// <summary>Height of the open image in pixels.</summary>
    public int Height { get; private set; }

    /// <summary>Format of the open image, told by its content.</summary>
    public SkiaFormat Format { get; private set; }

    /// <summary>Reads an image's header; false when it is none. The bytes must stay where they are until <see cref="Close"/>.</summary>
    /// <exception cref="NotSupportedException">The libSkiaSharp that was found is of another version.</exception>
    public bool Open(nint bytes, int length)
    {
        Close();
        if (LoadedMilestone.Value != Milestone)
        {
            throw new NotSupportedException(
                $"libSkiaSharp of Skia {LoadedMilestone.Value} was found, {Milestone} is needed; use the version of SkiaSharp.NativeAssets that HpcBatchNorm asks for.");
        }

        _data = sk_data_new_with_proc(bytes, length, 0, 0);
        _codec = sk_codec_new_from_data(_data);
        if (_codec == 0)
        {
            return false;
        }

        ImageInfo info;
        sk_codec_get_info(_codec, &info);
        if (info.ColorSpace != 0)
        {
            sk_colorspace_unref(info.ColorSpace);
        }

        (Width, Height, _opaque) = (info.Width, info.Height, info.AlphaType == OpaqueAlpha);
        Format = sk_codec_get_encoded_format(_codec);
        return true;
    }

    /// <summary>The size nearest to a scale that the codec can decode to by itself.</summary>
    public (int Width, int Height) ScaledSize(float scale)
    {
        Size size;
        sk_codec_get_scaled_dimensions(_codec, scale, &size);
        return (size.Width, size.Height);
    }

    /// <summary>Begins to decode the columns from <paramref name="left"/> to before <paramref name="right"/> row by row, at a size of <see cref="ScaledSize"/>.</summary>
    public bool StartRows(int width, int height, int left, int right)
    {
        ImageInfo info = InfoOf(width, height);
        Rectangle subset = new() { Left = left, Right = right, Bottom = height };
        Options options = Options.Default;
        options.Subset = &subset;
        return sk_codec_start_scanline_decode(_codec, &info, &options) == SkiaResult.Success;
    }

    /// <summary>Passes over rows; false when there are not as many.</summary>
    public bool SkipRows(int count) => sk_codec_skip_scanlines(_codec, count) != 0;

    /// <summary>Decodes the next rows and returns how many of them the data held.</summary>
    public int ReadRows(nint pixels, int count, int stride) => sk_codec_get_scanlines(_codec, pixels, count, stride);

    /// <summary>Decodes the whole image, at a size of <see cref="ScaledSize"/>.</summary>
    public SkiaResult ReadAll(nint pixels, int width, int height, int stride)
    {
        ImageInfo info = InfoOf(width, height);
        Options options = Options.Default;
        return sk_codec_get_pixels(_codec, &info, pixels, stride, &options);
    }

    /// <summary>Lets go of the image.</summary>
    public void Close()
    {
        if (_codec != 0)
        {
            sk_codec_destroy(_codec);
            _codec = 0;
        }

        if (_data != 0)
        {
            sk_data_unref(_data);
            _data = 0;
        }
    }

    public void Dispose()
    {
        Close();
        GC.SuppressFinalize(this);
    }

    private ImageInfo InfoOf(int width, int height) => new()
    {
        Width = width,
        Height = height,
        ColorType = Rgba8888,
        AlphaType = _opaque ? OpaqueAlpha : UnpremultipliedAlpha,
    };

    /// <summary>sk_imageinfo_t.</summary>
    internal struct ImageInfo
    {
        public nint ColorSpace;
        public int Width, Height, ColorType, AlphaType;
    }

    /// <summary>sk_codec_options_t.</summary>
    internal struct Options
    {
        public int ZeroInitialized;
        public Rectangle* Subset;
        public int Frame, PriorFrame;
        public nint MaxDecodeMemory;

        public static Options Default => new() { ZeroInitialized = 1, PriorFrame = -1 };
    }

    /// <summary>sk_irect_t.</summary>
    internal struct Rectangle
    {
        public int Left, Top, Right, Bottom;
    }

    /// <summary>sk_isize_t.</summary>
    internal struct Size
    {
        public int Width, Height;
    }

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial int sk_version_get_milestone();

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial nint sk_data_new_with_proc(nint bytes, nint length, nint release, nint context);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial void sk_data_unref(nint data);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial void sk_colorspace_unref(nint colorSpace);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial nint sk_codec_new_from_data(nint data);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial void sk_codec_destroy(nint codec);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial void sk_codec_get_info(nint codec, ImageInfo* info);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial SkiaFormat sk_codec_get_encoded_format(nint codec);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial void sk_codec_get_scaled_dimensions(nint codec, float scale, Size* size);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial SkiaResult sk_codec_start_scanline_decode(nint codec, ImageInfo* info, Options* options);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial byte sk_codec_skip_scanlines(nint codec, int count);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial int sk_codec_get_scanlines(nint codec, nint pixels, int count, nint stride);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial SkiaResult sk_codec_get_pixels(nint codec, ImageInfo* info, nint pixels, nint stride, Options* options);
}
