using System.Runtime.CompilerServices;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.OneDnn;

/// <content>Operations over groups of parameters: one native call for all of them.</content>
internal sealed partial class OneDnnBackend
{
    /// <inheritdoc/>
    private protected override Kernel CreateCore(SgdUpdate operation, BufferMap buffers)
    {
        HbnOptimizerDesc desc = new()
        {
            StructSize = Unsafe.SizeOf<HbnOptimizerDesc>(),
            Nesterov = operation.Nesterov ? 1 : 0,
            Mu = operation.Mu,
            WeightDecay = operation.WeightDecay,
            RateOutside = operation.Form == MomentumForm.PyTorch ? 1 : 0,
            RateFactor = operation.RateFactor,
        };
        List<Tensor?> tensors = [operation.GradientScale];
        for (int i = 0; i < operation.Parameters.Count; i++)
        {
            tensors.AddRange(operation.Parameters[i], operation.Gradients[i], operation.Momenta[i]);
        }

        return Create<HbnOptimizerDesc>(operation, buffers, Hbn.hbn_sgd_create, desc, [.. tensors]);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(AdamUpdate operation, BufferMap buffers)
    {
        HbnOptimizerDesc desc = new()
        {
            StructSize = Unsafe.SizeOf<HbnOptimizerDesc>(),
            WeightDecay = operation.WeightDecay,
            RateFactor = operation.RateFactor,
            Epsilon = operation.Epsilon,
            TrustRatio = operation.TrustRatio ? 1 : 0,
            Beta1 = operation.Beta1,
            Beta2 = operation.Beta2,
        };
        List<Tensor?> tensors = [operation.GradientScale];
        for (int i = 0; i < operation.Parameters.Count; i++)
        {
            tensors.AddRange(operation.Parameters[i], operation.Gradients[i], operation.FirstMoments[i], operation.SecondMoments[i]);
        }

        return Create<HbnOptimizerDesc>(operation, buffers, Hbn.hbn_adam_create, desc, [.. tensors]);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ClipGradients operation, BufferMap buffers)
    {
        HbnOptimizerDesc desc = new() { StructSize = Unsafe.SizeOf<HbnOptimizerDesc>(), MaximumNorm = operation.MaximumNorm };
        return Create<HbnOptimizerDesc>(operation, buffers, Hbn.hbn_clip_create, desc, [operation.GradientScale, operation.Norm, .. operation.Gradients]);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ConvertParameters operation, BufferMap buffers)
    {
        OneDnnBuffer?[] slots = Slots(buffers, [.. operation.Parameters.Zip(operation.Copies).SelectMany(p => new Tensor?[] { p.First, p.Second })]);
        int status = Hbn.hbn_convert_create(_engine, Describe(slots), slots.Length, out HbnKernelHandle native);
        return Finish(operation, status, native, slots);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(AccumulateGradients operation, BufferMap buffers)
    {
        HbnOptimizerDesc desc = new() { StructSize = Unsafe.SizeOf<HbnOptimizerDesc>(), Count = operation.Count };
        return Create<HbnOptimizerDesc>(operation, buffers, Hbn.hbn_accumulate_create, desc, Pairs(operation.Gradients, operation.Sums));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(UpdateAverage operation, BufferMap buffers)
    {
        HbnOptimizerDesc desc = new() { StructSize = Unsafe.SizeOf<HbnOptimizerDesc>(), Decay = operation.Decay };
        return Create<HbnOptimizerDesc>(operation, buffers, Hbn.hbn_average_create, desc, Pairs(operation.Sources, operation.Averages));
    }

    private static Tensor[] Pairs(IReadOnlyList<Tensor> first, IReadOnlyList<Tensor> second) => [.. first.Zip(second).SelectMany(p => new[] { p.First, p.Second })];
}
