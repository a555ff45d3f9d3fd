using System.Formats.Tar;
using HpcBatchNorm.Data;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

public sealed class PackerTests : IDisposable
{
    private static readonly PackOptions Small = new() { ShortSide = 32, ShardImages = 25, Seed = 9, Workers = 2 };

    private readonly TemporaryFolder _folder = new();

    [Fact]
    public void Run_Sample_KeepsNamesLabelsAndClassesAndShuffles()
    {
        string source = WriteSample();
        PackResult result = Packer.Run(source, _folder["packed"], Small, cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal((120, 36, 5 + 2, 0), (result.TrainImages, result.ValidationImages, result.Shards, result.KeptShards));
        Assert.Empty(result.Skipped);
        foreach (DatasetSplit split in Enum.GetValues<DatasetSplit>())
        {
            using ImageDataset from = ImageDataset.Open(source, split, cacheDirectory: null), to = ImageDataset.Open(_folder["packed"], split, cacheDirectory: null);
            Assert.Equal(from.ClassNames, to.ClassNames);
            Assert.Equal(from.ClassDescriptions, to.ClassDescriptions);
            Assert.Equal(
                Enumerable.Range(0, from.Count).Select(i => (Path.GetFileName(from.Name(i)), from.Label(i))).Order(),
                Enumerable.Range(0, to.Count).Select(i => (Path.GetFileName(to.Name(i)), to.Label(i))).Order());
            Assert.All(Enumerable.Range(0, to.Count), i => Assert.StartsWith(to.ClassNames[to.Label(i)] + "/", to.Name(i), StringComparison.Ordinal));
        }

        using ImageDataset train = ImageDataset.Open(_folder["packed"], DatasetSplit.Train, cacheDirectory: null);
        Assert.Equal([0, 25, 50, 75, 100], train.ShardStarts);
        Assert.Equal((0, 0, 1, 4), (train.Shard(0), train.Shard(24), train.Shard(25), train.Shard(119)));
        // Every shard of a shuffled set is a mixture.
        Assert.All(Enumerable.Range(0, 5), shard => Assert.Equal(4, Enumerable.Range(shard * 25, 20).Select(train.Label).Distinct().Count()));
        Assert.Equal(["pack.json", "train-00000.tar", "train-00001.tar", "train-00002.tar", "train-00003.tar", "train-00004.tar", "train.index",
            "val-00000.tar", "val-00001.tar", "val.index"], Directory.GetFiles(_folder["packed"]).Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Run_Sample_ImagesLookLikeTheirSources()
    {
        string source = WriteSample();
        Packer.Run(source, _folder["packed"], Small with { Shuffle = false }, cancellationToken: TestContext.Current.CancellationToken);
        using ImageDataset from = ImageDataset.Open(source, DatasetSplit.Validation, cacheDirectory: null);
        using ImageDataset to = ImageDataset.Open(_folder["packed"], DatasetSplit.Validation, cacheDirectory: null);
        LoaderOptions options = LoaderOptions.ForEvaluation(36, 32) with { CropFraction = 1 };
        using var expected = new BatchLoader(from, options);
        using var found = new BatchLoader(to, options);
        Batch a = expected.Next(TestContext.Current.CancellationToken), b = found.Next(TestContext.Current.CancellationToken);
        // Validation images keep their order, so batches can be compared; what differs is one more JPEG.
        Assert.Equal(a.LabelArray, b.LabelArray);
        double difference = a.PixelArray.Zip(b.PixelArray, (x, y) => Math.Abs(x - y)).Average();
        Assert.InRange(difference, 0.01, 6);
    }

    [Fact]
    public void Run_AnyNumberOfWorkers_GivesTheSameBytes()
    {
        string source = WriteSample();
        Packer.Run(source, _folder["one"], Small with { Workers = 1 }, cancellationToken: TestContext.Current.CancellationToken);
        Packer.Run(source, _folder["three"], Small with { Workers = 3 }, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal(Contents("one"), Contents("three"));
        Packer.Run(source, _folder["seed"], Small with { Seed = 10 }, cancellationToken: TestContext.Current.CancellationToken);
        Assert.NotEqual(Contents("one")["train-00000.tar"], Contents("seed")["train-00000.tar"]);
    }

    [Fact]
    public void Run_StoppedAndRunAgain_GoesOnToTheSameBytes()
    {
        string source = WriteSample();
        Packer.Run(source, _folder["whole"], Small, cancellationToken: TestContext.Current.CancellationToken);
        using var stop = new CancellationTokenSource();
        Assert.ThrowsAny<OperationCanceledException>(() => Packer.Run(source, _folder["packed"], Small, new StopAt(60, stop), stop.Token));
        // What a killed process leaves: half a file under its temporary name.
        _folder.Write("packed/train-00004.tar.partial", [1, 2, 3]);

        Assert.Contains("not packed to its end", Error(() => ImageDataset.Open(_folder["packed"], DatasetSplit.Train, cacheDirectory: null)), StringComparison.Ordinal);
        PackResult result = Packer.Run(source, _folder["packed"], Small, cancellationToken: TestContext.Current.CancellationToken);

        Assert.InRange(result.KeptShards, 2, 6);
        Assert.Equal(Contents("whole"), Contents("packed"));
        Assert.Equal(7, Packer.Run(source, _folder["packed"], Small, cancellationToken: TestContext.Current.CancellationToken).KeptShards);
        Assert.Equal(Contents("whole"), Contents("packed"));
    }

    [Fact]
    public void Run_OtherSettingsOrSource_IsRefusedNamingTheDifference()
    {
        string source = WriteSample();
        Packer.Run(source, _folder["packed"], Small, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Contains("with short-side 32", Error(() => Packer.Run(source, _folder["packed"], Small with { ShortSide = 40 })), StringComparison.Ordinal);
        Assert.Contains("with seed 9", Error(() => Packer.Run(source, _folder["packed"], Small with { Seed = 1 })), StringComparison.Ordinal);
        _folder.Write("other/a/1.jpg", TestImages.Jpeg(8, 8, SKColors.Red));
        Assert.Contains("another data set", Error(() => Packer.Run(_folder["other"], _folder["packed"], Small)), StringComparison.Ordinal);
        Assert.Contains("holds something else", Error(() => Packer.Run(source, _folder["other"], Small)), StringComparison.Ordinal);
    }

    [Fact]
    public void Run_OneSetOfImages_PacksItOnce()
    {
        byte[] small = TestImages.Texture(40, 30), large = TestImages.Texture(300, 200);
        byte[] grey = TestImages.Encode(90, 120, (x, y) => new SKColor((byte)x, (byte)x, (byte)x), grey: true);
        _folder.Write("source/a/small.jpg", small);
        _folder.Write("source/a/deeper/large.jpg", large);
        _folder.Write("source/b/grey.jpg", grey);
        PackResult result = Packer.Run(_folder["source"], _folder["packed"], Small, cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal((3, 3, 1), (result.TrainImages, result.ValidationImages, result.Shards));
        Dictionary<string, byte[]> members = Members(_folder["packed/train-00000.tar"]);
        Assert.Equal(["a/deeper/large.jpg", "a/small.jpg", "b/grey.jpg"], members.Keys.Order(StringComparer.Ordinal));
        // The short side of 30 is below 32: not touched.
        Assert.Equal(small, members["a/small.jpg"]);
        Assert.Equal((48, 32), Size(members["a/deeper/large.jpg"]));
        Assert.Equal((32, 43), Size(members["b/grey.jpg"]));
        using var codec = SKCodec.Create(new SKMemoryStream(members["b/grey.jpg"]));
        Assert.Equal(SKColorType.Gray8, codec.Info.ColorType);
        using ImageDataset validation = ImageDataset.Open(_folder["packed"], DatasetSplit.Validation, cacheDirectory: null);
        Assert.Equal([0, 0, 1], Enumerable.Range(0, 3).Select(validation.Label).Order());

        // And a packed set can be packed again.
        result = Packer.Run(_folder["packed"], _folder["again"], Small with { ShortSide = 0 }, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal(3, result.TrainImages);
        Dictionary<string, byte[]> again = Members(_folder["again/train-00000.tar"]);
        Assert.All(members, member => Assert.Equal(member.Value, again[member.Key]));
    }

    [Fact]
    public void Run_IdxFiles_KeepsEveryPixel()
    {
        byte[] pixels = IdxFilesTests.WriteSet(_folder, "mnist", count: 30, width: 6, height: 4);
        PackResult result = Packer.Run(_folder["mnist"], _folder["packed"], Small with { Shuffle = false }, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal((30, 30, 4), (result.TrainImages, result.ValidationImages, result.Shards));
        Dictionary<string, byte[]> members = Members(_folder["packed/train-00000.tar"]);
        using SKBitmap image = SKBitmap.Decode(members["1/00004.png"]);
        Assert.Equal(pixels.AsSpan(4 * 24, 24).ToArray(), Enumerable.Range(0, 24).Select(i => image.GetPixel(i % 6, i / 6).Red));
    }

    [Fact]
    public void Run_BadImages_AreLeftOutAndNamedOrFail()
    {
        byte[] good = TestImages.Texture(40, 30);
        _folder.Write("source/a/1.jpg", good);
        _folder.Write("source/a/empty.jpg", []);
        _folder.Write("source/b/cut.jpg", good[..^300]);
        _folder.Write("source/b/2.jpg", good);
        Assert.Contains("is bad", Error(() => Packer.Run(_folder["source"], _folder["packed"], Small with { OnBadImage = BadImagePolicy.Fail })), StringComparison.Ordinal);
        Directory.Delete(_folder["packed"], recursive: true);

        for (int run = 0; run < 2; run++)
        {
            PackResult result = Packer.Run(_folder["source"], _folder["packed"], Small, cancellationToken: TestContext.Current.CancellationToken);
            Assert.Equal(2, result.TrainImages);
            Assert.Equal(["a/empty.jpg", "b/cut.jpg"], result.Skipped.Order());
        }

        using ImageDataset data = ImageDataset.Open(_folder["packed"], DatasetSplit.Train, cacheDirectory: null);
        Assert.Equal(["a/1.jpg", "b/2.jpg"], Enumerable.Range(0, data.Count).Select(data.Name).Order());
    }

    [Fact]
    public void Open_DamagedSet_SaysWhichFileAndAnIndexIsMadeUpFor()
    {
        Packer.Run(WriteSample(), _folder["packed"], Small, cancellationToken: TestContext.Current.CancellationToken);
        string[] Names()
        {
            using ImageDataset data = ImageDataset.Open(_folder["packed"], DatasetSplit.Train, cacheDirectory: null);
            return [.. Enumerable.Range(0, data.Count).Select(data.Name)];
        }

        string[] names = Names();
        File.WriteAllBytes(_folder["packed/train.index"], [1, 2, 3]);
        Assert.Equal(names, Names());
        File.Delete(_folder["packed/train.index"]);
        Assert.Equal(names, Names());

        byte[] shard = File.ReadAllBytes(_folder["packed/train-00003.tar"]);
        File.WriteAllBytes(_folder["packed/train-00003.tar"], shard[..^512]);
        Assert.Contains("train-00003.tar", Error(() => Names()), StringComparison.Ordinal);
        File.Delete(_folder["packed/train-00003.tar"]);
        Assert.Contains("is missing", Error(() => Names()), StringComparison.Ordinal);
        // Packing again brings the file back.
        Packer.Run(_folder["sample"], _folder["packed"], Small, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal(names, Names());
        Assert.Equal(shard, File.ReadAllBytes(_folder["packed/train-00003.tar"]));

        File.WriteAllText(_folder["packed/pack.json"], "{");
        Assert.Contains("pack.json", Error(() => Names()), StringComparison.Ordinal);
    }

    [Fact]
    public void Run_AnotherIsPacking_SaysSo()
    {
        string source = WriteSample();
        using var stop = new CancellationTokenSource();
        Assert.ThrowsAny<OperationCanceledException>(() => Packer.Run(source, _folder["packed"], Small, new StopAt(30, stop), stop.Token));
        using (new FileStream(_folder["packed/.lock"], FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None))
        {
            Assert.Contains("another hpcbn pack", Error(() => Packer.Run(source, _folder["packed"], Small)), StringComparison.Ordinal);
        }
    }

    public void Dispose() => _folder.Dispose();

    private static string Error(Action action) => Assert.Throws<UserErrorException>(action).Message;

    private static (int Width, int Height) Size(byte[] image)
    {
        using var codec = SKCodec.Create(new SKMemoryStream(image));
        return (codec.Info.Width, codec.Info.Height);
    }

    private static Dictionary<string, byte[]> Members(string path)
    {
        var members = new Dictionary<string, byte[]>();
        using var tar = new TarReader(File.OpenRead(path));
        while (tar.GetNextEntry() is { } entry)
        {
            var bytes = new MemoryStream();
            entry.DataStream?.CopyTo(bytes);
            members.Add(entry.Name, bytes.ToArray());
        }

        return members;
    }

    private Dictionary<string, string> Contents(string folder) =>
        Directory.GetFiles(_folder[folder]).ToDictionary(path => Path.GetFileName(path), path => Convert.ToHexString(System.Security.Cryptography.SHA256.HashData(File.ReadAllBytes(path))));

    private string WriteSample()
    {
        SampleGenerator.Write(_folder["sample"], SampleFixture.Options, TestContext.Current.CancellationToken);
        return _folder["sample"];
    }

    private sealed class StopAt(int image, CancellationTokenSource stop) : IProgress<PackProgress>
    {
        public void Report(PackProgress value)
        {
            if (value.Done >= image)
            {
                stop.Cancel();
            }
        }
    }
}
