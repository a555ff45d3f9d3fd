using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>One launch or library call; enqueued, not waited for.</summary>
internal abstract class CudnnStep : IDisposable
{
    /// <summary>What it gives to the device, but for the bytes.</summary>
    public abstract DeviceLaunch Launch { get; }

    /// <summary>Device memory it reads and writes; null where it takes what the operation's other steps leave.</summary>
    public long? Bytes { get; set; }

    /// <summary>Appends the work to the stream. <paramref name="scratch"/> is the kernel's scratch memory.</summary>
    public abstract void Enqueue(nint scratch);

    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    protected virtual void Dispose(bool disposing)
    {
    }
}

/// <summary>Any operation as a short sequence of launches and library calls; nothing is allocated when it executes.</summary>
internal sealed class CudnnKernel : Kernel
{
    private readonly CudnnBackend _backend;
    private readonly CudnnStep[] _steps;

    /// <summary>Takes over the steps.</summary>
    /// <param name="backend">Where they run.</param>
    /// <param name="operation">What they compute.</param>
    /// <param name="implementation">Who computes it.</param>
    /// <param name="scratchBytes">Scratch memory they need.</param>
    /// <param name="memoryBytes">What they read and write of device memory; the first step that does not say its part takes what the others leave.</param>
    /// <param name="steps">In order.</param>
    public CudnnKernel(CudnnBackend backend, Operation operation, string implementation, long scratchBytes, long memoryBytes, params CudnnStep[] steps)
        : base(operation)
    {
        (_backend, _steps, Implementation, ScratchBytes) = (backend, steps, implementation, scratchBytes);
        long rest = memoryBytes - steps.Sum(s => s.Bytes ?? 0);
        int unsaid = Array.FindIndex(steps, s => s.Bytes is null);
        DeviceLaunches = [.. steps.Select((s, i) => s.Launch with { Bytes = s.Bytes ?? (i == unsaid ? rest : 0) })];
    }

    /// <inheritdoc/>
    public override string Implementation { get; }

    /// <inheritdoc/>
    public override long ScratchBytes { get; }

    /// <inheritdoc/>
    public override IReadOnlyList<DeviceLaunch> DeviceLaunches { get; }

    /// <summary>How messages name an operation: <c>convolution forward 'conv1'</c>.</summary>
    public static string Describe(Operation operation) => $"{operation.Kind} '{operation.Name}'";

    /// <inheritdoc/>
    protected override void ExecuteCore(in StepContext context)
    {
        _backend.Begin(context);
        Enqueue();
    }

    /// <summary>The work alone, without the step's numbers: for a recording.</summary>
    public void Enqueue()
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        foreach (CudnnStep step in _steps)
        {
            step.Enqueue(Scratch);
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            foreach (CudnnStep step in _steps)
            {
                step.Dispose();
            }
        }

        base.Dispose(disposing);
    }
}

/// <summary>
/// A launch of one of our kernels: its arguments in the order of the kernel's parameters. Addresses are taken from buffers at every launch.
/// </summary>
internal sealed class CudnnLaunch(CudaDevice? device, nint function, string kernel, DataType type, LaunchShape shape, string operation) : CudnnStep
{
    private readonly List<Action<CudaLaunch, int>> _constants = [];
    private readonly List<(int Index, CudnnBuffer Buffer, long Offset)> _buffers = [];
    private readonly List<(int Index, long Offset)> _scratch = [];
    private readonly List<(int Index, PieceTable Table)> _tables = [];
    private readonly List<IDisposable> _owned = [];
    private CudaLaunch? _launch;

    /// <inheritdoc/>
    public override DeviceLaunch Launch => new(kernel, type, false, shape.GridX * shape.GridY * shape.GridZ, shape.BlockX * shape.BlockY, shape.SharedBytes, 0);

