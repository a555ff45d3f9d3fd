using System.Formats.Tar;
using System.IO.Compression;
using System.Text;
using HpcBatchNorm.Data;
using HpcBatchNorm.Tests.Support;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

public sealed class ImageDatasetTests : IDisposable
{
    private static readonly byte[] AnImage = TestImages.Jpeg(8, 8, SKColors.Red);

    private readonly TemporaryFolder _folder = new();

    [Fact]
    public void Open_TinyIlsvrc_CountsClassesAndOrderAreThoseOfTheArchives()
    {
        string path = RepoPaths.SharedDataOrSkip("tiny-ilsvrc2012");
        using ImageDataset train = ImageDataset.Open(path, DatasetSplit.Train, cacheDirectory: null);
        using ImageDataset validation = ImageDataset.Open(path, DatasetSplit.Validation, cacheDirectory: null);

        Assert.Equal((20_000, 40), (train.Count, train.ClassCount));
        Assert.Equal((2_000, 40), (validation.Count, validation.ClassCount));
        Assert.Equal(train.ClassNames, validation.ClassNames);
        Assert.Equal(train.ClassNames.Order(StringComparer.Ordinal), train.ClassNames);
        Assert.All(Enumerable.Range(0, train.Count), i => Assert.StartsWith(train.ClassNames[train.Label(i)] + "/", train.Name(i), StringComparison.Ordinal));
        Assert.All(Enumerable.Range(0, 40), label => Assert.Equal(500, Enumerable.Range(0, train.Count).Count(i => train.Label(i) == label)));
        Assert.Equal("ILSVRC2012_val_00000001.JPEG", validation.Name(0));
        int lobster = train.ClassNames.ToList().IndexOf("n01984695");
        Assert.Equal("spiny lobster, langouste, rock lobster, crawfish, crayfish, sea crawfish", train.ClassDescriptions[lobster]);
    }

    [Fact]
    public void Open_TinyIlsvrcValidation_LabelsFollowTheGroundTruthThroughIds()
    {
        string path = RepoPaths.SharedDataOrSkip("tiny-ilsvrc2012");
        using ImageDataset validation = ImageDataset.Open(path, DatasetSplit.Validation, cacheDirectory: null);
        (byte[] meta, byte[] truth) = ReadKit(Path.Combine(path, DevelopmentKit.FileName));
        MatStructArray synsets = MatFile.ReadStructArray(meta, "synsets");
        Dictionary<double, string> wnidOfId = Enumerable.Range(0, synsets.Count).ToDictionary(i => ((double[])synsets[i, "ILSVRC2012_ID"]!)[0], i => (string)synsets[i, "WNID"]!);
        string[] lines = Encoding.ASCII.GetString(truth).Split('\n', StringSplitOptions.RemoveEmptyEntries);

        Assert.Equal(41, synsets.Count);
        Assert.Equal(lines.Select(line => wnidOfId[int.Parse(line, null)]),
            Enumerable.Range(0, validation.Count).Select(i => validation.ClassNames[validation.Label(i)]));
        // The point of the test: taking an ID for a class index would give other labels.
        Assert.NotEqual(lines.Select(line => int.Parse(line, null) - 1), Enumerable.Range(0, validation.Count).Select(validation.Label));
    }

    [Fact]
    public void Open_Photos_ReadsEveryImageOfTheTar()
    {
        using ImageDataset photos = ImageDataset.Open(RepoPaths.SharedDataOrSkip("imagenet-photos"), DatasetSplit.Validation, cacheDirectory: null);
        Assert.Equal(96, photos.Count);
        Assert.Contains("same images for training and validation", photos.Layout, StringComparison.Ordinal);
        byte[] buffer = [];
        for (int i = 0; i < photos.Count; i++)
        {
            int length = photos.ReadEncoded(i, ref buffer);
            Assert.Equal([0xFF, 0xD8], buffer[..2]);
            Assert.Equal([0xFF, 0xD9], buffer[(length - 2)..length]);
            Assert.Equal(photos.ClassNames[photos.Label(i)], photos.Name(i)[..9]);
        }
    }

    [Fact]
    public void Open_ExtractedFolders_GiveTheSameDataSetAsTheArchives()
    {
        SampleGenerator.Write(_folder["sample"], SampleFixture.Options, TestContext.Current.CancellationToken);
        using ImageDataset archives = ImageDataset.Open(_folder["sample"], DatasetSplit.Train, cacheDirectory: null);
        byte[] buffer = [], other = [];
        for (int i = 0; i < archives.Count; i++)
        {
            int length = archives.ReadEncoded(i, ref buffer);
            _folder.Write("tree/train/" + archives.Name(i), buffer[..length]);
        }

        using ImageDataset folders = ImageDataset.Open(_folder["tree"], DatasetSplit.Train, cacheDirectory: null);

        Assert.Equal(archives.ClassNames, folders.ClassNames);
        Assert.Equal(archives.Count, folders.Count);
        for (int i = 0; i < archives.Count; i++)
        {
            Assert.Equal((archives.Name(i), archives.Label(i)), (folders.Name(i), folders.Label(i)));
            int length = archives.ReadEncoded(i, ref buffer);
            Assert.Equal(length, folders.ReadEncoded(i, ref other));
            Assert.True(buffer.AsSpan(0, length).SequenceEqual(other.AsSpan(0, length)));
        }
    }

