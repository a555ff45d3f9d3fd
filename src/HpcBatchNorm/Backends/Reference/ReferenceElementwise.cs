using System.Numerics.Tensors;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>dst = f(src), one image at a time.</summary>
internal sealed class ReferenceActivationForward(ActivationForward operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly Func<double, double> _function = ReferenceActivations.Of(operation.Function).Value;
    private readonly ReferenceBuffer _src = Buffer(buffers, operation.Src);
    private readonly ReferenceBuffer _dst = Buffer(buffers, operation.Dst);

    protected override void Run(in StepContext context) => ForEach(operation.Src.Shape.N, operation.Src.Shape.Count, Image);

    private void Image(int n)
    {
        Span<double> src = _src.Image(n), dst = _dst.Image(n);
        for (int i = 0; i < src.Length; i++)
        {
            dst[i] = _function(src[i]);
        }
    }
}

/// <summary>diffSrc = diffDst * f'(src), the derivative written in terms of src or of dst = f(src), whichever was kept.</summary>
internal sealed class ReferenceActivationBackward(ActivationBackward operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly Func<double, double, double> _gradient = ReferenceActivations.Of(operation.Function).Gradient;
    private readonly ReferenceBuffer _kept = Buffer(buffers, operation.Kept);
    private readonly ReferenceBuffer _diffDst = Buffer(buffers, operation.DiffDst);
    private readonly ReferenceBuffer _diffSrc = Buffer(buffers, operation.DiffSrc);

    protected override void Run(in StepContext context) => ForEach(operation.Kept.Shape.N, operation.Kept.Shape.Count, Image);

    private void Image(int n)
    {
        Span<double> kept = _kept.Image(n), diffDst = _diffDst.Image(n), diffSrc = _diffSrc.Image(n);
        for (int i = 0; i < kept.Length; i++)
        {
            diffSrc[i] = _gradient(kept[i], diffDst[i]);
        }
    }
}

/// <summary>The counter-based mask of <see cref="DropoutSpec"/>, forward and backward alike.</summary>
internal sealed class ReferenceDropout(Dropout operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer _src = Buffer(buffers, operation.Src);
    private readonly ReferenceBuffer _dst = Buffer(buffers, operation.Dst);

    protected override void Run(in StepContext context)
    {
        DropoutSpec spec = operation.Spec;
        uint stepLow = (uint)context.Step, stepHigh = (uint)(context.Step >> 32);
        long element = 0;
        (uint X, uint Y, uint Z, uint W) words = default;
        for (int n = 0; n < spec.Src.N; n++)
        {
            Span<double> src = _src.Image(n), dst = _dst.Image(n);
            for (int i = 0; i < src.Length; i++, element++)
            {
                if (element % 4 == 0)
                {
                    words = CounterRandom.Words(spec.Seed, (uint)(element / 4), spec.Stream, stepLow, stepHigh);
                }

                uint word = (element % 4) switch { 0 => words.X, 1 => words.Y, 2 => words.Z, _ => words.W };
                dst[i] = word >= spec.Threshold ? src[i] * spec.KeptScale : 0;
            }
        }
    }
}

/// <summary>dst = src.</summary>
internal sealed class ReferenceCopy(Copy operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer _src = Buffer(buffers, operation.Src);
    private readonly ReferenceBuffer _dst = Buffer(buffers, operation.Dst);

    protected override void Run(in StepContext context)
    {
        for (int n = 0; n < operation.Src.Shape.N; n++)
        {
            _src.Image(n).CopyTo(_dst.Image(n));
        }
    }
}

/// <summary>dst = srcs[0] + srcs[1] + ..., added in that order.</summary>
internal sealed class ReferenceSum(Sum operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer[] _srcs = Buffers(buffers, operation.Srcs);
    private readonly ReferenceBuffer _dst = Buffer(buffers, operation.Dst);

    protected override void Run(in StepContext context)
    {
        for (int n = 0; n < operation.Dst.Shape.N; n++)
        {
            Span<double> dst = _dst.Image(n);
            TensorPrimitives.Add(_srcs[0].Image(n), _srcs[1].Image(n), dst);
            for (int s = 2; s < _srcs.Length; s++)
            {
                TensorPrimitives.Add(dst, _srcs[s].Image(n), dst);
            }
        }
    }
}

/// <summary>dst[n,c,y,x] = (src[n,y,x,c] - mean[c]) * inverseDeviation[c].</summary>
internal sealed class ReferencePrepareInput(PrepareInput operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer _src = Buffer(buffers, operation.Src);
    private readonly ReferenceBuffer _dst = Buffer(buffers, operation.Dst);

    protected override void Run(in StepContext context) => ForEach(operation.Src.Shape.N, operation.Src.Shape.Count, Image);

    private void Image(int n)
    {
        Span<double> pixels = _src.Image(n);
        int channels = operation.Src.Shape.C;
        for (int c = 0; c < channels; c++)
        {
            double mean = operation.Mean[c], inverseDeviation = operation.InverseDeviation[c];
            Span<double> dst = _dst.Plane(n, c);
            for (int p = 0; p < dst.Length; p++)
            {
                dst[p] = (pixels[p * channels + c] - mean) * inverseDeviation;
            }
        }
    }
}
