using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.OneDnn;

/// <summary>
/// Batch normalization with ghost batches, batch renormalization or several ranks, made of libhbn's kernels for one group of images: they run group after group on
/// addresses that move on, and between them the few numbers per channel are worked out here. Nothing changes inside the vectorised loops.
/// </summary>
internal abstract class OneDnnBatchNormGroups : Kernel
{
    private const int Alignment = 64;

    private readonly OneDnnBuffer?[] _slots;
    private readonly long[] _steps;
    private readonly nint[] _addresses;
    private long _kernelsBytes, _vectorBytes;
    private int _vectors;

    protected OneDnnBatchNormGroups(Operation operation, in BatchNormSpec spec, BufferMap buffers, params ReadOnlySpan<Tensor?> tensors)
        : base(operation)
    {
        Spec = spec;
        _slots = new OneDnnBuffer?[tensors.Length];
        _steps = new long[tensors.Length];
        _addresses = new nint[tensors.Length];
        for (int i = 0; i < _slots.Length; i++)
        {
            if (tensors[i] is not { } tensor)
            {
                continue;
            }

            OneDnnBuffer buffer = _slots[i] = (OneDnnBuffer)buffers[tensor];
            _steps[i] = spec.Groups == 1 ? 0 : tensor.Shape.N == spec.Src.N ? buffer.ImageBytes * (spec.Src.N / spec.Groups) : tensor.Shape.N == spec.Groups ? buffer.ImageBytes : 0;
        }
    }

    public override string Implementation => "native, " + (Spec.Groups > 1 ? FormattableString.Invariant($"{Spec.Groups} groups of {Spec.GhostBatch}") : "renormalized");

    public override long ScratchBytes => _kernelsBytes + _vectors * _vectorBytes;

    protected BatchNormSpec Spec { get; }

    protected OneDnnBuffer?[] Slots => _slots;

    /// <summary>Scratch: the kernels' own first, then <paramref name="vectors"/> vectors of as many elements as <paramref name="like"/>, which is in single precision.</summary>
    protected void Reserve(OneDnnBuffer like, int vectors, params ReadOnlySpan<HbnKernelHandle> kernels)
    {
        long own = 0;
        foreach (HbnKernelHandle native in kernels)
        {
            NativeException.ThrowIfFailed(Hbn.hbn_kernel_scratch_bytes(native, out long bytes), OneDnnKernel.Describe(Operation));
            own = Math.Max(own, Round(bytes));
        }

        Length = (int)(like.Bytes / sizeof(float));
        _vectorBytes = Round(like.Bytes * 2); // room for doubles
        (_kernelsBytes, _vectors) = (own, vectors);
    }

    /// <summary>Elements of a vector of parameters, padding included.</summary>
    protected int Length { get; private set; }

    /// <summary>Address of a vector of scratch.</summary>
    protected nint VectorAddress(int index) => Scratch + (nint)(_kernelsBytes + index * _vectorBytes);

    protected Span<float> Floats(nint address) => AlignedMemory.AsSpan<float>(address, Length);

    protected Span<double> Doubles(int index) => AlignedMemory.AsSpan<double>(VectorAddress(index), Length);

    /// <summary>Values of single precision in double, with what rounding took from them, where that is known.</summary>
    protected static void Widen(ReadOnlySpan<float> from, ReadOnlySpan<float> rest, Span<double> to)
    {
        for (int i = 0; i < from.Length; i++)
        {
            to[i] = rest.IsEmpty ? from[i] : (double)from[i] + rest[i];
        }
    }

    /// <summary>Values in double, times a factor, rounded to single precision.</summary>
    protected static void Narrow(ReadOnlySpan<double> from, Span<float> to, double factor = 1)
    {
        for (int i = 0; i < to.Length; i++)
        {
            to[i] = (float)(from[i] * factor);
        }
    }

    /// <summary>The address of slot <paramref name="i"/> for a group.</summary>
    protected nint AddressOf(int i, int group) => _slots[i] is { } slot ? slot.Address + (nint)(group * _steps[i]) : 0;

