using System.Runtime.CompilerServices;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.OneDnn;

/// <content>Batch normalization: libhbn's fused kernels, or oneDNN's primitive where it fits (<see cref="BatchNormAlgorithm.Library"/>).</content>
internal sealed partial class OneDnnBackend
{
    /// <inheritdoc/>
    private protected override Kernel CreateCore(BatchNormForward operation, BufferMap buffers)
    {
        if (operation.Synchronized)
        {
            return new OneDnnSyncBatchNormForward(this, operation, buffers, ConnectedBy(operation));
        }

        if (operation.Spec.Groups > 1 || operation.R is not null)
        {
            return new OneDnnBatchNormForward(this, operation, buffers);
        }

        bool batch = operation.Statistics == BatchNormStatistics.Batch;
        return Create<HbnBatchNormDesc>(operation, buffers, Hbn.hbn_batch_norm_forward_create,
            Describe(operation.Spec, operation.Statistics, operation.AveragingFactor),
            operation.Src, operation.Scale, operation.Shift, operation.Residual, operation.Dst,
            batch ? operation.Mean : null, batch ? operation.Variance : null, operation.RunningMean, operation.RunningVariance);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(BatchNormBackward operation, BufferMap buffers) => operation.Synchronized
        ? new OneDnnSyncBatchNormBackward(this, operation, buffers, ConnectedBy(operation))
        : operation.Spec.Groups > 1 || operation.R is not null
        ? new OneDnnBatchNormBackward(this, operation, buffers)
        : Create<HbnBatchNormDesc>(operation, buffers, Hbn.hbn_batch_norm_backward_create, Describe(operation.Spec, operation.Statistics, 0),
            operation.Src, operation.Dst, operation.DiffDst, operation.Scale, operation.Shift, operation.Mean, operation.Variance,
            operation.DiffSrc, operation.DiffScale, operation.DiffShift, operation.DiffResidual, operation.SecondDiffDst);

    /// <summary>
    /// A kernel of libhbn for one group of images of a batch normalization whose tensors are <paramref name="slots"/>; null where absent. <paramref name="stage"/> is
    /// the part of the pass that it makes, where that is not all of it.
    /// </summary>
    internal HbnKernelHandle CreateGroupKernel(
        Operation operation, OneDnnBuffer?[] slots, in BatchNormSpec spec, BatchNormStatistics statistics, float averagingFactor, int stage = Hbn.StageAll)
    {
        int groups = spec.Groups;
        HbnTensor[] tensors = Describe(slots);
        foreach (ref HbnTensor tensor in tensors.AsSpan())
        {
            // Activations hold all groups' images, statistics one value per group, parameters and running statistics one for all.
            tensor.N = tensor.N == spec.Src.N ? spec.Src.N / groups : tensor.N == groups ? 1 : tensor.N;
        }

        HbnBatchNormDesc desc = Describe(spec, statistics, averagingFactor);
        desc.Algorithm = Hbn.BatchNormNative;
        desc.Stage = stage;
        HbnKernelHandle native;
        int status = operation is BatchNormForward
            ? Hbn.hbn_batch_norm_forward_create(_engine, desc, tensors, tensors.Length, out native)
            : Hbn.hbn_batch_norm_backward_create(_engine, desc, tensors, tensors.Length, out native);
        NativeException.ThrowIfFailed(status, OneDnnKernel.Describe(operation));
        return native;
    }

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
