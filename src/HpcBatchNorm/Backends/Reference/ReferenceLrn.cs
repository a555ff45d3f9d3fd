using System.Buffers;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>s[c] = K + Alpha/Size * sum of src[c']^2 over the Size channels around c (those that exist): the base of both passes.</summary>
internal static class LrnScale
{
    /// <summary>First channel of the window around <paramref name="c"/>, and the one after its last.</summary>
    public static (int From, int To) Window(in LrnSpec spec, int c) => (Math.Max(0, c - spec.Size / 2), Math.Min(spec.Src.C, c + spec.Size / 2 + 1));

    /// <summary>s for one position (row-major index <paramref name="p"/>) of an image.</summary>
    public static double At(in LrnSpec spec, ReadOnlySpan<double> image, int c, int p)
    {
        (int from, int to) = Window(spec, c);
        double squares = 0;
        for (int other = from; other < to; other++)
        {
            double x = image[other * spec.Src.Area + p];
            squares += x * x;
        }

        return spec.K + (double)spec.Alpha / spec.Size * squares;
    }
}

/// <summary>dst[c] = src[c] * s[c]^-Beta.</summary>
internal sealed class ReferenceLrnForward(LrnForward operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly LrnSpec _spec = operation.Spec;
    private readonly ReferenceBuffer _src = Buffer(buffers, operation.Src);
    private readonly ReferenceBuffer _dst = Buffer(buffers, operation.Dst);

    protected override void Run(in StepContext context) => ForEach(_spec.Src.N * _spec.Src.C, _spec.Src.Count * 32, Plane);

    private void Plane(int piece)
    {
        (int n, int c) = Math.DivRem(piece, _spec.Src.C);
        Span<double> image = _src.Image(n), src = _src.Plane(n, c), dst = _dst.Plane(n, c);
        for (int p = 0; p < dst.Length; p++)
        {
            dst[p] = src[p] * Math.Pow(LrnScale.At(_spec, image, c, p), -_spec.Beta);
        }
    }
}

/// <summary>
/// src[c] enters its own output directly and, through s, every output whose window holds c:
/// diffSrc[c] = diffDst[c] * s[c]^-Beta - 2*Alpha*Beta/Size * src[c] * sum over those c' of diffDst[c'] * src[c'] * s[c']^(-Beta-1).
/// Recomputes s from src; the workspace is for backends that keep it.
/// </summary>
internal sealed class ReferenceLrnBackward(LrnBackward operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly LrnSpec _spec = operation.Spec;
    private readonly ReferenceBuffer _src = Buffer(buffers, operation.Src);
    private readonly ReferenceBuffer _diffDst = Buffer(buffers, operation.DiffDst);
    private readonly ReferenceBuffer _diffSrc = Buffer(buffers, operation.DiffSrc);

    protected override void Run(in StepContext context) => ForEach(_spec.Src.N, _spec.Src.Count * 64, Image);

    private void Image(int n)
    {
        int channels = _spec.Src.C, area = _spec.Src.Area;
        Span<double> src = _src.Image(n), diffDst = _diffDst.Image(n), diffSrc = _diffSrc.Image(n);
        double[] direct = ArrayPool<double>.Shared.Rent(channels), through = ArrayPool<double>.Shared.Rent(channels);
        for (int p = 0; p < area; p++)
        {
            for (int c = 0; c < channels; c++)
            {
                double s = LrnScale.At(_spec, src, c, p);
                direct[c] = diffDst[c * area + p] * Math.Pow(s, -_spec.Beta);
                through[c] = direct[c] * src[c * area + p] / s;
            }

            for (int c = 0; c < channels; c++)
            {
                (int from, int to) = LrnScale.Window(_spec, c);
                double sum = Total(through.AsSpan(from..to));
                diffSrc[c * area + p] = direct[c] - 2 * (double)_spec.Alpha * _spec.Beta / _spec.Size * src[c * area + p] * sum;
            }
        }

        ArrayPool<double>.Shared.Return(direct);
        ArrayPool<double>.Shared.Return(through);
    }
}
