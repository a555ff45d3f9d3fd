using HpcBatchNorm.Data;
using HpcBatchNorm.Tests.Data;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Tests.Evaluation;

/// <summary>Counting by hand: six classes, a few images.</summary>
public sealed class TallyTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly ImageDataset _dataset;

    public TallyTests()
    {
        foreach (string name in (string[])["a", "b", "c, with a \"comma\"", "d", "e", "f"])
        {
            _folder.Write($"{name}/1.jpg", [1]);
        }

        _dataset = ImageDataset.Open(_folder.Path, DatasetSplit.Validation, cacheDirectory: null);
    }

    public void Dispose()
    {
        _dataset.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public void Add_CountsRanksClassesAndConfusions()
    {
        var tally = new Tally(6);
        tally.Add(0, [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]);
        tally.Add(0, [0.1, 0.5, 0.1, 0.1, 0.1, 0.1]); // 1 is taken; of the equally probable, 0 comes first: rank 1
        tally.Add(0, [0.0, 0.4, 0.3, 0.1, 0.1, 0.1]); // rank 5: not among five
        tally.Add(2, [0.1, 0.1, 0.1, 0.1, 0.1, 0.5]);
        tally.Add(5, [0.1, 0.1, 0.1, 0.1, 0.1, 0.5]);

        EvaluationResult result = tally.Result(_dataset, seconds: 2);

        Assert.Equal((5, 0.4, 0.8, 2.5), (result.Images, result.Top1, result.Top5, result.ImagesPerSecond));
        Assert.Equal(-(Math.Log(0.5) + Math.Log(0.1) + Math.Log(float.Epsilon) + Math.Log(0.1) + Math.Log(0.5)) / 5, result.Loss, 12);
        Assert.Equal(Math.Sqrt(0.4 * 0.6 / 5), result.Top1StandardError, 12);
        Assert.Equal(Math.Sqrt(0.8 * 0.2 / 5), result.Top5StandardError, 12);
        Assert.Equal([(3L, 1L, 2L), (0, 0, 0), (1, 0, 1), (0, 0, 0), (0, 0, 0), (1, 1, 1)], result.Classes.Select(c => (c.Images, c.Top1Images, c.Top5Images)));
        Assert.True(double.IsNaN(result.Classes[1].Top1));
        Assert.Equal([(0, 1, 2L), (2, 5, 1L)], result.Confusions.Select(c => (c.Label.Index, c.Predicted.Index, c.Images)));
    }

    [Fact]
    public void Add_EquallyProbableClasses_AreRankedInTheirOrder()
    {
        var tally = new Tally(6);
        double[] alike = [0.2, 0.2, 0.2, 0.2, 0.2, 0.2];
        for (int label = 0; label < 6; label++)
        {
            tally.Add(label, alike);
        }

        Assert.Equal((1, 5), (tally.Top1Images, tally.Top5Images));
    }

    [Fact]
    public void Add_WhatIsNotANumber_IsNeverRight()
    {
        var tally = new Tally(6);
        double[] nothing = [double.NaN, double.NaN, double.NaN, double.NaN, double.NaN, double.NaN];
        for (int label = 0; label < 6; label++)
        {
            tally.Add(label, nothing);
        }

        Assert.Equal((0, 0), (tally.Top1Images, tally.Top5Images));
    }

    [Fact]
    public void ClassTable_IsCsvWithQuotesWhereNeeded()
    {
        var tally = new Tally(6);
        tally.Add(0, [0.1, 0.1, 0.5, 0.1, 0.1, 0.1]);
        tally.Add(0, [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]);
        using var text = new StringWriter();

        ClassTable.Write(text, tally.Result(_dataset, 1));

        string[] lines = text.ToString().Split('\n');
        Assert.Equal("index,class,description,images,top1,top5,confused_with,confused_images", lines[0]);
        Assert.Equal("0,a,,2,0.5,1,\"c, with a \"\"comma\"\"\",1", lines[1]);
        Assert.Equal("2,\"c, with a \"\"comma\"\"\",,0,,,,0", lines[3]);
        Assert.Equal("", lines[7]);
    }
}
