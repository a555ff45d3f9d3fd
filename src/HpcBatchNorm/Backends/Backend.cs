using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends;

/// <summary>What the planner needs to know of a backend, and nothing more.</summary>
/// <param name="ChannelBlock">Channels per block of the <see cref="TensorLayout.Blocked"/> layout; a slice starts and ends at a multiple of it.</param>
/// <param name="BatchNormTakesSlices">Batch normalization reads and writes concatenation slices directly; otherwise the planner adds copies.</param>
/// <param name="BatchNormVariants">Batch normalization takes ghost batches and batch renormalization.</param>
/// <param name="LossScaling">The loss can be scaled (<see cref="UpdateLossScale"/>), which training in half precision needs.</param>
/// <param name="CustomOperations">Managed code can work on the tensors (<see cref="CustomForward"/>): they lie in the host's memory.</param>
/// <param name="PoolingTakesSlices">Pooling writes its channels of a concatenation, and reads their gradient there, as batch normalization does.</param>
/// <param name="TrainingVariants">It has LAMB, binary cross-entropy and labels of mixed images.</param>
/// <param name="ConvolutionNormalizes">Convolutions normalize what they read (<see cref="SourceNormalization"/>), in single precision.</param>
/// <param name="NarrowConvolutionNormalizes">They do so with bfloat16 too; what they multiply is then not rounded to it.</param>
/// <param name="NarrowWeightGradients">Its library rounds the gradients of weights to the activations' 16-bit type, and the optimizer reads them so.</param>
/// <param name="ConvolutionReluTakesNarrowBias">Inference: a convolution that computes ReLU too reads its bias in the activations' type.</param>
/// <param name="ConvolutionTakesSlices">Inference: a convolution writes its channels of a concatenation, no slower than a tensor of its own and a copy.</param>
internal sealed record BackendTraits(
    int ChannelBlock, bool BatchNormTakesSlices, bool BatchNormVariants = false, bool LossScaling = false, bool CustomOperations = false,
    bool PoolingTakesSlices = false, bool TrainingVariants = false, bool ConvolutionNormalizes = false, bool NarrowConvolutionNormalizes = false,
    bool NarrowWeightGradients = false, bool ConvolutionReluTakesNarrowBias = false, bool ConvolutionTakesSlices = false)
{
    /// <summary>Whether convolutions normalize activations of this type while reading them.</summary>
    public bool Normalizes(DataType type) => ConvolutionNormalizes && (!type.IsNarrow() || (type == DataType.BFloat16 && NarrowConvolutionNormalizes));
}

/// <summary>
/// A place where operations run; <see cref="Create"/> makes one. What it does is validated once, for all backends alike, before a <c>...Core</c> method does it.
/// One thread at a time may use what a backend created (a session, a runner, a buffer). Where <see cref="ConcurrentSessions"/> is true, several threads
/// may do so at once with a session each; elsewhere one thread at a time uses the whole backend. Dispose sessions and kernels before their backend.
/// </summary>
public abstract partial class Backend : IDisposable
{
    private readonly UsageGuard _guard = new();

    private protected Backend()
    {
    }

    /// <summary>
    /// True when sessions of this backend that share no memory (but weights) may compute on several threads at once. Where it is false, a second thread
    /// inside any session of the backend gets an <see cref="InvalidOperationException"/>.
    /// </summary>
    public virtual bool ConcurrentSessions => false;

    /// <summary>Threads that one session computes with; 0 where the device decides.</summary>
    public virtual int Threads => 0;

    /// <summary>Where that number comes from, for people: what was asked for, an environment variable, the cores, a quota; empty where the device decides.</summary>
    public virtual string ThreadsReason => "";

    /// <summary>True after <see cref="Dispose()"/>.</summary>
    public bool IsDisposed { get; private set; }

    /// <summary>
    /// What connects this process to others that train the same network; null where it trains alone. Set before the sessions that average over ranks are made.
    /// </summary>
    internal ICollectives? Collectives { get; set; }

    /// <summary>What floating-point tensors are stored in where the operations of a plan say single precision.</summary>
    private protected virtual DataType StoredType => DataType.Float32;

    /// <summary>What keeps a second thread out of a session that computes in <paramref name="memory"/>: one guard for the whole backend where it must.</summary>
    internal UsageGuard GuardOf(DeviceMemory memory) => ConcurrentSessions ? memory.Guard : _guard;

    /// <summary><c>reference</c>, <c>onednn</c> or <c>cudnn</c>.</summary>
    public abstract string Name { get; }

