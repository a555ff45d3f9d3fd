using HpcBatchNorm.Data;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

public sealed class ImageDecoderTests : IDisposable
{
    private readonly ImageDecoder _decoder = new();

    [Fact]
    public void Decode_GreyJpeg_GivesEqualChannels()
    {
        byte[] image = TestImages.Encode(20, 10, (x, _) => new SKColor((byte)(x * 12), (byte)(x * 12), (byte)(x * 12)), grey: true);
        Assert.Equal(ImageStatus.Ok, DecodeWhole(image));
        for (int x = 0; x < 20; x++)
        {
            ReadOnlySpan<byte> pixel = Pixel(x, 5);
            Assert.Equal((pixel[0], pixel[0]), (pixel[1], pixel[2]));
            Assert.InRange(pixel[0], x * 12 - 6, x * 12 + 6);
        }
    }

    [Theory]
    [InlineData(255, 255, 255, 255)]
    [InlineData(200, 100, 50, 255)]
    [InlineData(200, 100, 50, 128)]
    [InlineData(0, 255, 255, 255)]
    [InlineData(255, 255, 255, 0)]
    public void Decode_AdobeCmyk_IsReadAsInverted(byte cyan, byte magenta, byte yellow, byte black)
    {
        Assert.Equal(ImageStatus.Ok, DecodeWhole(TestImages.AdobeCmyk(cyan, magenta, yellow, black)));
        byte[] expected = [(byte)(cyan * black / 255), (byte)(magenta * black / 255), (byte)(yellow * black / 255)];
        for (int i = 0; i < 3; i++)
        {
            Assert.InRange(Pixel(3, 3)[i], expected[i] - 2, expected[i] + 2);
        }
    }

    [Fact]
    public void Decode_PngWhateverItsName_IsExact()
    {
        byte[] image = TestImages.Encode(9, 5, (x, y) => new SKColor((byte)(x * 20), (byte)(y * 40), 77), SKEncodedImageFormat.Png);
        Assert.Equal(ImageStatus.Ok, DecodeWhole(image));
        Assert.Equal((9, 5), (_decoder.Width, _decoder.Height));
        Assert.Equal([160, 120, 77], Pixel(8, 3)[..3].ToArray());
    }

    [Fact]
    public void Decode_ExifOrientation_IsIgnored()
    {
        byte[] image = TestImages.Texture(40, 24);
        byte[] exif = [0xFF, 0xE1, 0, 34, .. "Exif\0\0"u8, .. "MM\0*"u8, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0];
        byte[] rotated = [.. image[..2], .. exif, .. image[2..]];
        using (SKCodec codec = SKCodec.Create(new MemoryStream(rotated)))
        {
            Assert.Equal(SKEncodedOrigin.RightTop, codec.EncodedOrigin);
        }

        Assert.Equal(ImageStatus.Ok, DecodeWhole(image));
        byte[] expected = _decoder.Pixels.ToArray();
        Assert.Equal(ImageStatus.Ok, DecodeWhole(rotated));
        Assert.Equal((40, 24), (_decoder.Width, _decoder.Height));
        Assert.Equal(expected, _decoder.Pixels.ToArray());
    }

    [Fact]
    public void Open_NoBytes_IsEmpty() => Assert.Equal(ImageStatus.Empty, _decoder.Open([], 0));

    [Fact]
    public void Open_Text_IsNotAnImage() => Assert.Equal(ImageStatus.NotAnImage, DecodeWhole("<html>404</html>"u8.ToArray()));

    [Theory]
    [InlineData(60_000, 60_000)]
    [InlineData(100_000_001, 1)]
    [InlineData(1, 100_000_000)]
    [InlineData(int.MaxValue, int.MaxValue)]
    public void Open_HeaderThatClaimsTooMuch_IsRefusedBeforeMemoryIsTaken(int width, int height)
    {
        byte[] png = TestImages.Png(width, height, bitDepth: 8, new byte[100]);
        // A codec may refuse the header in its own way.
        Assert.Contains(_decoder.Open(png, png.Length), (ImageStatus[])[ImageStatus.TooLarge, ImageStatus.NotAnImage]);
        Assert.InRange(_decoder.BufferBytes, 1, 2 << 20);
    }

    [Fact]
    public void Open_JpegHeaderThatClaimsTooMuch_IsTooLarge()
    {
        byte[] image = TestImages.Texture(40, 24);
        int frame = image.AsSpan().IndexOf((byte[])[0xFF, 0xC0]);
        // Height and width, 65,500 each, in a file of a kilobyte.
        ((byte[])[0xFF, 0xDC, 0xFF, 0xDC]).CopyTo(image, frame + 5);
        Assert.Equal(ImageStatus.TooLarge, _decoder.Open(image, image.Length));
    }

    [Fact]
    public void Decode_LargeImage_ThenASmallOne_GivesTheMemoryBack()
    {
        byte[] large = TestImages.Png(6000, 4000, bitDepth: 8, new byte[(6000 * 3 + 1) * 4000]), small = TestImages.Texture(40, 24);
        Assert.Equal(ImageStatus.Ok, DecodeWhole(large));
        Assert.Equal(4000, _decoder.Window.Height);
        Assert.True(_decoder.BufferBytes > 6000 * 4000 * 4);
        Assert.Equal(ImageStatus.Ok, DecodeWhole(small));
        Assert.InRange(_decoder.BufferBytes, 1, 2 << 20);
    }

