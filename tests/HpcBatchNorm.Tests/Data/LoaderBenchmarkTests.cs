using HpcBatchNorm.Data;

namespace HpcBatchNorm.Tests.Data;

public sealed class LoaderBenchmarkTests(SampleFixture sample) : IClassFixture<SampleFixture>
{
    [Fact]
    public void Run_SmallDataSet_GivesAPlausibleRateAndAccountsForTheWorkersTime()
    {
        LoaderOptions options = LoaderOptions.ForTraining(8, 32, 1) with { Workers = 2, Augmentation = new() { PhotometricStrength = 1 } };
        LoaderTiming timing = LoaderBenchmark.Run(sample.Train, options, 0.1, TestContext.Current.CancellationToken);
        Assert.True(timing.Images >= 8 && timing.Images % 8 == 0);
        Assert.True(timing.Seconds >= 0.1);
        Assert.True(timing.ProcessorSeconds > 0);
        Assert.Equal(timing.Images / timing.Seconds, timing.ImagesPerSecond);
        Assert.Equal(timing.Images / timing.ProcessorSeconds, timing.ImagesPerCoreSecond);
        Assert.All(Enum.GetValues<LoaderStage>().Except([LoaderStage.Wait]), stage => Assert.True(timing.Stages[stage] > 0, stage.ToString()));
        // Two workers for the time measured; what was begun before and what is not finished may fall on either side.
        Assert.InRange(timing.Stages.Total, 0.1, 2 * timing.Seconds + 1);
    }
}
