using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using TensorPrimitives = System.Numerics.Tensors.TensorPrimitives;

namespace HpcBatchNorm.Verification;

/// <summary>What one execution of an operation saw and made, in logical order: the same inputs on both sides, and both sides' outputs.</summary>
internal sealed class OperationValues(InputKind kind, StepContext context, IReadOnlyDictionary<Tensor, double[]> inputs)
{
    public InputKind Kind => kind;

    public StepContext Context => context;

    /// <summary>Inputs before execution, by tensor.</summary>
    public IReadOnlyDictionary<Tensor, double[]> Inputs => inputs;

    /// <summary>What the reference made of them.</summary>
    public Dictionary<Tensor, double[]> Expected { get; } = new(ReferenceEqualityComparer.Instance);

    /// <summary>What the backend under test made of them.</summary>
    public Dictionary<Tensor, double[]> Actual { get; } = new(ReferenceEqualityComparer.Instance);

    /// <summary>For linear operations: what the reference makes of the inputs' absolute values, sum |a||b| per element.</summary>
    public Dictionary<Tensor, double[]> Magnitudes { get; } = new(ReferenceEqualityComparer.Instance);

    /// <summary>|actual - expected| of an output: an error that explains part of another output's.</summary>
    public double Deviation(Tensor? tensor, long index) => tensor is null ? 0 : Math.Abs(Actual[tensor][index] - Expected[tensor][index]);
}

/// <summary>The bound of every element of one output.</summary>
internal sealed record OutputBound(string Role, Tensor Tensor, double[] Bound);

/// <summary>
/// Turns the table of <see cref="Tolerances"/> into a bound for every element of every output: computes, in double and from the inputs both
/// sides saw, the magnitudes that rounding acts on.
/// </summary>
/// <remarks>
/// Errors are explained where they arise. An output computed from another output of the same operation (dst from mean and variance, diffSrc from
/// diffScale and diffShift) is allowed the measured error of the latter, propagated, and its own roundings; the latter's error is bounded by its
/// own entry. So no bound has to assume the worst of an intermediate result.
/// </remarks>
internal static partial class ErrorModel
{
    /// <summary>True when the outputs are sums of products of inputs, so that running the reference on absolute values gives sum |a||b|.</summary>
    public static bool IsLinear(Operation operation) => operation switch
    {
        ConvolutionForward or ConvolutionBackwardData or ConvolutionBackwardWeights => true,
        InnerProductForward or InnerProductBackwardData or InnerProductBackwardWeights => true,
        PoolingForward o => o.Spec.Kind != PoolingKind.Max,
        PoolingBackward or Sum or Dropout => true,
        _ => false,
    };

    /// <summary>The bounds of all outputs except workspaces, whose contents belong to the backend.</summary>
    public static IEnumerable<OutputBound> Bounds(Operation operation, OperationValues values, string implementation) =>
        InSingle(operation, values, implementation).Select(output => RoundedOnTheWay(operation, output, values, implementation)).Select(output => output.Tensor.DataType.IsNarrow()
            ? output with { Bound = Map(output.Bound, (b, i) => Tolerances.Stored(output.Tensor.DataType, b, values.Expected[output.Tensor][i])) }
            : output);

    /// <summary>
    /// cuDNN's results are of the type of what it multiplies (<see cref="Tolerances.NarrowResult"/>): the gradient of weights is widened from it, and a bias
    /// is added to it. The former rounds at the result's magnitude, the latter at that of the result without the bias. So do sums of more than four tensors.
    /// </summary>
    private static OutputBound RoundedOnTheWay(Operation operation, OutputBound output, OperationValues values, string implementation)
    {
        if (output.Role == "diffBias" || !implementation.Contains(Tolerances.NarrowResult, StringComparison.Ordinal))
        {
            return output;
        }

        double unit = operation.Reads.First().DataType.UnitRoundoff();
        double[]? bias = operation is ConvolutionForward { Bias: { } c } ? values.Inputs[c] : operation is InnerProductForward { Bias: { } p } ? values.Inputs[p] : null;
        double[][] srcs = operation is Sum sum ? [.. sum.Srcs.Select(s => values.Inputs[s])] : [];
        Shape shape = output.Tensor.Shape;
        return output with
        {
            Bound = Map(output.Bound, (b, i) =>
                b + unit * (b + Math.Abs(values.Expected[output.Tensor][i]) + (bias is null ? 0 : Math.Abs(bias[i / shape.Area % shape.C])) + srcs.Sum(s => Math.Abs(s[i]))) + Tolerances.HalfSubnormal),
        };
    }

