using System.Buffers;
using System.Diagnostics;

namespace HpcBatchNorm.Training.Serving;

/// <summary>
/// A preprocessed image on its way through a classifier. Its pixels belong to whoever is at work on it and go back to the pool when the image has been
/// copied into a batch, or will not be.
/// </summary>
internal sealed class ClassificationRequest(int bytes, CancellationToken cancellation)
{
    private readonly TaskCompletionSource<Classification> _answer = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private byte[]? _pixels = ArrayPool<byte>.Shared.Rent(bytes);

    public Span<byte> Pixels => _pixels.AsSpan(0, bytes);

    public Task<Classification> Answer => _answer.Task;

    /// <summary>When the request came in.</summary>
    public long Start { get; } = Stopwatch.GetTimestamp();

    /// <summary>True when nobody waits for the answer any more.</summary>
    public bool IsCancelled => cancellation.IsCancellationRequested;

    public void Complete(Classification answer) => _answer.TrySetResult(answer);

    public void Fail(Exception error) => _answer.TrySetException(error);

    public void Cancel() => _answer.TrySetCanceled(cancellation);

    /// <summary>Gives the pixels back; only by whoever holds the request.</summary>
    public void Release()
    {
        if (Interlocked.Exchange(ref _pixels, null) is { } pixels)
        {
            ArrayPool<byte>.Shared.Return(pixels);
        }
    }
}
