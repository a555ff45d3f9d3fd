using HpcBatchNorm.Data;

namespace HpcBatchNorm.Tests.Data;

public sealed class LoaderBenchmarkTests(SampleFixture sample) : IClassFixture<SampleFixture>
{
    [Fact]
    public void Rates_AreImagesOverTime()
    {
        var timing = new LoaderTiming(Images: 600, Seconds: 4, ProcessorSeconds: 8, Workers: 2, default, 0);

        Assert.Equal(150, timing.ImagesPerSecond);
        Assert.Equal(75, timing.ImagesPerCoreSecond);
    }

    /// <summary>What is timed is what a clock outside sees, and images are those that left the source after the warm-up.</summary>
    [Fact]
    public void Run_CountsTheImagesOfTheTimeThatItMeasures()
    {
        LoaderOptions options = LoaderOptions.ForTraining(8, 32, 1) with { Workers = 1, Augmentation = new() };
        long start = System.Diagnostics.Stopwatch.GetTimestamp(), reads = 0;
        LoaderTiming timing = LoaderBenchmark.Run(new CountingSource(sample.Train, () => Interlocked.Increment(ref reads)), options, 0.1, TestContext.Current.CancellationToken);
        double outside = System.Diagnostics.Stopwatch.GetElapsedTime(start).TotalSeconds;

        Assert.InRange(timing.Seconds, 0.1, outside);
        // At least prefetch + 1 batches of 8 warmed up; at most the batches ahead were read and not counted.
        Assert.InRange(timing.Images, 8, reads - 8 * (options.Prefetch + 1));
        Assert.Equal(timing.Images / timing.Seconds, timing.ImagesPerSecond, 1e-9 * timing.ImagesPerSecond);
    }

    [Fact]
    public void Run_SmallDataSet_GivesAPlausibleRateAndAccountsForTheWorkersTime()
    {
        LoaderOptions options = LoaderOptions.ForTraining(8, 32, 1) with { Workers = 2, Augmentation = new() { PhotometricStrength = 1 } };
        LoaderTiming timing = LoaderBenchmark.Run(sample.Train, options, 0.1, TestContext.Current.CancellationToken);
        Assert.True(timing.Images >= 8 && timing.Images % 8 == 0);
        Assert.True(timing.Seconds >= 0.1);
        Assert.True(timing.ProcessorSeconds > 0);
        Assert.All(Enum.GetValues<LoaderStage>().Except([LoaderStage.Wait]), stage => Assert.True(timing.Stages[stage] > 0, stage.ToString()));
        // Two workers for the time measured; what was begun before and what is not finished may fall on either side.
        Assert.InRange(timing.Stages.Total, 0.1, 2 * timing.Seconds + 1);
    }

    private sealed class CountingSource(IImageSource source, Action read) : IImageSource
    {
        public string Source => source.Source;

        public int Count => source.Count;

        public IReadOnlyList<string> ClassNames => source.ClassNames;

        public int Label(int index) => source.Label(index);

        public StoredImage Read(int index, ref byte[] buffer)
        {
            read();
            return source.Read(index, ref buffer);
        }
    }
}
