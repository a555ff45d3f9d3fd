using System.Buffers;
using System.Numerics.Tensors;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>
/// The three passes of a convolution as sums over taps k = (c, i, j). For a tile of output rows, <see cref="Gather"/> lays down the source value
/// that each output position sees through one tap, zero where it sees padding; stride, padding and dilation occur nowhere else.
/// With patch[k, p] the source under tap k at position p:
///   dst[o, p]         = bias[o] + sum over k of weights[o, k] * patch[k, p]
///   diffPatch[k, p]   = sum over o of weights[o, k] * diffDst[o, p], and diffSrc is diffPatch added back to where the patch came from
///   diffWeights[o, k] = sum over n, p of diffDst[o, p] * patch[k, p]
/// </summary>
internal readonly struct ConvolutionTiles
{
    /// <summary>Long enough for vector instructions to pay, short enough for a patch of a few hundred taps to stay in the L2 cache.</summary>
    private const int PositionsPerTile = 160;

    private readonly ConvolutionSpec _spec;
    private readonly int _rowsPerTile;

    public ConvolutionTiles(in ConvolutionSpec spec)
    {
        _spec = spec;
        _rowsPerTile = Math.Clamp(PositionsPerTile / spec.Dst.W, 1, spec.Dst.H);
        Count = (spec.Dst.H + _rowsPerTile - 1) / _rowsPerTile;
    }

    /// <summary>Tiles per output plane.</summary>
    public int Count { get; }

    /// <summary>Output positions of a full tile.</summary>
    public int Positions => _rowsPerTile * _spec.Dst.W;

    /// <summary>The output positions of tile <paramref name="tile"/> in their plane: whole rows.</summary>
    public Range Span(int tile)
    {
        int first = tile * _rowsPerTile, last = Math.Min(first + _rowsPerTile, _spec.Dst.H);
        return (first * _spec.Dst.W)..(last * _spec.Dst.W);
    }

    /// <summary>patch[p] = the value of <paramref name="src"/> (one plane) that position p of the tile sees through tap (i, j).</summary>
    public void Gather(ReadOnlySpan<double> src, int tile, int i, int j, Span<double> patch)
    {
        (int from, int to) = VisibleColumns(j);
        int width = _spec.Dst.W, stride = _spec.StrideW, left = from * stride - _spec.PadLeft + j * _spec.DilationW;
        for (int row = 0; row < patch.Length / width; row++)
        {
            Span<double> patchRow = patch.Slice(row * width, width);
            if (!TrySourceRow(tile, row, i, out int y) || from >= to)
            {
                patchRow.Clear();
                continue;
            }

            patchRow[..from].Clear();
            patchRow[to..].Clear();
            ReadOnlySpan<double> srcRow = src.Slice(y * _spec.Src.W, _spec.Src.W)[left..];
            if (stride == 1)
            {
                srcRow[..(to - from)].CopyTo(patchRow[from..]);
                continue;
            }

            for (int x = from; x < to; x++)
            {
                patchRow[x] = srcRow[(x - from) * stride];
            }
        }
    }

    /// <summary>The transpose of <see cref="Gather"/>: adds patch[p] to the element of <paramref name="src"/> it would have come from.</summary>
    public void ScatterAdd(ReadOnlySpan<double> patch, int tile, int i, int j, Span<double> src)
    {
        (int from, int to) = VisibleColumns(j);
        int width = _spec.Dst.W, stride = _spec.StrideW, left = from * stride - _spec.PadLeft + j * _spec.DilationW;
        for (int row = 0; row < patch.Length / width && from < to; row++)
        {
            if (!TrySourceRow(tile, row, i, out int y))
            {
                continue;
            }

            ReadOnlySpan<double> patchRow = patch.Slice(row * width, width)[from..to];
            Span<double> srcRow = src.Slice(y * _spec.Src.W, _spec.Src.W)[left..];
            for (int x = 0; x < patchRow.Length; x++)
            {
                srcRow[x * stride] += patchRow[x];
            }
        }
    }

    /// <summary>Output columns [from, to) whose tap in kernel column j lies inside the image: 0 &lt;= x*stride - padLeft + j*dilation &lt; W.</summary>
    private (int From, int To) VisibleColumns(int j)
    {
        int shift = _spec.PadLeft - j * _spec.DilationW, stride = _spec.StrideW;
        int from = Math.Max(0, DivideUp(shift, stride));
        int to = Math.Min(_spec.Dst.W, DivideUp(_spec.Src.W + shift, stride));
        return (from, to);
    }

    private bool TrySourceRow(int tile, int row, int i, out int y)
    {
        y = (tile * _rowsPerTile + row) * _spec.StrideH - _spec.PadTop + i * _spec.DilationH;
        return y >= 0 && y < _spec.Src.H;
    }

    /// <summary>The quotient rounded towards plus infinity, for either sign of the numerator.</summary>
    private static int DivideUp(int numerator, int denominator) =>
        numerator > 0 ? (numerator - 1) / denominator + 1 : numerator / denominator;
}