    /// <summary>Library, version, threads and instruction set, for people.</summary>
    public abstract string Description { get; }

    /// <summary>What the planner needs to know.</summary>
    internal abstract BackendTraits Traits { get; }

    /// <summary>
    /// Whether plans of a precision can run on this backend and this machine. When not, <paramref name="reason"/> says why and what to use instead; when
    /// they can, it is empty, or says what it costs (an emulation, say).
    /// </summary>
    public abstract bool Supports(Precision precision, out string reason);

    /// <summary>
    /// One kernel per operation, in order. Operations that take tensors as others lay them out (<see cref="ConvertParameters"/>) are made last, because
    /// the first kernel that uses an opaque tensor decides its layout.
    /// </summary>
    /// <exception cref="ArgumentException">As <see cref="CreateKernel"/>.</exception>
    /// <exception cref="NotSupportedException">As <see cref="CreateKernel"/>.</exception>
    internal IReadOnlyList<Kernel> CreateKernels(IReadOnlyList<Operation> operations, BufferMap buffers)
    {
        ThrowIfDisposed();
        Kernel[] kernels = new Kernel[operations.Count];
        try
        {
            foreach (bool follows in new[] { false, true })
            {
                for (int i = 0; i < kernels.Length; i++)
                {
                    if ((operations[i] is ConvertParameters) == follows)
                    {
                        kernels[i] = CreateKernel(operations[i], buffers);
                    }
                }
            }

            foreach (HostAllReduceFinish finish in kernels.OfType<HostAllReduceFinish>())
            {
                finish.Start = kernels.OfType<HostAllReduceStart>().First(s => ReferenceEquals(s.Operation, ((AllReduceFinish)finish.Operation).Start));
            }

            return kernels;
        }
        catch
        {
            foreach (Kernel? kernel in kernels)
            {
                kernel?.Dispose();
            }

            throw;
        }
    }

    /// <summary>Makes <paramref name="operation"/> executable on buffers that need no addresses yet.</summary>
    /// <exception cref="ArgumentException">The operation's spec or shapes do not fit together.</exception>
    /// <exception cref="NotSupportedException">This backend cannot do the operation for these shapes; the message says which and why.</exception>
    internal Kernel CreateKernel(Operation operation, BufferMap buffers)
    {
        ThrowIfDisposed();
        operation.Validate();
        if (!Traits.BatchNormVariants && operation is BatchNormForward { Spec.GhostBatch: > 0 } or BatchNormBackward { Spec.GhostBatch: > 0 }
            or BatchNormForward { R: not null } or BatchNormBackward { R: not null })
        {
            throw new NotSupportedException($"{operation.Kind} '{operation.Name}': ghost batches and batch renormalization are not there on backend {Name} yet.");
        }

        if (!Traits.LossScaling
            && operation is UpdateLossScale or SoftmaxCrossEntropy { LossScale: not null } or SgdUpdate { LossScale: not null } or AdamUpdate { LossScale: not null } or ClipGradients { Unscale: not null })
        {
            throw new NotSupportedException($"{operation.Kind} '{operation.Name}': backend {Name} does not scale the loss.");
        }

        if (!Traits.ConvolutionNormalizes
            && operation is ConvolutionForward { Normalization: not null } or ConvolutionBackwardWeights { Normalization: not null } or BatchNormForward { Dst: null })
        {
            throw new NotSupportedException($"{operation.Kind} '{operation.Name}': convolutions of backend {Name} do not normalize what they read.");
        }

        if (!Traits.CustomOperations && operation is CustomOperation)
        {
            throw NoCustom(operation);
        }

        if (!Traits.CustomOperations && operation is BatchNormForward { Synchronized: true } or BatchNormBackward { Synchronized: true })
        {
            throw new NotSupportedException($"{operation.Kind} '{operation.Name}': ranks join batch statistics (sync-bn) on the backends onednn and reference, not on {Name} yet.");
        }

        return operation switch
        {
            ConvolutionForward o => CreateCore(o, buffers),
            ConvolutionBackwardData o => CreateCore(o, buffers),
            ConvolutionBackwardWeights o => CreateCore(o, buffers),
            BatchNormForward o => CreateCore(o, buffers),
            BatchNormBackward o => CreateCore(o, buffers),
            ActivationForward o => CreateCore(o, buffers),
            ActivationBackward o => CreateCore(o, buffers),
            PoolingForward o => CreateCore(o, buffers),
            PoolingBackward o => CreateCore(o, buffers),
            LrnForward o => CreateCore(o, buffers),
            LrnBackward o => CreateCore(o, buffers),
            Dropout o => CreateCore(o, buffers),
            InnerProductForward o => CreateCore(o, buffers),
            InnerProductBackwardData o => CreateCore(o, buffers),
            InnerProductBackwardWeights o => CreateCore(o, buffers),
            Copy o => CreateCore(o, buffers),
            Sum o => CreateCore(o, buffers),
            PrepareInput o => CreateCore(o, buffers),
            SoftmaxCrossEntropy o => CreateCore(o, buffers),
            Softmax o => CreateCore(o, buffers),
            SgdUpdate o => CreateCore(o, buffers),
            AdamUpdate o => CreateCore(o, buffers),
            ClipGradients o => CreateCore(o, buffers),
            AccumulateGradients o => CreateCore(o, buffers),
            UpdateAverage o => CreateCore(o, buffers),
            UpdateLossScale o => CreateCore(o, buffers),
            ConvertParameters o => CreateCore(o, buffers),
            AllReduceStart o => CreateCore(o, buffers),
            AllReduceFinish o => CreateCore(o),
            CustomForward o => CreateCore(o, buffers),
            CustomBackward o => CreateCore(o, buffers),
            _ => throw new NotSupportedException($"No backend knows the operation '{operation.Kind}'."),
        };
    }

