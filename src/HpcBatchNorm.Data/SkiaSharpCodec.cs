using HpcBatchNorm.Interop.Skia;
using SkiaSharp;

namespace HpcBatchNorm.Data;

/// <summary>
/// The same decoder through SkiaSharp's own classes, for an application that brings another version of SkiaSharp than the one <see cref="SkiaCodec"/> is
/// declared for. Four garbage-collected objects per image, the same pixels.
/// </summary>
internal sealed class SkiaSharpCodec : ImageCodec
{
    private SKData? _data;
    private SKCodec? _codec;

    /// <summary>The decoder that fits the libSkiaSharp of this process.</summary>
    public static ImageCodec Create() => SkiaCodec.IsCompatible ? new SkiaCodec() : new SkiaSharpCodec();

    /// <inheritdoc/>
    public override bool Open(nint bytes, int length)
    {
        Close();
        _data = SKData.Create(bytes, length);
        _codec = SKCodec.Create(_data);
        if (_codec is null)
        {
            return false;
        }

        (Width, Height) = (_codec.Info.Width, _codec.Info.Height);
        // Both count as Skia does.
        Format = (SkiaFormat)_codec.EncodedFormat;
        return true;
    }

    /// <inheritdoc/>
    public override (int Width, int Height) ScaledSize(float scale)
    {
        SKSizeI size = Opened.GetScaledDimensions(scale);
        return (size.Width, size.Height);
    }

    /// <inheritdoc/>
    public override bool StartRows(int width, int height, int left, int right) =>
        Opened.StartScanlineDecode(InfoOf(width, height), new SKCodecOptions(new SKRectI(left, 0, right, height))) == SKCodecResult.Success;

    /// <inheritdoc/>
    public override bool SkipRows(int count) => Opened.SkipScanlines(count);

    /// <inheritdoc/>
    public override int ReadRows(nint pixels, int count, int stride) => Opened.GetScanlines(pixels, count, stride);

    /// <inheritdoc/>
    public override SkiaResult ReadAll(nint pixels, int width, int height, int stride) =>
        (SkiaResult)Opened.GetPixels(InfoOf(width, height), pixels, stride, SKCodecOptions.Default);

    /// <inheritdoc/>
    public override void Close()
    {
        _codec?.Dispose();
        _data?.Dispose();
        (_codec, _data) = (null, null);
    }

    private SKCodec Opened => _codec ?? throw new InvalidOperationException("No image is open.");

    private SKImageInfo InfoOf(int width, int height) =>
        new(width, height, SKColorType.Rgba8888, Opened.Info.AlphaType == SKAlphaType.Opaque ? SKAlphaType.Opaque : SKAlphaType.Unpremul);
}
