using System.Runtime.CompilerServices;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Sessions;

/// <summary>
/// A plan made live on a backend: it owns the kernels and every byte they touch. Executing allocates nothing. One thread at a time: a second one that
/// calls a session, or one that shares its arena, while a call is under way gets an <see cref="InvalidOperationException"/>. After <see cref="Dispose()"/>
/// every member that touches memory throws <see cref="ObjectDisposedException"/>.
/// </summary>
public class Session : IDisposable
{
    private readonly DeviceMemory _arena;
    private readonly DeviceMemory? _state;
    private readonly bool _borrowed;
    private readonly UsageGuard _guard;
    private readonly RecordedKernels? _recordedBatch, _recordedUpdate;
    private bool _disposed;

    /// <summary>
    /// Makes <paramref name="plan"/> live. <paramref name="sharedArena"/>, when large enough, is used for what lives within a step instead of memory of
    /// its own: two sessions that never run at the same time (training and its validation) can share one. It stays as long as one of them needs it, in
    /// whichever order they are disposed of.
    /// </summary>
    /// <exception cref="ObjectDisposedException">The backend or the arena has been disposed of.</exception>
    /// <exception cref="UserErrorException">The plan needs more memory than there is; the message says how much, and what to reduce.</exception>
    internal Session(Backend backend, Plan plan, DeviceMemory? sharedArena = null)
        : this(backend, plan, sharedArena, null)
    {
    }

    private protected Session(Backend backend, Plan plan, DeviceMemory? sharedArena, WeightStore? weights)
    {
        Prepared = new PreparedPlan(backend, plan, weights);
        DeviceMemory? arena = null;
        try
        {
            _borrowed = sharedArena is not null && sharedArena.Bytes >= Prepared.ArenaBytes;
            if (_borrowed)
            {
                sharedArena!.Borrow();
            }

            MemoryCheck.Throw(Prepared, takesArena: !_borrowed);
            _arena = arena = _borrowed ? sharedArena! : backend.Allocate(Prepared.ArenaBytes);
            _guard = backend.GuardOf(_arena);
            using UsageGuard.Scope scope = _guard.Enter(Entered);
            _state = backend.Allocate(Prepared.StateBytes - Prepared.WeightBytes);
            Prepared.Bind(_arena, _state);
            _recordedBatch = backend.Record([.. Prepared.Kernels.Take(plan.UpdateStart)]);
            _recordedUpdate = _recordedBatch is null || plan.UpdateStart == Prepared.Kernels.Count ? null : backend.Record([.. Prepared.Kernels.Skip(plan.UpdateStart)]);
        }
        catch
        {
            if (arena is not null)
            {
                GiveBackArena(arena);
            }

            _state?.Dispose();
            Prepared.Dispose();
            throw;
        }
    }

    /// <summary>The backend it runs on.</summary>
    public Backend Backend => Prepared.Backend;

    /// <summary>The plan.</summary>
    public Plan Plan => Prepared.Plan;

    /// <summary>Bytes for what lives within a step: activations, gradients, scratch space. Tensors whose lifetimes do not meet share them.</summary>
    public long ArenaBytes => Prepared.ArenaBytes;

    /// <summary>Bytes for what outlives a step: parameters, statistics, momenta, inputs and results.</summary>
    public long StateBytes => Prepared.StateBytes;

    /// <summary>Kernels and memory layout.</summary>
    internal PreparedPlan Prepared { get; }