    /// <summary>
    /// What the machine can do at best, measured now on the backend's threads (about two seconds); null where the backend has no probe. Shares of these
    /// limits are what benchmarks print.
    /// </summary>
    internal virtual MachineLimits? MeasureLimits()
    {
        ThrowIfDisposed();
        return null;
    }

    /// <summary>
    /// Kernels that will be executed in this order again and again, on buffers that stay where they are, as one; null where that is no faster.
    /// </summary>
    internal virtual RecordedKernels? Record(IReadOnlyList<Kernel> kernels)
    {
        ThrowIfDisposed();
        return null;
    }

    /// <summary>What a compiler made of one of our kernels for a device, as far as it was written down; null for what is not known, and on the host.</summary>
    internal virtual KernelResources? ResourcesOf(string kernel, DataType type, int architecture) => null;

    /// <summary>Most bytes of a device's own memory that this backend has held at a time; null where tensors lie in the process's memory.</summary>
    internal virtual long? PeakDeviceBytes => null;

    /// <summary>A clock of the device with room for <paramref name="marks"/> marks; null where execution is the host's and so is the clock.</summary>
    internal virtual DeviceClock? CreateClock(int marks)
    {
        ThrowIfDisposed();
        return null;
    }

    /// <summary>A place for images that are brought to the device while it computes; null where there is no such device.</summary>
    internal virtual StagingBuffer? CreateStaging(long bytes)
    {
        ThrowIfDisposed();
        return null;
    }

    /// <summary>
    /// Waits until everything executed so far is done. On the host it is when executing returns; a device takes work and returns at once, so that clocks
    /// must be read after this. Reading a tensor waits by itself.
    /// </summary>
    internal virtual void Synchronize() => ThrowIfDisposed();

    /// <summary>Makes the physical side of a tensor, without memory.</summary>
    internal abstract DeviceBuffer CreateBuffer(Tensor tensor, DeviceBuffer? parent, DeviceBuffer? layoutLike);

    /// <summary>Memory that sessions can still get; null where nobody knows before it is asked for.</summary>
    internal virtual AvailableMemory? Available => null;

    /// <summary>Zero-filled device memory.</summary>
    internal abstract DeviceMemory Allocate(long bytes);

    /// <summary>Sets a tensor from values in logical NCHW order (rounded to its element type); padding becomes zero.</summary>
    internal void Write(DeviceBuffer buffer, ReadOnlySpan<double> values)
    {
        using UsageGuard.Scope scope = EnterTransfer();
        CheckTransfer(buffer, values.Length);
        if (buffer is RowsBuffer rows)
        {
            double[] whole = new double[rows.Parent!.Tensor.Shape.Count];
            ReadCore(rows.Parent, whole);
            values.CopyTo(whole.AsSpan(rows.Elements));
            buffer = rows.Parent;
            values = whole;
        }

        WriteCore(buffer, values);
    }

