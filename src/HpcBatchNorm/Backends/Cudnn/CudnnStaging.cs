using HpcBatchNorm.Interop.Cuda;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>
/// Pinned memory of the host and as much of the device's, and a stream that brings the one to the other while the stream for computing works. Events keep
/// the order: the host writes when the last transfer has read, a transfer begins when what it overwrites has been taken, and takers wait for the transfer.
/// </summary>
internal sealed class CudnnStaging : StagingBuffer
{
    private readonly CudaDevice _device;
    private readonly PinnedMemory _host;
    private readonly CudaDeviceMemory _memory;
    private readonly CudaStream _stream;
    private readonly CudaEvent _uploaded, _taken;
    private bool _isUploaded, _isTaken;

    public CudnnStaging(CudaDevice device, long bytes)
    {
        _device = device;
        _host = device.AllocatePinned(bytes);
        _memory = new CudaDeviceMemory(device, bytes);
        _stream = device.CreateStream();
        (_uploaded, _taken) = (device.CreateEvent(), device.CreateEvent());

        // The memory's clearing must not come after the first transfer.
        Taken();
    }

    /// <inheritdoc/>
    public override Span<byte> Host
    {
        get
        {
            if (_isUploaded)
            {
                _device.Enter();
                _uploaded.WaitOnHost();
            }

            return _host.Span;
        }
    }

    /// <inheritdoc/>
    public override void Upload()
    {
        _device.Enter();
        if (_isTaken)
        {
            _stream.Wait(_taken);
        }

        _stream.UploadPinned(_memory.Address, _host.Address, _host.Bytes);
        _stream.Record(_uploaded);
        (_isUploaded, _isTaken) = (true, false);
    }

    /// <inheritdoc/>
    public override void CopyTo(DeviceBuffer destination, long offset)
    {
        _device.Enter();
        _uploaded.WaitOnDevice();
        _device.CopyOnDevice(destination.Address, _memory.Address + (nint)offset, destination.Bytes);
        Taken();
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _stream.Dispose();
            _uploaded.Dispose();
            _taken.Dispose();
            _memory.Dispose();
            _host.Dispose();
        }

        base.Dispose(disposing);
    }

    private void Taken()
    {
        _taken.Record();
        _isTaken = true;
    }
}