    [Fact]
    public void Decode_SixteenBitPng_KeepsTheUpperBits()
    {
        // One row: filter byte, then two pixels of three 16-bit values.
        byte[] png = TestImages.Png(2, 1, bitDepth: 16, [0, 0x12, 0x00, 0x80, 0x00, 0xFF, 0xFF, 0xC8, 0x00, 0x00, 0x00, 0x40, 0x00]);
        Assert.Equal(ImageStatus.Ok, DecodeWhole(png));
        byte[] expected = [0x12, 0x80, 0xFF, 255, 0xC8, 0, 0x40];
        for (int i = 0; i < expected.Length; i++)
        {
            Assert.InRange(_decoder.Pixels[i], expected[i] - 1, expected[i] + 1);
        }
    }

    [Theory]
    [InlineData(0.01, ImageStatus.Truncated)]
    [InlineData(0.5, ImageStatus.Truncated)]
    [InlineData(0.9, ImageStatus.Truncated)]
    public void Decode_TruncatedJpeg_IsFoundWhateverPartIsAskedFor(double kept, ImageStatus expected)
    {
        byte[] image = TestImages.Texture(200, 160);
        byte[] cut = image[..(int)(image.Length * kept)];
        Assert.Equal(expected, DecodeWhole(cut));
        if (_decoder.Open(cut, cut.Length) == ImageStatus.Ok)
        {
            // The first rows are intact, but the image is not.
            Assert.Equal(expected, _decoder.Decode(0, 0, 16, 8, 1));
        }
    }

    [Fact]
    public void Decode_TruncatedPng_IsBad()
    {
        byte[] image = TestImages.Encode(90, 50, (x, y) => new SKColor((byte)(x * y), (byte)(y * 40), 77), SKEncodedImageFormat.Png);
        Assert.Equal(ImageStatus.Truncated, DecodeWhole(image[..(image.Length / 2)]));
    }

    [Fact]
    public void Decode_RandomDamage_NeverCrashesAndNeverLeavesTheDecoderUnusable()
    {
        byte[] image = TestImages.Texture(120, 90);
        var random = new Random(1);
        for (int i = 0; i < 300; i++)
        {
            byte[] damaged = (byte[])image.Clone();
            for (int k = 0; k < 20; k++)
            {
                damaged[random.Next(damaged.Length)] = (byte)random.Next(256);
            }

            if (_decoder.Open(damaged, damaged.Length) == ImageStatus.Ok)
            {
                _decoder.Decode(0, 0, Math.Min(50, _decoder.Width), Math.Min(40, _decoder.Height), 0.5);
            }
        }

        Assert.Equal(ImageStatus.Ok, DecodeWhole(image));
    }

    [Fact]
    public void Decode_Part_HasThePixelsOfTheWhole()
    {
        byte[] image = TestImages.Texture(333, 257);
        Assert.Equal(ImageStatus.Ok, DecodeWhole(image));
        byte[] whole = _decoder.Pixels.ToArray();
        int stride = _decoder.Window.Stride;
        Assert.Equal(ImageStatus.Ok, _decoder.Open(image, image.Length));
        Assert.Equal(ImageStatus.Ok, _decoder.Decode(101, 37, 300, 200, 1));
        Assert.Equal((101, 37, 199, 163), (_decoder.Window.X, _decoder.Window.Y, _decoder.Window.Width, _decoder.Window.Height));
        // The outermost pixels may differ a little: chroma is interpolated from neighbours that were not decoded.
        for (int y = 2; y < 161; y++)
        {
            for (int x = 2; x < 197; x++)
            {
                ReadOnlySpan<byte> part = Pixel(x, y);
                ReadOnlySpan<byte> expected = whole.AsSpan((y + 37) * stride + (x + 101) * 4, 4);
                Assert.True(part.SequenceEqual(expected), $"pixel ({x}, {y})");
            }
        }
    }

    [Fact]
    public void Decode_SmallerScale_KeepsAtLeastTheScaleAskedForAndTheColours()
    {
        byte[] image = TestImages.Texture(333, 257);
        foreach (double scale in (double[])[0.05, 0.126, 0.25, 0.3, 0.5, 0.51, 0.9])
        {
            Assert.Equal(ImageStatus.Ok, _decoder.Open(image, image.Length));
            Assert.Equal(ImageStatus.Ok, _decoder.Decode(0, 0, 333, 257, scale));
            DecodedWindow window = _decoder.Window;
            Assert.InRange(window.Scale, scale, scale + 0.125);
            Assert.Equal((int)Math.Ceiling(333 * window.Scale), window.Width);
            Assert.Equal((int)Math.Ceiling(257 * window.Scale), window.Height);
            double red = 0;
            for (int y = 0; y < window.Height; y++)
            {
                for (int x = 0; x < window.Width; x++)
                {
                    red += Pixel(x, y)[0];
                }
            }

            Assert.InRange(red / (window.Width * window.Height), 125, 145);
        }
    }

    public void Dispose() => _decoder.Dispose();

    private ImageStatus DecodeWhole(byte[] image)
    {
        ImageStatus status = _decoder.Open(image, image.Length);
        return status == ImageStatus.Ok ? _decoder.Decode(0, 0, _decoder.Width, _decoder.Height, 1) : status;
    }

    private ReadOnlySpan<byte> Pixel(int x, int y) => _decoder.Pixels.Slice(y * _decoder.Window.Stride + x * 4, 4);
}
