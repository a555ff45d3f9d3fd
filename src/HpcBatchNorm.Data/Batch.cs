namespace HpcBatchNorm.Data;

/// <summary>
/// Images and labels of one step. Its buffers belong to the loader and are filled anew after <see cref="Dispose"/> or the next
/// <see cref="BatchLoader.Next"/>, whichever comes first.
/// </summary>
public sealed class Batch : IDisposable
{
    private readonly BatchLoader _loader;

    internal Batch(BatchLoader loader, LoaderOptions options)
    {
        _loader = loader;
        ImageBytes = checked(options.Crops * options.ImageSize * options.ImageSize * options.Channels);
        Pixels = GC.AllocateArray<byte>(checked(options.BatchSize * ImageBytes), pinned: true);
        Labels = new int[options.BatchSize];
        Indices = new int[options.BatchSize];
    }

    /// <summary>Images one after the other, each S rows of S pixels of R, G, B, or of one grey value (NHWC); in multi-crop evaluation all views of an image one after the other. Beyond <see cref="Count"/> images: zeros. The array never moves.</summary>
    public byte[] Pixels { get; }

    /// <summary>Class indices. Beyond <see cref="Count"/>: zeros.</summary>
    public int[] Labels { get; }

    /// <summary>Which images of the data set these are. Beyond <see cref="Count"/>: -1.</summary>
    public int[] Indices { get; }

    /// <summary>
    /// Images in this batch: the batch size, or less in the last batch of an epoch and, in evaluation, where bad images were left out.
    /// </summary>
    public int Count { get; internal set; }

    /// <summary>Bytes of one image: S * S * channels, times the crops of multi-crop evaluation.</summary>
    public int ImageBytes { get; }

    /// <summary>The step this batch is for, counted from 0 over all epochs.</summary>
    public long Step { get; internal set; }

    /// <summary>The epoch it belongs to, counted from 0.</summary>
    public long Epoch { get; internal set; }

    /// <summary>True for the last batch of its epoch.</summary>
    public bool LastOfEpoch { get; internal set; }

    /// <summary>Seconds <see cref="BatchLoader.Next"/> waited for this batch; more than a little means that the loader is the bottleneck.</summary>
    public double WaitSeconds { get; internal set; }

    /// <summary>Gives the buffers back to the loader.</summary>
    public void Dispose() => _loader.Release(this);
}
