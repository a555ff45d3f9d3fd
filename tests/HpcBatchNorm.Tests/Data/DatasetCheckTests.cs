using System.Text.Json;
using HpcBatchNorm.Cli;
using HpcBatchNorm.Data;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

public sealed class DatasetCheckTests(SampleFixture sample) : IClassFixture<SampleFixture>, IDisposable
{
    private readonly TemporaryFolder _folder = new();

    [Fact]
    public void Run_GoodDataSet_CountsEverythingAndFindsNothing()
    {
        DatasetReport report = DatasetCheck.Run(sample.Train, workers: 2, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal((120, 4, 30, 30, 120), (report.Images, report.Classes, report.SmallestClass, report.LargestClass, report.Decoded));
        Assert.Equal([30, 30, 30, 30], report.PerClass);
        Assert.Empty(report.BadImages);
        Assert.Empty(report.Problems);
    }

    [Fact]
    public void Run_BadImage_NamesIt()
    {
        byte[] image = TestImages.Texture(50, 50);
        _folder.Write("a/1.jpg", image);
        _folder.Write("a/2.jpg", image[..^200]);
        DatasetReport report = Check();
        Assert.Equal([new BadImage(1, "a/2.jpg", ImageStatus.Truncated)], report.BadImages);
        Assert.Contains("only one class, 'a'", Assert.Single(report.Problems), StringComparison.Ordinal);
    }

    [Fact]
    public void Run_FileGoneMeanwhile_IsAProblemAndTheRestIsStillChecked()
    {
        _folder.Write("a/1.jpg", TestImages.Texture(50, 50));
        string gone = _folder.Write("b/2.jpg", TestImages.Texture(50, 50));
        _folder.Write("b/3.jpg", []);
        using ImageDataset data = ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null);
        File.Delete(gone);
        DatasetReport report = DatasetCheck.Run(data, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Contains("b/2.jpg", Assert.Single(report.Problems), StringComparison.Ordinal);
        Assert.Equal("b/3.jpg", Assert.Single(report.BadImages).Name);
    }

    [Fact]
    public void Run_AThousandClasses_ComparesWithImageNet()
    {
        byte[] image = TestImages.Jpeg(8, 8, SKColors.Red);
        string[] names = [.. Enumerable.Range(0, 1000).Select(i => FormattableString.Invariant($"n{i:D8}/x.jpg"))];
        _folder.Write("all.tar", ArchiveTests.Tar(System.Formats.Tar.TarEntryFormat.Ustar, names.ToDictionary(name => name, _ => image)));

        string[] problems = [.. Check(limit: 0).Problems];
        Assert.Equal(2, problems.Length);
        Assert.Contains("1000 images instead of 1281167; the download", problems[0], StringComparison.Ordinal);
        Assert.Contains("n00000000 to n00000999 instead of n01440764 to n15075141", problems[1], StringComparison.Ordinal);

        _folder.Write("all.tar", ArchiveTests.Tar(System.Formats.Tar.TarEntryFormat.Ustar, names.Skip(1).ToDictionary(name => name, _ => image)));
        Assert.Contains("999 classes of ImageNet's 1000", Assert.Single(Check(limit: 0).Problems), StringComparison.Ordinal);
    }

    [Fact]
    public void Run_ClassesThatDifferByCase_AreNamed()
    {
        _folder.Write("Dog/1.jpg", TestImages.Texture(50, 50));
        _folder.Write("dog/2.jpg", TestImages.Texture(50, 50));
        Assert.Contains("'Dog' and 'dog'", Assert.Single(Check().Problems), StringComparison.Ordinal);
    }

    [Fact]
    public void Run_ArchiveWithAnImageTwice_TakesTheLaterAndNamesIt()
    {
        byte[] image = TestImages.Texture(50, 50);
        byte[] one = ArchiveTests.Tar(System.Formats.Tar.TarEntryFormat.Ustar, new() { ["a/1.jpg"] = image, ["b/2.jpg"] = image });
        byte[] more = ArchiveTests.Tar(System.Formats.Tar.TarEntryFormat.Ustar, new() { ["b/2.jpg"] = image });
        int end = 2 * (512 + (image.Length + 511) / 512 * 512);
        _folder.Write("twice.tar", [.. one[..end], .. more]);
        DatasetReport report = Check();
        Assert.Equal(2, report.Images);
        Assert.Equal(["passed over members that a later one of the same name replaces (1): 'b/2.jpg'"], report.Notes);
        Assert.Empty(report.Problems);
    }

    [Fact]
    public void Command_OneSplitBroken_StillReportsTheOther()
    {
        byte[] image = TestImages.Texture(50, 50);
        foreach (string name in (string[])["train/a/1.jpg", "train/b/1.jpg", "val/1.jpg"])
        {
            _folder.Write(name, image);
        }

        (int code, string text) = Command();
        Assert.Equal(ExitCode.Failed, code);
        Assert.Contains("train: class folders, 2 images, 2 classes of 1 each; 2 decoded, 0 bad", text, StringComparison.Ordinal);
        Assert.Contains("problem: val: ", text, StringComparison.Ordinal);
        Assert.Contains("LOC_val_solution.csv", text, StringComparison.Ordinal);
    }

    [Fact]
    public void Command_FoldersThatDiffer_SaysWhichAndWhatToDo()
    {
        byte[] image = TestImages.Texture(50, 50);
        foreach (string name in (string[])["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/c/1.jpg"])
        {
            _folder.Write(name, image);
        }

        (int code, string text) = Command();
        Assert.Equal(ExitCode.Failed, code);
        Assert.Contains("class 'b' is in", text, StringComparison.Ordinal);
        Assert.Contains("1 more are only in one of them", text, StringComparison.Ordinal);
        Assert.Contains("add what is missing", text, StringComparison.Ordinal);
    }

    [Fact]
    public void Command_Result_HasCountsPerClassAndProblems()
    {
        SampleGenerator.Write(_folder["sample"], SampleFixture.Options, TestContext.Current.CancellationToken);
        var output = new StringWriter();
        var error = new StringWriter();
        Assert.Equal(ExitCode.Done, CommandLine.Run(["data", "check", _folder["sample"], "--result", "-", "--per-class"], output, error));
        using JsonDocument json = JsonDocument.Parse(output.ToString());
        Assert.Equal(30, json.RootElement.GetProperty("train").GetProperty("per_class").GetProperty("n90000003").GetInt32());
        Assert.Equal(9, json.RootElement.GetProperty("val").GetProperty("per_class").GetProperty("n90000001").GetInt32());
        Assert.Equal(0, json.RootElement.GetProperty("problems").GetArrayLength());
        Assert.Contains("no problems found", error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Checksums_DamagedArchive_IsTold()
    {
        // The MD5 sum of "abc" as RFC 1321 gives it.
        (string, string)[] published = [("a.tar", "900150983cd24fb0d6963f7d28e17f72"), ("b.tar", "900150983cd24fb0d6963f7d28e17f72"), ("none.tar", "")];
        _folder.Write("a.tar", "abc"u8.ToArray());
        _folder.Write("b.tar", "abd"u8.ToArray());
        var progress = new List<(string, long, long)>();
        IReadOnlyList<(string Name, string? Problem)> found =
            ArchiveChecksums.Verify(_folder.Path, published, (file, done, total) => progress.Add((file, done, total)), TestContext.Current.CancellationToken);
        Assert.Equal(["a.tar", "b.tar"], found.Select(f => f.Name));
        Assert.Null(found[0].Problem);
        Assert.Contains("instead of 900150983cd24fb0d6963f7d28e17f72; it is damaged", found[1].Problem, StringComparison.Ordinal);
        Assert.Equal([("a.tar", 3L, 3L), ("b.tar", 3L, 3L)], progress);
    }

    [Fact]
    public void Checksums_Command_FindsThatASampleIsNotImageNet()
    {
        SampleGenerator.Write(_folder["sample"], SampleFixture.Options, TestContext.Current.CancellationToken);
        var output = new StringWriter();
        Assert.Equal(ExitCode.Failed, CommandLine.Run(["data", "check", _folder["sample"], "--limit", "0", "--checksums"], output, output));
        Assert.Contains("1d675b47d978889d74fa0da5fadfb00e", output.ToString(), StringComparison.Ordinal);
        Assert.Contains("3 problem(s)", output.ToString(), StringComparison.Ordinal);
        Assert.Equal(ExitCode.Failed, CommandLine.Run(["data", "check", _folder.Path, "--limit", "0", "--checksums"], output, output));
        Assert.Contains("none of the archives", output.ToString(), StringComparison.Ordinal);
    }

    public void Dispose() => _folder.Dispose();

    private DatasetReport Check(int limit = int.MaxValue)
    {
        using ImageDataset data = ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null);
        return DatasetCheck.Run(data, limit, cancellationToken: TestContext.Current.CancellationToken);
    }

    private (int Code, string Text) Command()
    {
        var output = new StringWriter();
        return (CommandLine.Run(["data", "check", _folder.Path], output, output), output.ToString());
    }
}
