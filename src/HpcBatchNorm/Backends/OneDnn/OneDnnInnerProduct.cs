using System.Runtime.CompilerServices;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.OneDnn;

/// <content>Fully connected layers. Weights keep the forward pass's format, as in convolution.</content>
internal sealed partial class OneDnnBackend
{
    private static readonly HbnInnerProductDesc InnerProductDesc = new() { StructSize = Unsafe.SizeOf<HbnInnerProductDesc>() };

    /// <inheritdoc/>
    private protected override Kernel CreateCore(InnerProductForward operation, BufferMap buffers) =>
        Create<HbnInnerProductDesc>(operation, buffers, Hbn.hbn_inner_product_forward_create, InnerProductDesc,
            operation.Src, operation.Weights, operation.Bias, operation.Dst);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(InnerProductBackwardData operation, BufferMap buffers) =>
        Create<HbnInnerProductDesc>(operation, buffers, Hbn.hbn_inner_product_backward_data_create, InnerProductDesc,
            operation.DiffDst, operation.Weights, operation.DiffSrc);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(InnerProductBackwardWeights operation, BufferMap buffers) =>
        Create<HbnInnerProductDesc>(operation, buffers, Hbn.hbn_inner_product_backward_weights_create, InnerProductDesc,
            operation.Src, operation.DiffDst, operation.DiffWeights, operation.DiffBias);
}