    /// <summary>Executes a kernel on a group; <paramref name="replace"/> gives slots other addresses, 0 leaves them.</summary>
    protected void Execute(HbnKernelHandle native, int slots, int group, in StepContext context, ReadOnlySpan<(int Slot, nint Address)> replace = default)
    {
        nint[] addresses = _addresses;
        for (int i = 0; i < slots; i++)
        {
            addresses[i] = AddressOf(i, group);
        }

        foreach ((int slot, nint address) in replace)
        {
            addresses[slot] = address;
        }

        int status = Hbn.hbn_kernel_execute(native.DangerousGetHandle(), addresses.AsSpan(0, slots), slots, Scratch, context.Step, context.LearningRate);
        if (status != Hbn.Ok)
        {
            throw NativeException.FromHbn(status, OneDnnKernel.Describe(Operation));
        }

        GC.KeepAlive(native);
    }

    /// <summary>scale * r and shift + scale * d, which is what scale and shift become for the plain kernels.</summary>
    protected void Correct(nint scale, nint shift, nint r, nint d, nint correctedScale, nint correctedShift)
    {
        Span<float> a = Floats(scale), b = Floats(shift), rs = Floats(r), ds = Floats(d), scales = Floats(correctedScale), shifts = Floats(correctedShift);
        for (int i = 0; i < a.Length; i++)
        {
            scales[i] = a[i] * rs[i];
            shifts[i] = b[i] + a[i] * ds[i];
        }
    }

    private static long Round(long bytes) => (bytes + Alignment - 1) / Alignment * Alignment;
}

/// <summary>The forward pass.</summary>
internal sealed class OneDnnBatchNormForward : OneDnnBatchNormGroups
{
    // The order of hbn_batch_norm_forward_create; r and d come after what its kernels take.
    private const int Scale = 1, Shift = 2, Mean = 5, Variance = 6, RunningMean = 7, RunningVariance = 8, KernelSlots = 9, R = 9, D = 10;

    private readonly BatchNormForward _operation;
    private readonly HbnKernelHandle _native;
    private readonly HbnKernelHandle? _renormalize;

    public OneDnnBatchNormForward(OneDnnBackend backend, BatchNormForward operation, BufferMap buffers)
        : base(operation, operation.Spec, buffers,
            operation.Src, operation.Scale, operation.Shift, operation.Residual, operation.Dst,
            operation.Statistics == BatchNormStatistics.Batch ? operation.Mean : null, operation.Statistics == BatchNormStatistics.Batch ? operation.Variance : null,
            operation.RunningMean, operation.RunningVariance, operation.R, operation.D)
    {
        if (operation is { Renormalization: not null, Dst: { IsSlice: false } dst } && dst.Root == operation.Src.Root)
        {
            throw new NotSupportedException($"{OneDnnKernel.Describe(operation)}: batch renormalization cannot write over its input.");
        }

        _operation = operation;
        OneDnnBuffer?[] slots = [.. Slots[..KernelSlots]];
        _native = backend.CreateGroupKernel(operation, slots, operation.Spec, operation.Statistics, operation.AveragingFactor);
        if (operation.Renormalization is not null)
        {
            // With the batch statistics as if they were running ones: the same bits as the pass that measures them.
            _renormalize = backend.CreateGroupKernel(
                operation, [.. slots[..Mean], null, null, slots[Mean], slots[Variance]], operation.Spec, BatchNormStatistics.Running, 0);
        }

        Reserve(Slots[Scale]!, 4, _renormalize is null ? [_native] : [_native, _renormalize]);
    }

    /// <inheritdoc/>
    protected override void ExecuteCore(in StepContext context)
    {
        for (int group = 0; group < Spec.Groups; group++)
        {
            if (_renormalize is not null)
            {
                Renormalize(group, context);
            }
            else if (_operation.R is not null)
            {
                Correct(AddressOf(Scale, group), AddressOf(Shift, group), AddressOf(R, group), AddressOf(D, group), VectorAddress(0), VectorAddress(1));
                Execute(_native, KernelSlots, group, context, [(Scale, VectorAddress(0)), (Shift, VectorAddress(1))]);
            }
            else
            {
                Execute(_native, KernelSlots, group, context);
            }
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _native.Dispose();
            _renormalize?.Dispose();
        }

        base.Dispose(disposing);
    }

