using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends;

/// <summary>
/// Runs operations without a network: memory for their tensors, inputs in, execute, outputs out. Verification and the contract tests go this way too, so
/// what they check is the very kernel a session runs. One thread at a time; a second one gets an <see cref="InvalidOperationException"/>. After
/// <see cref="Dispose"/> every member throws <see cref="ObjectDisposedException"/>.
/// </summary>
public sealed class OperationRunner : IDisposable
{
    private readonly Backend _backend;
    private readonly BufferMap _buffers;
    private readonly IReadOnlyList<Kernel> _kernels = [];
    private readonly DeviceMemory _memory;
    private readonly UsageGuard _guard;
    private readonly Dictionary<Tensor, DeviceMemory> _borrowed = new(ReferenceEqualityComparer.Instance);
    private bool _disposed;

    /// <summary>Prepares <paramref name="operations"/>, which may share tensors, to run in order (a forward pass and its backward pass, say).</summary>
    public OperationRunner(Backend backend, params IReadOnlyList<Operation> operations)
        : this(backend, Precision.Fp32, operations)
    {
    }

    /// <summary>
    /// The same; with <see cref="Precision.Tf32"/> products of single-precision tensors may be rounded. The element types of the tensors say all else.
    /// </summary>
    public OperationRunner(Backend backend, Precision precision, params IReadOnlyList<Operation> operations)
    {
        _backend = backend;
        _buffers = new BufferMap(backend, precision);
        DeviceMemory? memory = null;
        try
        {
            _kernels = backend.CreateKernels(operations, _buffers);
            foreach (Operation operation in operations)
            {
                foreach (Tensor tensor in operation.Reads.Concat(operation.Writes))
                {
                    _ = _buffers[tensor];
                }
            }

            long end = 0;
            List<(DeviceBuffer Buffer, long Offset)> places = [];
            foreach (DeviceBuffer buffer in _buffers.All.Where(b => b.Parent is null))
            {
                places.Add((buffer, end));
                end += (buffer.Bytes + 127) & ~63L;
            }

            memory = backend.Allocate(end + _kernels.Max(k => k.ScratchBytes));
            foreach ((DeviceBuffer buffer, long offset) in places)
            {
                buffer.Address = memory.Address + (nint)offset;
            }

            foreach (Kernel kernel in _kernels)
            {
                kernel.Scratch = memory.Address + (nint)end;
            }

            _memory = memory;
            _guard = backend.GuardOf(memory);
        }
        catch
        {
            memory?.Dispose();
            DisposeKernels();
            throw;
        }
    }

    /// <summary>The kernels, in order.</summary>
    internal IReadOnlyList<Kernel> Kernels => _kernels;

    /// <summary>The buffer of a tensor.</summary>
    internal DeviceBuffer this[Tensor tensor]
    {
        get
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            return _buffers[tensor];
        }
    }

    /// <summary>
    /// Lets a tensor lie in memory of the caller's from now on, <see cref="Cudnn.CudaInterop.Borrow"/>'s for instance, instead of memory of the runner's own:
    /// what another library has computed is read, and what is computed is written, where it lies. The memory is kept until the runner has been disposed of.
    /// </summary>
    /// <param name="tensor">A tensor of the operations that is no view of another one. Its elements lie there as the backend lays them out: NHWC on cudnn.</param>
    /// <param name="memory">At least as many bytes as the tensor has.</param>
    /// <exception cref="ArgumentException">The tensor is a view or no operation's, or the memory is too small.</exception>
    /// <exception cref="ObjectDisposedException">The runner or the memory has been disposed of.</exception>
    public void Place(Tensor tensor, DeviceMemory memory)
    {
        using UsageGuard.Scope scope = Enter();
        if (tensor.Parent is not null || !_buffers.All.Any(b => ReferenceEquals(b.Tensor, tensor)))
        {
            throw new ArgumentException(
                $"'{tensor.Name}' {(tensor.Parent is null ? "is no tensor of these operations" : $"is a view of '{tensor.Root.Name}', which can be placed instead")}.", nameof(tensor));
        }

        DeviceBuffer buffer = _buffers[tensor];
        if (memory.Bytes < buffer.Bytes)
        {
            throw new ArgumentException($"'{tensor.Name}' takes {buffer.Bytes} bytes on {_backend.Name}; the memory has {memory.Bytes}.", nameof(memory));
        }

        memory.Borrow();
        if (_borrowed.Remove(tensor, out DeviceMemory? before))
        {
            before.Return();
        }

        _borrowed.Add(tensor, memory);
        buffer.Address = memory.Address;
    }

    /// <summary>Sets an input.</summary>
    public void Write(Tensor tensor, ReadOnlySpan<double> values)
    {
        using UsageGuard.Scope scope = Enter();
        _backend.Write(_buffers[tensor], values);
    }

    /// <inheritdoc cref="Write(Tensor, ReadOnlySpan{double})"/>
    public void Write(Tensor tensor, ReadOnlySpan<float> values)
    {
        using UsageGuard.Scope scope = Enter();
        _backend.Write(_buffers[tensor], values);
    }

    /// <inheritdoc cref="Write(Tensor, ReadOnlySpan{double})"/>
    public void Write(Tensor tensor, ReadOnlySpan<int> values)
    {
        using UsageGuard.Scope scope = Enter();
        _backend.Write(_buffers[tensor], values);
    }

    /// <inheritdoc cref="Write(Tensor, ReadOnlySpan{double})"/>
    public void Write(Tensor tensor, ReadOnlySpan<byte> values)
    {
        using UsageGuard.Scope scope = Enter();
        _backend.Write(_buffers[tensor], values);
    }

    /// <summary>Executes all operations once.</summary>
    public void Execute(in StepContext context = default)
    {
        using UsageGuard.Scope scope = Enter();
        foreach (Kernel kernel in _kernels)
        {
            kernel.Execute(context);
        }
    }

    /// <summary>Gets a tensor's values in logical order, as doubles.</summary>
    public double[] ReadDouble(Tensor tensor)
    {
        using UsageGuard.Scope scope = Enter();
        double[] values = new double[tensor.Shape.Count];
        _backend.Read(_buffers[tensor], values);
        return values;
    }

    /// <summary>Gets a tensor's values in logical order.</summary>
    public void Read(Tensor tensor, Span<float> values)
    {
        using UsageGuard.Scope scope = Enter();
        _backend.Read(_buffers[tensor], values);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (!_disposed)
        {
            using UsageGuard.Scope scope = _guard.Enter("Dispose of an operation runner");
            _disposed = true;
            DisposeKernels();
            _memory.Dispose();
            foreach (DeviceMemory memory in _borrowed.Values)
            {
                memory.Return();
            }
        }
    }

    private UsageGuard.Scope Enter()
    {
        UsageGuard.Scope scope = _guard.Enter("an operation runner");
        if (_disposed || _backend.IsDisposed)
        {
            scope.Dispose();
            ObjectDisposedException.ThrowIf(_disposed, this);
            _backend.ThrowIfDisposed();
        }

        return scope;
    }

    private void DisposeKernels()
    {
        foreach (Kernel kernel in _kernels)
        {
            kernel.Dispose();
        }

        _buffers.Dispose();
    }
}
