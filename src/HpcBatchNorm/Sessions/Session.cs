using HpcBatchNorm.Backends;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Sessions;

/// <summary>
/// A plan made live on a backend: it owns the kernels and every byte they touch. One thread at a time. Executing allocates nothing.
/// </summary>
public class Session : IDisposable
{
    private readonly DeviceMemory? _ownArena;
    private readonly DeviceMemory _state;
    private readonly RecordedKernels? _recordedBatch, _recordedUpdate;

    /// <summary>
    /// Makes <paramref name="plan"/> live. <paramref name="sharedArena"/>, when large enough, is used for what lives within a step instead of memory of
    /// its own: two sessions that never run at the same time (training and its validation) can share one.
    /// </summary>
    public Session(Backend backend, Plan plan, DeviceMemory? sharedArena = null)
    {
        Prepared = new PreparedPlan(backend, plan);
        try
        {
            Arena = sharedArena is not null && sharedArena.Bytes >= Prepared.ArenaBytes ? sharedArena : _ownArena = backend.Allocate(Prepared.ArenaBytes);
            _state = backend.Allocate(Prepared.StateBytes);
            Prepared.Bind(Arena, _state);
            _recordedBatch = backend.Record([.. Prepared.Kernels.Take(plan.UpdateStart)]);
            _recordedUpdate = _recordedBatch is null || plan.UpdateStart == Prepared.Kernels.Count ? null : backend.Record([.. Prepared.Kernels.Skip(plan.UpdateStart)]);
        }
        catch
        {
            _ownArena?.Dispose();
            Prepared.Dispose();
            throw;
        }
    }

    /// <summary>The backend it runs on.</summary>
    public Backend Backend => Prepared.Backend;

    /// <summary>The plan.</summary>
    public Plan Plan => Prepared.Plan;

    /// <summary>Kernels and memory layout.</summary>
    public PreparedPlan Prepared { get; }

    /// <summary>Memory for what lives within a step; another session may use it between steps.</summary>
    public DeviceMemory Arena { get; }

    /// <summary>The operations before the update as one recording, on backends that make one.</summary>
    internal RecordedKernels? Recorded => _recordedBatch;

    /// <summary>Executes all operations once.</summary>
    public void Execute(in StepContext context) => Execute(0, Prepared.Kernels.Count, context);

    /// <summary>Executes operations <paramref name="first"/> to <paramref name="end"/> - 1: the part before the update, the update, or both.</summary>
    private protected void Execute(int first, int end, in StepContext context)
    {
        if (_recordedBatch is not null)
        {
            if (first == 0)
            {
                _recordedBatch.Execute(context);
            }

            if (end > Plan.UpdateStart)
            {
                _recordedUpdate?.Execute(context);
            }

            return;
        }

        IReadOnlyList<Kernel> kernels = Prepared.Kernels;
        for (int i = first; i < end; i++)
        {
            kernels[i].Execute(context);
        }
    }

    /// <summary>Executes one operation; verification walks a plan this way.</summary>
    public void ExecuteOperation(int index, in StepContext context) => Prepared.Kernels[index].Execute(context);

    /// <summary>Sets a tensor from values in logical NCHW order.</summary>
    public void Write(Tensor tensor, ReadOnlySpan<float> values) => Backend.Write(Prepared[tensor], values);

    /// <inheritdoc cref="Write(Tensor, ReadOnlySpan{float})"/>
    public void Write(Tensor tensor, ReadOnlySpan<double> values) => Backend.Write(Prepared[tensor], values);

    /// <summary>Sets labels.</summary>
    public void Write(Tensor tensor, ReadOnlySpan<int> values) => Backend.Write(Prepared[tensor], values);

    /// <summary>Sets pixels, NHWC.</summary>
    public void Write(Tensor tensor, ReadOnlySpan<byte> values) => Backend.Write(Prepared[tensor], values);

    /// <summary>Gets a tensor's values in logical NCHW order. A tensor that lives within a step has them only until its memory is used again.</summary>
    public void Read(Tensor tensor, Span<float> values) => Backend.Read(Prepared[tensor], values);

    /// <inheritdoc cref="Read(Tensor, Span{float})"/>
    public void Read(Tensor tensor, Span<double> values) => Backend.Read(Prepared[tensor], values);

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Frees kernels and memory.</summary>
    protected virtual void Dispose(bool disposing)
    {
        if (disposing)
        {
            _recordedBatch?.Dispose();
            _recordedUpdate?.Dispose();
            Prepared.Dispose();
            _ownArena?.Dispose();
            _state.Dispose();
        }
    }
}