    /// <summary>Normalizes and measures; then, unless all r are 1 and all d 0, normalizes once more with r and d.</summary>
    private void Renormalize(int group, in StepContext context)
    {
        Span<float> oldMean = Floats(VectorAddress(2)), oldVariance = Floats(VectorAddress(3));
        Floats(AddressOf(RunningMean, group)).CopyTo(oldMean);
        Floats(AddressOf(RunningVariance, group)).CopyTo(oldVariance);
        Execute(_native, KernelSlots, group, context);

        (double R, double D) limits = _operation.Renormalization!.LimitsAt(context.Step);
        Span<float> mean = Floats(AddressOf(Mean, group)), variance = Floats(AddressOf(Variance, group)), r = Floats(AddressOf(R, group)), d = Floats(AddressOf(D, group));
        bool plain = true;
        for (int i = 0; i < mean.Length; i++)
        {
            (double ofDeviation, double ofMean) = BatchRenormalization.Correction(mean[i], variance[i], oldMean[i], oldVariance[i], Spec.Epsilon, limits);
            (r[i], d[i]) = ((float)ofDeviation, (float)ofMean);
            plain &= r[i] == 1 && d[i] == 0;
        }

        if (!plain)
        {
            Correct(AddressOf(Scale, group), AddressOf(Shift, group), AddressOf(R, group), AddressOf(D, group), VectorAddress(0), VectorAddress(1));
            Execute(_renormalize!, KernelSlots, group, context,
            [
                (Scale, VectorAddress(0)), (Shift, VectorAddress(1)), (RunningMean, AddressOf(Mean, group)), (RunningVariance, AddressOf(Variance, group)),
                (Mean, 0), (Variance, 0),
            ]);
        }
    }
}

/// <summary>The backward pass.</summary>
internal sealed class OneDnnBatchNormBackward : OneDnnBatchNormGroups
{
    // The order of hbn_batch_norm_backward_create.
    private const int Scale = 3, Shift = 4, DiffScale = 8, DiffShift = 9, KernelSlots = 12, R = 12, D = 13;

    private readonly BatchNormBackward _operation;
    private readonly HbnKernelHandle _native;

    public OneDnnBatchNormBackward(OneDnnBackend backend, BatchNormBackward operation, BufferMap buffers)
        : base(operation, operation.Spec, buffers,
            operation.Src, operation.Dst, operation.DiffDst, operation.Scale, operation.Shift, operation.Mean, operation.Variance, operation.DiffSrc,
            operation.DiffScale, operation.DiffShift, operation.DiffResidual, operation.SecondDiffDst, operation.R, operation.D)
    {
        _operation = operation;
        _native = backend.CreateGroupKernel(operation, [.. Slots[..KernelSlots]], operation.Spec, operation.Statistics, 0);
        Reserve(Slots[Scale]!, 6, _native);
    }

    /// <inheritdoc/>
    protected override void ExecuteCore(in StepContext context)
    {
        // Vectors: corrected scale and shift, a group's two gradients, their sums over groups.
        (nint scale, nint shift, nint diffScale, nint diffShift) = (VectorAddress(0), VectorAddress(1), VectorAddress(2), VectorAddress(3));
        Span<double> scaleSum = Doubles(4), shiftSum = Doubles(5);
        scaleSum.Clear();
        shiftSum.Clear();
        for (int group = 0; group < Spec.Groups; group++)
        {
            if (_operation.R is null)
            {
                Execute(_native, KernelSlots, group, context, [(DiffScale, diffScale), (DiffShift, diffShift)]);
            }
            else
            {
                Correct(AddressOf(Scale, group), AddressOf(Shift, group), AddressOf(R, group), AddressOf(D, group), scale, shift);
                Execute(_native, KernelSlots, group, context, [(Scale, scale), (Shift, shift), (DiffScale, diffScale), (DiffShift, diffShift)]);
            }

            Span<float> ofScale = Floats(diffScale), ofShift = Floats(diffShift);
            Span<float> r = _operation.R is null ? default : Floats(AddressOf(R, group)), d = _operation.R is null ? default : Floats(AddressOf(D, group));
            for (int i = 0; i < ofScale.Length; i++)
            {
                scaleSum[i] += r.IsEmpty ? ofScale[i] : (double)r[i] * ofScale[i] + (double)d[i] * ofShift[i];
                shiftSum[i] += ofShift[i];
            }
        }

        Span<float> scales = Floats(AddressOf(DiffScale, 0)), shifts = Floats(AddressOf(DiffShift, 0));
        for (int i = 0; i < scales.Length; i++)
        {
            (scales[i], shifts[i]) = ((float)scaleSum[i], (float)shiftSum[i]);
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _native.Dispose();
        }

        base.Dispose(disposing);
    }
}
