using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends;

/// <summary>What changes from step to step; everything else is fixed when a kernel is created.</summary>
/// <param name="Step">Number of the step, from 0; the counter of dropout's random numbers.</param>
/// <param name="LearningRate">The learning rate of this step.</param>
public readonly record struct StepContext(long Step, float LearningRate);

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

    /// <summary>Kernels it gives to a device at each execution, library calls counted as one; 0 on the host.</summary>
    public virtual int Launches => 0;

    /// <summary>Bytes of device memory it reads and writes at each execution, caches left out of account; 0 where it was not counted.</summary>
    public virtual long MemoryBytes => 0;

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
