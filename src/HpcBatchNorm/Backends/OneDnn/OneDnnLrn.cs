using System.Runtime.CompilerServices;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.OneDnn;

/// <content>Local response normalization.</content>
internal sealed partial class OneDnnBackend
{
    /// <inheritdoc/>
    private protected override Kernel CreateCore(LrnForward operation, BufferMap buffers) =>
        Create<HbnLrnDesc>(operation, buffers, Hbn.hbn_lrn_forward_create, Describe(operation.Spec), operation.Src, operation.Dst, operation.Workspace);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(LrnBackward operation, BufferMap buffers) =>
        Create<HbnLrnDesc>(operation, buffers, Hbn.hbn_lrn_backward_create, Describe(operation.Spec),
            operation.Src, operation.DiffDst, operation.Workspace, operation.DiffSrc);

    private static HbnLrnDesc Describe(in LrnSpec spec) => new()
    {
        StructSize = Unsafe.SizeOf<HbnLrnDesc>(),
        Size = spec.Size,
        Alpha = spec.Alpha,
        Beta = spec.Beta,
        K = spec.K,
    };
}
