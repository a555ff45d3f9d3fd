using HpcBatchNorm.Data;
using HpcBatchNorm.Tests.Data;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Tests.Evaluation;

/// <summary>Evaluation on images of some of a network's classes.</summary>
public sealed class ClassMapTests(EvaluationFixture fixture) : IClassFixture<EvaluationFixture>, IDisposable
{
    private static readonly string[] Network = ["ant", "bee", "cat", "dog"];

    private readonly TemporaryFolder _folder = new();

    [Fact]
    public void ByName_OfSomeClasses_LetsOnlyThoseCompete()
    {
        var map = ClassMap.ByName(Network, ["dog", "bee"]);
        double[] images = [9, 9];
        map.Apply([0.5, 0.1, 0.1, 0.3], images);
        Assert.Equal([0.75, 0.25], images.Select(p => Math.Round(p, 12)));
        map.Apply([0.5, 0, 0.5, 0], images);
        Assert.Equal([0, 0], images);
        Assert.Equal((4, 2), (map.NetworkClasses, map.Used));
    }

    [Fact]
    public void Read_SeveralClassesOfTheNetwork_AreAdded()
    {
        string file = _folder.Write("map.txt", "# coarse\ninsect\tant\ninsect\tbee\n\npet\tdog\n"u8.ToArray());
        double[] images = new double[2];
        ClassMap.Read(file, Network, ["insect", "pet"]).Apply([0.2, 0.2, 0.2, 0.4], images);
        Assert.Equal([0.5, 0.5], images.Select(p => Math.Round(p, 12)));
    }

    [Theory]
    [InlineData("insect ant\npet dog\nfish cat\n", "'fish' is no class of the data set")]
    [InlineData("insect ant\npet dgo\n", "did you mean 'dog'?")]
    [InlineData("insect ant\npet ant\n", "can stand for one")]
    [InlineData("insect ant\n", "'pet'; add a line")]
    [InlineData("insect\npet dog\n", "not two names")]
    public void Read_AMapThatDoesNotFit_SaysWhatToChange(string text, string message)
    {
        string file = _folder.Write("map.txt", System.Text.Encoding.UTF8.GetBytes(text));
        Assert.Contains(message, Assert.Throws<UserErrorException>(() => ClassMap.Read(file, Network, ["insect", "pet"])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Evaluate_ImagesOfTwoOfTheClasses_CountsAsTheWholeSetRestrictedToThem()
    {
        using ImageDataset all = ImageDataset.Open(fixture.Training.Data, DatasetSplit.Validation, cacheDirectory: null);
        byte[] buffer = [];
        string[] some = [all.ClassNames[0], all.ClassNames[^1]];
        int images = 0;
        for (int i = 0; i < all.Count; i++)
        {
            if (all.ClassNames[all.Label(i)] is string name && some.Contains(name))
            {
                int length = all.ReadEncoded(i, ref buffer);
                _folder.Write($"val/{name}/{i}.jpg", buffer[..length]);
                images++;
            }
        }

        var request = new EvaluationRequest { Checkpoints = [fixture.First], Flags = [("data", _folder.Path)] };
        Assert.Contains("class map", Assert.Throws<UserErrorException>(() => request.Run(_ => { }, stop: TestContext.Current.CancellationToken)).Message, StringComparison.Ordinal);
        EvaluationResult result = (request with { ClassMapping = EvaluationRequest.ByName }).Run(_ => { }, stop: TestContext.Current.CancellationToken);
        Assert.Equal((images, 2), ((int)result.Images, result.Classes.Count));
        Assert.Equal(some, result.Classes.Select(c => c.Name));
        // Two classes compete: the right one is always among the first five, and a guess between them is right at least as often as one among all.
        EvaluationResult whole = new EvaluationRequest { Checkpoints = [fixture.First] }.Run(_ => { }, stop: TestContext.Current.CancellationToken);
        Assert.Equal(1, result.Top5);
        Assert.True(result.Top1 * images >= whole.Classes.Where(c => some.Contains(c.Name)).Sum(c => c.Top1Images));
        Assert.Equal(result.Top1Images(), (request with { Checkpoints = [fixture.First, fixture.First], ClassMapping = EvaluationRequest.ByName }).Run(_ => { }, stop: TestContext.Current.CancellationToken).Top1Images());
    }

    public void Dispose() => _folder.Dispose();
}

internal static class EvaluationResultCounts
{
    public static long Top1Images(this EvaluationResult result) => result.Classes.Sum(c => c.Top1Images);
}