    /// <summary>The bounds if every output were stored in single precision, as everything within an operation is.</summary>
    private static IEnumerable<OutputBound> InSingle(Operation operation, OperationValues values, string implementation)
    {
        Arithmetic arithmetic = Tolerances.ArithmeticOf(operation.Kind, implementation);
        return operation switch
        {
            ConvolutionForward o => Convolution(o, values, arithmetic, o.Normalization, ("dst", o.Dst, o.Spec.Weights.ImageCount + 1L)),
            ConvolutionBackwardData o => Convolution(o, values, arithmetic, null,
                ("diffSrc", o.DiffSrc, (long)o.Spec.OutputChannels / o.Spec.Groups * o.Spec.KernelH * o.Spec.KernelW)),
            ConvolutionBackwardWeights o => Convolution(o, values, arithmetic, o.Normalization,
                ("diffWeights", o.DiffWeights, (long)o.Spec.Dst.N * o.Spec.Dst.Area), ("diffBias", o.DiffBias, (long)o.Spec.Dst.N * o.Spec.Dst.Area)),
            InnerProductForward o => Linear(o, values, ("dst", o.Dst, o.Spec.Src.ImageCount + 1L)),
            InnerProductBackwardData o => Linear(o, values, ("diffSrc", o.DiffSrc, o.Spec.Outputs)),
            InnerProductBackwardWeights o => Linear(o, values, ("diffWeights", o.DiffWeights, o.Spec.Src.N), ("diffBias", o.DiffBias, o.Spec.Src.N)),
            BatchNormForward o => BatchNorm(o, values, arithmetic),
            BatchNormBackward o => BatchNorm(o, values, arithmetic),
            ActivationForward o => Activation(o, values),
            ActivationBackward o => Activation(o, values),
            PoolingForward { Spec.Kind: PoolingKind.Max } o => [Selected(o, "max", "dst", o.Dst)],
            PoolingForward o => Linear(o, values, ("dst", o.Dst, (long)o.Spec.KernelH * o.Spec.KernelW)),
            PoolingBackward o => PoolingGradient(o, values, arithmetic),
            LrnForward o => LocalResponse(o, values),
            LrnBackward o => LocalResponse(o, values, arithmetic),
            Dropout o => Linear(o, values, ("dst", o.Dst, 1)),
            Copy o => [Selected(o, "dst", "dst", o.Dst)],
            Sum o => Linear(o, values, ("dst", o.Dst, o.Srcs.Count)),
            PrepareInput o => [Prepared(o, values)],
            SoftmaxCrossEntropy o => CrossEntropy(o, values),
            Softmax o => [Probabilities(o, o.Src, o.Dst, values)],
            SgdUpdate o => Sgd(o, values),
            AdamUpdate o => Adam(o, values),
            ClipGradients o => Clip(o, values),
            UpdateLossScale o => Scaled(o, values),
            AccumulateGradients o => Accumulated(o, values),
            UpdateAverage o => Average(o, values),
            ConvertParameters o => o.Copies.Select(c => Selected(o, "copy", "copy", c)),
            CustomForward o => o.Writes.Select(t => SameCode(o, t == o.Dst ? "dst" : o.Saved.Contains(t) ? "saved" : "running statistic", t)),
            CustomBackward o => o.Writes.Select(t => SameCode(o, o.DiffSrcs.Contains(t) ? "diffSrc" : "diffParameter", t)),
            _ => throw new NotSupportedException($"The verification has no error model for '{operation.Kind}'."),
        };
    }

