using System.Globalization;
using HpcBatchNorm.Data;

namespace HpcBatchNorm.Tests.Data;

public sealed class SampleGeneratorTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public void Write_SameOptions_GivesTheSameBytesInAnyCulture()
    {
        SampleGenerator.Write(_folder["a"], SampleFixture.Options, Token);
        CultureInfo before = CultureInfo.CurrentCulture;
        try
        {
            var odd = (CultureInfo)CultureInfo.InvariantCulture.Clone();
            odd.NumberFormat.NumberDecimalSeparator = ",";
            odd.NumberFormat.NegativeSign = "~";
            odd.NumberFormat.NumberGroupSeparator = ".";
            CultureInfo.CurrentCulture = odd;
            SampleGenerator.Write(_folder["b"], SampleFixture.Options, Token);
            using ImageDataset data = ImageDataset.Open(_folder["b"], DatasetSplit.Validation, cacheDirectory: null);
            Assert.Equal(36, data.Count);
            Assert.Contains("it is 1.5.", Assert.Throws<UserErrorException>(
                () => LoaderOptions.ForEvaluation(1, 8) with { CropFraction = 1.5 } is var options ? new BatchLoader(data, options) : null).Message, StringComparison.Ordinal);
        }
        finally
        {
            CultureInfo.CurrentCulture = before;
        }

        SampleGenerator.Write(_folder["c"], SampleFixture.Options with { Seed = 6 }, Token);
        foreach (string file in Directory.GetFiles(_folder["a"]).Select(path => Path.GetFileName(path)))
        {
            byte[] bytes = File.ReadAllBytes(Path.Combine(_folder["a"], file));
            Assert.True(bytes.AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(_folder["b"], file))), file);
            Assert.False(bytes.AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(_folder["c"], file))), file);
        }
    }

    [Fact]
    public void Write_TenClasses_AreReadBackAndColourAloneTellsNothing()
    {
        SampleGenerator.Write(_folder["sample"], new SampleOptions { TrainPerClass = 120 }, Token);
        using ImageDataset train = ImageDataset.Open(_folder["sample"], DatasetSplit.Train, cacheDirectory: null);
        using ImageDataset validation = ImageDataset.Open(_folder["sample"], DatasetSplit.Validation, cacheDirectory: null);
        Assert.Equal((1200, 500, 10), (train.Count, validation.Count, train.ClassCount));
        Assert.Equal(train.ClassNames, validation.ClassNames);
        Assert.Equal("circle", train.ClassDescriptions[0]);
        Assert.All(Enumerable.Range(0, 10), label => Assert.Equal(50, Enumerable.Range(0, 500).Count(i => validation.Label(i) == label)));

        (double[][] colours, int[] labels) = MeanColours(train);
        double[][] means = [.. Enumerable.Range(0, 10).Select(label => Mean(colours.Where((_, i) => labels[i] == label)))];
        (double[][] others, int[] truth) = MeanColours(validation);
        int right = others.Where((colour, i) => Nearest(means, colour) == truth[i]).Count();
        // Chance is 10 %, its standard deviation over 500 images 1.3 %.
        Assert.InRange(right / 500.0, 0.04, 0.16);
    }

    [Fact]
    public void Write_FolderThatIsNotEmpty_IsRefusedAndLeftAlone()
    {
        _folder.Write("full/mine.txt", [1]);
        var error = Assert.Throws<UserErrorException>(() => SampleGenerator.Write(_folder["full"], SampleFixture.Options, Token));
        Assert.Contains("not empty", error.Message, StringComparison.Ordinal);
        Assert.Equal(["full"], Directory.GetFileSystemEntries(_folder.Path).Select(path => Path.GetFileName(path)));

        Directory.CreateDirectory(_folder["empty"]);
        SampleGenerator.Write(_folder["empty"], SampleFixture.Options with { TrainPerClass = 1, ValidationPerClass = 1 }, Token);
        Assert.Equal(3, Directory.GetFiles(_folder["empty"]).Length);
    }

    [Fact]
    public void Write_Cancelled_LeavesNothingBehind()
    {
        using var source = new CancellationTokenSource();
        source.Cancel();
        Assert.Throws<OperationCanceledException>(() => SampleGenerator.Write(_folder["x"], SampleFixture.Options, source.Token));
        Assert.Empty(Directory.GetFileSystemEntries(_folder.Path));
    }

    public void Dispose() => _folder.Dispose();

    private static (double[][] Colours, int[] Labels) MeanColours(ImageDataset data)
    {
        using var loader = new BatchLoader(data, LoaderOptions.ForEvaluation(50, 64) with { CropFraction = 1, Workers = 2 });
        var colours = new List<double[]>();
        var labels = new List<int>();
        for (int step = 0; step < loader.BatchesPerEpoch; step++)
        {
            Batch batch = loader.Next(Token);
            for (int i = 0; i < batch.Count; i++)
            {
                double[] sum = new double[3];
                ReadOnlySpan<byte> pixels = batch.PixelArray.AsSpan(i * batch.ImageBytes, batch.ImageBytes);
                for (int k = 0; k < pixels.Length; k++)
                {
                    sum[k % 3] += pixels[k];
                }

                colours.Add(sum);
                labels.Add(batch.LabelArray[i]);
            }
        }

        return ([.. colours], [.. labels]);
    }

    private static double[] Mean(IEnumerable<double[]> colours) =>
        [.. Enumerable.Range(0, 3).Select(channel => colours.Average(colour => colour[channel]))];

    private static int Nearest(double[][] means, double[] colour) =>
        Enumerable.Range(0, means.Length).MinBy(label => Enumerable.Range(0, 3).Sum(channel => Math.Pow(means[label][channel] - colour[channel], 2)));
}
