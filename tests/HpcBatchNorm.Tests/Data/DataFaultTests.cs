using System.Formats.Tar;
using HpcBatchNorm.Data;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

/// <summary>Data that are incomplete, or change or vanish while they are used: always one line that names the path, never other images or labels.</summary>
public sealed class DataFaultTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    [Fact]
    public void Open_DevelopmentKitOfAnotherTask_IsNotTaken()
    {
        string sample = WriteSample();
        File.Move(Path.Combine(sample, DevelopmentKit.FileName), Path.Combine(sample, "ILSVRC2012_devkit_t3.tar.gz"));
        string error = Error(sample, DatasetSplit.Validation);
        Assert.Contains($"has no {DevelopmentKit.FileName}", error, StringComparison.Ordinal);
        Assert.Contains("ILSVRC2012_devkit_t3.tar.gz is of another year or task", error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0.3)]
    [InlineData(0.9)]
    public void Open_TruncatedTrainingArchive_SaysThatItIsCutShort(double kept)
    {
        string path = Path.Combine(WriteSample(), DatasetLayouts.TrainArchive);
        byte[] bytes = File.ReadAllBytes(path);
        File.WriteAllBytes(path, bytes[..(int)(bytes.Length * kept)]);
        string error = Error(_folder["sample"], DatasetSplit.Train);
        Assert.Contains("is cut short", error, StringComparison.Ordinal);
        Assert.Contains(path, error, StringComparison.Ordinal);
    }

    [Fact]
    public void Open_ArchiveCutBetweenClasses_IsFoundByTheMissingClass()
    {
        string path = Path.Combine(WriteSample(), DatasetLayouts.TrainArchive);
        byte[] bytes = File.ReadAllBytes(path);
        // Where the last class begins: such an archive is whole as a tar.
        int last = bytes.AsSpan().IndexOf("n90000004.tar"u8);
        File.WriteAllBytes(path, bytes[..last]);
        Assert.Contains("no image of class n90000004", Error(_folder["sample"], DatasetSplit.Train), StringComparison.Ordinal);
    }

    [Fact]
    public void Open_ArchiveReplacedSinceItWasIndexed_IsIndexedAgain()
    {
        byte[] image = TestImages.Jpeg(8, 8, SKColors.Red);
        string archive = _folder.Write("a.tar", ArchiveTests.Tar(TarEntryFormat.Ustar, new() { ["a/1.jpg"] = image, ["b/2.jpg"] = image }));
        string cache = _folder["cache"];
        using (ImageDataset before = ImageDataset.Open(archive, DatasetSplit.Train, cache))
        {
            Assert.Equal(["a", "b"], before.ClassNames);
        }

        File.WriteAllBytes(archive, ArchiveTests.Tar(TarEntryFormat.Ustar, new() { ["c/1.jpg"] = image, ["d/2.jpg"] = image }));
        File.SetLastWriteTimeUtc(archive, DateTime.UtcNow.AddSeconds(5));
        using ImageDataset after = ImageDataset.Open(archive, DatasetSplit.Train, cache);
        Assert.Equal(["c", "d"], after.ClassNames);
    }

    [Fact]
    public void Next_FolderVanishesInTheMiddleOfAnEpoch_NamesThePath()
    {
        byte[] image = TestImages.Texture(40, 30);
        for (int i = 0; i < 40; i++)
        {
            _folder.Write($"data/{(char)('a' + i % 2)}/{i}.jpg", image);
        }

        using ImageDataset data = ImageDataset.Open(_folder["data"], DatasetSplit.Train, cacheDirectory: null);
        using var loader = new BatchLoader(data, LoaderOptions.ForTraining(4, 16, seed: 1) with { Prefetch = 1 });
        loader.Next(TestContext.Current.CancellationToken);
        Directory.Delete(_folder["data"], recursive: true);

        var error = Assert.Throws<UserErrorException>(() =>
        {
            for (int step = 0; step < 10; step++)
            {
                loader.Next(TestContext.Current.CancellationToken);
            }
        });
        Assert.Contains(_folder["data"], error.Message, StringComparison.Ordinal);
        Assert.Contains("cannot be read", error.Message, StringComparison.Ordinal);
        // A vanished file is no bad image: nothing was passed over in silence.
        Assert.Empty(loader.BadImages);
    }

    [Fact]
    public void Next_ArchiveShrinksInTheMiddleOfAnEpoch_NamesThePath()
    {
        byte[] image = TestImages.Texture(40, 30);
        string archive = _folder.Write("a.tar", ArchiveTests.Tar(
            TarEntryFormat.Ustar, Enumerable.Range(0, 40).ToDictionary(i => $"{(char)('a' + i % 2)}/{i}.jpg", _ => image)));
        using ImageDataset data = ImageDataset.Open(archive, DatasetSplit.Train, cacheDirectory: null);
        using var loader = new BatchLoader(data, LoaderOptions.ForTraining(4, 16, seed: 1) with { Prefetch = 1 });
        loader.Next(TestContext.Current.CancellationToken);
        using (var file = new FileStream(archive, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            file.SetLength(1000);
        }

        var error = Assert.Throws<UserErrorException>(() =>
        {
            for (int step = 0; step < 10; step++)
            {
                loader.Next(TestContext.Current.CancellationToken);
            }
        });
        Assert.Contains(archive, error.Message, StringComparison.Ordinal);
        Assert.Contains("changed since it was opened", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Open_NoPermission_SaysSo()
    {
        Assert.SkipWhen(Environment.IsPrivilegedProcess, "runs as root, who may read everything");
        Assert.SkipWhen(OperatingSystem.IsWindows(), "needs Unix file modes");
        string archive = _folder.Write("a.tar", ArchiveTests.Tar(TarEntryFormat.Ustar, new() { ["a/1.jpg"] = [] }));
#pragma warning disable CA1416 // Skipped where file modes do not exist.
        File.SetUnixFileMode(archive, UnixFileMode.None);
#pragma warning restore CA1416
        string error = Error(archive, DatasetSplit.Train);
        Assert.Contains(archive, error, StringComparison.Ordinal);
        Assert.Contains("denied", error, StringComparison.OrdinalIgnoreCase);
    }

    public void Dispose() => _folder.Dispose();

    private static string Error(string path, DatasetSplit split) =>
        Assert.Throws<UserErrorException>(() => ImageDataset.Open(path, split, cacheDirectory: null)).Message;

    private string WriteSample()
    {
        SampleGenerator.Write(_folder["sample"], SampleFixture.Options, TestContext.Current.CancellationToken);
        return _folder["sample"];
    }
}
