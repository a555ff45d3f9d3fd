using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.OneDnn;

/// <summary>
/// Batch normalization over the images of all ranks, forward: libhbn measures this rank's images, the ranks join what they measured, and libhbn normalizes with
/// that as with running statistics.
/// </summary>
internal sealed class OneDnnSyncBatchNormForward : OneDnnBatchNormGroups
{
    // The order of hbn_batch_norm_forward_create.
    private const int Scale = 1, Mean = 5, Variance = 6, RunningMean = 7, RunningVariance = 8, KernelSlots = 9;

    private readonly HbnKernelHandle _measure, _normalize;
    private readonly JoinedStatistics _joined;
    private readonly double _factor;
    private readonly string _implementation;

    public OneDnnSyncBatchNormForward(OneDnnBackend backend, BatchNormForward operation, BufferMap buffers, ICollectives ranks)
        : base(operation, operation.Spec, buffers,
            operation.Src, operation.Scale, operation.Shift, operation.Residual, operation.Dst, operation.Mean, operation.Variance, operation.RunningMean, operation.RunningVariance)
    {
        OneDnnBuffer?[] slots = [.. Slots[..Mean], Slots[Mean], Slots[Variance], null, null];
        _measure = backend.CreateGroupKernel(operation, [.. slots[..RunningMean], slots[Mean], slots[Variance]], operation.Spec, BatchNormStatistics.Batch, 0, Hbn.StageReduce);
        _normalize = backend.CreateGroupKernel(operation, [.. slots[..Mean], null, null, slots[Mean], slots[Variance]], operation.Spec, BatchNormStatistics.Running, 0);
        Reserve(Slots[Scale]!, 2, _measure, _normalize);
        _joined = new JoinedStatistics(ranks, operation.SynchronizedRanks, Length, operation.Spec.StatisticCount);
        _factor = operation.AveragingFactor;
        _implementation = FormattableString.Invariant($"native, joined over {_joined.Members} ranks");
    }

    /// <inheritdoc/>
    public override string Implementation => _implementation;

    /// <inheritdoc/>
    protected override void ExecuteCore(in StepContext context)
    {
        (nint ofMean, nint ofVariance) = (VectorAddress(0), VectorAddress(1)); // what they lose by rounding
        Execute(_measure, KernelSlots, 0, context, [(RunningMean, ofMean), (RunningVariance, ofVariance)]);
        Span<float> mean = Floats(AddressOf(Mean, 0)), variance = Floats(AddressOf(Variance, 0));
        Widen(mean, Floats(ofMean), _joined.First);
        Widen(variance, Floats(ofVariance), _joined.Second);
        _joined.JoinMoments();
        Narrow(_joined.First, mean);
        Narrow(_joined.Second, variance);
        if (Slots[RunningMean] is not null)
        {
            Average(Floats(AddressOf(RunningMean, 0)), _joined.First, 1);
            Average(Floats(AddressOf(RunningVariance, 0)), _joined.Second, _joined.UnbiasedFactor);
        }

        Execute(_normalize, KernelSlots, 0, context,
            [(RunningMean, AddressOf(Mean, 0)), (RunningVariance, AddressOf(Variance, 0)), (Mean, 0), (Variance, 0)]);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _measure.Dispose();
            _normalize.Dispose();
        }

        base.Dispose(disposing);
    }

    private void Average(Span<float> running, ReadOnlySpan<double> batch, double factor)
    {
        for (int i = 0; i < running.Length; i++)
        {
            running[i] = (float)((1 - _factor) * running[i] + _factor * factor * batch[i]);
        }
    }
}

/// <summary>The backward pass: libhbn sums over this rank's images, the ranks join the sums, and libhbn computes this rank's gradient of src with them.</summary>
internal sealed class OneDnnSyncBatchNormBackward : OneDnnBatchNormGroups
{
    // The order of hbn_batch_norm_backward_create.
    private const int Scale = 3, DiffScale = 8, DiffShift = 9, KernelSlots = 12;

    private readonly HbnKernelHandle _sum, _apply;
    private readonly JoinedStatistics _joined;
    private readonly string _implementation;

    public OneDnnSyncBatchNormBackward(OneDnnBackend backend, BatchNormBackward operation, BufferMap buffers, ICollectives ranks)
        : base(operation, operation.Spec, buffers,
            operation.Src, operation.Dst, operation.DiffDst, operation.Scale, operation.Shift, operation.Mean, operation.Variance, operation.DiffSrc,
            operation.DiffScale, operation.DiffShift, operation.DiffResidual, operation.SecondDiffDst)
    {
        OneDnnBuffer?[] slots = [.. Slots[..KernelSlots]];
        _sum = backend.CreateGroupKernel(operation, slots, operation.Spec, BatchNormStatistics.Batch, 0, Hbn.StageReduce);
        _apply = backend.CreateGroupKernel(operation, slots, operation.Spec, BatchNormStatistics.Batch, 0, Hbn.StageApply);
        Reserve(Slots[Scale]!, 2, _sum, _apply);
        _joined = new JoinedStatistics(ranks, operation.SynchronizedRanks, Length, operation.Spec.StatisticCount);
        _implementation = FormattableString.Invariant($"native, joined over {_joined.Members} ranks");
    }

    /// <inheritdoc/>
    public override string Implementation => _implementation;

    /// <inheritdoc/>
    protected override void ExecuteCore(in StepContext context)
    {
        Execute(_sum, KernelSlots, 0, context);
        Widen(Floats(AddressOf(DiffScale, 0)), default, _joined.First);
        Widen(Floats(AddressOf(DiffShift, 0)), default, _joined.Second);
        _joined.JoinSums();

        // The kernel divides by this rank's number of values, the formula by that of all.
        double share = Spec.StatisticCount / _joined.Count;
        (nint scale, nint shift) = (VectorAddress(0), VectorAddress(1));
        Narrow(_joined.First, Floats(scale), share);
        Narrow(_joined.Second, Floats(shift), share);
        Execute(_apply, KernelSlots, 0, context, [(DiffScale, scale), (DiffShift, shift)]);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _sum.Dispose();
            _apply.Dispose();
        }

        base.Dispose(disposing);
    }
}
