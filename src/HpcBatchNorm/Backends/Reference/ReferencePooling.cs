using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>The part of a pooling window that lies inside the image: rows [Top, Bottom), columns [Left, Right).</summary>
internal readonly record struct PoolingWindow(int Top, int Bottom, int Left, int Right)
{
    /// <summary>The window of output row <paramref name="y"/> and column <paramref name="x"/>.</summary>
    public static PoolingWindow At(in PoolingSpec spec, int y, int x)
    {
        int top = y * spec.StrideH - spec.PadTop, left = x * spec.StrideW - spec.PadLeft;
        return new PoolingWindow(
            Math.Max(top, 0), Math.Min(top + spec.KernelH, spec.Src.H),
            Math.Max(left, 0), Math.Min(left + spec.KernelW, spec.Src.W));
    }

    /// <summary>What an average divides by: the whole window, or the part inside the image.</summary>
    public double Divisor(in PoolingSpec spec) => spec.Kind == PoolingKind.AverageIncludePadding
        ? spec.KernelH * spec.KernelW
        : (Bottom - Top) * (Right - Left);
}

/// <summary>One plane at a time. The workspace of a maximum holds, for each output, the index y*W + x of the winner in its source plane.</summary>
internal sealed class ReferencePoolingForward : ReferenceKernel
{
    private readonly PoolingSpec _spec;
    private readonly ReferenceBuffer _src;
    private readonly ReferenceBuffer _dst;
    private readonly ReferenceBuffer? _winners;

    public ReferencePoolingForward(PoolingForward operation, BufferMap buffers, ParallelOptions parallel)
        : base(operation, buffers, parallel)
    {
        _spec = operation.Spec;
        _src = Buffer(buffers, operation.Src);
        _dst = Buffer(buffers, operation.Dst);
        _winners = _spec.Kind == PoolingKind.Max ? Optional(buffers, operation.Workspace) : null;
        _winners?.Reserve(_spec.Dst.Count);
    }

    protected override void Run(in StepContext context) =>
        ForEach(_spec.Src.N * _spec.Src.C, _spec.Dst.Count * _spec.KernelH * _spec.KernelW, Plane);

    private void Plane(int piece)
    {
        (int n, int c) = Math.DivRem(piece, _spec.Src.C);
        int height = _spec.Dst.H, width = _spec.Dst.W;
        Span<double> src = _src.Plane(n, c), dst = _dst.Plane(n, c);
        Span<double> winners = _winners is null ? default : _winners.Workspace((long)piece * _spec.Dst.Area, _spec.Dst.Area);
        for (int y = 0; y < height; y++)
        {
            for (int x = 0; x < width; x++)
            {
                PoolingWindow window = PoolingWindow.At(_spec, y, x);
                if (_spec.Kind == PoolingKind.Max)
                {
                    int winner = Winner(src, window);
                    dst[y * width + x] = src[winner];
                    if (_winners is not null)
                    {
                        winners[y * width + x] = winner;
                    }
                }
                else
                {
                    dst[y * width + x] = Sum(src, window) / window.Divisor(_spec);
                }
            }
        }
    }

    /// <summary>Index of the largest value, the first one in row-major order where several are equal; a NaN is larger than all.</summary>
    private int Winner(ReadOnlySpan<double> src, in PoolingWindow window)
    {
        int winner = window.Top * _spec.Src.W + window.Left;
        for (int y = window.Top; y < window.Bottom; y++)
        {
            for (int x = window.Left; x < window.Right; x++)
            {
                int index = y * _spec.Src.W + x;
                if (src[index] > src[winner] || double.IsNaN(src[index]))
                {
                    winner = index;
                }
            }
        }

        return winner;
    }

    private double Sum(ReadOnlySpan<double> src, in PoolingWindow window)
    {
        double sum = 0;
        for (int y = window.Top; y < window.Bottom; y++)
        {
            sum += Total(src[(y * _spec.Src.W + window.Left)..(y * _spec.Src.W + window.Right)]);
        }

        return sum;
    }
}

/// <summary>A maximum sends each output's gradient to its winner; an average shares it out over the window.</summary>
internal sealed class ReferencePoolingBackward : ReferenceKernel
{
    private readonly PoolingSpec _spec;
    private readonly ReferenceBuffer _diffDst;
    private readonly ReferenceBuffer? _winners;
    private readonly ReferenceBuffer _diffSrc;

    public ReferencePoolingBackward(PoolingBackward operation, BufferMap buffers, ParallelOptions parallel)
        : base(operation, buffers, parallel)
    {
        _spec = operation.Spec;
        _diffDst = Buffer(buffers, operation.DiffDst);
        _winners = _spec.Kind == PoolingKind.Max ? Buffer(buffers, operation.Workspace!) : null;
        _winners?.Reserve(_spec.Dst.Count);
        _diffSrc = Buffer(buffers, operation.DiffSrc);
    }

    protected override void Run(in StepContext context) =>
        ForEach(_spec.Src.N * _spec.Src.C, _spec.Dst.Count * _spec.KernelH * _spec.KernelW, Plane);

    private void Plane(int piece)
    {
        (int n, int c) = Math.DivRem(piece, _spec.Src.C);
        Span<double> diffDst = _diffDst.Plane(n, c), diffSrc = _diffSrc.Plane(n, c);
        diffSrc.Clear();
        if (_winners is not null)
        {
            Span<double> winners = _winners.Workspace((long)piece * _spec.Dst.Area, _spec.Dst.Area);
            for (int i = 0; i < diffDst.Length; i++)
            {
                diffSrc[(int)winners[i]] += diffDst[i];
            }

            return;
        }

        for (int i = 0; i < diffDst.Length; i++)
        {
            PoolingWindow window = PoolingWindow.At(_spec, i / _spec.Dst.W, i % _spec.Dst.W);
            double share = diffDst[i] / window.Divisor(_spec);
            for (int y = window.Top; y < window.Bottom; y++)
            {
                for (int x = window.Left; x < window.Right; x++)
                {
                    diffSrc[y * _spec.Src.W + x] += share;
                }
            }
        }
    }
}
