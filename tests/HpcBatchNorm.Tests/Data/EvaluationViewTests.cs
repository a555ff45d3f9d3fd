using CsCheck;
using HpcBatchNorm.Data;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

/// <summary>Which views multi-crop evaluation takes (section 4.2.3 and GoogLeNet's section 7), and that they are rendered from where they say.</summary>
public class EvaluationViewTests
{
    private const int Size = 224;

    // Short side 256, 288, 320, 352; the long side of a 4:3 photograph, rounded down; where its central square begins.
    private static readonly (int Short, int Long, int Central)[] FourThirds = [(256, 341, 42), (288, 384, 48), (320, 426, 53), (352, 469, 58)];

    [Theory]
    [InlineData(640, 480)]
    [InlineData(480, 640)]
    public void For_144CropsOfAPhotograph_AreThoseOfThePaperInOrder(int width, int height)
    {
        IReadOnlyList<EvaluationView> views = EvaluationView.For(width, height, Size, 0.875, 144);

        bool portrait = height > width;
        int next = 0;
        foreach ((int shortSide, int longSide, int central) in FourThirds)
        {
            double shortPixel = 480.0 / shortSide, longPixel = 640.0 / longSide;
            foreach (int along in (int[])[0, central, longSide - shortSide])
            {
                ImageCrop square = portrait
                    ? new ImageCrop(0, along * longPixel, shortSide * shortPixel, shortSide * longPixel, false)
                    : new ImageCrop(along * longPixel, 0, shortSide * longPixel, shortSide * shortPixel, false);
                int far = shortSide - Size;
                foreach ((int x, int y, int side) in ((int, int, int)[])[
                    (0, 0, Size), (far, 0, Size), (0, far, Size), (far, far, Size), (far / 2, far / 2, Size), (0, 0, shortSide)])
                {
                    foreach (bool mirror in (bool[])[false, true])
                    {
                        Assert.Equal(new EvaluationView(square, shortSide, x, y, side, mirror), views[next++]);
                    }
                }
            }
        }

        Assert.Equal(144, next);
        Assert.Equal(144, views.Count);
        Assert.Equal(144, views.Distinct().Count());
    }

    [Fact]
    public void For_144CropsOfASquare_HaveThreeEqualSquares()
    {
        IReadOnlyList<EvaluationView> views = EvaluationView.For(500, 500, Size, 0.875, 144);

        Assert.Equal(144, views.Count);
        Assert.Equal(48, views.Distinct().Count());
        Assert.All(views, view => Assert.Equal(new ImageCrop(0, 0, 500, 500, false), Rounded(view.Source)));
        for (int i = 0; i < 144; i++)
        {
            Assert.Equal(views[i / 36 * 36 + i % 12], views[i]);
        }
    }

    [Fact]
    public void For_144CropsAt64Pixels_KeepThePapersProportions() =>
        Assert.Equal([73, 82, 91, 101], EvaluationView.For(100, 70, 64, 1, 144).Select(view => view.Size).Distinct());

    [Theory]
    [InlineData(500, 375, 341, 256)]
    [InlineData(375, 500, 256, 341)]
    [InlineData(300, 300, 256, 256)]
    public void For_10Crops_AreCornersAndCentreOfTheResizedImage(int width, int height, int resizedWidth, int resizedHeight)
    {
        IReadOnlyList<EvaluationView> views = EvaluationView.For(width, height, Size, 0.875, 10);

        double pixelWidth = (double)width / resizedWidth, pixelHeight = (double)height / resizedHeight;
        (int right, int bottom) = (resizedWidth - Size, resizedHeight - Size);
        (int X, int Y)[] places = [(0, 0), (right, 0), (0, bottom), (right, bottom), (right / 2, bottom / 2)];
        Assert.Equal(10, views.Count);
        for (int i = 0; i < 10; i++)
        {
            ImageCrop source = new(places[i / 2].X * pixelWidth, places[i / 2].Y * pixelHeight, Size * pixelWidth, Size * pixelHeight, false);
            Assert.Equal(new EvaluationView(source, Size, 0, 0, Size, i % 2 == 1), views[i]);
        }

        Assert.Equal(ImageCrop.Center(width, height, Size, 0.875), views[8].Source);
    }

    [Fact]
    public void For_AnyImage_LiesInsideIt() =>
        Gen.Select(Gen.Int[1, 700], Gen.Int[1, 700], Gen.Int[8, 300], Gen.Int[0, 2].Select(i => new[] { 1, 10, 144 }[i])).Sample((width, height, size, crops) =>
        {
            IReadOnlyList<EvaluationView> views = EvaluationView.For(width, height, size, 0.875, crops);
            return views.Count == crops && views.Count(view => view.Mirror) == crops / 2 && views.All(view =>
                view.Source.X >= 0 && view.Source.Y >= 0 && view.Source.X + view.Source.Width <= width + 1e-6 && view.Source.Y + view.Source.Height <= height + 1e-6
                && view.X >= 0 && view.Y >= 0 && view.X + view.Side <= view.Size && view.Y + view.Side <= view.Size
                && (view.Side == size || view.Side == view.Size));
        });

    /// <summary>
    /// Red grows with x and green with y, linearly, which resizing keeps away from the borders: every pixel tells where in the image it was taken.
    /// </summary>
    [Theory]
    [InlineData(170, 120, 144)]
    [InlineData(120, 170, 144)]
    [InlineData(140, 140, 144)]
    [InlineData(170, 120, 10)]
    public void Render_EachView_ShowsItsPartOfTheImage(int width, int height, int crops)
    {
        const int S = 64;
        using var folder = new TemporaryFolder();
        folder.Write("a/ramp.png", TestImages.Encode(width, height, (x, y) => new SKColor((byte)(x + 20), (byte)(y + 20), 7), SKEncodedImageFormat.Png));
        using ImageDataset data = ImageDataset.Open(folder.Path, DatasetSplit.Validation, cacheDirectory: null);
        using var loader = new BatchLoader(data, LoaderOptions.ForEvaluation(1, S) with { Crops = crops });
        Batch batch = loader.Next(TestContext.Current.CancellationToken);

        IReadOnlyList<EvaluationView> views = EvaluationView.For(width, height, S, 0.875, crops);
        for (int i = 0; i < views.Count; i++)
        {
            EvaluationView view = views[i];
            ReadOnlySpan<byte> pixels = batch.PixelArray.AsSpan(i * S * S * 3, S * S * 3);
            for (int y = 2; y < S - 2; y++)
            {
                for (int x = 2; x < S - 2; x++)
                {
                    int column = view.Mirror ? S - 1 - x : x;
                    double sourceX = view.Source.X + (view.X + (column + 0.5) * view.Side / S) * view.Source.Width / view.Size;
                    double sourceY = view.Source.Y + (view.Y + (y + 0.5) * view.Side / S) * view.Source.Height / view.Size;
                    // Two roundings to bytes.
                    Assert.Equal(sourceX + 19.5, pixels[(y * S + x) * 3], 1.01);
                    Assert.Equal(sourceY + 19.5, pixels[(y * S + x) * 3 + 1], 1.01);
                    Assert.Equal(7, pixels[(y * S + x) * 3 + 2]);
                }
            }
        }
    }

    private static ImageCrop Rounded(ImageCrop crop) =>
        new(Math.Round(crop.X, 6), Math.Round(crop.Y, 6), Math.Round(crop.Width, 6), Math.Round(crop.Height, 6), crop.Mirror);
}
