using HpcBatchNorm.Experiments;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Tests.Training;

namespace HpcBatchNorm.Tests.Experiments;

/// <summary>
/// Every experiment in its short form: the direction of each claim, with fixed seeds and the margins its findings state. How the full forms come out is in
/// docs/experiments/results.md.
/// </summary>
[Trait("Category", "Slow")]
public sealed class QuickExperimentTests
{
    public static TheoryData<string> OnDigits => [.. ExperimentCatalog.All.Where(e => e.Data != ExperimentData.ImageNet).Select(e => e.Name)];

    [Theory]
    [MemberData(nameof(OnDigits))]
    public void Claim_Holds(string name)
    {
        Experiment experiment = ExperimentCatalog.Create(name);
        string? data = experiment.Data == ExperimentData.Mnist ? Digits() : null;
        Assert.SkipWhen(experiment.Data != ExperimentData.None && TrainingFixture.Backend == "reference", "training takes minutes on the reference backend");
        Check(experiment, data);
    }

    /// <summary>MNIST beside the checkout; drawn digits in a clone of the repository alone, unless HBN_REQUIRE names the data.</summary>
    private static string Digits()
    {
        string mnist = Path.Combine(RepoPaths.SharedData, "mnist");
        if (Directory.Exists(mnist))
        {
            return mnist;
        }

        Assert.False((Environment.GetEnvironmentVariable("HBN_REQUIRE") ?? "").Split(',', StringSplitOptions.TrimEntries).Contains("data"), $"HBN_REQUIRE names data, and '{mnist}' is not there.");
        return ExperimentDataPath.Find(ExperimentData.Mnist, [ExperimentDataPath.Sample], _ => { })!;
    }

    private static void Check(Experiment experiment, string? data)
    {
        string folder = Directory.CreateTempSubdirectory("hpcbn-quick").FullName;
        try
        {
            ExperimentRecord record = ExperimentRunner.Run(experiment, new ExperimentContext
            {
                DataPath = data,
                Quick = true,
                Output = folder,
                Threads = 1,
                Jobs = 2,
                Cancellation = TestContext.Current.CancellationToken,
            });
            Assert.NotEmpty(record.Result.Figures);
            Assert.All(record.Result.Findings, f => Assert.True(f.Verdict != Verdict.NotShown, f.ToString()));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}
