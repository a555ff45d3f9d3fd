using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>What a convolution reads: src, or src normalized on its way in (<see cref="SourceNormalization"/>), which is kept in memory of its own meanwhile.</summary>
internal sealed class ReferenceConvolutionSource
{
    private readonly SourceNormalization? _normalization;
    private readonly ReferenceBuffer _src;
    private readonly ReferenceBuffer[] _parameters;
    private readonly double[] _normalized;

    public ReferenceConvolutionSource(Tensor src, SourceNormalization? normalization, BufferMap buffers)
    {
        _normalization = normalization;
        _src = (ReferenceBuffer)buffers[src];
        _parameters = normalization is null ? [] : [.. normalization.Tensors.Select(t => (ReferenceBuffer)buffers[t])];
        _normalized = new double[normalization is null ? 0 : src.Shape.Count];
    }

    /// <summary>To be called before the planes are read: y = scale * (x - mean) / sqrt(variance + epsilon) + shift, and ReLU.</summary>
    public void Normalize()
    {
        if (_normalization is not { } normalization)
        {
            return;
        }

        Shape shape = normalization.Spec.Src;
        for (int plane = 0; plane < shape.N * shape.C; plane++)
        {
            (int n, int c) = Math.DivRem(plane, shape.C);
            double scale = _parameters[0].Vector[c], shift = _parameters[1].Vector[c], mean = _parameters[2].Vector[c];
            double inverseDeviation = normalization.Spec.InverseDeviation(_parameters[3].Vector[c]);
            Span<double> x = _src.Plane(n, c), y = _normalized.AsSpan(plane * shape.Area, shape.Area);
            for (int p = 0; p < y.Length; p++)
            {
                double value = scale * ((x[p] - mean) * inverseDeviation) + shift;
                y[p] = normalization.Spec.Relu ? Math.Max(0, value) : value;
            }
        }
    }

    /// <summary>Channel <paramref name="c"/> of image <paramref name="n"/> as the convolution sees it.</summary>
    public Span<double> Plane(int n, int c) => _normalization is { Spec.Src: var shape }
        ? _normalized.AsSpan((n * shape.C + c) * shape.Area, shape.Area)
        : _src.Plane(n, c);
}
