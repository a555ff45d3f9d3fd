using System.Runtime.CompilerServices;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.OneDnn;

/// <content>Nonlinearities, dropout, copies, sums and input preparation.</content>
internal sealed partial class OneDnnBackend
{
    /// <inheritdoc/>
    private protected override Kernel CreateCore(ActivationForward operation, BufferMap buffers) =>
        Create<HbnActivationDesc>(operation, buffers, Hbn.hbn_activation_forward_create, Describe(operation.Function), operation.Src, operation.Dst);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ActivationBackward operation, BufferMap buffers) =>
        Create<HbnActivationDesc>(operation, buffers, Hbn.hbn_activation_backward_create, Describe(operation.Function),
            operation.Kept, operation.DiffDst, operation.DiffSrc);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Dropout operation, BufferMap buffers)
    {
        HbnDropoutDesc desc = new()
        {
            StructSize = Unsafe.SizeOf<HbnDropoutDesc>(),
            Threshold = operation.Spec.Threshold,
            KeptScale = operation.Spec.KeptScale,
            Stream = operation.Spec.Stream,
            Seed = operation.Spec.Seed,
        };
        return Create<HbnDropoutDesc>(operation, buffers, Hbn.hbn_dropout_create, desc, operation.Src, operation.Dst);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Copy operation, BufferMap buffers)
    {
        OneDnnBuffer?[] slots = Slots(buffers, [operation.Src, operation.Dst]);
        int status = Hbn.hbn_copy_create(_engine, Describe(slots), slots.Length, out HbnKernelHandle native);
        return Finish(operation, status, native, slots);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Sum operation, BufferMap buffers)
    {
        OneDnnBuffer?[] slots = Slots(buffers, [operation.Dst, .. operation.Srcs]);
        int status = Hbn.hbn_sum_create(_engine, Describe(slots), slots.Length, out HbnKernelHandle native);
        return Finish(operation, status, native, slots);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(PrepareInput operation, BufferMap buffers)
    {
        OneDnnBuffer?[] slots = Slots(buffers, [operation.Src, operation.Dst]);
        int status = Hbn.hbn_input_create(
            _engine, Describe(slots), slots.Length, operation.Mean.ToArray(), operation.InverseDeviation.ToArray(), out HbnKernelHandle native);
        return Finish(operation, status, native, slots);
    }

    private static HbnActivationDesc Describe(ActivationKind function) => new()
    {
        StructSize = Unsafe.SizeOf<HbnActivationDesc>(),
        Function = function switch
        {
            ActivationKind.Relu => Hbn.Relu,
            ActivationKind.Sigmoid => Hbn.Sigmoid,
            ActivationKind.Tanh => Hbn.Tanh,
            ActivationKind.Gelu => Hbn.Gelu,
            ActivationKind.Silu => Hbn.Silu,
            ActivationKind.HardSwish => Hbn.HardSwish,
            _ => throw ActivationKinds.Unknown(function, "the functions of backend onednn"),
        },
    };
}