    private static IEnumerable<OutputBound> Linear(Operation o, OperationValues values, params (string Role, Tensor? Tensor, long Length)[] outputs)
    {
        foreach ((string role, Tensor? tensor, long length) in outputs)
        {
            if (tensor is not null)
            {
                Tolerance tolerance = Tolerances.Of(o.Kind, role);
                yield return new OutputBound(role, tensor, Map(values.Magnitudes[tensor], m => tolerance.Bound(values.Kind, m, m, length)));
            }
        }
    }

    private static IEnumerable<OutputBound> Convolution(
        Operation o, OperationValues values, Arithmetic arithmetic, SourceNormalization? normalization, params (string Role, Tensor? Tensor, long Length)[] outputs)
    {
        foreach ((string role, Tensor? tensor, long length) in outputs)
        {
            if (tensor is null)
            {
                continue;
            }

            // The bias gradient is a plain sum, whatever computes the weights' gradient.
            bool winograd = arithmetic is Arithmetic.Winograd or Arithmetic.NativeWinograd && role != "diffBias";
            Tolerance tolerance = Tolerances.Of(o.Kind, role, winograd ? arithmetic : Arithmetic.Ordinary);

            // A Winograd tile mixes all its inputs into all its outputs: an element suffers the magnitude of the largest in reach of its tile.
            double[] magnitude = winograd ? LargestNearby(values.Magnitudes[tensor], tensor.Shape, reach: 4) : values.Magnitudes[tensor];
            double terms = length;
            if (winograd && o is ConvolutionBackwardWeights weights)
            {
                // The reduction runs over tiles, and the transforms bring 6x6 rounded terms of each, also where the image fills only a part of it.
                terms = Math.Max(length, 36.0 * weights.Spec.Dst.N * AddTiles(weights, values, magnitude));
            }

            // What normalization rounds comes before the products, each of which passes on its factor's share; no value is exact behind it. The bias gradient reads no src.
            bool rounded = normalization is not null && role != "diffBias";
            Tolerance ofSrc = rounded ? Tolerances.Of("batch-norm forward", "dst") : default;
            InputKind kind = rounded ? InputKind.Random : values.Kind;
            yield return new OutputBound(role, tensor, Map(magnitude, m => tolerance.Bound(kind, m, m, terms) + ofSrc.Bound(kind, m, 0, 1)));
        }
    }

    private static IEnumerable<OutputBound> PoolingGradient(PoolingBackward o, OperationValues values, Arithmetic arithmetic)
    {
        PoolingSpec s = o.Spec;
        long windows = (long)((s.KernelH + s.StrideH - 1) / s.StrideH) * ((s.KernelW + s.StrideW - 1) / s.StrideW);
        bool max = s.Kind == PoolingKind.Max;
        Tolerance tolerance = Tolerances.Of(o.Kind, max ? "max" : "diffSrc");
        InputKind kind = max ? values.Kind : InputKind.Random;

        // The shares of all windows but the last may be added up in the type of diffSrc, where small integers still are exact.
        double roundings = kind == InputKind.Exact ? 0 : windows - 1;
        yield return new OutputBound("diffSrc", o.DiffSrc, Map(values.Magnitudes[o.DiffSrc],
            m => tolerance.Bound(kind, m, m, windows) + Tolerances.Intermediate(o.DiffSrc.DataType, arithmetic, roundings, m)));
    }

    /// <summary>An output whose elements are copies of inputs.</summary>
    private static OutputBound Selected(Operation o, string entry, string role, Tensor tensor)
    {
        Tolerance tolerance = Tolerances.Of(o.Kind, entry);
        double[] bound = new double[tensor.Shape.Count];
        Array.Fill(bound, tolerance.Rounding == 0 ? 0 : throw new InvalidOperationException($"{o.Kind} {role} is not a selection."));
        return new OutputBound(role, tensor, bound);
    }

