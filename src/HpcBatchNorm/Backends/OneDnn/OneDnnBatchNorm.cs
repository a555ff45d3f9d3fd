using System.Runtime.CompilerServices;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Layers;

namespace HpcBatchNorm.Backends.OneDnn;

/// <content>Batch normalization: the shim's fused kernels, or oneDNN's primitive where it fits (<see cref="BatchNormAlgorithm.Library"/>).</content>
internal sealed partial class OneDnnBackend
{
    /// <inheritdoc/>
    protected override Kernel CreateCore(BatchNormForward operation, BufferMap buffers)
    {
        bool batch = operation.Statistics == BatchNormStatistics.Batch;
        return Create<HbnBatchNormDesc>(operation, buffers, Hbn.hbn_batch_norm_forward_create,
            Describe(operation.Spec, operation.Statistics, operation.AveragingFactor),
            operation.Src, operation.Scale, operation.Shift, operation.Residual, operation.Dst,
            batch ? operation.Mean : null, batch ? operation.Variance : null, operation.RunningMean, operation.RunningVariance);
    }

    /// <inheritdoc/>
    protected override Kernel CreateCore(BatchNormBackward operation, BufferMap buffers) =>
        Create<HbnBatchNormDesc>(operation, buffers, Hbn.hbn_batch_norm_backward_create, Describe(operation.Spec, operation.Statistics, 0),
            operation.Src, operation.Dst, operation.DiffDst, operation.Scale, operation.Shift, operation.Mean, operation.Variance,
            operation.DiffSrc, operation.DiffScale, operation.DiffShift, operation.DiffResidual);

    private HbnBatchNormDesc Describe(in BatchNormSpec spec, BatchNormStatistics statistics, float averagingFactor) => new()
    {
        StructSize = Unsafe.SizeOf<HbnBatchNormDesc>(),
        Epsilon = spec.Epsilon,
        AveragingFactor = averagingFactor,
        PerActivation = spec.PerActivation ? 1 : 0,
        Relu = spec.Relu ? 1 : 0,
        BatchStatistics = statistics == BatchNormStatistics.Batch ? 1 : 0,
        Algorithm = _options.BatchNormAlgorithm == BatchNormAlgorithm.Library ? Hbn.BatchNormLibrary : Hbn.BatchNormNative,
    };
}
