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
            Binary = operation.Binary ? 1 : 0,
            TargetThreshold = operation.TargetThreshold,
        };
        OneDnnKernel kernel = Create<HbnLossDesc>(operation, buffers, Hbn.hbn_loss_create, desc,
            operation.Logits, operation.Labels, operation.Probabilities, operation.Loss, operation.DiffLogits,
            operation.SecondLabels, operation.LabelWeights);
        DeviceBuffer labels = buffers[operation.Labels];
        string name = OneDnnKernel.Describe(operation);
        (int images, int classes) = (operation.Logits.Shape.N, operation.Logits.Shape.C);
        DeviceBuffer? second = operation.SecondLabels is null ? null : buffers[operation.SecondLabels];
        kernel.Check = () =>
        {
            SoftmaxCrossEntropy.CheckLabels(name, AlignedMemory.AsSpan<int>(labels.Address, images), classes);
            if (second is not null)
            {
                SoftmaxCrossEntropy.CheckLabels(name, AlignedMemory.AsSpan<int>(second.Address, images), classes);
            }
        };
        return kernel;
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Softmax operation, BufferMap buffers)
    {
        OneDnnBuffer?[] slots = Slots(buffers, [operation.Src, operation.Dst]);
        int status = Hbn.hbn_softmax_create(_engine, Describe(slots), slots.Length, out HbnKernelHandle native);
        return Finish(operation, status, native, slots);
    }
}
