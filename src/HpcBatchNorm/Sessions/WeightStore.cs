using HpcBatchNorm.Backends;

namespace HpcBatchNorm.Sessions;

/// <summary>
/// The constant tensors of an inference plan, as one or several sessions use them: their buffers, whose layout the first session's kernels decided, and
/// their memory. Freed with the last session that uses it.
/// </summary>
internal sealed class WeightStore(Backend backend, BufferMap buffers)
{
    private DeviceMemory? _memory;
    private int _users = 1;

    /// <summary>The buffers of parameters and running statistics.</summary>
    public BufferMap Buffers => buffers;

    /// <summary>How many sessions use it.</summary>
    public int Users => Volatile.Read(ref _users);

    /// <summary>The memory, allocated for the first session.</summary>
    public DeviceMemory Memory(long bytes) => _memory ??= backend.Allocate(bytes);

    /// <summary>One more session uses it.</summary>
    /// <exception cref="ObjectDisposedException">The last one has been disposed of.</exception>
    public WeightStore Add()
    {
        int users;
        do
        {
            users = Users;
            ObjectDisposedException.ThrowIf(users == 0, this);
        }
        while (Interlocked.CompareExchange(ref _users, users + 1, users) != users);

        return this;
    }

    /// <summary>A session uses it no longer.</summary>
    public void Remove()
    {
        if (Interlocked.Decrement(ref _users) == 0)
        {
            buffers.Dispose();
            _memory?.Dispose();
        }
    }
}
