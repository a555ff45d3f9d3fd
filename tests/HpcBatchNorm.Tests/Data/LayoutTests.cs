using System.Diagnostics;
using System.Formats.Tar;
using System.IO.Compression;
using System.Text;
using HpcBatchNorm.Data;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

/// <summary>Data sets as they lie on people's disks: each is read as what it is, or refused with the way out; none is taken for another.</summary>
public sealed class LayoutTests : IDisposable
{
    private static readonly byte[] AnImage = TestImages.Jpeg(8, 8, SKColors.Red);

    private readonly TemporaryFolder _folder = new();

    [Theory]
    [InlineData("train", "val")]
    [InlineData("Train", "Val")]
    [InlineData("TRAIN", "Validation")]
    [InlineData("training_set", "test_set")]
    [InlineData("training-set", "validation-set")]
    [InlineData("trainset", "testset")]
    public void Folders_OfSplitsByAnyUsualName_AreSplits(string train, string validation)
    {
        Write($"{train}/cat/1.jpg", $"{train}/dog/2.jpg", $"{validation}/cat/3.jpg", $"{validation}/dog/4.jpg");
        AssertSet(DatasetSplit.Train, ["cat", "dog"], ["cat/1.jpg", "dog/2.jpg"], [0, 1]);
        AssertSet(DatasetSplit.Validation, ["cat", "dog"], ["cat/3.jpg", "dog/4.jpg"], [0, 1]);
    }

    [Fact]
    public void Folders_ValidationBesideTest_AreWhatIsEvaluatedOn()
    {
        Write("train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg", "val/dog/4.jpg", "test/5.jpg");
        AssertSet(DatasetSplit.Validation, ["cat", "dog"], ["cat/3.jpg", "dog/4.jpg"], [0, 1]);
    }

    [Fact]
    public void Folders_AClassCalledTrainAmongOthers_IsAClass()
    {
        Write("bus/1.jpg", "car/1.jpg", "train/1.jpg");
        AssertSet(DatasetSplit.Train, ["bus", "car", "train"], ["bus/1.jpg", "car/1.jpg", "train/1.jpg"], [0, 1, 2]);
    }

    [Theory]
    [InlineData("two folders for one split", "train and Train", "train/a/1.jpg", "Train/a/1.jpg", "val/a/1.jpg")]
    [InlineData("splits by unknown names", "look like images to train", "erste/a/1.jpg", "erste/b/1.jpg", "zweite/a/1.jpg", "zweite/b/1.jpg")]
    public void Folders_ThatAreNoClasses_AreRefused(string because, string message, params string[] files)
    {
        Write(files);
        string error = Assert.Throws<UserErrorException>(() => Open(_folder.Path, DatasetSplit.Train)).Message;
        Assert.True(message.Split(" and ").All(part => error.Contains(part, StringComparison.Ordinal)), $"{because}: {error}");
    }

    [Theory]
    [InlineData("", "train", "val")]
    [InlineData("data/set/", "Training", "test_set")]
    public void Tar_WithSplitsInside_TrainsOnTheOneAndEvaluatesOnTheOther(string above, string train, string validation)
    {
        WriteTar("a.tar", $"{above}{train}/cat/1.jpg", $"{above}{train}/dog/2.jpg", $"{above}{validation}/cat/3.jpg", $"{above}{validation}/dog/4.jpg", $"{above}stray/cat/5.jpg");
        using ImageDataset training = Open(_folder["a.tar"], DatasetSplit.Train), evaluated = Open(_folder["a.tar"], DatasetSplit.Validation);
        Assert.Equal([$"{above}{train}/cat/1.jpg", $"{above}{train}/dog/2.jpg"], Names(training));
        Assert.Equal([$"{above}{validation}/cat/3.jpg", $"{above}{validation}/dog/4.jpg"], Names(evaluated));
        Assert.Equal(["cat", "dog"], training.ClassNames);
        Assert.Equal([0, 1], Labels(evaluated));
        Assert.Contains($"{above}stray/cat/5.jpg", Assert.Single(training.Notes), StringComparison.Ordinal);
        AssertReads(evaluated);
    }

