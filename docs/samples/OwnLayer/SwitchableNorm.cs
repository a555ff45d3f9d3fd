using System.Buffers;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace OwnLayer;

/// <summary>
/// A variant of batch normalization (after Luo et al. 2019, "Switchable normalization"): each channel learns how far to trust the statistics of the batch,
/// and how far those of the image's own layer. With w = sigmoid(blend), per channel:
/// mean = w * batch mean + (1 - w) * layer mean, variance likewise, dst = scale * (src - mean) / sqrt(variance + epsilon) + shift.
/// At inference running statistics stand for those of the batch; a layer's statistics are the image's own then too.
/// </summary>
/// <remarks>
/// A layer is a record: its properties say everything about it, and it has no memory. Whatever changes is a parameter, a running statistic or a saved
/// tensor, which the library keeps.
/// </remarks>
public sealed record SwitchableNorm(float Epsilon = 1e-5f, float AveragingFactor = 0.1f) : CustomLayer
{
    /// <summary>What network files call it. Register it once, before such a file is read or written.</summary>
    public override string Type => "switchable_norm";

    /// <summary>Makes the type known to network files.</summary>
    public static void Register() => LayerTypes.Register("switchable_norm", Read);

    /// <summary>The output has the shape of the only input. Throw an <see cref="ArgumentException"/> for inputs that do not fit.</summary>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => inputs[0];

    /// <summary>
    /// The kind decides what becomes of a parameter: weights are decayed, scales and shifts are not, running statistics are not learned but updated by
    /// <see cref="Forward"/>. All of them are in checkpoints.
    /// </summary>
    public override IReadOnlyList<ParameterSpec> Parameters(IReadOnlyList<Shape> inputs)
    {
        Shape channels = Shape.Vector(inputs[0].C);
        return
        [
            new ParameterSpec("scale", channels, ParameterKind.ScaleShiftBias, Initializer.Constant(1)),
            new ParameterSpec("shift", channels, ParameterKind.ScaleShiftBias, Initializer.Constant(0)),
            new ParameterSpec("blend", channels, ParameterKind.ScaleShiftBias, Initializer.Constant(0)), // half and half
            new ParameterSpec("running_mean", channels, ParameterKind.RunningStatistic, Initializer.Constant(0)),
            new ParameterSpec("running_variance", channels, ParameterKind.RunningStatistic, Initializer.Constant(1)),
        ];
    }

    /// <summary>What Backward needs besides the input. Computing it again would do as well; these are small.</summary>
    public override IReadOnlyList<NamedShape> Saved(IReadOnlyList<Shape> inputs) =>
    [
        new NamedShape("mean", Shape.Vector(inputs[0].C)),
        new NamedShape("variance", Shape.Vector(inputs[0].C)),
        new NamedShape("layer_mean", Shape.Vector(inputs[0].N)),
        new NamedShape("layer_variance", Shape.Vector(inputs[0].N)),
    ];

    /// <inheritdoc/>
    public override void Forward(in ForwardContext context)
    {
        Shape shape = context.SrcShape();
        ReadOnlySpan<float> src = context.Src(), scale = context.Parameter("scale"), shift = context.Parameter("shift"), blend = context.Parameter("blend");
        Span<float> dst = context.Dst;
        Span<float> mean = context.Saved("mean"), variance = context.Saved("variance");
        Span<float> layerMean = context.Saved("layer_mean"), layerVariance = context.Saved("layer_variance");
        if (context.Statistics == BatchNormStatistics.Running)
        {
            context.Parameter("running_mean").CopyTo(mean);
            context.Parameter("running_variance").CopyTo(variance);
        }
        else
        {
            for (int c = 0; c < shape.C; c++)
            {
                (mean[c], variance[c]) = Moments(src, start: c * shape.Area, shape.N, stride: shape.ImageCount, length: shape.Area);
            }

            context.UpdateRunning("running_mean", mean, AveragingFactor);
            context.UpdateRunning("running_variance", variance, AveragingFactor);
        }

        for (int n = 0; n < shape.N; n++)
        {
            (layerMean[n], layerVariance[n]) = Moments(src, start: n * shape.ImageCount, pieces: 1, stride: 0, length: shape.ImageCount);
            for (int c = 0; c < shape.C; c++)
            {
                float w = Sigmoid(blend[c]);
                float m = w * mean[c] + (1 - w) * layerMean[n];
                float factor = scale[c] / MathF.Sqrt(w * variance[c] + (1 - w) * layerVariance[n] + Epsilon);
                int start = n * shape.ImageCount + c * shape.Area;
                for (int i = start; i < start + shape.Area; i++)
                {
                    dst[i] = (src[i] - m) * factor + shift[c];
                }
            }
        }
    }