/// <summary>dst[n,o] = bias[o] + residual + sum over taps of weights[o, k] * patch[k], then ReLU if asked; one tile of one group at a time.</summary>
internal sealed class ReferenceConvolutionForward(ConvolutionForward operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ConvolutionSpec _spec = operation.Spec;
    private readonly ConvolutionTiles _tiles = new(operation.Spec);
    private readonly ReferenceConvolutionSource _src = new(operation.Src, operation.Normalization, buffers);
    private readonly ReferenceBuffer _weights = Buffer(buffers, operation.Weights);
    private readonly ReferenceBuffer? _bias = Optional(buffers, operation.Bias);
    private readonly ReferenceBuffer? _residual = Optional(buffers, operation.Residual);
    private readonly ReferenceBuffer _dst = Buffer(buffers, operation.Dst);

    protected override void Run(in StepContext context)
    {
        _src.Normalize();
        ForEach(_spec.Src.N * _spec.Groups * _tiles.Count, _spec.Flops, Tile);
    }

    private void Tile(int piece)
    {
        (piece, int tile) = Math.DivRem(piece, _tiles.Count);
        (int n, int g) = Math.DivRem(piece, _spec.Groups);
        int taps = _spec.Weights.ImageCount, groupOutputs = _spec.OutputChannels / _spec.Groups;
        Range span = _tiles.Span(tile);
        int positions = span.End.Value - span.Start.Value;

        double[] patch = ArrayPool<double>.Shared.Rent(taps * positions);
        int k = 0;
        for (int c = 0; c < _spec.Weights.C; c++)
        {
            Span<double> src = _src.Plane(n, g * _spec.Weights.C + c);
            for (int i = 0; i < _spec.KernelH; i++)
            {
                for (int j = 0; j < _spec.KernelW; j++, k++)
                {
                    _tiles.Gather(src, tile, i, j, patch.AsSpan(k * positions, positions));
                }
            }
        }

        for (int o = g * groupOutputs; o < (g + 1) * groupOutputs; o++)
        {
            Span<double> weights = _weights.Image(o);
            Span<double> dst = _dst.Plane(n, o)[span];
            double bias = _bias is null ? 0 : _bias.Vector[o];
            if (_residual is null)
            {
                dst.Fill(bias);
            }
            else
            {
                TensorPrimitives.Add(_residual.Plane(n, o)[span], bias, dst);
            }

            for (k = 0; k < taps; k++)
            {
                TensorPrimitives.MultiplyAdd(patch.AsSpan(k * positions, positions), weights[k], dst, dst);
            }

            if (operation.Relu)
            {
                TensorPrimitives.Max(dst, 0.0, dst);
            }
        }

        ArrayPool<double>.Shared.Return(patch);
    }
}