    /// <summary>The address of a tensor, or <paramref name="offset"/> elements into it; 0 for null.</summary>
    public CudnnLaunch Address(CudnnBuffer? buffer, long offset = 0)
    {
        if (buffer is null)
        {
            return Number((nint)0);
        }

        _buffers.Add((_constants.Count, buffer, offset * buffer.ElementBytes));
        return Later();
    }

    /// <summary>The address of an activation, from row <paramref name="firstRow"/> on, and the distance of its rows; 0 for null.</summary>
    public CudnnLaunch Matrix(CudnnBuffer? buffer, long firstRow = 0) =>
        Address(buffer, firstRow * (buffer?.RowStride ?? 0)).Number((uint)(buffer?.RowStride ?? 0));

    /// <summary>An address within the kernel's scratch memory.</summary>
    public CudnnLaunch Scratch(long offset = 0)
    {
        _scratch.Add((_constants.Count, offset));
        return Later();
    }

    /// <summary>The address of a table of pieces.</summary>
    public CudnnLaunch Table(PieceTable table)
    {
        _tables.Add((_constants.Count, table));
        return Later();
    }

    public CudnnLaunch Number(int value) => Constant((l, i) => l.Set(i, value));

    public CudnnLaunch Number(uint value) => Constant((l, i) => l.Set(i, value));

    public CudnnLaunch Number(long value) => Constant((l, i) => l.Set(i, (ulong)value));

    public CudnnLaunch Number(float value) => Constant((l, i) => l.Set(i, value));

    public CudnnLaunch Number(nint value) => Constant((l, i) => l.Set(i, value));

    public CudnnLaunch Flag(bool value) => Number(value ? 1 : 0);

    /// <summary>Several numbers.</summary>
    public CudnnLaunch Numbers(params ReadOnlySpan<int> values)
    {
        foreach (int value in values)
        {
            Number(value);
        }

        return this;
    }

    /// <summary>Says how many bytes of device memory the kernel reads and writes.</summary>
    public CudnnLaunch Moves(long bytes)
    {
        Bytes = bytes;
        return this;
    }

    /// <summary>Frees something with this step.</summary>
    public CudnnLaunch Owns(IDisposable? owned)
    {
        if (owned is not null)
        {
            _owned.Add(owned);
        }

        return this;
    }

    /// <inheritdoc/>
    public override void Enqueue(nint scratch)
    {
        CudaLaunch launch = _launch ??= Build();
        foreach ((int index, CudnnBuffer buffer, long offset) in _buffers)
        {
            launch.Set(index, buffer.Address + (nint)offset);
        }

        foreach ((int index, long offset) in _scratch)
        {
            launch.Set(index, scratch + (nint)offset);
        }

        foreach ((int index, PieceTable table) in _tables)
        {
            launch.Set(index, table.Address());
        }

        launch.Launch();
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        foreach (IDisposable owned in _owned)
        {
            owned.Dispose();
        }

        _owned.Clear();
        base.Dispose(disposing);
    }

    private CudnnLaunch Constant(Action<CudaLaunch, int> set)
    {
        _constants.Add(set);
        return this;
    }

    private CudnnLaunch Later() => Constant((_, _) => { });

    private CudaLaunch Build()
    {
        CudaLaunch launch = new(device!, function, _constants.Count, shape, () => operation);
        for (int i = 0; i < _constants.Count; i++)
        {
            _constants[i](launch, i);
        }

        return launch;
    }
}

/// <summary>A library call, by its name in tables.</summary>
internal sealed class CudnnCall(string name, DataType type, Action<nint> enqueue, params IDisposable?[] owned) : CudnnStep
{
    /// <inheritdoc/>
    public override DeviceLaunch Launch => new(name, type, true, 0, 0, 0, 0);

    /// <inheritdoc/>
    public override void Enqueue(nint scratch) => enqueue(scratch);

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        foreach (IDisposable? item in owned)
        {
            item?.Dispose();
        }

        base.Dispose(disposing);
    }
}