    /// <inheritdoc/>
    public override void Backward(in BackwardContext context)
    {
        Shape shape = context.SrcShape();
        ReadOnlySpan<float> src = context.Src(), diffDst = context.DiffDst, scale = context.Parameter("scale"), blend = context.Parameter("blend");
        ReadOnlySpan<float> mean = context.Saved("mean"), variance = context.Saved("variance");
        ReadOnlySpan<float> layerMean = context.Saved("layer_mean"), layerVariance = context.Saved("layer_variance");
        Span<float> diffSrc = context.DiffSrc();
        Span<float> diffScale = context.DiffParameter("scale"), diffShift = context.DiffParameter("shift"), diffBlend = context.DiffParameter("blend");

        // Scratch memory: rented, so that a step allocates nothing once the pool has warmed up.
        float[] rented = ArrayPool<float>.Shared.Rent(2 * (shape.C + shape.N));
        Span<float> diffMean = rented.AsSpan(0, shape.C), diffVariance = rented.AsSpan(shape.C, shape.C);
        Span<float> diffLayerMean = rented.AsSpan(2 * shape.C, shape.N), diffLayerVariance = rented.AsSpan(2 * shape.C + shape.N, shape.N);
        rented.AsSpan(0, 2 * (shape.C + shape.N)).Clear();

        // Gradients are to be set, not added to: what was in the memory before is undefined.
        diffScale.Clear();
        diffShift.Clear();
        diffBlend.Clear();
        for (int n = 0; n < shape.N; n++)
        {
            for (int c = 0; c < shape.C; c++)
            {
                float w = Sigmoid(blend[c]), m = w * mean[c] + (1 - w) * layerMean[n];
                float inverse = 1 / MathF.Sqrt(w * variance[c] + (1 - w) * layerVariance[n] + Epsilon);
                float sum = 0, sumOfProducts = 0;
                int start = n * shape.ImageCount + c * shape.Area;
                for (int i = start; i < start + shape.Area; i++)
                {
                    sum += diffDst[i];
                    sumOfProducts += diffDst[i] * (src[i] - m);
                    diffSrc[i] = diffDst[i] * scale[c] * inverse; // the direct path
                }

                diffShift[c] += sum;
                diffScale[c] += sumOfProducts * inverse;
                float byMean = -scale[c] * inverse * sum, byVariance = -0.5f * scale[c] * inverse * inverse * inverse * sumOfProducts;
                diffBlend[c] += w * (1 - w) * (byMean * (mean[c] - layerMean[n]) + byVariance * (variance[c] - layerVariance[n]));
                diffMean[c] += w * byMean;
                diffVariance[c] += w * byVariance;
                diffLayerMean[n] += (1 - w) * byMean;
                diffLayerVariance[n] += (1 - w) * byVariance;
            }
        }

        // The paths through the statistics. Running ones are constants: nothing flows through them.
        if (context.Statistics == BatchNormStatistics.Running)
        {
            diffMean.Clear();
            diffVariance.Clear();
        }

        float perChannel = 1f / (shape.N * shape.Area), perLayer = 1f / shape.ImageCount;
        for (int n = 0; n < shape.N; n++)
        {
            for (int c = 0; c < shape.C; c++)
            {
                int start = n * shape.ImageCount + c * shape.Area;
                for (int i = start; i < start + shape.Area; i++)
                {
                    diffSrc[i] += perChannel * (diffMean[c] + 2 * diffVariance[c] * (src[i] - mean[c]))
                        + perLayer * (diffLayerMean[n] + 2 * diffLayerVariance[n] * (src[i] - layerMean[n]));
                }
            }
        }

        ArrayPool<float>.Shared.Return(rented);
    }

    /// <summary>The properties, for network files; those with their usual values are left out.</summary>
    protected override void WriteAttributes(LayerWriter writer)
    {
        writer.Write("epsilon", Epsilon, unless: 1e-5f);
        writer.Write("averaging_factor", AveragingFactor, unless: 0.1f);
    }

    private static SwitchableNorm Read(LayerReader reader) => new(reader.Real("epsilon", 1e-5f), reader.Real("averaging_factor", 0.1f));

    private static float Sigmoid(float x) => 1 / (1 + MathF.Exp(-x));

    /// <summary>Mean and biased variance of pieces of equal length, in two passes over the values and in double precision.</summary>
    private static (float Mean, float Variance) Moments(ReadOnlySpan<float> values, int start, int pieces, int stride, int length)
    {
        double sum = 0, squares = 0;
        for (int p = 0; p < pieces; p++)
        {
            foreach (float value in values.Slice(start + p * stride, length))
            {
                sum += value;
            }
        }

        double mean = sum / ((double)pieces * length);
        for (int p = 0; p < pieces; p++)
        {
            foreach (float value in values.Slice(start + p * stride, length))
            {
                squares += (value - mean) * (value - mean);
            }
        }

        return ((float)mean, (float)(squares / ((double)pieces * length)));
    }
}
