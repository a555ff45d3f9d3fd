using System.Diagnostics;
using HpcBatchNorm.Data;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

/// <summary>A loader whose files do not answer: the last of the images is on a disk that is dead, until it is released.</summary>
public sealed class LoaderFaultTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly ManualResetEventSlim _answers = new();

    public LoaderFaultTests()
    {
        for (int i = 0; i < 8; i++)
        {
            _folder.Write($"a/{i}.png", TestImages.Encode(16, 16, (_, _) => SKColors.Red, SKEncodedImageFormat.Png));
        }
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public void Next_AFileThatBlocks_FailsAndSaysWhatEachWorkerDoes()
    {
        using DeadDisk data = Open();
        var loader = new BatchLoader(data, LoaderOptions.ForEvaluation(4, 16) with { Workers = 2, StallSeconds = 0.4, EndStep = 2 });
        Assert.Equal(4, loader.Next(Token).Count);
        long start = Stopwatch.GetTimestamp();
        var error = Assert.Throws<UserErrorException>(() => loader.Next(Token));
        Assert.InRange(Stopwatch.GetElapsedTime(start).TotalSeconds, 0.3, 60);
        Assert.Contains("no image was finished for 0.4 s while waiting for batch 1", error.Message, StringComparison.Ordinal);
        Assert.Matches($@"worker [01] reads 'a/7\.png' of '{_folder.Path}' since \d+\.\d s", error.Message);
        Assert.Matches(@"worker [01] (waits for room|works on 'a/\d\.png')", error.Message);
        Assert.Contains("loader-timeout sets", error.Message, StringComparison.Ordinal);
        Release();
        loader.Dispose();
    }

    [Fact]
    public void Dispose_AFileThatBlocks_DoesNotWaitForIt()
    {
        DeadDisk data = Open();
        var loader = new BatchLoader(data, LoaderOptions.ForEvaluation(8, 16));
        using var soon = new CancellationTokenSource(TimeSpan.FromMilliseconds(200));
        Assert.Throws<OperationCanceledException>(() => loader.Next(soon.Token));
        long start = Stopwatch.GetTimestamp();
        loader.Dispose();
        data.Dispose();
        Assert.InRange(Stopwatch.GetElapsedTime(start).TotalSeconds, 0, 60);
        Release();
    }

    [Fact]
    public void Next_SlowButAlive_IsNotMistakenForAStall()
    {
        using DeadDisk data = Open();
        // One worker, and the disk answers (with nothing, which is a bad image) before the limit.
        using var loader = new BatchLoader(data, LoaderOptions.ForEvaluation(8, 16) with { StallSeconds = 30, EndStep = 1 });
        using var timer = new Timer(_ => Release(), null, TimeSpan.FromMilliseconds(300), Timeout.InfiniteTimeSpan);
        Batch batch = loader.Next(Token);
        Assert.Equal(7, batch.Count);
        Assert.True(batch.WaitSeconds > 0.2);
        Assert.Equal([("a/7.png", ImageStatus.Empty)], loader.BadImages.Select(bad => (bad.Name, bad.Status)));
    }

    public void Dispose() => _folder.Dispose();

    private DeadDisk Open() => new(ImageDataset.Open(_folder.Path, DatasetSplit.Validation, cacheDirectory: null), _answers);

    /// <summary>Lets whoever waits go on, with nothing to read.</summary>
    private void Release() => _answers.Set();

    private sealed class DeadDisk(ImageDataset data, ManualResetEventSlim answers) : IImageSource, IDisposable
    {
        public string Source => data.Source;

        public int Count => data.Count;

        public IReadOnlyList<string> ClassNames => data.ClassNames;

        public int Label(int index) => data.Label(index);

        public string Name(int index) => data.Name(index);

        public StoredImage Read(int index, ref byte[] buffer)
        {
            if (index < Count - 1)
            {
                return data.Read(index, ref buffer);
            }

            answers.Wait();
            return StoredImage.File(0);
        }

        public void Dispose() => data.Dispose();
    }
}
