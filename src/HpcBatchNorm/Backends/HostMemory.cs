using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Backends;

/// <summary>Device memory of the CPU backends, zero-filled by <paramref name="clear"/> where one is given.</summary>
internal sealed class HostMemory(long bytes, Action<nint, long>? clear = null) : DeviceMemory
{
    private readonly AlignedMemory _memory = new(bytes, clear);

    internal override nint Address
    {
        get
        {
            ObjectDisposedException.ThrowIf(_memory.IsClosed, this);
            return _memory.Address;
        }
    }

    public override long Bytes => _memory.Bytes;

    private protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _memory.Dispose();
        }
    }
}
