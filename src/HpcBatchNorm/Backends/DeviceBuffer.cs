using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends;

/// <summary>
/// A tensor's physical side on one backend: how many bytes, in which layout, and, once the session has placed it, at which address.
/// A view shares its parent's memory; setting the address of a root sets those of its views.
/// </summary>
internal abstract class DeviceBuffer : IDisposable
{
    private nint _address;

    /// <summary>Makes the buffer of <paramref name="tensor"/>, a view of <paramref name="parent"/> when that is not null.</summary>
    protected DeviceBuffer(Tensor tensor, DeviceBuffer? parent)
    {
        Tensor = tensor;
        Parent = parent;
    }

    /// <summary>The tensor.</summary>
    public Tensor Tensor { get; }

    /// <summary>The buffer this one is a view of, or null.</summary>
    public DeviceBuffer? Parent { get; }

    /// <summary>
    /// Physical bytes of the whole buffer. For an opaque tensor 0 until the first kernel that uses it has decided the layout.
    /// Meaningful for roots; views occupy nothing of their own.
    /// </summary>
    public abstract long Bytes { get; }

    /// <summary>Bytes from the parent's address to the first element of this view.</summary>
    protected abstract long ViewOffsetBytes { get; }

    /// <summary>Address of the first element; 0 until the session has placed the root.</summary>
    public nint Address
    {
        get => Parent is null ? _address : Parent.Address + (nint)ViewOffsetBytes;
        internal set
        {
            if (Parent is not null)
            {
                throw new InvalidOperationException($"'{Tensor.Name}' is a view of '{Parent.Tensor.Name}' and has no address of its own to set.");
            }

            _address = value;
        }
    }

    /// <summary>Rounds what was written from outside the backend's kernels to what the tensor can store, where the buffer could hold more.</summary>
    internal virtual void RoundStored()
    {
    }

    /// <summary>True after <see cref="Dispose()"/>: the buffer has no address any more and takes part in no transfer.</summary>
    public bool IsDisposed { get; private set; }

    /// <summary>Frees what the buffer holds in the native library; memory belongs to the session. A second call does nothing.</summary>
    public void Dispose()
    {
        if (!IsDisposed)
        {
            IsDisposed = true;
            _address = 0;
            Dispose(true);
        }

        GC.SuppressFinalize(this);
    }

    /// <summary>Frees what the buffer holds.</summary>
    protected virtual void Dispose(bool disposing)
    {
    }
}

/// <summary>
/// Memory of a backend's device: zero-filled, aligned to 64 bytes at least. Sessions that borrow it are counted: it is given back
/// when it has been disposed of and the last borrower is gone.
/// </summary>
public abstract class DeviceMemory : IDisposable
{
    private int _holders = 1;
    private int _disposed;

    private protected DeviceMemory()
    {
    }

    /// <summary>First byte.</summary>
    /// <exception cref="ObjectDisposedException">The memory has been given back.</exception>
    internal abstract nint Address { get; }

    /// <summary>Length in bytes.</summary>
    public abstract long Bytes { get; }

    /// <summary>Lets one thread at a time compute in this memory.</summary>
    internal UsageGuard Guard { get; } = new();

    /// <summary>Gives the memory back, or leaves that to the last session that borrows it. A second call does nothing.</summary>
    public void Dispose()
    {
        // Where others still borrow it the finalizer stays: one of them may be forgotten instead of disposed of.
        if (Interlocked.Exchange(ref _disposed, 1) == 0 && Return())
        {
            GC.SuppressFinalize(this);
        }
    }

    /// <summary>Keeps the memory until <see cref="Return"/>.</summary>
    /// <exception cref="ObjectDisposedException">It has been given back.</exception>
    internal void Borrow()
    {
        int holders;
        do
        {
            holders = Volatile.Read(ref _holders);
            ObjectDisposedException.ThrowIf(holders == 0, this);
        }
        while (Interlocked.CompareExchange(ref _holders, holders + 1, holders) != holders);
    }

    /// <summary>Ends a <see cref="Borrow"/>; true when that gave the memory back.</summary>
    internal bool Return()
    {
        bool last = Interlocked.Decrement(ref _holders) == 0;
        if (last)
        {
            Dispose(true);
        }

        return last;
    }

    /// <summary>Gives the memory back.</summary>
    private protected abstract void Dispose(bool disposing);
}

/// <summary>The buffers of a session or of one eager call, by tensor. Views are made with their parents.</summary>
/// <param name="backend">Makes the buffers.</param>
/// <param name="precision">What kernels on these buffers may compute in.</param>
internal sealed class BufferMap(Backend backend, Precision precision = Precision.Fp32) : IDisposable
{
    private readonly BufferMap? _weights;
    private readonly Func<Tensor, bool>? _isWeight;
    private readonly Dictionary<Tensor, DeviceBuffer> _buffers = new(ReferenceEqualityComparer.Instance);

    /// <summary>A map of which those tensors that <paramref name="isWeight"/> picks, roots and their views alike, are kept in <paramref name="weights"/>.</summary>
    internal BufferMap(Backend backend, Precision precision, BufferMap weights, Func<Tensor, bool> isWeight)
        : this(backend, precision) => (_weights, _isWeight) = (weights, isWeight);

    /// <summary>The buffer of <paramref name="tensor"/>, made on first use.</summary>
    public DeviceBuffer this[Tensor tensor]
    {
        get
        {
            if (_weights is not null && _isWeight!(tensor.Root))
            {
                return _weights[tensor];
            }

            if (!_buffers.TryGetValue(tensor, out DeviceBuffer? buffer))
            {
                DeviceBuffer? parent = tensor.Parent is null ? null : this[tensor.Parent];
                DeviceBuffer? layoutLike = tensor.LayoutLike is null ? null : this[tensor.LayoutLike];
                buffer = tensor.IsRows ? new RowsBuffer(tensor, parent!) : backend.CreateBuffer(tensor, parent, layoutLike);
                _buffers.Add(tensor, buffer);
            }

            return buffer;
        }
    }

    /// <summary>
    /// What kernels on these buffers may compute in. The element types of tensors say all but one thing: whether products of Float32 tensors may be
    /// rounded (<see cref="Precision.Tf32"/>).
    /// </summary>
    public Precision Precision => precision;

    /// <summary>All buffers made so far.</summary>
    public IReadOnlyCollection<DeviceBuffer> All => _buffers.Values;

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (DeviceBuffer buffer in _buffers.Values)
        {
            buffer.Dispose();
        }

        _buffers.Clear();
    }
}

/// <summary>
/// Some rows of a tensor, for <see cref="Backend"/>'s transfers only: rows of an opaque layout need not lie together, so they travel with the whole.
/// </summary>
internal sealed class RowsBuffer(Tensor tensor, DeviceBuffer parent) : DeviceBuffer(tensor, parent)
{
    /// <summary>Where the rows stand in the whole tensor's values in logical order.</summary>
    public Range Elements
    {
        get
        {
            int start = checked(Tensor.RowOffset * Tensor.Shape.ImageCount);
            return start..(start + (int)Tensor.Shape.Count);
        }
    }

    public override long Bytes => 0;

    protected override long ViewOffsetBytes => 0;
}
