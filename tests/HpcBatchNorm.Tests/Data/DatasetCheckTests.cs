using HpcBatchNorm.Data;

namespace HpcBatchNorm.Tests.Data;

public sealed class DatasetCheckTests(SampleFixture sample) : IClassFixture<SampleFixture>
{
    [Fact]
    public void Run_GoodDataSet_CountsEverythingAndFindsNothing()
    {
        DatasetReport report = DatasetCheck.Run(sample.Train, workers: 2, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal((120, 4, 30, 30, 120), (report.Images, report.Classes, report.SmallestClass, report.LargestClass, report.Decoded));
        Assert.Empty(report.BadImages);
        Assert.Empty(report.Notes);
    }

    [Fact]
    public void Run_BadImage_NamesIt()
    {
        using var folder = new TemporaryFolder();
        byte[] image = TestImages.Texture(50, 50);
        folder.Write("a/1.jpg", image);
        folder.Write("a/2.jpg", image[..^200]);
        using ImageDataset data = ImageDataset.Open(folder.Path, DatasetSplit.Train, cacheDirectory: null);
        DatasetReport report = DatasetCheck.Run(data, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal([new BadImage(1, "a/2.jpg", ImageStatus.Truncated)], report.BadImages);
        Assert.Contains("only one class", Assert.Single(report.Notes), StringComparison.Ordinal);
    }
}
