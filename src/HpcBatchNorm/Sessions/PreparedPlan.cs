using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Sessions;

/// <summary>
/// A plan with a backend's kernels and a place for every tensor, but no memory yet: what a session is made from, and what
/// <c>hpcbn inspect --plan</c> prints.
/// </summary>
internal sealed class PreparedPlan : IDisposable
{
    private const long Alignment = 64;

    private readonly BufferMap _buffers;
    private readonly WeightStore? _weights;
    private readonly IReadOnlyList<Kernel> _kernels = [];
    private readonly Dictionary<DeviceBuffer, long> _arenaOffsets = [];
    private readonly Dictionary<DeviceBuffer, long> _stateOffsets = [];
    private readonly Dictionary<DeviceBuffer, long> _weightOffsets = [];
    private readonly long[] _scratchOffsets;
    private readonly bool _ownsWeights;
    private bool _disposed;

    /// <summary>Creates the kernels and lays out memory.</summary>
    /// <exception cref="NotSupportedException">The backend cannot do one of the operations; the message names it.</exception>
    /// <exception cref="UserErrorException">The backend cannot compute in the plan's precision here; the message says why.</exception>
    public PreparedPlan(Backend backend, Plan plan)
        : this(backend, plan, null)
    {
    }

    /// <summary>The same, on the weights of another prepared form of the same plan, which must not change any more.</summary>
    internal PreparedPlan(Backend backend, Plan plan, WeightStore? weights)
    {
        backend.ThrowIfDisposed();
        if (plan.Traits.ChannelBlock % backend.Traits.ChannelBlock != 0)
        {
            throw new ArgumentException(
                $"The plan's slices fall on blocks of {plan.Traits.ChannelBlock} channels; backend {backend.Name} needs blocks of {backend.Traits.ChannelBlock}.");
        }

        Precision precision = plan.Options.Precision;
        if (!backend.Supports(precision, out string reason))
        {
            throw new UserErrorException($"{backend.Name} cannot compute in {precision.Word()} here: {reason}");
        }

        Backend = backend;
        Plan = plan;
        _ownsWeights = weights is null && HasConstantWeights(plan);
        _weights = weights?.Add() ?? (_ownsWeights ? new WeightStore(backend, new BufferMap(backend, precision)) : null);
        _buffers = _weights is null ? new BufferMap(backend, precision) : new BufferMap(backend, precision, _weights.Buffers, IsWeight);
        try
        {
            _kernels = backend.CreateKernels(plan.Operations, _buffers);
            foreach (StateTensor entry in plan.State)
            {
                _ = _buffers[entry.Tensor.Root]; // state that no operation touches (momenta of what is frozen) has a place too
            }

            _scratchOffsets = new long[_kernels.Count];
            LayOutArena();
            LayOutState();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The backend.</summary>
    public Backend Backend { get; }

    /// <summary>The plan.</summary>
    public Plan Plan { get; }

    /// <summary>One kernel per operation, in order.</summary>
    public IReadOnlyList<Kernel> Kernels => _kernels;

    /// <summary>Bytes for everything that lives within a step, scratch space included, after reuse.</summary>
    public long ArenaBytes { get; private set; }

    /// <summary>What the arena would take if nothing were reused.</summary>
    public long ArenaBytesWithoutReuse { get; private set; }

    /// <summary>Bytes for everything that outlives a step: parameters, momenta, statistics, inputs and results.</summary>
    public long StateBytes { get; private set; }

    /// <summary>
    /// Bytes of <see cref="StateBytes"/> that hold the parameters and statistics of an inference plan, which sessions of one network can share
    /// (<see cref="ForwardSession.Share"/>); 0 where a pass changes them.
    /// </summary>
    public long WeightBytes { get; private set; }

    /// <summary>The constant weights; null where a pass changes them.</summary>
    internal WeightStore? Weights => _weights;

    /// <summary>The buffer of a tensor of the plan.</summary>
    /// <exception cref="ObjectDisposedException">The prepared plan, or the session it belongs to, has been disposed of.</exception>
    public DeviceBuffer this[Tensor tensor]
    {
        get
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            return _buffers[tensor];
        }
    }

    /// <summary>Where a tensor that lives within a step begins in the arena.</summary>
    internal long ArenaOffset(Tensor root) => _arenaOffsets[_buffers[root]];

    /// <summary>Gives every buffer and every kernel's scratch space its address.</summary>
    internal void Bind(DeviceMemory arena, DeviceMemory state)
    {
        foreach ((DeviceBuffer buffer, long offset) in _arenaOffsets)
        {
            buffer.Address = arena.Address + (nint)offset;
        }

        foreach ((DeviceBuffer buffer, long offset) in _stateOffsets)
        {
            buffer.Address = state.Address + (nint)offset;
        }

        if (_ownsWeights)
        {
            foreach ((DeviceBuffer buffer, long offset) in _weightOffsets)
            {
                buffer.Address = _weights!.Memory(WeightBytes).Address + (nint)offset;
            }
        }

        for (int i = 0; i < _kernels.Count; i++)
        {
            _kernels[i].Scratch = arena.Address + (nint)_scratchOffsets[i];
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        foreach (Kernel kernel in _kernels)
        {
            kernel.Dispose();
        }

        _buffers.Dispose();
        _weights?.Remove();
    }

    /// <summary>Inference with running statistics changes nothing that outlives a pass but its inputs and results.</summary>
    private static bool HasConstantWeights(Plan plan) => plan.Options is InferenceOptions { Statistics: BatchNormStatistics.Running };

    internal static bool IsWeight(Tensor root) => root.Role is TensorRole.Parameter or TensorRole.RunningStatistic;

    private void LayOutArena()
    {
        List<DeviceBuffer> buffers = [.. Plan.Lifetimes.Keys.Select(t => _buffers[t])];
        List<ArenaPlanner.Block> blocks = [];
        foreach (DeviceBuffer buffer in buffers)
        {
            (int first, int last) = Plan.Lifetimes[buffer.Tensor];
            blocks.Add(new ArenaPlanner.Block(buffer.Bytes, first, last));
        }

        for (int i = 0; i < _kernels.Count; i++)
        {
            blocks.Add(new ArenaPlanner.Block(_kernels[i].ScratchBytes, i, i));
        }

        (long[] offsets, ArenaBytes) = ArenaPlanner.Place(blocks);
        ArenaBytesWithoutReuse = blocks.Take(buffers.Count).Sum(b => b.Bytes) + _kernels.Max(k => k.ScratchBytes);
        for (int i = 0; i < buffers.Count; i++)
        {
            _arenaOffsets[buffers[i]] = offsets[i];
        }

        offsets.AsSpan(buffers.Count).CopyTo(_scratchOffsets);
    }

    private void LayOutState()
    {
        StateBytes = LayOut(_buffers.All, _stateOffsets);
        if (_weights is not null)
        {
            WeightBytes = LayOut(_weights.Buffers.All, _weightOffsets);
            StateBytes += WeightBytes;
        }
    }

    /// <summary>Tensors of one role lie together, in plan order.</summary>
    private long LayOut(IReadOnlyCollection<DeviceBuffer> buffers, Dictionary<DeviceBuffer, long> offsets)
    {
        long bytes = 0;
        foreach (DeviceBuffer buffer in buffers.Where(b => b.Parent is null && !Plan.Lifetimes.ContainsKey(b.Tensor)).OrderBy(b => b.Tensor.Role))
        {
            offsets[buffer] = bytes;
            bytes += (buffer.Bytes + Alignment - 1) / Alignment * Alignment;
        }

        return bytes;
    }
}
