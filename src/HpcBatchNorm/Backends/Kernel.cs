using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends;

/// <summary>What changes from step to step; everything else is fixed when a kernel is created.</summary>
/// <param name="Step">Number of the step, from 0; the counter of dropout's random numbers.</param>
/// <param name="LearningRate">The learning rate of this step.</param>
public readonly record struct StepContext(long Step, float LearningRate);

/// <summary>A kernel that is given to a device, or a call of a library that gives it one.</summary>
/// <param name="Kernel">The kernel's name, or the library's with what it computes.</param>
/// <param name="Type">Type of the activations that the kernel was compiled for.</param>
/// <param name="IsLibrary">True for a library's, of which grid and registers are not known.</param>
/// <param name="Blocks">Blocks of the grid; 0 for a library's.</param>
/// <param name="Threads">Threads of a block; 0 for a library's.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block.</param>
/// <param name="Bytes">Device memory it reads and writes, caches left out of account.</param>
internal readonly record struct DeviceLaunch(string Kernel, DataType Type, bool IsLibrary, int Blocks, int Threads, int SharedBytes, long Bytes);

/// <summary>What a compiler made of a kernel.</summary>
/// <param name="Registers">Registers of a thread.</param>
/// <param name="SpilledBytes">Bytes that a thread keeps in memory for want of registers.</param>
/// <param name="StaticSharedBytes">Shared memory of a block beside what the launch asks for.</param>
/// <param name="Compiler">Which compiler, for which compute capability.</param>
internal readonly record struct KernelResources(int Registers, int SpilledBytes, int StaticSharedBytes, string Compiler);

/// <summary>
/// An operation made executable by a backend for given buffers. Created once, before the buffers have addresses; executed once per step,
/// on the backend's thread, without allocating. Scratch memory is shared by all kernels of a session.
/// </summary>
internal abstract class Kernel : IDisposable
{
    /// <summary>The operation it executes.</summary>
    public Operation Operation { get; }

    /// <summary>Binds the kernel to its operation.</summary>
    protected Kernel(Operation operation) => Operation = operation;

    /// <summary>What does the work, for people: oneDNN's implementation name, <c>native</c> for libhbn's own arithmetic, <c>reference</c>.</summary>
    public abstract string Implementation { get; }

    /// <summary>Layout conversions the kernel does internally on each execution, in words; empty when there are none.</summary>
    public virtual string Conversions => "";

    /// <summary>What it gives to a device at each execution, in order; empty on the host.</summary>
    public virtual IReadOnlyList<DeviceLaunch> DeviceLaunches => [];

    /// <summary>Kernels it gives to a device at each execution, library calls counted as one; 0 on the host.</summary>
    public int Launches => DeviceLaunches.Count;

    /// <summary>Bytes of device memory it reads and writes at each execution, caches left out of account; 0 on the host.</summary>
    public long MemoryBytes => DeviceLaunches.Sum(l => l.Bytes);

    /// <summary>Scratch bytes it needs while it executes.</summary>
    public virtual long ScratchBytes => 0;

    /// <summary>Address of at least <see cref="ScratchBytes"/> bytes, 64-byte aligned; set by the session before the first execution.</summary>
    public nint Scratch { get; internal set; }

    /// <summary>True after <see cref="Dispose()"/>.</summary>
    public bool IsDisposed { get; private set; }

    /// <summary>Does the work. Errors of the native library are thrown as <c>NativeException</c> naming the operation.</summary>
    /// <exception cref="ObjectDisposedException">The kernel, or the session it belongs to, has been disposed of.</exception>
    public void Execute(in StepContext context)
    {
        // Here and not in each kernel: what a kernel holds in the native library, and the memory it points into, is gone then.
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        ExecuteCore(context);
    }

    /// <summary>Frees what the kernel holds in the native library. A second call does nothing.</summary>
    public void Dispose()
    {
        if (!IsDisposed)
        {
            IsDisposed = true;
            Dispose(true);
        }

        GC.SuppressFinalize(this);
    }

    /// <summary>Does the work of <see cref="Execute"/>; not called after <see cref="Dispose()"/>.</summary>
    protected abstract void ExecuteCore(in StepContext context);

    /// <summary>Frees what the kernel holds.</summary>
    protected virtual void Dispose(bool disposing)
    {
    }
}

/// <summary>A session's kernels in a form that executes faster than one by one, in the same order and with the same results.</summary>
internal abstract class RecordedKernels : IDisposable
{
    private bool _disposed;

    /// <summary>How they execute, for people.</summary>
    public abstract string Description { get; }

    /// <summary>Executes all of them once.</summary>
    /// <exception cref="ObjectDisposedException">The recording has been disposed of.</exception>
    public void Execute(in StepContext context)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        ExecuteCore(context);
    }

    /// <summary>Frees the recording; the kernels stay.</summary>
    public void Dispose()
    {
        _disposed = true;
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Does the work of <see cref="Execute"/>; not called after <see cref="Dispose()"/>.</summary>
    protected abstract void ExecuteCore(in StepContext context);

    /// <summary>Frees the recording.</summary>
    protected virtual void Dispose(bool disposing)
    {
    }
}
