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
        string? data = experiment.Data == ExperimentData.Mnist ? RepoPaths.SharedDataOrSkip("mnist") : null;
        Assert.SkipWhen(experiment.Data != ExperimentData.None && TrainingFixture.Backend == "reference", "training takes minutes on the reference backend");
        Check(experiment, data);
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
            Assert.All(record.Result.Findings, f => Assert.True(f.Passed, f.ToString()));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}
