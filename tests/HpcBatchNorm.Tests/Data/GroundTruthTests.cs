using HpcBatchNorm.Data;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

/// <summary>Validation folders without class folders.</summary>
public sealed class GroundTruthTests : IDisposable
{
    private static readonly byte[] AnImage = TestImages.Jpeg(8, 8, SKColors.Red);

    private readonly TemporaryFolder _folder = new();

    [Theory]
    [InlineData("")]
    [InlineData("ILSVRC")]
    [InlineData("ILSVRC/Data")]
    [InlineData("ILSVRC/Data/CLS-LOC")]
    [InlineData("ILSVRC/Data/CLS-LOC/")]
    public void Open_KaggleLayout_TakesLabelsFromTheSolutionAndNamesFromTheMapping(string below)
    {
        WriteKaggle();
        string path = Path.Combine(_folder.Path, below);
        using ImageDataset train = ImageDataset.Open(path, DatasetSplit.Train, cacheDirectory: null);
        using ImageDataset validation = ImageDataset.Open(path, DatasetSplit.Validation, cacheDirectory: null);

        Assert.Equal(["n01440764", "n01443537"], train.ClassNames);
        Assert.Equal(train.ClassNames, validation.ClassNames);
        Assert.Equal(["tench, Tinca tinca", "goldfish, Carassius auratus"], train.ClassDescriptions);
        Assert.Equal(train.ClassDescriptions, validation.ClassDescriptions);
        Assert.Equal(["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000003.JPEG"],
            Enumerable.Range(0, 3).Select(validation.Name));
        Assert.Equal([1, 0, 1], Enumerable.Range(0, 3).Select(validation.Label));
        Assert.Contains(GroundTruth.SolutionName, validation.Layout, StringComparison.Ordinal);
    }

    [Fact]
    public void Open_KaggleImageWithoutALine_IsRefusedAndNotMislabelled()
    {
        WriteKaggle();
        _folder.Write("ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000004.JPEG", AnImage);
        Assert.Contains("no line for 'ILSVRC2012_val_00000004.JPEG'", Error(_folder.Path), StringComparison.Ordinal);
    }

    [Fact]
    public void Open_KaggleLabelWithoutATrainingFolder_SaysSo()
    {
        WriteKaggle();
        Directory.Delete(_folder["ILSVRC/Data/CLS-LOC/train/n01440764"], recursive: true);
        Assert.Contains("of class n01440764, of which there is no training folder", Error(_folder.Path), StringComparison.Ordinal);
    }

    [Fact]
    public void Open_FlatFolderWithDevelopmentKit_HasTheLabelsOfTheArchives()
    {
        SampleGenerator.Write(_folder["sample"], SampleFixture.Options, TestContext.Current.CancellationToken);
        using ImageDataset archives = ImageDataset.Open(_folder["sample"], DatasetSplit.Validation, cacheDirectory: null);
        byte[] buffer = [];
        for (int i = 0; i < archives.Count; i++)
        {
            int length = archives.ReadEncoded(i, ref buffer);
            _folder.Write("tree/val/" + archives.Name(i), buffer[..length]);
        }

        File.Copy(_folder["sample/" + DevelopmentKit.FileName], _folder["tree/" + DevelopmentKit.FileName]);
        using (ImageDataset folder = ImageDataset.Open(_folder["tree"], DatasetSplit.Validation, cacheDirectory: null))
        {
            Assert.Equal(archives.ClassNames, folder.ClassNames);
            Assert.Equal(Enumerable.Range(0, archives.Count).Select(i => (archives.Name(i), archives.Label(i))),
                Enumerable.Range(0, folder.Count).Select(i => (folder.Name(i), folder.Label(i))));
        }

        // One image short: the labels behind it would all be wrong.
        File.Delete(_folder["tree/val/" + archives.Name(3)]);
        Assert.Contains("do not belong together", Error(_folder["tree"]), StringComparison.Ordinal);

        _folder.Write("tree/val/" + archives.Name(3), AnImage);
        _folder.Write("tree/train/n90000001/1.jpg", AnImage);
        Assert.Contains("have other classes", Error(_folder["tree"]), StringComparison.Ordinal);
    }

    [Fact]
    public void Open_FlatFolderAlone_SaysWhatToPutBesideIt()
    {
        _folder.Write("train/a/1.jpg", AnImage);
        _folder.Write("val/1.jpg", AnImage);
        string error = Error(_folder.Path);
        Assert.Contains(GroundTruth.SolutionName, error, StringComparison.Ordinal);
        Assert.Contains(DevelopmentKit.FileName, error, StringComparison.Ordinal);
        // Its lack does not hinder looking at the training images.
        ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null).Dispose();
    }

    [Theory]
    [InlineData("imagenet_object_localization_patched2019.tar.gz", "tar -xzf")]
    [InlineData("imagenet-object-localization-challenge.zip", "unzip")]
    public void Open_KaggleDownloadNotUnpacked_SaysHow(string file, string command)
    {
        _folder.Write(file, [1, 2, 3]);
        Assert.Contains(command, Error(_folder.Path), StringComparison.Ordinal);
    }

    public void Dispose() => _folder.Dispose();

    private static string Error(string path) =>
        Assert.Throws<UserErrorException>(() => ImageDataset.Open(path, DatasetSplit.Validation, cacheDirectory: null)).Message;

    private void WriteKaggle()
    {
        foreach (string name in (string[])["train/n01443537/n01443537_2.JPEG", "train/n01440764/n01440764_1.JPEG", "val/ILSVRC2012_val_00000003.JPEG",
            "val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG", "test/ILSVRC2012_test_00000001.JPEG"])
        {
            _folder.Write("ILSVRC/Data/CLS-LOC/" + name, AnImage);
        }

        _folder.Write(GroundTruth.SolutionName,
            """
            ImageId,PredictionString
            ILSVRC2012_val_00000003,n01443537 85 1 499 272 
            ILSVRC2012_val_00000001,n01443537 1 2 3 4 n01443537 131 0 499 254 
            ILSVRC2012_val_00000002,n01440764 1 2 3 4

            """u8.ToArray());
        _folder.Write(GroundTruth.MappingName, "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n"u8.ToArray());
    }
}
