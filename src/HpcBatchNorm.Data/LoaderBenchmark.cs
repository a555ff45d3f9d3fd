using System.Diagnostics;

namespace HpcBatchNorm.Data;

/// <summary>How fast a loader is when nobody uses its batches.</summary>
/// <param name="Images">Images loaded.</param>
/// <param name="Seconds">Time it took.</param>
/// <param name="ProcessorSeconds">Processor time of the whole process, which other programs on the machine hardly change.</param>
/// <param name="Workers">Threads that decoded.</param>
/// <param name="Stages">Where the workers' time went.</param>
/// <param name="AllocatedBytesPerImage">Managed memory allocated for each image, by the whole process.</param>
internal sealed record LoaderTiming(
    long Images, double Seconds, double ProcessorSeconds, int Workers, LoaderTimes Stages, double AllocatedBytesPerImage)
{
    /// <summary>Images per second of all workers together.</summary>
    public double ImagesPerSecond => Images / Seconds;

    /// <summary>Images per second of processor time: what one core delivers.</summary>
    public double ImagesPerCoreSecond => Images / ProcessorSeconds;
}

/// <summary>Finds out how fast a data set can be read.</summary>
internal static class LoaderBenchmark
{
    /// <summary>Loads batches for about <paramref name="seconds"/> and drops them, after a few have warmed everything up.</summary>
    /// <param name="dataset">The data set.</param>
    /// <param name="options">What is made of it.</param>
    /// <param name="seconds">How long to measure.</param>
    /// <param name="cancellationToken">Stops the measurement.</param>
    public static LoaderTiming Run(IImageSource dataset, LoaderOptions options, double seconds, CancellationToken cancellationToken = default)
    {
        const int LongestWarmUp = 32;
        using var loader = new BatchLoader(dataset, options);
        int warmUp = Math.Max(options.Prefetch + 1, Math.Min(2 * loader.BatchesPerEpoch, LongestWarmUp));
        for (int i = 0; i < warmUp; i++)
        {
            loader.Next(cancellationToken);
        }

        LoaderTimes stages = loader.Times;
        long images = 0, allocated = GC.GetTotalAllocatedBytes(precise: true), start = Stopwatch.GetTimestamp();
        double processor = ProcessorSeconds(), elapsed;
        do
        {
            images += loader.Next(cancellationToken).Count;
            elapsed = Stopwatch.GetElapsedTime(start).TotalSeconds;
        }
        while (elapsed < seconds || images == 0);

        processor = ProcessorSeconds() - processor;
        allocated = GC.GetTotalAllocatedBytes(precise: true) - allocated;
        return new LoaderTiming(images, elapsed, processor, options.Workers, loader.Times - stages, allocated / (double)images);
    }

    private static double ProcessorSeconds() => Environment.CpuUsage.TotalTime.TotalSeconds;
}