    [Fact]
    public void Open_ClassFolders_SortsOrdinallyAndPassesOverOtherFiles()
    {
        foreach (string name in (string[])["b/1.jpg", "B/1.jpg", "a/deeper/2.PNG", "a/1.jpeg", "ä/x.JPEG", "a/.hidden.jpg", "a/notes.txt", "readme.md"])
        {
            _folder.Write(name, AnImage);
        }

        using ImageDataset data = ImageDataset.Open(_folder.Path, DatasetSplit.Validation, cacheDirectory: null);

        Assert.Equal(["B", "a", "b", "ä"], data.ClassNames);
        Assert.Equal(["B/1.jpg", "a/1.jpeg", "a/deeper/2.PNG", "b/1.jpg", "ä/x.JPEG"], Enumerable.Range(0, data.Count).Select(data.Name));
        Assert.Equal([0, 1, 1, 2, 3], Enumerable.Range(0, data.Count).Select(data.Label));
    }

    [Theory]
    [InlineData("does not exist")]
    [InlineData("holds no data set", "notes.txt")]
    [InlineData("no .tar archive", "=photo.jpg")]
    [InlineData("no class folders", "train/a/1.jpg", "val/1.jpg", "val/2.jpg")]
    [InlineData("holds no images", "train/a/1.jpg", "val/a/notes.txt")]
    [InlineData("class 'b' is in", "train/a/1.jpg", "val/a/1.jpg", "val/b/1.jpg")]
    [InlineData("class 'c' is in", "train/a/1.jpg", "train/c/1.jpg", "val/a/1.jpg")]
    [InlineData("no folder 'val'", "train/a/1.jpg")]
    [InlineData("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_img_val.tar")]
    [InlineData("at offset 0", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")]
    public void Open_NotADataSet_SaysWhatIsWrong(string message, params string[] files)
    {
        foreach (string file in files)
        {
            _folder.Write("data/" + file.TrimStart('='), AnImage);
        }

        string path = _folder[files is [['=', .. var name]] ? "data/" + name : "data"];
        var error = Assert.Throws<UserErrorException>(() => ImageDataset.Open(path, DatasetSplit.Validation, cacheDirectory: null));
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.Contains(_folder.Path, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void Open_ArchivesThatDoNotBelongTogether_SaysSo()
    {
        SampleGenerator.Write(_folder["a"], SampleFixture.Options, TestContext.Current.CancellationToken);
        SampleGenerator.Write(_folder["b"], SampleFixture.Options with { Classes = 5, ValidationPerClass = 3 }, TestContext.Current.CancellationToken);
        File.Copy(Path.Combine(_folder["b"], DevelopmentKit.FileName), Path.Combine(_folder["a"], DevelopmentKit.FileName), overwrite: true);

        Assert.Contains("has no image of class n90000005", Error(DatasetSplit.Train), StringComparison.Ordinal);
        Assert.Contains("36 images, but the ground truth", Error(DatasetSplit.Validation), StringComparison.Ordinal);

        File.Copy(Path.Combine(_folder["b"], DatasetLayouts.TrainArchive), Path.Combine(_folder["a"], DatasetLayouts.TrainArchive), overwrite: true);
        SampleGenerator.Write(_folder["c"], SampleFixture.Options with { Classes = 2 }, TestContext.Current.CancellationToken);
        File.Copy(Path.Combine(_folder["c"], DevelopmentKit.FileName), Path.Combine(_folder["a"], DevelopmentKit.FileName), overwrite: true);
        Assert.Contains("no leaf synset", Error(DatasetSplit.Train), StringComparison.Ordinal);

        string Error(DatasetSplit split) =>
            Assert.Throws<UserErrorException>(() => ImageDataset.Open(_folder["a"], split, cacheDirectory: null)).Message;
    }

    [Fact]
    public void Open_KitWithoutMeta_NamesWhatIsMissing()
    {
        _folder.Write(DatasetLayouts.ValidationArchive, AnImage);
        var bytes = new MemoryStream();
        using (var gzip = new GZipStream(bytes, CompressionLevel.Fastest, leaveOpen: true))
        {
            gzip.Write(ArchiveTests.Tar(TarEntryFormat.Ustar, new() { ["x/data/ILSVRC2012_validation_ground_truth.txt"] = "1\n"u8.ToArray() }));
        }

        _folder.Write(DevelopmentKit.FileName, bytes.ToArray());
        var error = Assert.Throws<UserErrorException>(() => ImageDataset.Open(_folder.Path, DatasetSplit.Validation, cacheDirectory: null));
        Assert.Contains("data/meta.mat", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ReadEncoded_FileRemovedSinceOpening_IsAUserError()
    {
        string file = _folder.Write("a/1.jpg", AnImage);
        using ImageDataset data = ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null);
        File.Delete(file);
        byte[] buffer = [];
        Assert.Contains("a/1.jpg", Assert.Throws<UserErrorException>(() => data.ReadEncoded(0, ref buffer)).Message, StringComparison.Ordinal);
    }

    public void Dispose() => _folder.Dispose();

    private static (byte[] Meta, byte[] Truth) ReadKit(string path)
    {
        byte[] meta = [], truth = [];
        using var tar = new TarReader(new GZipStream(File.OpenRead(path), CompressionMode.Decompress));
        while (tar.GetNextEntry() is { } entry)
        {
            var bytes = new MemoryStream();
            entry.DataStream?.CopyTo(bytes);
            (meta, truth) = entry.Name.EndsWith(".mat", StringComparison.Ordinal) ? (bytes.ToArray(), truth) : (meta, bytes.ToArray());
        }

        return (meta, truth);
    }
}