    [Fact]
    public void Tar_AClassInTwoPlaces_IsRefused()
    {
        WriteTar("a.tar", "erste/cat/1.jpg", "erste/dog/2.jpg", "zweite/cat/3.jpg", "zweite/dog/4.jpg");
        Assert.Contains("'erste/cat' and 'zweite/cat'", Assert.Throws<UserErrorException>(() => Open(_folder["a.tar"], DatasetSplit.Train)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Tar_TwoFoldersForOneSplit_AreRefused()
    {
        WriteTar("a.tar", "train/cat/1.jpg", "Train/dog/2.jpg", "val/cat/3.jpg", "val/dog/4.jpg");
        Assert.Contains("'Train' and 'train'", Assert.Throws<UserErrorException>(() => Open(_folder["a.tar"], DatasetSplit.Train)).Message, StringComparison.Ordinal);
    }

    /// <summary>Extracted, its classes would be cat and dog.</summary>
    [Fact]
    public void Tar_ImagesInAClassAndInAFolderBelowIt_AreRefused()
    {
        WriteTar("a.tar", "cat/1.jpg", "cat/kittens/2.jpg", "dog/3.jpg");
        Assert.Contains("'cat' and in 'cat/kittens' below it", Assert.Throws<UserErrorException>(() => Open(_folder["a.tar"], DatasetSplit.Train)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("a.zip", "unpack")]
    [InlineData("train.tar.xz", "decompress")]
    [InlineData("train-00000-of-00294.parquet", "webdataset shards")]
    public void FilesThatCannotBeRead_SayWhatToDoWithThem(string file, string message)
    {
        Write($"set/{file}");
        foreach (string path in new[] { "set", $"set/{file}" })
        {
            string error = Assert.Throws<UserErrorException>(() => Open(_folder[path], DatasetSplit.Train)).Message;
            Assert.Contains(message, error, StringComparison.Ordinal);
            Assert.Contains(file, error, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Tar_InnerArchivesOfTwoSplits_AreNotMerged()
    {
        byte[] Inner(string name) => ArchiveTests.Tar(TarEntryFormat.Ustar, new() { [name] = AnImage });
        _folder.Write("a.tar", ArchiveTests.Tar(TarEntryFormat.Ustar, new()
        {
            ["train/n1.tar"] = Inner("1.JPEG"),
            ["train/n2.tar"] = Inner("2.JPEG"),
            ["val/n1.tar"] = Inner("3.JPEG"),
            ["val/n2.tar"] = Inner("4.JPEG"),
        }));
        using ImageDataset training = Open(_folder["a.tar"], DatasetSplit.Train), evaluated = Open(_folder["a.tar"], DatasetSplit.Validation);
        Assert.Equal(["train/n1/1.JPEG", "train/n2/2.JPEG"], Names(training));
        Assert.Equal(["val/n1/3.JPEG", "val/n2/4.JPEG"], Names(evaluated));
    }

    [Fact]
    public void TinyImageNet_LabelsFollowTheAnnotations()
    {
        Write("train/n01443537/images/n01443537_0.JPEG", "train/n01629819/images/n01629819_0.JPEG", "val/images/val_0.JPEG", "val/images/val_1.JPEG", "test/images/test_0.JPEG");
        WriteText("train/n01443537/n01443537_boxes.txt", "n01443537_0.JPEG\t0\t10\t63\t58\n");
        WriteText("val/val_annotations.txt", "val_0.JPEG\tn01629819\t0\t32\t44\t62\nval_1.JPEG\tn01443537\t52\t55\t57\t59\n");
        WriteText("words.txt", "n00000001\tentity\nn01443537\tgoldfish, Carassius auratus\nn01629819\tEuropean fire salamander\n");
        AssertSet(DatasetSplit.Train, ["n01443537", "n01629819"], ["n01443537/images/n01443537_0.JPEG", "n01629819/images/n01629819_0.JPEG"], [0, 1]);
        AssertSet(DatasetSplit.Validation, ["n01443537", "n01629819"], ["val_0.JPEG", "val_1.JPEG"], [1, 0]);
        using ImageDataset validation = Open(_folder.Path, DatasetSplit.Validation);
        Assert.Equal("goldfish, Carassius auratus", validation.ClassDescriptions[0]);
    }

    [Fact]
    public void ClassArchives_InAFolder_AreClasses()
    {
        WriteTar("train/n02.tar", "n02_1.JPEG", "n02_0.JPEG");
        WriteTar("train/n01.tar", "n01_0.JPEG");
        Write("val/n01/1.JPEG", "val/n02/2.JPEG");
        AssertSet(DatasetSplit.Train, ["n01", "n02"], ["n01_0.JPEG", "n02_0.JPEG", "n02_1.JPEG"], [0, 1, 1]);
        AssertSet(DatasetSplit.Validation, ["n01", "n02"], ["n01/1.JPEG", "n02/2.JPEG"], [0, 1]);
    }

    [Fact]
    public void ArchivesNamedForSplits_OfClassFolders_AreThose()
    {
        WriteTar("train.tar", "train/a/1.jpg", "train/b/2.jpg");
        WriteTar("val.tar", "val/b/3.jpg");
        AssertSet(DatasetSplit.Train, ["a", "b"], ["train/a/1.jpg", "train/b/2.jpg"], [0, 1]);
        AssertSet(DatasetSplit.Validation, ["a", "b"], ["val/b/3.jpg"], [1]);
    }

    [Fact]
    public void PackedTar_IsDecompressedOnceAndAnewWhenItChanges()
    {
        byte[] Packed(params string[] names) => Gzip(ArchiveTests.Tar(TarEntryFormat.Ustar, names.ToDictionary(name => name, _ => AnImage)));
        string path = _folder.Write("a.tar.gz", Packed("cat/1.jpg", "dog/2.jpg")), cache = _folder["cache"];
        for (int i = 0; i < 2; i++)
        {
            using ImageDataset data = ImageDataset.Open(path, DatasetSplit.Train, cache);
            Assert.Equal(["cat/1.jpg", "dog/2.jpg"], Names(data));
            AssertReads(data);
        }

        Assert.Single(Directory.GetFiles(cache, "unpacked-*"));
        File.Delete(path);
        _folder.Write("a.tar.gz", Packed("cat/1.jpg", "dog/2.jpg", "dog/3.jpg"));
        using ImageDataset again = ImageDataset.Open(path, DatasetSplit.Train, cache);
        Assert.Equal(3, again.Count);
        Assert.Single(Directory.GetFiles(cache, "unpacked-*"));

        _folder.Write("b.tgz", Packed("cat/1.jpg")[..^9]);
        Assert.Contains("gunzip", Assert.Throws<UserErrorException>(() => ImageDataset.Open(_folder["b.tgz"], DatasetSplit.Train, cache)).Message, StringComparison.Ordinal);
        Assert.Single(Directory.GetFiles(cache, "unpacked-*"));
    }

    [Fact]
    public void WebDataset_Shards_HaveTheLabelsBesideTheImages()
    {
        void Shard(string name, params (string Key, string Label)[] samples) => _folder.Write(name, ArchiveTests.Tar(TarEntryFormat.Ustar,
            samples.SelectMany(s => new[] { (s.Key + ".jpg", AnImage), s.Label.StartsWith('{') ? (s.Key + ".json", Encoding.UTF8.GetBytes(s.Label)) : (s.Key + ".cls", Encoding.UTF8.GetBytes(s.Label)) })
                .ToDictionary(m => m.Item1, m => m.Item2)));
        Shard("imagenet-train-000000.tar", ("0001", "10"), ("0002", "2\n"));
        Shard("imagenet-train-000001.tar", ("0003", "{\"label\": 2, \"width\": 8}"), ("sub/0004", "{\"cls\": \"10\"}"));
        Shard("imagenet-val-000000.tar", ("0001", "2"), ("0002", "10"));
        AssertSet(DatasetSplit.Train, ["02", "10"], ["0001.jpg", "0002.jpg", "0003.jpg", "sub/0004.jpg"], [1, 0, 0, 1]);
        AssertSet(DatasetSplit.Validation, ["02", "10"], ["0001.jpg", "0002.jpg"], [0, 1]);

        _folder.Write("imagenet-train-000002.tar", ArchiveTests.Tar(TarEntryFormat.Ustar, new() { ["0009.jpg"] = AnImage }));
        Assert.Contains("'0009.jpg' without a label", Assert.Throws<UserErrorException>(() => Open(_folder.Path, DatasetSplit.Train)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void HuggingFaceImageNet_HasTheClassAtTheEndOfTheName()
    {
        WriteTar("train_images_0.tar", "n01440764_10026_n01440764.JPEG", "n01443537_2_n01443537.JPEG");
        WriteTar("train_images_1.tar", "n01440764_7_n01440764.JPEG");
        WriteTar("val_images.tar", "ILSVRC2012_val_00000001_n01443537.JPEG", "ILSVRC2012_val_00000002_n01440764.JPEG");
        WriteTar("test_images.tar", "ILSVRC2012_test_00000001.JPEG");
        AssertSet(DatasetSplit.Train, ["n01440764", "n01443537"],
            ["n01440764_10026_n01440764.JPEG", "n01443537_2_n01443537.JPEG", "n01440764_7_n01440764.JPEG"], [0, 1, 0]);
        AssertSet(DatasetSplit.Validation, ["n01440764", "n01443537"],
            ["ILSVRC2012_val_00000001_n01443537.JPEG", "ILSVRC2012_val_00000002_n01440764.JPEG"], [1, 0]);

        // Fewer classes in one of the splits do not move the others' indices.
        WriteTar("val_images.tar", "ILSVRC2012_val_00000001_n01443537.JPEG");
        AssertSet(DatasetSplit.Validation, ["n01440764", "n01443537"], ["ILSVRC2012_val_00000001_n01443537.JPEG"], [1]);
    }

    [Fact]
    public void OfficialTrainArchive_AsAFolderOfItsArchives_GivesTheSameLabels()
    {
        SampleGenerator.Write(_folder["sample"], SampleFixture.Options, TestContext.Current.CancellationToken);
        using ImageDataset archive = ImageDataset.Open(_folder["sample"], DatasetSplit.Train, cacheDirectory: null);
        Directory.CreateDirectory(_folder["set/train"]);
        using (Process process = Process.Start("tar", ["-xf", _folder[$"sample/{DatasetLayouts.TrainArchive}"], "-C", _folder["set/train"]]))
        {
            process.WaitForExit();
            Assert.Equal(0, process.ExitCode);
        }

        using ImageDataset folder = ImageDataset.Open(_folder["set"], DatasetSplit.Train, cacheDirectory: null);
        Assert.Equal(archive.ClassNames, folder.ClassNames);
        Assert.Equal(Enumerable.Range(0, archive.Count).Select(i => (Path.GetFileName(archive.Name(i)), archive.Label(i))),
            Enumerable.Range(0, folder.Count).Select(i => (Path.GetFileName(folder.Name(i)), folder.Label(i))));
    }

    [Theory]
    [InlineData("emnist-letters-", "test", "idx1-ubyte")]
    [InlineData("qmnist-", "test", "idx2-int")]
    [InlineData("", "t10k", "idx1-ubyte")]
    public void IdxFiles_OfMnistsRelatives_AreFoundByTheirNames(string set, string test, string labels)
    {
        foreach (string part in new[] { "train", test })
        {
            _folder.Write($"{set}{part}-images-idx3-ubyte", IdxFilesTests.Idx(0x0803, [3, 2, 2], new byte[12]));
            byte[] values = labels == "idx2-int" ? [.. new byte[] { 1, 3, 2 }.SelectMany(label => (byte[])[0, 0, 0, label, 0, 0, 0, 9])] : [1, 3, 2];
            _folder.Write($"{set}{part}-labels-{labels}", IdxFilesTests.Idx(labels == "idx2-int" ? 0x0C02 : 0x0801, labels == "idx2-int" ? [3, 2] : [3], values));
        }

        // EMNIST's letters begin at 1: there is no class 0, of which nothing could be learnt. MNIST's classes are its digits, whichever there are.
        string[] classes = set.Length > 0 ? ["1", "2", "3"] : ["0", "1", "2", "3"];
        int[] expected = set.Length > 0 ? [0, 2, 1] : [1, 3, 2];
        AssertSet(DatasetSplit.Train, classes, ["00000", "00001", "00002"], expected);
        AssertSet(DatasetSplit.Validation, classes, ["00000", "00001", "00002"], expected);
        _folder.Write("emnist-digits-train-images-idx3-ubyte", []);
        Assert.Contains("2 data sets", Assert.Throws<UserErrorException>(() => Open(_folder.Path, DatasetSplit.Train)).Message, StringComparison.Ordinal);
    }

    public void Dispose() => _folder.Dispose();

    private static ImageDataset Open(string path, DatasetSplit split) => ImageDataset.Open(path, split, cacheDirectory: null);

    private static IEnumerable<string> Names(ImageDataset data) => Enumerable.Range(0, data.Count).Select(data.Name);

    private static IEnumerable<int> Labels(ImageDataset data) => Enumerable.Range(0, data.Count).Select(data.Label);

    /// <summary>The places are those of images, too, where the images of several archives are one list.</summary>
    private static void AssertReads(ImageDataset data)
    {
        byte[] buffer = [];
        for (int i = 0; i < data.Count; i++)
        {
            int length = data.ReadEncoded(i, ref buffer);
            Assert.Equal(AnImage, buffer[..length]);
        }
    }

    private void AssertSet(DatasetSplit split, string[] classes, string[] names, int[] labels)
    {
        using ImageDataset data = Open(_folder.Path, split);
        Assert.Equal(classes, data.ClassNames);
        Assert.Equal(names, Names(data));
        Assert.Equal(labels, Labels(data));
        if (data.GreyPixels is null)
        {
            AssertReads(data);
        }
    }

    private void Write(params string[] files) => Array.ForEach(files, file => _folder.Write(file, AnImage));

    private void WriteText(string file, string text) => _folder.Write(file, Encoding.UTF8.GetBytes(text));

    private void WriteTar(string file, params string[] members) =>
        _folder.Write(file, ArchiveTests.Tar(TarEntryFormat.Ustar, members.ToDictionary(name => name, _ => AnImage)));

    private static byte[] Gzip(byte[] bytes)
    {
        var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Fastest, leaveOpen: true))
        {
            gzip.Write(bytes);
        }

        return packed.ToArray();
    }
}
