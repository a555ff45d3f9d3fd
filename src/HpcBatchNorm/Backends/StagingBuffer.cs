namespace HpcBatchNorm.Backends;

/// <summary>
/// A place for the next step's images: filled by the host and brought to the device while that computes, taken by the next step
/// (<see cref="Backend.CreateStaging"/>).
/// </summary>
internal abstract class StagingBuffer : IDisposable
{
    /// <summary>The host's side, to be written before <see cref="Upload"/>. Waits until the transfer before has read it.</summary>
    public abstract Span<byte> Host { get; }

    /// <summary>Begins to bring what <see cref="Host"/> holds to the device, beside what is running there, and returns at once.</summary>
    public abstract void Upload();

    /// <summary>Sets a dense tensor from the bytes at <paramref name="offset"/>, in the order of executed work.</summary>
    public abstract void CopyTo(DeviceBuffer destination, long offset);

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Frees the buffer.</summary>
    protected virtual void Dispose(bool disposing)
    {
    }
}
