using System.Runtime.CompilerServices;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.OneDnn;

/// <content>Softmax and cross-entropy.</content>
internal sealed partial class OneDnnBackend
{
    /// <inheritdoc/>
    private protected override Kernel CreateCore(SoftmaxCrossEntropy operation, BufferMap buffers)
    {
        HbnLossDesc desc = new()
        {
            StructSize = Unsafe.SizeOf<HbnLossDesc>(),
            LabelSmoothing = operation.LabelSmoothing,
            Weight = operation.Weight,
        };
        return Create<HbnLossDesc>(operation, buffers, Hbn.hbn_loss_create, desc,
            operation.Logits, operation.Labels, operation.Probabilities, operation.Loss, operation.DiffLogits);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Softmax operation, BufferMap buffers)
    {
        OneDnnBuffer?[] slots = Slots(buffers, [operation.Src, operation.Dst]);
        int status = Hbn.hbn_softmax_create(_engine, Describe(slots), slots.Length, out HbnKernelHandle native);
        return Finish(operation, status, native, slots);
    }
}
