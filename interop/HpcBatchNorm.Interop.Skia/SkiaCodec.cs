using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop.Skia;

/// <summary>
/// Skia's image decoder through the C interface of libSkiaSharp. SkiaSharp's own classes make four garbage-collected objects with finalizers of every
/// image; this one object takes image after image. Decodes to RGBA bytes without colour management.
/// </summary>
/// <remarks>
/// The interface belongs to SkiaSharp and may change with it, so they are used only with the version they were compared with
/// (<see cref="IsCompatible"/>), and a test compares the structs with SkiaSharp's.
/// </remarks>
internal sealed unsafe partial class SkiaCodec : ImageCodec
{
    /// <summary>Skia's version that the declarations below belong to: the second number of the SkiaSharp package's.</summary>
    public const int Milestone = 154;

    private const string Library = "libSkiaSharp";
    private const int Rgba8888 = 4, OpaqueAlpha = 1, UnpremultipliedAlpha = 3;

    private static readonly Lazy<int> LoadedMilestone = new(() => sk_version_get_milestone());

    private nint _data, _codec;
    private bool _opaque;

    ~SkiaCodec() => Close();

    /// <summary>Whether the libSkiaSharp of this process is of the version that the declarations belong to.</summary>
    public static bool IsCompatible => LoadedMilestone.Value == Milestone;

    /// <inheritdoc/>
    public override bool Open(nint bytes, int length)
    {
        Close();
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

    /// <inheritdoc/>
    public override (int Width, int Height) ScaledSize(float scale)
    {
        Size size;
        sk_codec_get_scaled_dimensions(_codec, scale, &size);
        return (size.Width, size.Height);
    }

    /// <inheritdoc/>
    public override bool StartRows(int width, int height, int left, int right)
    {
        ImageInfo info = InfoOf(width, height);
        Rectangle subset = new() { Left = left, Right = right, Bottom = height };
        Options options = Options.Default;
        options.Subset = &subset;
        return sk_codec_start_scanline_decode(_codec, &info, &options) == SkiaResult.Success;
    }

    /// <inheritdoc/>
    public override bool SkipRows(int count) => sk_codec_skip_scanlines(_codec, count) != 0;

    /// <inheritdoc/>
    public override int ReadRows(nint pixels, int count, int stride) => sk_codec_get_scanlines(_codec, pixels, count, stride);

    /// <inheritdoc/>
    public override SkiaResult ReadAll(nint pixels, int width, int height, int stride)
    {
        ImageInfo info = InfoOf(width, height);
        Options options = Options.Default;
        return sk_codec_get_pixels(_codec, &info, pixels, stride, &options);
    }

    /// <inheritdoc/>
    public override void Close()
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
