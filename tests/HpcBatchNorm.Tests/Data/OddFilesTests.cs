using HpcBatchNorm.Data;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

/// <summary>Files as they turn up in real data sets: each is loaded rightly, or counted and named; none is mislabelled, none ends the run.</summary>
public sealed class OddFilesTests : IDisposable
{
    private const int Size = 16;

    private readonly TemporaryFolder _folder = new();

    /// <summary>Good files and the colour they show, as red, green, blue.</summary>
    private static readonly (string Name, byte[] Bytes, byte[] Color)[] Good =
    [
        ("rgb.JPEG", TestImages.Jpeg(40, 30, new SKColor(200, 100, 50)), [200, 100, 50]),
        ("cmyk.JPEG", TestImages.AdobeCmyk(200, 100, 50, 255), [200, 100, 50]),
        ("png.JPEG", TestImages.Encode(40, 30, (_, _) => new SKColor(200, 100, 50), SKEncodedImageFormat.Png), [200, 100, 50]),
        ("webp.JPEG", TestImages.Encode(40, 30, (_, _) => new SKColor(120, 120, 120), SKEncodedImageFormat.Webp), [120, 120, 120]),
        ("grey.JPEG", TestImages.Encode(40, 30, (_, _) => new SKColor(90, 90, 90), grey: true), [90, 90, 90]),
        ("one-pixel.png", TestImages.Encode(1, 1, (_, _) => new SKColor(10, 20, 30), SKEncodedImageFormat.Png), [10, 20, 30]),
        ("strip.png", TestImages.Encode(3000, 1, (_, _) => new SKColor(10, 20, 30), SKEncodedImageFormat.Png), [10, 20, 30]),
    ];

    private static readonly (string Name, byte[] Bytes)[] Bad =
    [
        ("empty.JPEG", []),
        ("text.jpg", "<html><body>404 Not Found</body></html>"u8.ToArray()),
        ("marker-only.JPEG", [0xFF, 0xD8, 0xFF]),
        ("header-cut.JPEG", TestImages.Texture(200, 150)[..100]),
        ("cut.JPEG", TestImages.Texture(200, 150)[..^500]),
        ("bomb.JPEG", Bomb()),
    ];

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Load_FolderOfOddFiles_GivesTheGoodOnesTheirColoursAndLabelsAndNamesTheBadOnes(bool training)
    {
        WriteAll();
        using ImageDataset data = ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null);
        LoaderOptions options = training
            ? LoaderOptions.ForTraining(4, Size, seed: 1) with { Workers = 2 }
            : LoaderOptions.ForEvaluation(4, Size) with { Workers = 2, CropFraction = 1 };
        using var loader = new BatchLoader(data, options);
        var seen = new HashSet<string>();
        for (int step = 0; step < loader.BatchesPerEpoch * (training ? 6 : 1); step++)
        {
            Batch batch = loader.Next(TestContext.Current.CancellationToken);
            for (int i = 0; i < batch.Count; i++)
            {
                string name = data.Name(batch.IndexArray[i]), file = Path.GetFileName(name);
                seen.Add(file);
                // The folder says the class; the pixels say that the label came with its own image.
                Assert.Equal(name[0] - 'a', batch.LabelArray[i]);
                byte[] color = Good.Single(good => good.Name == file).Color;
                ReadOnlySpan<byte> middle = batch.PixelArray.AsSpan(i * batch.ImageBytes + (Size / 2 * Size + Size / 2) * 3, 3);
                for (int channel = 0; channel < 3; channel++)
                {
                    Assert.InRange(middle[channel], color[channel] - 4, color[channel] + 4);
                }
            }
        }

