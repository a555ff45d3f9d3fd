using System.Numerics.Tensors;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>dst[n,o] = bias[o] + weights[o] . src[n].</summary>
internal sealed class ReferenceInnerProductForward(InnerProductForward operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly InnerProductSpec _spec = operation.Spec;
    private readonly ReferenceBuffer _src = Buffer(buffers, operation.Src);
    private readonly ReferenceBuffer _weights = Buffer(buffers, operation.Weights);
    private readonly ReferenceBuffer? _bias = Optional(buffers, operation.Bias);
    private readonly ReferenceBuffer _dst = Buffer(buffers, operation.Dst);

    protected override void Run(in StepContext context) => ForEach(_spec.Outputs, _spec.Flops, Output);

    private void Output(int o)
    {
        double bias = _bias is null ? 0 : _bias.Vector[o];
        for (int n = 0; n < _spec.Src.N; n++)
        {
            _dst.Image(n)[o] = bias + Dot(_weights.Image(o), _src.Image(n));
        }
    }
}

/// <summary>diffSrc[n] = sum over o of diffDst[n,o] * weights[o].</summary>
internal sealed class ReferenceInnerProductBackwardData(InnerProductBackwardData operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly InnerProductSpec _spec = operation.Spec;
    private readonly ReferenceBuffer _diffDst = Buffer(buffers, operation.DiffDst);
    private readonly ReferenceBuffer _weights = Buffer(buffers, operation.Weights);
    private readonly ReferenceBuffer _diffSrc = Buffer(buffers, operation.DiffSrc);

    protected override void Run(in StepContext context) => ForEach(_spec.Src.N, _spec.Flops, Image);

    private void Image(int n)
    {
        Span<double> diffSrc = _diffSrc.Image(n), diffDst = _diffDst.Image(n);
        diffSrc.Clear();
        for (int o = 0; o < _spec.Outputs; o++)
        {
            TensorPrimitives.MultiplyAdd(_weights.Image(o), diffDst[o], diffSrc, diffSrc);
        }
    }
}

/// <summary>diffWeights[o] = sum over n of diffDst[n,o] * src[n]; diffBias[o] = sum over n of diffDst[n,o].</summary>
internal sealed class ReferenceInnerProductBackwardWeights(InnerProductBackwardWeights operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly InnerProductSpec _spec = operation.Spec;
    private readonly ReferenceBuffer _src = Buffer(buffers, operation.Src);
    private readonly ReferenceBuffer _diffDst = Buffer(buffers, operation.DiffDst);
    private readonly ReferenceBuffer _diffWeights = Buffer(buffers, operation.DiffWeights);
    private readonly ReferenceBuffer? _diffBias = Optional(buffers, operation.DiffBias);

    protected override void Run(in StepContext context) => ForEach(_spec.Outputs, _spec.Flops, Output);

    private void Output(int o)
    {
        Span<double> diffWeights = _diffWeights.Image(o);
        diffWeights.Clear();
        double diffBias = 0;
        for (int n = 0; n < _spec.Src.N; n++)
        {
            double g = _diffDst.Image(n)[o];
            TensorPrimitives.MultiplyAdd(_src.Image(n), g, diffWeights, diffWeights);
            diffBias += g;
        }

        if (_diffBias is not null)
        {
            _diffBias.Vector[o] = diffBias;
        }
    }
}