    /// <summary>Sets a floating-point tensor from values in logical NCHW order (rounded to its element type); padding becomes zero.</summary>
    internal void Write(DeviceBuffer buffer, ReadOnlySpan<float> values)
    {
        using UsageGuard.Scope scope = EnterTransfer();
        CheckTransfer(buffer, values.Length);
        if (buffer is RowsBuffer rows)
        {
            float[] whole = new float[rows.Parent!.Tensor.Shape.Count];
            ReadCore(rows.Parent, whole);
            values.CopyTo(whole.AsSpan(rows.Elements));
            buffer = rows.Parent;
            values = whole;
        }

        WriteCore(buffer, values);
    }

    /// <summary>Sets an Int32 tensor (labels).</summary>
    internal void Write(DeviceBuffer buffer, ReadOnlySpan<int> values)
    {
        using UsageGuard.Scope scope = EnterTransfer();
        CheckTransfer(buffer, values.Length);
        WriteCore(buffer, values);
    }

    /// <summary>Sets a UInt8 tensor (pixels, NHWC).</summary>
    internal void Write(DeviceBuffer buffer, ReadOnlySpan<byte> values)
    {
        using UsageGuard.Scope scope = EnterTransfer();
        CheckTransfer(buffer, values.Length);
        WriteCore(buffer, values);
    }

    /// <summary>Gets a tensor's values in logical NCHW order.</summary>
    internal void Read(DeviceBuffer buffer, Span<double> values)
    {
        using UsageGuard.Scope scope = EnterTransfer();
        CheckTransfer(buffer, values.Length);
        if (buffer is RowsBuffer rows)
        {
            double[] whole = new double[rows.Parent!.Tensor.Shape.Count];
            ReadCore(rows.Parent, whole);
            whole.AsSpan(rows.Elements).CopyTo(values);
            return;
        }

        ReadCore(buffer, values);
    }

    /// <summary>False when a value of a tensor of floating-point numbers is infinite or NaN.</summary>
    internal bool IsFinite(DeviceBuffer buffer)
    {
        using UsageGuard.Scope scope = EnterTransfer();
        CheckTransfer(buffer, (int)buffer.Tensor.Shape.Count);
        return IsFiniteCore(buffer);
    }

    /// <summary>Gets a tensor's values in logical NCHW order, rounded to single precision.</summary>
    internal void Read(DeviceBuffer buffer, Span<float> values)
    {
        using UsageGuard.Scope scope = EnterTransfer();
        CheckTransfer(buffer, values.Length);
        if (buffer is RowsBuffer rows)
        {
            float[] whole = new float[rows.Parent!.Tensor.Shape.Count];
            ReadCore(rows.Parent, whole);
            whole.AsSpan(rows.Elements).CopyTo(values);
            return;
        }

        ReadCore(buffer, values);
    }

    /// <summary>Frees the backend. A second call does nothing.</summary>
    public void Dispose()
    {
        if (!IsDisposed)
        {
            IsDisposed = true;
            Dispose(true);
        }

        GC.SuppressFinalize(this);
    }

    /// <summary>Throws when the backend has been disposed of.</summary>
    /// <exception cref="ObjectDisposedException">It has been.</exception>
    internal void ThrowIfDisposed() => ObjectDisposedException.ThrowIf(IsDisposed, this);

    /// <summary>Frees the backend.</summary>
    protected virtual void Dispose(bool disposing)
    {
    }

    /// <summary>What an operation over all ranks needs.</summary>
    private protected ICollectives ConnectedBy(Operation operation) =>
        Collectives ?? throw new InvalidOperationException($"{operation.Kind} '{operation.Name}': this process is connected to no others.");

    private NotSupportedException NoCustom(Operation operation) => new(
        $"{operation.Kind} '{operation.Name}': an operation of one's own is managed code, which backend {Name} does not run. Use the backend onednn or reference.");

    /// <summary>Where one thread at a time uses the backend, transfers are part of that.</summary>
    private UsageGuard.Scope EnterTransfer()
    {
        ThrowIfDisposed();
        return ConcurrentSessions ? default : _guard.Enter("a transfer");
    }

    private static void CheckTransfer(DeviceBuffer buffer, int length)
    {
        ObjectDisposedException.ThrowIf(buffer.IsDisposed, buffer);
        if (length != buffer.Tensor.Shape.Count)
        {
            throw new ArgumentException($"'{buffer.Tensor.Name}' has {buffer.Tensor.Shape.Count} elements ({buffer.Tensor.Shape}), but {length} values were given.");
        }

        if (buffer.Address == 0)
        {
            throw new InvalidOperationException($"'{buffer.Tensor.Name}' has no memory yet.");
        }
    }
}