        Assert.Equal(Good.Select(good => good.Name).Order(StringComparer.Ordinal), seen.Order(StringComparer.Ordinal));
        Assert.Equal(Bad.Select(bad => bad.Name).Order(StringComparer.Ordinal),
            loader.BadImages.Select(bad => Path.GetFileName(bad.Name)).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Check_FolderOfOddFiles_NamesEachBadOneWithItsReason()
    {
        WriteAll();
        using ImageDataset data = ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null);
        DatasetReport report = DatasetCheck.Run(data, workers: 2, cancellationToken: TestContext.Current.CancellationToken);
        Dictionary<string, ImageStatus> found = report.BadImages.ToDictionary(bad => Path.GetFileName(bad.Name), bad => bad.Status);
        Assert.Equal(Bad.Length, found.Count);
        Assert.Equal(ImageStatus.Empty, found["empty.JPEG"]);
        Assert.Equal(ImageStatus.NotAnImage, found["text.jpg"]);
        Assert.Equal(ImageStatus.Truncated, found["header-cut.JPEG"]);
        Assert.Equal(ImageStatus.Truncated, found["cut.JPEG"]);
        Assert.Equal(ImageStatus.TooLarge, found["bomb.JPEG"]);
    }

    [Fact]
    public void Load_Bomb_TakesNoMemoryForWhatItClaims()
    {
        _folder.Write("a/bomb.JPEG", Bomb());
        _folder.Write("b/rgb.JPEG", Good[0].Bytes);
        using ImageDataset data = ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null);
        using var loader = new BatchLoader(data, LoaderOptions.ForEvaluation(2, Size));
        long before = Environment.WorkingSet;
        Batch batch = loader.Next(TestContext.Current.CancellationToken);
        Assert.Equal([1, -1], batch.IndexArray);
        // 60,000 x 60,000 pixels would be 14 GB.
        Assert.InRange(Environment.WorkingSet - before, long.MinValue, 500_000_000);
    }

    [Fact]
    public void Pack_FolderOfOddFiles_LeavesOutTheBadOnesAndKeepsTheColours()
    {
        WriteAll();
        PackResult result = Packer.Run(_folder.Path, _folder.Path + "-packed", new PackOptions { ShortSide = 20 }, cancellationToken: TestContext.Current.CancellationToken);
        try
        {
            Assert.Equal(Bad.Select(bad => bad.Name).Order(StringComparer.Ordinal), result.Skipped.Select(name => Path.GetFileName(name)).Order(StringComparer.Ordinal));
            using ImageDataset data = ImageDataset.Open(_folder.Path + "-packed", DatasetSplit.Train, cacheDirectory: null);
            Assert.Equal(Good.Length, data.Count);
            using var loader = new BatchLoader(data, LoaderOptions.ForEvaluation(Good.Length, Size) with { CropFraction = 1 });
            Batch batch = loader.Next(TestContext.Current.CancellationToken);
            for (int i = 0; i < batch.Count; i++)
            {
                byte[] color = Good.Single(good => good.Name == Path.GetFileName(data.Name(batch.IndexArray[i]))).Color;
                Assert.InRange(batch.PixelArray[i * batch.ImageBytes], color[0] - 5, color[0] + 5);
                Assert.InRange(batch.PixelArray[i * batch.ImageBytes + 2], color[2] - 5, color[2] + 5);
            }
        }
        finally
        {
            Directory.Delete(_folder.Path + "-packed", recursive: true);
        }
    }

    public void Dispose() => _folder.Dispose();

    /// <summary>A small JPEG whose header claims 60,000 x 60,000 pixels.</summary>
    private static byte[] Bomb()
    {
        byte[] image = TestImages.Texture(40, 24);
        int frame = image.AsSpan().IndexOf((byte[])[0xFF, 0xC0]);
        ((byte[])[0xEA, 0x60, 0xEA, 0x60]).CopyTo(image, frame + 5);
        return image;
    }

    /// <summary>Odd files of both kinds in each of two classes.</summary>
    private void WriteAll()
    {
        for (int i = 0; i < Good.Length; i++)
        {
            _folder.Write($"{(char)('a' + i % 2)}/{Good[i].Name}", Good[i].Bytes);
        }

        for (int i = 0; i < Bad.Length; i++)
        {
            _folder.Write($"{(char)('a' + i % 2)}/{Bad[i].Name}", Bad[i].Bytes);
        }
    }
}
