using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends;

/// <summary>
/// <see cref="AllReduceStart"/> on any backend whose tensors lie in the host's memory: the values travel as they lie, padding included, which all ranks lay out
/// alike.
/// </summary>
/// <param name="operation">What is averaged.</param>
/// <param name="buffers">Where it lies.</param>
/// <param name="collectives">Who does it.</param>
/// <param name="element">What the backend stores its floating-point tensors in.</param>
internal sealed class HostAllReduceStart(AllReduceStart operation, BufferMap buffers, ICollectives collectives, DataType element) : Kernel(operation)
{
    private readonly DeviceBuffer[] _buffers = [.. operation.Tensors.Select(t => buffers[t])];
    private ICollectiveMean? _mean;

    /// <inheritdoc/>
    public override string Implementation => FormattableString.Invariant($"{collectives.Ranks} ranks");

    /// <summary>Waits for what the last execution began, and has the buffers keep what they can store.</summary>
    public void Wait()
    {
        (_mean ?? throw new InvalidOperationException($"'{Operation.Name}' is not under way.")).Wait();
        foreach (DeviceBuffer buffer in _buffers)
        {
            buffer.RoundStored();
        }
    }

    /// <inheritdoc/>
    protected override void ExecuteCore(in StepContext context)
    {
        // The buffers have their addresses once the session has placed them, and keep them.
        _mean ??= collectives.CreateMean([.. _buffers.Select(b => new HostValues(b.Address, b.Bytes / element.Bytes(), element))], operation.Narrow);
        _mean.Start();
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _mean?.Dispose();
        }

        base.Dispose(disposing);
    }
}

/// <summary><see cref="AllReduceFinish"/>, whose other half the backend names once both are made.</summary>
internal sealed class HostAllReduceFinish(AllReduceFinish operation) : Kernel(operation)
{
    /// <summary>The kernel that begins what this one waits for.</summary>
    public HostAllReduceStart? Start { get; set; }

    /// <inheritdoc/>
    public override string Implementation => Start?.Implementation ?? "";

    /// <inheritdoc/>
    protected override void ExecuteCore(in StepContext context) =>
        (Start ?? throw new InvalidOperationException($"{Operation.Kind} '{Operation.Name}': what it waits for is not among the kernels.")).Wait();
}