/// <summary>diffPatch[k] = sum over o of weights[o, k] * diffDst[n, o], added to diffSrc where tap k looked; one source plane at a time.</summary>
internal sealed class ReferenceConvolutionBackwardData(ConvolutionBackwardData operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ConvolutionSpec _spec = operation.Spec;
    private readonly ConvolutionTiles _tiles = new(operation.Spec);
    private readonly ReferenceBuffer _diffDst = Buffer(buffers, operation.DiffDst);
    private readonly ReferenceBuffer _weights = Buffer(buffers, operation.Weights);
    private readonly ReferenceBuffer _diffSrc = Buffer(buffers, operation.DiffSrc);

    protected override void Run(in StepContext context) => ForEach(_spec.Src.N * _spec.Src.C, _spec.Flops, Plane);

    private void Plane(int piece)
    {
        (int n, int channel) = Math.DivRem(piece, _spec.Src.C);
        (int g, int c) = Math.DivRem(channel, _spec.Weights.C);
        int groupOutputs = _spec.OutputChannels / _spec.Groups;
        Span<double> diffSrc = _diffSrc.Plane(n, channel);
        diffSrc.Clear();

        double[] buffer = ArrayPool<double>.Shared.Rent(_tiles.Positions);
        for (int tile = 0; tile < _tiles.Count; tile++)
        {
            Range span = _tiles.Span(tile);
            Span<double> diffPatch = buffer.AsSpan(0, span.End.Value - span.Start.Value);
            for (int i = 0; i < _spec.KernelH; i++)
            {
                for (int j = 0; j < _spec.KernelW; j++)
                {
                    int k = (c * _spec.KernelH + i) * _spec.KernelW + j;
                    diffPatch.Clear();
                    for (int o = g * groupOutputs; o < (g + 1) * groupOutputs; o++)
                    {
                        TensorPrimitives.MultiplyAdd(_diffDst.Plane(n, o)[span], _weights.Image(o)[k], diffPatch, diffPatch);
                    }

                    _tiles.ScatterAdd(diffPatch, tile, i, j, diffSrc);
                }
            }
        }

        ArrayPool<double>.Shared.Return(buffer);
    }
}

/// <summary>diffWeights[o, k] = sum over n, p of diffDst[n, o, p] * patch[k, p], for the taps of one source channel at a time; diffBias[o] = sum of diffDst[:, o].</summary>
internal sealed class ReferenceConvolutionBackwardWeights(ConvolutionBackwardWeights operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ConvolutionSpec _spec = operation.Spec;
    private readonly ConvolutionTiles _tiles = new(operation.Spec);
    private readonly ReferenceConvolutionSource _src = new(operation.Src, operation.Normalization, buffers);
    private readonly ReferenceBuffer _diffDst = Buffer(buffers, operation.DiffDst);
    private readonly ReferenceBuffer _diffWeights = Buffer(buffers, operation.DiffWeights);
    private readonly ReferenceBuffer? _diffBias = Optional(buffers, operation.DiffBias);

    protected override void Run(in StepContext context)
    {
        _src.Normalize();
        ForEach(_spec.Src.C, _spec.Flops, Channel);
        if (_diffBias is not null)
        {
            ForEach(_spec.OutputChannels, _spec.Dst.Count, Bias);
        }
    }

    private void Channel(int channel)
    {
        (int g, int c) = Math.DivRem(channel, _spec.Weights.C);
        int groupOutputs = _spec.OutputChannels / _spec.Groups, taps = _spec.KernelH * _spec.KernelW;
        for (int o = g * groupOutputs; o < (g + 1) * groupOutputs; o++)
        {
            _diffWeights.Plane(o, c).Clear();
        }

        double[] patch = ArrayPool<double>.Shared.Rent(taps * _tiles.Positions);
        for (int n = 0; n < _spec.Src.N; n++)
        {
            Span<double> src = _src.Plane(n, channel);
            for (int tile = 0; tile < _tiles.Count; tile++)
            {
                Range span = _tiles.Span(tile);
                int positions = span.End.Value - span.Start.Value;
                for (int k = 0; k < taps; k++)
                {
                    _tiles.Gather(src, tile, k / _spec.KernelW, k % _spec.KernelW, patch.AsSpan(k * positions, positions));
                }

                for (int o = g * groupOutputs; o < (g + 1) * groupOutputs; o++)
                {
                    ReadOnlySpan<double> diffDst = _diffDst.Plane(n, o)[span];
                    Span<double> diffWeights = _diffWeights.Plane(o, c);
                    for (int k = 0; k < taps; k++)
                    {
                        diffWeights[k] += Dot(diffDst, patch.AsSpan(k * positions, positions));
                    }
                }
            }
        }

        ArrayPool<double>.Shared.Return(patch);
    }

    private void Bias(int o)
    {
        double sum = 0;
        for (int n = 0; n < _spec.Src.N; n++)
        {
            sum += Total(_diffDst.Plane(n, o));
        }

        _diffBias!.Vector[o] = sum;
    }
}
