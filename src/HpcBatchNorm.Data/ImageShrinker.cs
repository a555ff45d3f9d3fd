using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using SkiaSharp;

namespace HpcBatchNorm.Data;

/// <summary>Makes large images small for packing. Keeps its buffers; one per thread.</summary>
/// <param name="shortSide">Images whose short side is longer are reduced to it; 0 to reduce none.</param>
/// <param name="quality">JPEG quality of what is encoded anew, 1 to 100.</param>
internal sealed class ImageShrinker(int shortSide, int quality) : IDisposable
{
    /// <summary>As in evaluation: the codec leaves twice the pixels needed, so that our filter decides how the image looks.</summary>
    private const double Margin = 2;

    private readonly ImageDecoder _decoder = new();
    private Resampler? _resampler;
    private (int Width, int Height) _size;
    private byte[] _rgbx = [], _grey = [];

    /// <summary>Checks an image by decoding it, and gives its new bytes: its own when it is small enough.</summary>
    public ImageStatus Shrink(byte[] encoded, int length, out byte[] result)
    {
        result = [];
        try
        {
            ImageStatus status = _decoder.Open(encoded, length);
            if (status != ImageStatus.Ok)
            {
                return status;
            }

            int shorter = Math.Min(_decoder.Width, _decoder.Height);
            bool reduce = shortSide > 0 && shorter > shortSide;
            double scale = reduce ? (double)shortSide / shorter : 1;
            status = _decoder.Decode(0, 0, _decoder.Width, _decoder.Height, Math.Min(1, Margin * scale));
            if (status == ImageStatus.Ok)
            {
                result = reduce ? Reduce(scale) : encoded[..length];
            }

            return status;
        }
        finally
        {
            _decoder.Close();
        }
    }

    /// <summary>Bare grey pixels as a PNG, which keeps every one.</summary>
    public static byte[] EncodeGrey(byte[] pixels, int width, int height) =>
        Encode(pixels, new SKImageInfo(width, height, SKColorType.Gray8, SKAlphaType.Opaque), pixmap => pixmap.Encode(SKPngEncoderOptions.Default));

    public void Dispose() => _decoder.Dispose();

    private byte[] Reduce(double scale)
    {
        (int Width, int Height) size = (Math.Max(1, (int)Math.Round(_decoder.Width * scale)), Math.Max(1, (int)Math.Round(_decoder.Height * scale)));
        if (_resampler is null || _size != size)
        {
            (_resampler, _size) = (new Resampler(size.Width, size.Height), size);
            (_rgbx, _grey) = (new byte[size.Width * size.Height * 4], new byte[size.Width * size.Height]);
        }

        DecodedWindow window = _decoder.Window;
        var whole = new ImageCrop(-window.X, -window.Y, _decoder.Width * window.Scale, _decoder.Height * window.Scale, Mirror: false);
        _resampler.Resize(_decoder.Pixels, window.Width, window.Height, window.Stride, whole);
        bool isGrey = true;
        for (int i = 0; i < _grey.Length; i++)
        {
            Vector128<int> rounded = Vector128.ConvertToInt32(_resampler.Pixels[i] + Vector128.Create(0.5f));
            (byte red, byte green, byte blue) = ((byte)rounded[0], (byte)rounded[1], (byte)rounded[2]);
            (_rgbx[4 * i], _rgbx[4 * i + 1], _rgbx[4 * i + 2], _rgbx[4 * i + 3]) = (red, green, blue, 255);
            _grey[i] = green;
            isGrey &= red == green && green == blue;
        }

        var options = new SKJpegEncoderOptions(quality, SKJpegEncoderDownsample.Downsample420, SKJpegEncoderAlphaOption.Ignore);
        return isGrey
            ? Encode(_grey, new SKImageInfo(size.Width, size.Height, SKColorType.Gray8, SKAlphaType.Opaque), pixmap => pixmap.Encode(options))
            : Encode(_rgbx, new SKImageInfo(size.Width, size.Height, SKColorType.Rgb888x, SKAlphaType.Opaque), pixmap => pixmap.Encode(options));
    }

    private static byte[] Encode(byte[] pixels, SKImageInfo info, Func<SKPixmap, SKData?> encode)
    {
        GCHandle pin = GCHandle.Alloc(pixels, GCHandleType.Pinned);
        try
        {
            using var pixmap = new SKPixmap(info, pin.AddrOfPinnedObject(), info.RowBytes);
            using SKData data = encode(pixmap) ?? throw new InvalidOperationException($"An image of {info.Width}x{info.Height} pixels could not be encoded.");
            return data.ToArray();
        }
        finally
        {
            pin.Free();
        }
    }
}
