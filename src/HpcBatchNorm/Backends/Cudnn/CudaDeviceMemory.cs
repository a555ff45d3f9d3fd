using HpcBatchNorm.Interop.Cuda;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>Memory of the device. Forgotten instead of disposed, it is given back when the device is next used.</summary>
internal sealed class CudaDeviceMemory(CudaDevice device, long bytes) : DeviceMemory
{
    private nint _address = device.Allocate(bytes);

    ~CudaDeviceMemory() => Dispose(false);

    internal override nint Address
    {
        get
        {
            ObjectDisposedException.ThrowIf(_address == 0, this);
            return _address;
        }
    }

    public override long Bytes => bytes;

    private protected override void Dispose(bool disposing)
    {
        nint address = Interlocked.Exchange(ref _address, 0);
        if (address == 0)
        {
            return;
        }

        if (disposing)
        {
            device.Free(address);
        }
        else
        {
            device.Abandon(address);
        }
    }
}

/// <summary>Memory of the device that somebody else owns.</summary>
internal sealed class BorrowedDeviceMemory(nint address, long bytes) : DeviceMemory
{
    internal override nint Address => address;

    public override long Bytes => bytes;

    private protected override void Dispose(bool disposing)
    {
    }
}

/// <summary>
/// Page-locked staging memory for uploads that the caller does not wait for: several slots in turn, each used again only when the device has read it.
/// </summary>
internal sealed class UploadRing(CudaDevice device) : IDisposable
{
    private readonly Slot[] _slots = new Slot[4];
    private int _next;

    /// <summary>Enqueues a copy of <paramref name="source"/>, which the caller may change as soon as this returns.</summary>
    public void Upload(nint destination, ReadOnlySpan<byte> source)
    {
        device.Enter();
        ref Slot slot = ref _slots[_next];
        _next = (_next + 1) % _slots.Length;
        if (slot.Read is null)
        {
            slot.Read = device.CreateEvent();
        }
        else
        {
            slot.Read.WaitOnHost();
        }

        if (slot.Memory is null || slot.Memory.Bytes < source.Length)
        {
            slot.Memory?.Dispose();
            slot.Memory = null;
            slot.Memory = device.AllocatePinned(source.Length);
        }

        source.CopyTo(slot.Memory.Span);
        device.UploadPinned(destination, slot.Memory.Address, source.Length);
        slot.Read.Record();
    }

    public void Dispose()
    {
        foreach (Slot slot in _slots)
        {
            slot.Memory?.Dispose();
            slot.Read?.Dispose();
        }

        Array.Clear(_slots);
    }

    private struct Slot
    {
        public PinnedMemory? Memory;
        public CudaEvent? Read;
    }
}
