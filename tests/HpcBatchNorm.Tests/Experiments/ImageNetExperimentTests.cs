using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Experiments;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tests.Training;

namespace HpcBatchNorm.Tests.Experiments;

/// <summary>The ImageNet experiments in their quick form on generated pictures: directions, with the margins their findings state.</summary>
public sealed class ImageNetExperimentTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hpcbn-experiments").FullName;

    private string Data
    {
        get
        {
            string data = Path.Combine(_folder, "data");
            if (!Directory.Exists(data))
            {
                SampleGenerator.Write(data, new SampleOptions { Classes = 10, TrainPerClass = 120, ValidationPerClass = 20, ImageSize = 32 }, TestContext.Current.CancellationToken);
            }

            return data;
        }
    }

    [Theory]
    [InlineData("inception", 0.01, "false")]
    [InlineData("bn-baseline", 0.01, "true")]
    [InlineData("bn-x5", 0.05, "true")]
    [InlineData("bn-x30", 0.3, "true")]
    [InlineData("bn-x30-e6", 0.3, "true")]
    public void Scale_KeepsTheRecipesMultiplesOfTheLearningRate(string recipe, double rate, string batchNorm)
    {
        Dictionary<string, string> flags = new ImageNetScale { BaseLearningRate = 0.01 }.Flags(recipe, 1).ToDictionary(f => f.Name, f => f.Value, StringComparer.Ordinal);

        Assert.Equal(rate, double.Parse(flags["learning-rate"], System.Globalization.CultureInfo.InvariantCulture), 1e-6);
        Assert.Equal(("inception-tiny", batchNorm), (flags["model"], flags["batch-norm"]));
        Assert.False(flags.ContainsKey("dropout") || flags.ContainsKey("weight-decay") || flags.ContainsKey("shuffle") || flags.ContainsKey("photometric"));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Variants_Quick_ShowThePapersOrderAndAreKept()
    {
        ExperimentContext context = Context("variants");
        ExperimentResult result = new ImageNetVariants().Run(context);

        Assert.All(result.Findings, f => Assert.True(f.Verdict == Verdict.Shown, f.ToString()));
        Assert.Equal(3, result.Findings.Count);
        Assert.Contains("<svg", result.Figures.Single().ToSvg(), StringComparison.Ordinal);
        Assert.Equal(4, result.Tables.Single().Rows.Count);

        // Again: nothing is trained.
        long written = Directory.EnumerateFiles(context.Output, "metrics.jsonl", SearchOption.AllDirectories).Sum(f => new FileInfo(f).Length);
        Assert.Equal(result.Findings, new ImageNetVariants().Run(context).Findings);
        Assert.Equal(written, Directory.EnumerateFiles(context.Output, "metrics.jsonl", SearchOption.AllDirectories).Sum(f => new FileInfo(f).Length));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Ensemble_Quick_EvaluatesMembersAndAverageWithOneAndManyCrops()
    {
        ExperimentResult result = new EnsembleExperiment().Run(Context("ensemble"));

        Assert.Equal(6, result.Findings.Count);
        Assert.Equal(7 + 2 + 2 + 2, result.Tables.Single().Rows.Count);
        Assert.All(result.Tables.Single().Rows, row => Assert.Equal(result.Tables.Single().Head.Count, row.Count));
        // Direction: averaging two networks is better than their mean, with one crop and with 144.
        double[] error = [.. result.Tables.Single().Rows.Skip(7).Select(row => double.Parse(row[4].Split(' ')[0], System.Globalization.CultureInfo.InvariantCulture))];
        Assert.All(error, e => Assert.InRange(e, 0, 90));
        Assert.True(error[4] < (error[0] + error[1]) / 2 && error[5] < (error[2] + error[3]) / 2, string.Join(", ", error));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Overfit_Quick_KnowsEveryImageInEachPrecisionThereIs()
    {
        ExperimentContext context = Context("overfit");
        using Backend backend = context.CreateBackend();
        bool bf16 = backend.Supports(Precision.Bf16, out string reason);

        ExperimentResult result = new OverfitExperiment().Run(context);

        Assert.All(result.Findings, f => Assert.True(f.Verdict == Verdict.Shown, f.ToString()));
        Assert.Equal(bf16 ? ["fp32", "bf16"] : ["fp32"], result.Findings.Select(f => f.Quantity.Split(' ')[^1]));

        // What cannot run is not left out without a word.
        Assert.Equal(bf16 ? [] : [$"Not run in bf16: {backend.Name} cannot compute in it here. {reason}"], result.NotRun);
    }

    [Fact]
    public void Ensemble_OfOne_IsRefused() => Assert.Contains(
        "2 to 6", Assert.Throws<UserErrorException>(() => new EnsembleExperiment().Run(Context("one", seeds: 1))).Message, StringComparison.Ordinal);

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private ExperimentContext Context(string name, int seeds = 0) => new()
    {
        DataPath = Data,
        Output = Path.Combine(_folder, name),
        Quick = true,
        Seeds = seeds,
        Threads = 1,
        Jobs = 2,
        BackendName = TrainingFixture.Backend,
        Cancellation = TestContext.Current.CancellationToken,
    };
}
