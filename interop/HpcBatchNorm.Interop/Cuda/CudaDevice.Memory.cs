using System.Globalization;

namespace HpcBatchNorm.Interop.Cuda;

/// <content>Memory of the device, pinned memory of the host, and copies between them.</content>
internal sealed unsafe partial class CudaDevice
{
    private readonly Dictionary<nint, long> _sizes = [];

    /// <summary>Most bytes of device memory held at a time, beside what the driver and cuDNN keep for themselves.</summary>
    public long PeakBytes { get; private set; }

    /// <summary>Zero-filled device memory.</summary>
    /// <exception cref="OutOfMemoryException">The device has not enough; the message says how much it has.</exception>
    public nint Allocate(long bytes)
    {
        Enter();
        nint address = 0;
        nuint size = (nuint)Math.Max(bytes, 256);
        int status = _api.cuMemAlloc(&address, size);
        if (status == CudaDriverApi.OutOfMemory)
        {
            nuint free = 0, total = 0;
            _ = _api.cuMemGetInfo(&free, &total);
            throw NativeException.OutOfMemory(string.Create(CultureInfo.InvariantCulture,
                $"The device {Name} has no {bytes / 1e6:F0} MB left: {free / 1e6:F0} of {total / 1e6:F0} MB are free. Use a smaller batch."));
        }

        Check(status, "allocating device memory");
        _sizes[address] = (long)size;
        PeakBytes = Math.Max(PeakBytes, _sizes.Values.Sum());
        Check(_api.cuMemsetD8Async(address, 0, size, Stream), "clearing device memory");
        return address;
    }

    public void Free(nint address)
    {
        if (EnterToFree())
        {
            FreeNow(address);
        }
    }

    private void FreeNow(nint address)
    {
        _ = _sizes.Remove(address);
        Check(_api.cuMemFree(address), "freeing device memory");
    }

    /// <summary>For finalizers, which have no context: frees at the next entry.</summary>
    public void Abandon(nint address) => _abandoned.Enqueue(address);

    /// <summary>Memory of the host that the device copies from and to without a detour. Freed with the returned object.</summary>
    public PinnedMemory AllocatePinned(long bytes)
    {
        Enter();
        void* address = null;
        Check(_api.cuMemHostAlloc(&address, (nuint)bytes, CudaDriverApi.HostPortable), "allocating pinned host memory");
        return new PinnedMemory(this, (nint)address, bytes);
    }

    internal void FreePinned(nint address)
    {
        if (EnterToFree())
        {
            Check(_api.cuMemFreeHost((void*)address), "freeing pinned host memory");
        }
    }

    /// <summary>Copies to the device and waits.</summary>
    public void Upload(nint destination, ReadOnlySpan<byte> source)
    {
        Enter();
        fixed (byte* from = source)
        {
            Check(_api.cuMemcpyHtoDAsync(destination, from, (nuint)source.Length, Stream), "copying to the device");
            Check(_api.cuStreamSynchronize(Stream), "copying to the device");
        }
    }

    /// <summary>Enqueues a copy from pinned memory, which must stay as it is until the copy is done.</summary>
    public void UploadPinned(nint destination, nint source, long bytes) => UploadPinned(destination, source, bytes, Stream);

    /// <summary>Enqueues a copy from one place of the device to another.</summary>
    public void CopyOnDevice(nint destination, nint source, long bytes) =>
        Check(_api.cuMemcpyDtoDAsync(destination, source, (nuint)bytes, Stream), "copying on the device");

    internal void UploadPinned(nint destination, nint source, long bytes, nint stream) =>
        Check(_api.cuMemcpyHtoDAsync(destination, (void*)source, (nuint)bytes, stream), "copying to the device");

    /// <summary>Copies from the device and waits.</summary>
    public void Download(Span<byte> destination, nint source)
    {
        Enter();
        fixed (byte* to = destination)
        {
            Check(_api.cuMemcpyDtoHAsync(to, source, (nuint)destination.Length, Stream), "copying from the device");
            Check(_api.cuStreamSynchronize(Stream), "copying from the device");
        }
    }
}