    /// <summary>
    /// An output of an operation of one's own. Both sides call the same code on the same single-precision values, equally aligned in memory: there is one
    /// right answer, whatever the code computes. What is compared is everything around it: layouts, copies, lifetimes, and that the code sets all it should
    /// and reads nothing else. Whether it computes the right thing is for <see cref="GradientCheck"/>.
    /// </summary>
    private static OutputBound SameCode(Operation o, string role, Tensor tensor) => Selected(o, role, role, tensor);

    private static IEnumerable<OutputBound> LocalResponse(LrnForward o, OperationValues values)
    {
        Tolerance tolerance = Tolerances.Of(o.Kind, "dst");
        return [new OutputBound("dst", o.Dst, Map(values.Expected[o.Dst], y => tolerance.Bound(values.Kind, Math.Abs(y), 0, 1)))];
    }

    private static IEnumerable<OutputBound> LocalResponse(LrnBackward o, OperationValues values, Arithmetic arithmetic)
    {
        // diffSrc[c] = dy[c]*s[c]^-beta - 2*alpha*beta/size * x[c] * sum over c' near c of dy[c']*x[c']*s[c']^(-beta-1).
        LrnSpec spec = o.Spec;
        Shape shape = spec.Src;
        double[] x = values.Inputs[o.Src], dy = values.Inputs[o.DiffDst], bound = new double[x.Length], power = new double[x.Length];
        Tolerance tolerance = Tolerances.Of(o.Kind, "diffSrc");
        int half = spec.Size / 2, area = shape.Area;
        double perSize = (double)spec.Alpha / spec.Size;
        double SumNear(int index, Func<int, double> term)
        {
            int c = index / area % shape.C;
            double sum = 0;
            for (int d = Math.Max(-half, -c); d <= Math.Min(half, shape.C - 1 - c); d++)
            {
                sum += term(index + d * area);
            }

            return sum;
        }

        for (int i = 0; i < x.Length; i++)
        {
            power[i] = spec.K + perSize * SumNear(i, j => x[j] * x[j]);
        }

        for (int i = 0; i < x.Length; i++)
        {
            double direct = Math.Abs(dy[i]) * Math.Pow(power[i], -spec.Beta);
            double through = 2 * perSize * spec.Beta * Math.Abs(x[i]) * SumNear(i, j => Math.Abs(dy[j] * x[j]) * Math.Pow(power[j], -spec.Beta - 1));

            // A workspace of two factors per element in the type of src.
            bound[i] = tolerance.Bound(values.Kind, direct + through, through, spec.Size)
                + Tolerances.Intermediate(o.DiffSrc.DataType, arithmetic, roundings: 2, direct + through);
        }

        return [new OutputBound("diffSrc", o.DiffSrc, bound)];
    }

    private static OutputBound Prepared(PrepareInput o, OperationValues values)
    {
        Tolerance tolerance = Tolerances.Of(o.Kind, "dst");
        Shape shape = o.Dst.Shape;
        double[] src = values.Inputs[o.Src], bound = new double[src.Length];
        for (int i = 0; i < src.Length; i++)
        {
            int c = i % shape.C, pixel = i / shape.C;
            long index = ((long)(pixel / shape.Area) * shape.C + c) * shape.Area + pixel % shape.Area;
            bound[index] = tolerance.Bound(values.Kind, (src[i] + Math.Abs(o.Mean[c])) * Math.Abs(o.InverseDeviation[c]), 0, 1);
        }

        return new OutputBound("dst", o.Dst, bound);
    }

    private static double[] Map(double[] source, Func<double, double> f) => Array.ConvertAll(source, x => f(x));

