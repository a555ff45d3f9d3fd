using System.Buffers.Binary;
using System.IO.Compression;
using HpcBatchNorm.Data;
using HpcBatchNorm.Tests.Support;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

public sealed class IdxFilesTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    [Fact]
    public void Open_Mnist_HasTheKnownCountsAndFirstLabels()
    {
        string path = RepoPaths.SharedDataOrSkip("mnist");
        using ImageDataset train = ImageDataset.Open(path, DatasetSplit.Train, cacheDirectory: null);
        using ImageDataset test = ImageDataset.Open(path, DatasetSplit.Validation, cacheDirectory: null);

        Assert.Equal((60_000, 10, 10_000, 10), (train.Count, train.ClassCount, test.Count, test.ClassCount));
        Assert.Equal(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], train.ClassNames);
        // The labels MNIST is known to begin with.
        Assert.Equal([5, 0, 4, 1, 9, 2, 1, 3, 1, 4], Enumerable.Range(0, 10).Select(train.Label));
        Assert.Equal([7, 2, 1, 0, 4, 1, 4, 9, 5, 9], Enumerable.Range(0, 10).Select(test.Label));
        Assert.Equal((28, 28), train.GreyPixels);
    }

    [Theory]
    [InlineData("-idx3-ubyte", false)]
    [InlineData(".idx3-ubyte", true)]
    public void Load_ExactSize_GivesThePixelsUnchanged(string ending, bool gzip)
    {
        byte[] pixels = WriteSet(ending, gzip, count: 12, width: 5, height: 5);
        using ImageDataset data = ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null);
        foreach (int channels in (int[])[1, 3])
        {
            LoaderOptions options = LoaderOptions.ForEvaluation(12, 5) with { CropFraction = 1, Channels = channels };
            using var loader = new BatchLoader(data, options);
            Batch batch = loader.Next(TestContext.Current.CancellationToken);
            Assert.Equal(pixels.SelectMany(value => Enumerable.Repeat(value, channels)), batch.PixelArray);
            Assert.Equal(Enumerable.Range(0, 12).Select(i => i % 3), batch.LabelArray);
        }
    }

    [Fact]
    public void Load_TrainingWithoutAugmentation_GivesWholeImagesToo()
    {
        byte[] pixels = WriteSet("-idx3-ubyte", gzip: false, count: 12, width: 28, height: 28);
        using ImageDataset data = ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null);
        LoaderOptions options = LoaderOptions.ForTraining(4, 28, seed: 3) with
        {
            Channels = 1,
            Augmentation = new AugmentationOptions { MinArea = 1, Mirror = false },
        };
        using var loader = new BatchLoader(data, options);
        for (int step = 0; step < 30; step++)
        {
            Batch batch = loader.Next(TestContext.Current.CancellationToken);
            for (int i = 0; i < 4; i++)
            {
                Assert.True(pixels.AsSpan(batch.IndexArray[i] * 784, 784).SequenceEqual(batch.PixelArray.AsSpan(i * 784, 784)));
            }
        }
    }

    [Fact]
    public void Load_Binarized_HasOnlyBlackAndWhite()
    {
        byte[] pixels = WriteSet("-idx3-ubyte", gzip: false, count: 6, width: 4, height: 4);
        using ImageDataset data = ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null);
        using var loader = new BatchLoader(data, LoaderOptions.ForEvaluation(6, 4) with { CropFraction = 1, Channels = 1, Binarize = true });
        Assert.Equal(pixels.Select(value => (byte)(value >= 128 ? 255 : 0)), loader.Next(TestContext.Current.CancellationToken).PixelArray);
    }

    [Fact]
    public void Load_ColourImageAsGrey_IsItsLuma()
    {
        _folder.Write("a/1.png", TestImages.Encode(4, 4, (_, _) => new SKColor(200, 100, 50), SKEncodedImageFormat.Png));
        using ImageDataset data = ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null);
        using var loader = new BatchLoader(data, LoaderOptions.ForEvaluation(1, 4) with { CropFraction = 1, Channels = 1 });
        // 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
        Assert.All(loader.Next(TestContext.Current.CancellationToken).PixelArray, value => Assert.Equal(124, value));
    }

    [Theory]
    [InlineData("has no t10k-labels-idx1-ubyte", "labels", -1)]
    [InlineData("no IDX file of grey images", "images", 3)]
    [InlineData("12 images of 5x5", "images", 100)]
    [InlineData("no whole IDX file of labels", "labels", 9)]
    public void Open_DamagedFile_SaysWhichAndWhatToDo(string message, string what, int kept)
    {
        WriteSet("-idx3-ubyte", gzip: false, count: 12, width: 5, height: 5);
        string path = _folder[$"t10k-{what}-idx{(what == "images" ? 3 : 1)}-ubyte"];
        byte[] bytes = File.ReadAllBytes(path);
        File.Delete(path);
        if (kept >= 0)
        {
            File.WriteAllBytes(path, bytes[..kept]);
        }

        var error = Assert.Throws<UserErrorException>(() => ImageDataset.Open(_folder.Path, DatasetSplit.Validation, cacheDirectory: null));
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.Contains(_folder.Path, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Open_FewerLabelsThanImages_SaysSo()
    {
        WriteSet("-idx3-ubyte", gzip: false, count: 12, width: 5, height: 5);
        _folder.Write("train-labels-idx1-ubyte", Idx(0x0801, [7], new byte[7]));
        var error = Assert.Throws<UserErrorException>(() => ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null));
        Assert.Contains("12 images, but", error.Message, StringComparison.Ordinal);
    }

    public void Dispose() => _folder.Dispose();

    /// <summary>Writes the same images as both splits, labels 0, 1, 2, 0, ...</summary>
    internal static byte[] WriteSet(TemporaryFolder folder, string name, int count, int width, int height) =>
        WriteSet(folder, name + "/", "-idx3-ubyte", gzip: false, count, width, height);

    private byte[] WriteSet(string ending, bool gzip, int count, int width, int height) => WriteSet(_folder, "", ending, gzip, count, width, height);

    private static byte[] WriteSet(TemporaryFolder folder, string below, string ending, bool gzip, int count, int width, int height)
    {
        byte[] pixels = new byte[count * width * height], labels = [.. Enumerable.Range(0, count).Select(i => (byte)(i % 3))];
        new Random(4).NextBytes(pixels);
        foreach (string part in (string[])["train", "t10k"])
        {
            Write($"{part}-images{ending}", Idx(0x0803, [count, height, width], pixels));
            Write($"{part}-labels{ending.Replace('3', '1')}", Idx(0x0801, [count], labels));
        }

        return pixels;

        void Write(string name, byte[] bytes)
        {
            if (gzip)
            {
                var compressed = new MemoryStream();
                using (var stream = new GZipStream(compressed, CompressionLevel.Fastest, leaveOpen: true))
                {
                    stream.Write(bytes);
                }

                (name, bytes) = (name + ".gz", compressed.ToArray());
            }

            folder.Write(below + name, bytes);
        }
    }

    internal static byte[] Idx(int magic, int[] sizes, byte[] data)
    {
        byte[] bytes = new byte[4 + 4 * sizes.Length + data.Length];
        BinaryPrimitives.WriteInt32BigEndian(bytes, magic);
        for (int i = 0; i < sizes.Length; i++)
        {
            BinaryPrimitives.WriteInt32BigEndian(bytes.AsSpan(4 + 4 * i), sizes[i]);
        }

        data.CopyTo(bytes, bytes.Length - data.Length);
        return bytes;
    }
}
