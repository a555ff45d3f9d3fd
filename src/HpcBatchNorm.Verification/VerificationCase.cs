using System.IO.Hashing;
using System.Text;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>What the inputs of a case are made of; decides how tight its bounds are.</summary>
public enum InputKind
{
    /// <summary>Random real numbers: bounds grow with the length of the reductions.</summary>
    Random,

    /// <summary>
    /// Small integers whose sums and products are exact in single precision in any order, so that a reduction has no error at all.
    /// A batch normalization's mean and sum of squares are exact too.
    /// </summary>
    Exact,

    /// <summary>
    /// Random numbers and one value that is NaN or infinite. What is compared is whether results are numbers, infinite or NaN, not their values.
    /// </summary>
    NotFinite,
}

/// <summary>
/// One question put to a backend: operations that share tensors (a forward pass and its backward passes, say) and where their inputs come from.
/// Pure data.
/// </summary>
/// <param name="Name">Unique in its list, e.g. <c>batch-norm/tiny-batch/exact</c>; what <c>hpcbn verify --case</c> takes.</param>
/// <param name="Kind">What the inputs are made of.</param>
/// <param name="Operations">Executed in order.</param>
/// <param name="Inputs">Fills of every tensor that is read before it is written; tensors without one start as NaN, so that reading them shows.</param>
public sealed record VerificationCase(
    string Name, InputKind Kind, IReadOnlyList<Operation> Operations, IReadOnlyDictionary<Tensor, TensorFill> Inputs)
{
    /// <summary>The options of <c>hpcbn verify</c> that make the list this case is in, e.g. <c>--shapes layers.txt</c>; empty for the hard cases.</summary>
    public string Options { get; init; } = "";

    /// <summary>Step number and learning rate the operations are executed with.</summary>
    public StepContext Context { get; init; }

    /// <summary>What the operations compute in; <c>--precision</c>.</summary>
    public Precision Precision { get; init; }

    /// <summary>
    /// Where the backend makes the case in several ranks together, each on images of its own: how many images each rank has of the batch, in order. The operations are
    /// those of the whole batch. Empty: in one process.
    /// </summary>
    public IReadOnlyList<int> RankImages { get; init; } = [];

    /// <summary>Key of the random inputs.</summary>
    public ulong Seed { get; init; }

    /// <summary>The command that runs this case alone on <paramref name="backend"/>.</summary>
    public string Reproduce(string backend) => $"hpcbn verify --backend {backend}{(Precision == Precision.Fp32 ? "" : " --precision " + Precision.Word())}{(Options.Length == 0 ? "" : " " + Options)} --case {Quote(Name)}";

    /// <summary>The values of an input in logical order: its fill, rounded to its element type, NaN for a tensor that has none.</summary>
    internal double[] InputValues(Tensor tensor)
    {
        double[] values = new double[tensor.Shape.Count];
        if (Inputs.TryGetValue(tensor, out TensorFill? fill))
        {
            // Keyed by the tensor's name, not its position: adding an operation to a case changes no other tensor.
            ulong key = XxHash64.HashToUInt64(Encoding.UTF8.GetBytes(tensor.Name), (long)Seed);
            fill(tensor.Shape, new RandomSequence(key, stream: 0), values);
            for (int i = 0; i < values.Length; i++)
            {
                values[i] = tensor.DataType.Round(values[i]);
            }
        }
        else
        {
            Array.Fill(values, double.NaN);
        }

        return values;
    }

    /// <inheritdoc/>
    public override string ToString() => Name;

    private static string Quote(string name) => name.All(c => char.IsAsciiLetterOrDigit(c) || "/-_.:,+=x".Contains(c)) ? name : $"'{name}'";
}

/// <summary>Writes a tensor's values, in logical NCHW order (UInt8 pixels: NHWC), from a sequence of random numbers of its own.</summary>
public delegate void TensorFill(Shape shape, RandomSequence random, Span<double> values);

/// <summary>The fills the case lists use.</summary>
internal static class Fills
{
    /// <summary>The same value everywhere.</summary>
    public static TensorFill Constant(double value) => (_, _, values) => values.Fill(value);

    /// <summary>Uniform in [<paramref name="low"/>, <paramref name="high"/>).</summary>
    public static TensorFill Uniform(double low, double high) => (_, random, values) =>
    {
        foreach (ref double value in values)
        {
            value = random.NextDouble(low, high);
        }
    };

    /// <summary>Normal.</summary>
    public static TensorFill Normal(double mean, double deviation) => (_, random, values) =>
    {
        foreach (ref double value in values)
        {
            value = mean + deviation * random.NextGaussian();
        }
    };

    /// <summary>Uniform in [-1, 1) around a centre of each image's own, which is <paramref name="distance"/> further on from image to image.</summary>
    public static TensorFill ImagesApart(double distance) => (shape, random, values) =>
    {
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = (i / shape.ImageCount * distance) + random.NextDouble(-1, 1);
        }
    };

    /// <summary>Whole numbers from <paramref name="low"/> to <paramref name="high"/>, both included.</summary>
    public static TensorFill Integers(int low, int high) => (_, random, values) =>
    {
        foreach (ref double value in values)
        {
            value = low + (int)random.NextBelow((uint)(high - low + 1));
        }
    };

    /// <summary>What a ReLU leaves: half zeros, small whole numbers else, so that many pooling windows have several equal maxima.</summary>
    public static TensorFill Ties { get; } = (_, random, values) =>
    {
        foreach (ref double value in values)
        {
            value = Math.Max(0, (int)random.NextBelow(7) - 3);
        }
    };

    /// <summary>
    /// Whole numbers in pairs mean + d, mean - d per statistic (benchdnn's idea): sums and sums of squared deviations are exact in any order.
    /// </summary>
    public static TensorFill ExactMean(bool perActivation) => (shape, random, values) =>
    {
        int area = shape.Area, statistics = perActivation ? shape.ImageCount : shape.C;
        int count = values.Length / statistics;
        for (int s = 0; s < statistics; s++)
        {
            int mean = (int)random.NextBelow(9) - 4, deviation = 0;
            for (int k = 0; k < count; k++)
            {
                deviation = k % 2 == 1 ? -deviation : k == count - 1 ? 0 : 1 + (int)random.NextBelow(4);
                int index = perActivation ? k * shape.ImageCount + s : ((k / area * shape.C) + s) * area + k % area;
                values[index] = mean + deviation;
            }
        }
    };

    /// <summary>Exactly between two neighbours of a 16-bit type, where rounding must choose the even one.</summary>
    public static TensorFill HalfWay(DataType narrow) => (_, random, values) =>
    {
        foreach (ref double value in values)
        {
            double base2 = Math.ScaleB(random.NextBelow(2) == 0 ? 1 : -1, (int)random.NextBelow(13) - 6), quantum = 2 * narrow.UnitRoundoff();
            value = base2 * (1 + quantum * ((int)random.NextBelow((uint)(1 / quantum)) + 0.5));
        }
    };

    /// <summary>Powers of two from 1/2 to 2, either sign: scales that add no rounding.</summary>
    public static TensorFill PowersOfTwo { get; } = (_, random, values) =>
    {
        foreach (ref double value in values)
        {
            uint draw = random.NextBelow(6);
            value = Math.ScaleB(draw % 2 == 0 ? 1 : -1, (int)(draw / 2) - 1);
        }
    };
}