    private static double[] Map(double[] source, Func<double, int, double> f)
    {
        double[] result = new double[source.Length];
        for (int i = 0; i < result.Length; i++)
        {
            result[i] = f(source[i], i);
        }

        return result;
    }

    /// <summary>
    /// Raises the magnitude of each pair of channels to what Winograd's tiles see: per tile of 4x4 outputs, the largest |diffDst| times the largest |src|
    /// of its 6x6 inputs. Where zeros of the two never meet under a tap (gradients of dead ReLUs) the plain sum is zero, but the transforms mix them. Returns the tiles of an image.
    /// </summary>
    private static int AddTiles(ConvolutionBackwardWeights o, OperationValues values, double[] magnitude)
    {
        const int Tile = 4;
        ConvolutionSpec spec = o.Spec;
        Shape dst = spec.Dst;
        int rows = (dst.H + Tile - 1) / Tile, columns = (dst.W + Tile - 1) / Tile, taps = spec.KernelH * spec.KernelW;
        int count = rows * columns;
        double[] outputs = Largest(values.Inputs[o.DiffDst], dst, 0, 0, Tile);
        double[] inputs = Largest(o.Normalization is { } n ? NormalizedMagnitudes(o.Src, n, values) : values.Inputs[o.Src], spec.Src, -spec.PadTop, -spec.PadLeft, Tile + spec.KernelH - 1);
        Parallel.For(0, dst.C, output =>
        {
            for (int input = 0; input < spec.Src.C; input++)
            {
                double sum = 0;
                for (int n = 0; n < dst.N; n++)
                {
                    sum += TensorPrimitives.Dot<double>(
                        outputs.AsSpan((n * dst.C + output) * count, count), inputs.AsSpan((n * spec.Src.C + input) * count, count));
                }

                foreach (ref double element in magnitude.AsSpan((output * spec.Src.C + input) * taps, taps))
                {
                    element = Math.Max(element, sum);
                }
            }
        });
        return count;

        double[] Largest(double[] data, Shape shape, int top, int left, int extent)
        {
            double[] largest = new double[shape.N * shape.C * count];
            for (int plane = 0; plane < shape.N * shape.C; plane++)
            {
                for (int tile = 0; tile < count; tile++)
                {
                    int y0 = tile / columns * Tile + top, x0 = tile % columns * Tile + left;
                    for (int y = Math.Max(0, y0); y < Math.Min(shape.H, y0 + extent); y++)
                    {
                        for (int x = Math.Max(0, x0); x < Math.Min(shape.W, x0 + extent); x++)
                        {
                            ref double value = ref largest[plane * count + tile];
                            value = Math.Max(value, Math.Abs(data[plane * shape.Area + y * shape.W + x]));
                        }
                    }
                }
            }

            return largest;
        }
    }

    /// <summary>The largest value within <paramref name="reach"/> rows and columns of each element of each channel.</summary>
    private static double[] LargestNearby(double[] values, Shape shape, int reach)
    {
        double[] rows = new double[values.Length], result = new double[values.Length];
        for (int plane = 0; plane < values.Length; plane += shape.Area)
        {
            for (int y = 0; y < shape.H; y++)
            {
                for (int x = 0; x < shape.W; x++)
                {
                    double largest = 0;
                    for (int k = Math.Max(0, x - reach); k <= Math.Min(shape.W - 1, x + reach); k++)
                    {
                        largest = Math.Max(largest, values[plane + y * shape.W + k]);
                    }

                    rows[plane + y * shape.W + x] = largest;
                }
            }

            for (int y = 0; y < shape.H; y++)
            {
                for (int x = 0; x < shape.W; x++)
                {
                    double largest = 0;
                    for (int k = Math.Max(0, y - reach); k <= Math.Min(shape.H - 1, y + reach); k++)
                    {
                        largest = Math.Max(largest, rows[plane + k * shape.W + x]);
                    }

                    result[plane + y * shape.W + x] = largest;
                }
            }
        }

        return result;
    }
}