    /// <summary>Memory for what lives within a step; another session may use it between steps.</summary>
    /// <exception cref="ObjectDisposedException">The session has been disposed of.</exception>
    public DeviceMemory Arena
    {
        get
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            return _arena;
        }
    }

    /// <summary>True after <see cref="Dispose()"/>.</summary>
    public bool IsDisposed => _disposed;

    /// <summary>The operations before the update as one recording, on backends that make one.</summary>
    internal RecordedKernels? Recorded => _recordedBatch;

    /// <summary>Executes all operations once.</summary>
    internal void Execute(in StepContext context)
    {
        using UsageGuard.Scope scope = Enter();
        Execute(0, Prepared.Kernels.Count, context);
    }

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
    internal void ExecuteOperation(int index, in StepContext context)
    {
        using UsageGuard.Scope scope = Enter();
        Prepared.Kernels[index].Execute(context);
    }

    /// <summary>Sets a tensor from values in logical NCHW order.</summary>
    /// <exception cref="ArgumentNullException">The tensor is null.</exception>
    /// <exception cref="ArgumentException">The values are not as many as the tensor has, or the tensor is none of this session's plan.</exception>
    /// <exception cref="InvalidOperationException">The tensor is a weight that other sessions use too.</exception>
    public void Write(Tensor tensor, ReadOnlySpan<float> values)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        using UsageGuard.Scope scope = Enter();
        Backend.Write(Writable(tensor), values);
    }

    /// <inheritdoc cref="Write(Tensor, ReadOnlySpan{float})"/>
    internal void Write(Tensor tensor, ReadOnlySpan<double> values)
    {
        using UsageGuard.Scope scope = Enter();
        Backend.Write(Writable(tensor), values);
    }

    /// <summary>Sets labels.</summary>
    internal void Write(Tensor tensor, ReadOnlySpan<int> values)
    {
        using UsageGuard.Scope scope = Enter();
        Backend.Write(Writable(tensor), values);
    }

    /// <summary>Sets pixels, NHWC.</summary>
    internal void Write(Tensor tensor, ReadOnlySpan<byte> values)
    {
        using UsageGuard.Scope scope = Enter();
        Backend.Write(Writable(tensor), values);
    }

    /// <summary>Gets a tensor's values in logical NCHW order. A tensor that lives within a step has them only until its memory is used again.</summary>
    /// <exception cref="ArgumentNullException">The tensor is null.</exception>
    /// <exception cref="ArgumentException">The values are not as many as the tensor has, or the tensor is none of this session's plan.</exception>
    public void Read(Tensor tensor, Span<float> values)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        using UsageGuard.Scope scope = Enter();
        Backend.Read(Prepared[tensor], values);
    }

    /// <inheritdoc cref="Read(Tensor, Span{float})"/>
    internal void Read(Tensor tensor, Span<double> values)
    {
        using UsageGuard.Scope scope = Enter();
        Backend.Read(Prepared[tensor], values);
    }

    /// <summary>Frees kernels and memory; what other sessions share stays until they are gone too. A second call does nothing.</summary>
    /// <exception cref="InvalidOperationException">A call to the session is under way.</exception>
    public void Dispose()
    {
        if (!_disposed)
        {
            using UsageGuard.Scope scope = _guard.Enter("Dispose of a session");
            if (scope.IsNested)
            {
                throw new InvalidOperationException("A session cannot be disposed of from within a call to it, or to one that shares its memory.");
            }

            if (!_disposed)
            {
                _disposed = true;
                Dispose(true);
            }
        }

        GC.SuppressFinalize(this);
    }

    /// <summary>Frees kernels and memory.</summary>
    private protected virtual void Dispose(bool disposing)
    {
        if (disposing)
        {
            _recordedBatch?.Dispose();
            _recordedUpdate?.Dispose();
            Prepared.Dispose();
            GiveBackArena(_arena);
            _state?.Dispose();
        }
    }

    /// <summary>Begins a call: refuses a second thread, and a session that has been disposed of. Calls within a call are free.</summary>
    private protected UsageGuard.Scope Enter()
    {
        UsageGuard.Scope scope = _guard.Enter(Entered);
        if (_disposed || Backend.IsDisposed)
        {
            scope.Dispose();
            ObjectDisposedException.ThrowIf(_disposed, this);
            Backend.ThrowIfDisposed();
        }

        return scope;
    }

    /// <summary>The argument, for calls of constructors, which have no room for a statement.</summary>
    private protected static T NotNull<T>(T argument, [CallerArgumentExpression(nameof(argument))] string? name = null)
        where T : class => argument ?? throw new ArgumentNullException(name);

    private const string Entered = "a session";

    private DeviceBuffer Writable(Tensor tensor) => Prepared.Weights is { Users: > 1 } && PreparedPlan.IsWeight(tensor.Root)
        ? throw new InvalidOperationException($"'{tensor.Name}' belongs to several sessions that share their weights; make a session of its own to change them.")
        : Prepared[tensor];

    private void GiveBackArena(DeviceMemory arena)
    {
        if (_borrowed)
        {
            arena.Return();
        }
        else
        {
            arena.Dispose();
        }
    }
}
