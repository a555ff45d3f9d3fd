using System.Runtime.CompilerServices;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.OneDnn;

/// <content>
/// Convolution. Weights are in the format that the forward pass chose; backward-data, which wants another for direct convolutions, converts them
/// in scratch; backward-weights delivers the forward format, in which the optimizer works.
/// </content>
internal sealed partial class OneDnnBackend
{
    /// <inheritdoc/>
    private protected override Kernel CreateCore(ConvolutionForward operation, BufferMap buffers) =>
        Create<HbnConvDesc>(operation, buffers, Hbn.hbn_conv_forward_create, Describe(operation.Spec, operation.Relu, operation.Normalization),
            [operation.Src, operation.Weights, operation.Bias, operation.Dst, operation.Residual, .. operation.Normalization?.Tensors ?? []]);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ConvolutionBackwardData operation, BufferMap buffers) =>
        Create<HbnConvDesc>(operation, buffers, Hbn.hbn_conv_backward_data_create, Describe(operation.Spec),
            operation.DiffDst, operation.Weights, operation.DiffSrc);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ConvolutionBackwardWeights operation, BufferMap buffers) =>
        Create<HbnConvDesc>(operation, buffers, Hbn.hbn_conv_backward_weights_create, Describe(operation.Spec, normalization: operation.Normalization),
            [operation.Src, operation.DiffDst, operation.DiffWeights, operation.DiffBias, .. operation.Normalization?.Tensors ?? []]);

    private HbnConvDesc Describe(in ConvolutionSpec spec, bool relu = false, SourceNormalization? normalization = null) => new()
    {
        StructSize = Unsafe.SizeOf<HbnConvDesc>(),
        StrideH = spec.StrideH,
        StrideW = spec.StrideW,
        PadTop = spec.PadTop,
        PadLeft = spec.PadLeft,
        PadBottom = spec.PadBottom,
        PadRight = spec.PadRight,
        DilationH = spec.DilationH,
        DilationW = spec.DilationW,
        Groups = spec.Groups,
        Relu = relu ? 1 : 0,
        SrcRelu = normalization is { Spec.Relu: true } ? 1 : 0,
        SrcEpsilon = normalization?.Spec.Epsilon ?? 0,
        Algorithm = _options.ConvolutionAlgorithm switch
        {
            ConvolutionAlgorithm.Direct => Hbn.ConvDirect,
            ConvolutionAlgorithm.Winograd => Hbn.ConvWinograd,
            _ => Hbn.ConvAuto,
        },
    };
}
