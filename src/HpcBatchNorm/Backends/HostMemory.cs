using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Backends;

/// <summary>Device memory of the CPU backends.</summary>
internal sealed class HostMemory(long bytes) : DeviceMemory
{
    private readonly AlignedMemory _memory = new(bytes);

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
