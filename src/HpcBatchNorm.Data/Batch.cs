namespace HpcBatchNorm.Data;

/// <summary>
/// Images and labels of one step. They belong to the loader, which fills their memory anew after <see cref="Dispose"/> or the next
/// <see cref="BatchLoader.Next"/>, whichever comes first; from then on they throw an <see cref="ObjectDisposedException"/>.
/// </summary>
public sealed class Batch : IDisposable
{
    private readonly BatchLoader _loader;

    internal Batch(BatchLoader loader, LoaderOptions options)
    {
        _loader = loader;
        ImageBytes = checked(options.Crops * options.ImageSize * options.ImageSize * options.Channels);
        PixelArray = GC.AllocateArray<byte>(checked(options.BatchSize * ImageBytes), pinned: true);
        LabelArray = new int[options.BatchSize];
        IndexArray = new int[options.BatchSize];
    }

    /// <summary>Images one after the other, each S rows of S pixels of R, G, B, or of one grey value (NHWC); in multi-crop evaluation all views of an image one after the other. Beyond <see cref="Count"/> images: zeros.</summary>
    /// <exception cref="ObjectDisposedException">The batch has gone back to the loader.</exception>
    public ReadOnlySpan<byte> Pixels => Lent(PixelArray);

    /// <summary>Class indices. Beyond <see cref="Count"/>: zeros.</summary>
    /// <exception cref="ObjectDisposedException">The batch has gone back to the loader.</exception>
    public ReadOnlySpan<int> Labels => Lent(LabelArray);

    /// <summary>Which images of the data set these are. Beyond <see cref="Count"/>: -1.</summary>
    /// <exception cref="ObjectDisposedException">The batch has gone back to the loader.</exception>
    public ReadOnlySpan<int> Indices => Lent(IndexArray);

    /// <summary>What <see cref="Pixels"/> shows. It never moves.</summary>
    internal byte[] PixelArray { get; }

    /// <summary>What <see cref="Labels"/> shows.</summary>
    internal int[] LabelArray { get; }

    /// <summary>What <see cref="Indices"/> shows.</summary>
    internal int[] IndexArray { get; }

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

    /// <summary>Gives the memory back to the loader. A second call does nothing.</summary>
    public void Dispose() => _loader.Release(this);

    private T[] Lent<T>(T[] values)
    {
        ObjectDisposedException.ThrowIf(!_loader.HasLent(this), this);
        return values;
    }
}
