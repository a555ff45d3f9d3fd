using System.Runtime.CompilerServices;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.OneDnn;

/// <content>Pooling.</content>
internal sealed partial class OneDnnBackend
{
    /// <inheritdoc/>
    private protected override Kernel CreateCore(PoolingForward operation, BufferMap buffers) =>
        Create<HbnPoolDesc>(operation, buffers, Hbn.hbn_pool_forward_create, Describe(operation.Spec), operation.Src, operation.Dst, operation.Workspace);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(PoolingBackward operation, BufferMap buffers) =>
        Create<HbnPoolDesc>(operation, buffers, Hbn.hbn_pool_backward_create, Describe(operation.Spec),
            operation.DiffDst, operation.Workspace, operation.DiffSrc);

    private static HbnPoolDesc Describe(in PoolingSpec spec) => new()
    {
        StructSize = Unsafe.SizeOf<HbnPoolDesc>(),
        Kind = spec.Kind switch
        {
            PoolingKind.Max => Hbn.PoolMax,
            PoolingKind.AverageIncludePadding => Hbn.PoolAverageIncludePadding,
            _ => Hbn.PoolAverageExcludePadding,
        },
        KernelH = spec.KernelH,
        KernelW = spec.KernelW,
        StrideH = spec.StrideH,
        StrideW = spec.StrideW,
        PadTop = spec.PadTop,
        PadLeft = spec.PadLeft,
        PadBottom = spec.PadBottom,
        PadRight = spec.PadRight,
    };
}
