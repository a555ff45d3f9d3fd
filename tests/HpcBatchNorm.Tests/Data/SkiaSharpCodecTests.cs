using HpcBatchNorm.Data;
using HpcBatchNorm.Interop.Skia;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

/// <summary>The decoder for other versions of SkiaSharp gives the pixels that the usual one gives: a dataset does not change with a package.</summary>
public sealed class SkiaSharpCodecTests
{
    public static TheoryData<string> Images => ["jpeg", "grey", "cmyk", "png", "truncated", "broken", "text"];

    [Theory]
    [MemberData(nameof(Images))]
    public void Decode_WithSkiaSharpsClasses_GivesTheSamePixels(string kind)
    {
        byte[] encoded = Encoded(kind);
        using ImageDecoder usual = new(new SkiaCodec()), other = new(new SkiaSharpCodec());
        ImageStatus status = usual.Open(encoded, encoded.Length);
        Assert.Equal(status, other.Open(encoded, encoded.Length));
        if (status != ImageStatus.Ok)
        {
            return;
        }

        Assert.Equal((usual.Width, usual.Height), (other.Width, other.Height));
        foreach ((int left, int top, int right, int bottom, double scale) in new[] { (0, 0, usual.Width, usual.Height, 1), (3, 5, 31, 19, 1), (8, 4, usual.Width, 24, 0.3) })
        {
            ImageStatus decoded = usual.Decode(left, top, right, bottom, scale);
            Assert.Equal(decoded, other.Decode(left, top, right, bottom, scale));
            Assert.Equal(usual.Window, other.Window);
            if (decoded == ImageStatus.Ok)
            {
                Assert.Equal(Rows(usual), Rows(other));
            }
        }
    }

    private static byte[] Encoded(string kind)
    {
        byte[] jpeg = TestImages.Texture(75, 50);
        return kind switch
        {
            "jpeg" => jpeg,
            "grey" => TestImages.Encode(40, 30, (x, y) => new SKColor((byte)(x * 5), (byte)(x * 5), (byte)(x * 5)), grey: true),
            "cmyk" => TestImages.AdobeCmyk(200, 100, 50, 128),
            "png" => TestImages.Encode(40, 30, (x, y) => new SKColor((byte)(x * 5), (byte)(y * 7), 77, (byte)(x + y)), SKEncodedImageFormat.Png),
            "truncated" => jpeg[..(jpeg.Length / 2)],
            "broken" => jpeg[..40],
            _ => "no image at all"u8.ToArray(),
        };
    }

    /// <summary>The window without what lies between its rows, which nobody wrote.</summary>
    private static byte[] Rows(ImageDecoder decoder)
    {
        DecodedWindow window = decoder.Window;
        byte[] rows = new byte[window.Width * 4 * window.Height];
        for (int y = 0; y < window.Height; y++)
        {
            decoder.Pixels.Slice(y * window.Stride, window.Width * 4).CopyTo(rows.AsSpan(y * window.Width * 4));
        }

        return rows;
    }
}
