using CsCheck;
using HpcBatchNorm.Data;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Data;

public sealed class ImageCropTests
{
    private static readonly Gen<(int Width, int Height)> Sizes = Gen.Select(Gen.Int[1, 900], Gen.Int[1, 900]);

    [Fact]
    public void Random_AnyImage_LiesInsideInWholePixels() =>
        Gen.Select(Sizes, Gen.ULong).Sample((size, seed) =>
        {
            ImageCrop crop = Draw(size.Width, size.Height, new AugmentationOptions(), seed);
            return crop.X >= 0 && crop.Y >= 0 && crop.Width >= 1 && crop.Height >= 1 && crop.X + crop.Width <= size.Width &&
                crop.Y + crop.Height <= size.Height && crop.X % 1 == 0 && crop.Y % 1 == 0 && crop.Width % 1 == 0 && crop.Height % 1 == 0;
        });

    [Fact]
    public void Random_ImageOfUsualShape_KeepsAreaAndAspectBounds() =>
        Gen.Select(Gen.Int[200, 800], Gen.Int[200, 800], Gen.ULong, Gen.Double[0.08, 0.9]).Sample((width, height, seed, minArea) =>
        {
            if (width > 1.3 * height || height > 1.3 * width)
            {
                return true;
            }

            ImageCrop crop = Draw(width, height, new AugmentationOptions { MinArea = minArea }, seed);
            double area = crop.Width * crop.Height / ((double)width * height), aspect = crop.Width / crop.Height;
            // Sides are rounded to whole pixels, at least 50 of them.
            return area >= minArea * 0.97 && area <= 1 && aspect >= 0.75 * 0.97 && aspect <= 4 / 3.0 * 1.03;
        });

    [Fact]
    public void Random_ExtremePanorama_FallsBackToTheCentreWithAnAllowedAspect()
    {
        ImageCrop crop = Draw(1000, 10, new AugmentationOptions { MinArea = 0.9 }, 3);
        Assert.Equal(new ImageCrop(493, 0, 13, 10, crop.Mirror), crop);
    }

    [Fact]
    public void Random_ManyDraws_AreUniformInAreaLogUniformInAspectAndMirrorHalf()
    {
        const int Draws = 20_000;
        double area = 0, logAspect = 0, mirrored = 0, left = 0;
        for (uint i = 0; i < Draws; i++)
        {
            var random = new RandomSequence(1, RandomStreams.Crop, 0, i);
            ImageCrop crop = ImageCrop.Random(1000, 1000, new AugmentationOptions { MinArea = 0.08 }, ref random);
            area += crop.Width * crop.Height / 1e6;
            logAspect += Math.Log(crop.Width / crop.Height);
            mirrored += crop.Mirror ? 1 : 0;
            left += crop.Width == 1000 ? 0.5 : crop.X / (1000 - crop.Width);
        }

        // A square takes a crop of area a and aspect r when a <= min(r, 1 / r). With L = ln(4/3), the mean area of those taken is
        // ((1 - exp(-2L)) / 2 - 0.08^2 L) / 2 / ((1 - exp(-L)) - 0.08 L). Standard errors of all four means are 0.004 or less.
        double limit = Math.Log(4.0 / 3);
        double expected = ((1 - Math.Exp(-2 * limit)) / 2 - 0.0064 * limit) / 2 / (1 - Math.Exp(-limit) - 0.08 * limit);
        Assert.Equal(expected, area / Draws, 0.008);
        Assert.InRange(logAspect / Draws, -0.01, 0.01);
        Assert.InRange(mirrored / Draws, 0.48, 0.52);
        Assert.InRange(left / Draws, 0.48, 0.52);
    }

    /// <summary>Of a square of 8 pixels with a quarter of its area or more, sides are 4 to 8 pixels: each of the places left, the last included, is drawn.</summary>
    [Fact]
    public void Random_SmallImage_BeginsAtEveryPlaceThatIsLeft()
    {
        HashSet<(double Side, double At)> across = [], down = [];
        for (uint i = 0; i < 5000; i++)
        {
            var random = new RandomSequence(1, RandomStreams.Crop, 0, i);
            ImageCrop crop = ImageCrop.Random(8, 8, new AugmentationOptions { MinArea = 0.25 }, ref random);
            across.Add((crop.Width, crop.X));
            down.Add((crop.Height, crop.Y));
        }

        (double, double)[] all = [.. from side in Enumerable.Range(4, 4) from at in Enumerable.Range(0, 8 - side + 1) select ((double)side, (double)at)];
        Assert.Empty(all.Except(across));
        Assert.Empty(all.Except(down));
    }

    [Theory]
    [InlineData(500, 375, 224, 0.875, 341, 256)]
    [InlineData(375, 500, 224, 0.875, 256, 341)]
    [InlineData(64, 64, 64, 1.0, 64, 64)]
    [InlineData(100, 50, 64, 0.875, 146, 73)]
    public void Center_ResizesTheShortSideAndTakesTheMiddle(int width, int height, int size, double fraction, int resizedWidth, int resizedHeight)
    {
        ImageCrop crop = ImageCrop.Center(width, height, size, fraction);
        double pixelWidth = (double)width / resizedWidth, pixelHeight = (double)height / resizedHeight;
        Assert.Equal(size * pixelWidth, crop.Width, 9);
        Assert.Equal(size * pixelHeight, crop.Height, 9);
        Assert.Equal(Math.Floor((resizedWidth - size) / 2.0) * pixelWidth, crop.X, 9);
        Assert.Equal(Math.Floor((resizedHeight - size) / 2.0) * pixelHeight, crop.Y, 9);
        Assert.False(crop.Mirror);
    }

    private static ImageCrop Draw(int width, int height, AugmentationOptions options, ulong seed)
    {
        var random = new RandomSequence(seed, RandomStreams.Crop);
        return ImageCrop.Random(width, height, options, ref random);
    }
}
