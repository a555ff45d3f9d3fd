using System.Runtime.CompilerServices;

namespace HpcBatchNorm.Interop.Cuda;

/// <summary>Page-locked memory of the host.</summary>
internal sealed class PinnedMemory(CudaDevice device, nint address, long bytes) : IDisposable
{
    private nint _address = address;

    public nint Address => _address;

    public long Bytes => bytes;

    public Span<byte> Span => AlignedMemory.AsSpan<byte>(_address, checked((int)bytes));

    public void Dispose()
    {
        if (_address != 0)
        {
            device.FreePinned(_address);
            _address = 0;
        }
    }
}

/// <summary>A point in a stream.</summary>
internal sealed class CudaEvent(CudaDevice device, nint handle) : IDisposable
{
    private nint _handle = handle;

    internal nint Handle => _handle;

    /// <summary>Marks the present end of the stream for computing.</summary>
    public void Record() => device.Record(_handle, device.Stream);

    /// <summary>Work enqueued for computing from now on waits until the stream it was recorded on has come here.</summary>
    public void WaitOnDevice() => device.Wait(device.Stream, _handle);

    /// <summary>Waits until the device has come here.</summary>
    public void WaitOnHost() => device.WaitOnHost(_handle);

    /// <summary>Milliseconds between two recorded events.</summary>
    public float Since(CudaEvent start) => device.Elapsed(start._handle, _handle);

    public void Dispose()
    {
        if (_handle != 0)
        {
            device.DestroyEvent(_handle);
            _handle = 0;
        }
    }
}

/// <summary>A stream beside the one for computing: what is enqueued on both runs at the same time, except where one waits for an event of the other.</summary>
internal sealed class CudaStream(CudaDevice device, nint handle) : IDisposable
{
    private nint _handle = handle;

    internal nint Handle => _handle;

    /// <summary>Enqueues a copy from pinned memory.</summary>
    public void UploadPinned(nint destination, nint source, long bytes) => device.UploadPinned(destination, source, bytes, _handle);

    /// <summary>What is enqueued here from now on waits for an event.</summary>
    public void Wait(CudaEvent recorded) => device.Wait(_handle, recorded.Handle);

    /// <summary>Marks the stream's present end.</summary>
    public void Record(CudaEvent at) => device.Record(at.Handle, _handle);

    public void Dispose()
    {
        if (_handle != 0)
        {
            device.DestroyStream(_handle);
            _handle = 0;
        }
    }
}

/// <summary>A recorded sequence of work.</summary>
internal sealed class CudaGraph(CudaDevice device, nint executable, long nodes) : IDisposable
{
    private nint _executable = executable;

    /// <summary>Kernels and copies in it.</summary>
    public long Nodes => nodes;

    public void Launch() => device.LaunchGraph(_executable);

    public void Dispose()
    {
        if (_executable != 0)
        {
            device.DestroyGraph(_executable);
            _executable = 0;
        }
    }
}

/// <summary>
/// Blocks of a grid, threads of a block, and shared memory of a block in bytes. Where blocks wait for one another the launch is a cooperative one: all of
/// them begin, or the driver refuses it.
/// </summary>
internal readonly record struct LaunchShape(int GridX, int GridY, int GridZ, int BlockX, int BlockY, int SharedBytes, bool Cooperative = false);

/// <summary>
/// A kernel with its grid and parameters, launched many times without allocating. Each parameter has eight bytes of its own; the driver reads as many of
/// them as the kernel's parameter has.
/// </summary>
internal sealed unsafe class CudaLaunch
{
    private readonly CudaDevice _device;
    private readonly nint _function;
    private readonly LaunchShape _shape;
    private readonly ulong[] _values;
    private readonly nint[] _pointers;
    private readonly Func<string> _operation;

    /// <summary>A launch with room for <paramref name="parameters"/> parameters.</summary>
    public CudaLaunch(CudaDevice device, nint function, int parameters, in LaunchShape shape, Func<string> operation)
    {
        (_device, _function, _shape, _operation) = (device, function, shape, operation);
        _values = GC.AllocateArray<ulong>(parameters, pinned: true);
        _pointers = GC.AllocateArray<nint>(parameters, pinned: true);
        for (int i = 0; i < parameters; i++)
        {
            _pointers[i] = (nint)Unsafe.AsPointer(ref _values[i]);
        }
    }

    public void Set(int index, nint value) => _values[index] = (ulong)value;

    public void Set(int index, int value) => _values[index] = (uint)value;

    public void Set(int index, uint value) => _values[index] = value;

    public void Set(int index, ulong value) => _values[index] = value;

    public void Set(int index, float value) => _values[index] = BitConverter.SingleToUInt32Bits(value);

    public void Launch()
    {
        fixed (nint* parameters = _pointers)
        {
            _device.Launch(_function, _shape, parameters, _operation);
        }
    }
}
