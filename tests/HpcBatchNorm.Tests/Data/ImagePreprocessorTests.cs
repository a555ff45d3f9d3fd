using HpcBatchNorm.Data;
using HpcBatchNorm.Tests.Support;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

/// <summary>The public preprocessing gives the bytes that evaluation gives the network.</summary>
public class ImagePreprocessorTests
{
    [Theory]
    [InlineData("imagenet-photos", 224, 3, 0.875, false)]
    [InlineData("imagenet-photos", 65, 1, 1, true)]
    [InlineData("tiny-ilsvrc2012", 64, 3, 1, false)]
    public void Process_OfPhotos_GivesTheBytesOfEvaluation(string folder, int size, int channels, double cropFraction, bool binarize)
    {
        using ImageDataset photos = ImageDataset.Open(RepoPaths.SharedDataOrSkip(folder), DatasetSplit.Validation, cacheDirectory: null);
        LoaderOptions options = LoaderOptions.ForEvaluation(8, size) with { Channels = channels, CropFraction = cropFraction, Binarize = binarize };
        using var loader = new BatchLoader(photos, options);
        using var preprocessor = new ImagePreprocessor(new PreprocessingOptions { Size = size, Channels = channels, CropFraction = cropFraction, Binarize = binarize });
        byte[] encoded = [], pixels = new byte[preprocessor.Options.ImageBytes];
        int images = 0;
        for (int i = 0; i < loader.BatchesPerEpoch && images < 200; i++)
        {
            using Batch batch = loader.Next(TestContext.Current.CancellationToken);
            for (int k = 0; k < batch.Count; k++, images++)
            {
                int length = photos.ReadEncoded(batch.IndexArray[k], ref encoded);
                preprocessor.Process(encoded.AsSpan(0, length), pixels);
                Assert.True(batch.PixelArray.AsSpan(k * pixels.Length, pixels.Length).SequenceEqual(pixels), photos.Name(batch.IndexArray[k]));
            }
        }

        Assert.InRange(images, 90, 208);
    }

    [Theory]
    [InlineData(50, 40)]
    [InlineData(17, 33)]
    [InlineData(300, 200)]
    public void Process_OfRawPixels_IsThatOfTheEncodedPicture(int width, int height)
    {
        static SKColor Color(int x, int y) => new((byte)(x * 5), (byte)(y * 7), (byte)(x * y));
        byte[] rgb = new byte[width * height * 3], rgba = new byte[width * height * 4];
        for (int i = 0; i < width * height; i++)
        {
            SKColor color = Color(i % width, i / width);
            (rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]) = (color.Red, color.Green, color.Blue);
            (rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2], rgba[4 * i + 3]) = (color.Red, color.Green, color.Blue, (byte)i);
        }

        using var preprocessor = new ImagePreprocessor(new PreprocessingOptions { Size = 32 });
        byte[] encoded = new byte[32 * 32 * 3], fromRgb = new byte[32 * 32 * 3], fromRgba = new byte[32 * 32 * 3];
        preprocessor.Process(TestImages.Encode(width, height, Color, SKEncodedImageFormat.Png), encoded);
        preprocessor.Process(rgb, width, height, PixelFormat.Rgb, fromRgb);
        preprocessor.Process(rgba, width, height, PixelFormat.Rgba, fromRgba);
        Assert.Equal(encoded, fromRgb);
        Assert.Equal(encoded, fromRgba);
    }

    [Fact]
    public void Process_OfGreyPixels_ReplicatesThem()
    {
        byte[] grey = [.. Enumerable.Range(0, 20 * 20).Select(i => (byte)(i * 3))], rgb = [.. grey.SelectMany(v => new[] { v, v, v })];
        using var preprocessor = new ImagePreprocessor(new PreprocessingOptions { Size = 16 });
        byte[] expected = new byte[16 * 16 * 3], actual = new byte[16 * 16 * 3];
        preprocessor.Process(rgb, 20, 20, PixelFormat.Rgb, expected);
        preprocessor.Process(grey, 20, 20, PixelFormat.Grey, actual);
        Assert.Equal(expected, actual);
    }

    [Fact]
    public void Process_OfWhatIsNoImage_SaysWhatIsWrong()
    {
        using var preprocessor = new ImagePreprocessor(new PreprocessingOptions { Size = 16 });
        byte[] pixels = new byte[16 * 16 * 3];
        byte[] whole = TestImages.Encode(40, 40, (x, y) => new SKColor((byte)(x * 6), (byte)(y * 6), 9));
        ImageStatus Of(ReadOnlySpan<byte> bytes)
        {
            ImageStatus status = preprocessor.TryProcess(bytes, pixels);
            byte[] copy = bytes.ToArray();
            if (status != ImageStatus.Ok)
            {
                InvalidImageException error = Assert.Throws<InvalidImageException>(() => preprocessor.Process(copy, pixels));
                Assert.Equal(status, error.Status);
                Assert.EndsWith(".", error.Message, StringComparison.Ordinal);
            }

            return status;
        }

        Assert.Equal(ImageStatus.Ok, Of(whole));
        Assert.Equal(ImageStatus.Empty, Of([]));
        Assert.Equal(ImageStatus.NotAnImage, Of("hello, world"u8));
        Assert.Equal(ImageStatus.Truncated, Of(whole.AsSpan(0, whole.Length / 2)));
        Assert.Equal(ImageStatus.Ok, Of(whole)); // and it goes on
        Assert.Throws<ArgumentException>(() => preprocessor.Process(whole, new byte[5]));
        Assert.Throws<ArgumentException>(() => preprocessor.Process(new byte[5], 2, 2, PixelFormat.Rgb, pixels));
        InvalidImageException none = Assert.Throws<InvalidImageException>(() => preprocessor.Process([], 0, 2, PixelFormat.Rgb, pixels));
        Assert.Equal((ImageStatus.Empty, "The image has a width of 0 and a height of 2; expected at least 1 pixel of each."), (none.Status, none.Message));
        Assert.Contains("a height of -1;", Assert.Throws<InvalidImageException>(() => preprocessor.Process([], 2, -1, PixelFormat.Rgb, pixels)).Message, StringComparison.Ordinal);
        Assert.Throws<UserErrorException>(() => new ImagePreprocessor(new PreprocessingOptions { Size = 0 }));
        preprocessor.Dispose();
        preprocessor.Dispose();
        Assert.Throws<ObjectDisposedException>(() => preprocessor.Process(whole, pixels));
    }
}
