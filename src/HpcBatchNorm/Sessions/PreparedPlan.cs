using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Sessions;

/// <summary>
/// A plan with a backend's kernels and a place for every tensor, but no memory yet: what a session is made from, and what
/// <c>hpcbn inspect --plan</c> prints.
/// </summary>
public sealed class PreparedPlan : IDisposable
{
    private const long Alignment = 64;

    private readonly BufferMap _buffers;
    private readonly IReadOnlyList<Kernel> _kernels = [];
    private readonly Dictionary<DeviceBuffer, long> _arenaOffsets = [];
    private readonly Dictionary<DeviceBuffer, long> _stateOffsets = [];
    private readonly long[] _scratchOffsets;

    /// <summary>Creates the kernels and lays out memory.</summary>
    /// <exception cref="NotSupportedException">The backend cannot do one of the operations; the message names it.</exception>
    /// <exception cref="UserErrorException">The backend cannot compute in the plan's precision here; the message says why.</exception>
    public PreparedPlan(Backend backend, Plan plan)
    {
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
        _buffers = new BufferMap(backend, precision);
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

    /// <summary>The buffer of a tensor of the plan.</summary>
    public DeviceBuffer this[Tensor tensor] => _buffers[tensor];

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

        for (int i = 0; i < _kernels.Count; i++)
        {
            _kernels[i].Scratch = arena.Address + (nint)_scratchOffsets[i];
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Kernel kernel in _kernels)
        {
            kernel.Dispose();
        }

        _buffers.Dispose();
    }

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
        // Tensors of one role lie together, in plan order.
        IEnumerable<DeviceBuffer> roots = _buffers.All.Where(b => b.Parent is null && !Plan.Lifetimes.ContainsKey(b.Tensor)).OrderBy(b => b.Tensor.Role);
        foreach (DeviceBuffer buffer in roots)
        {
            _stateOffsets[buffer] = StateBytes;
            StateBytes += (buffer.Bytes + Alignment - 1) / Alignment * Alignment;
        }
    }
}
