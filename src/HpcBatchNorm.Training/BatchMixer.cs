using HpcBatchNorm.Data;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Training;

/// <summary>
/// Mixup (Zhang et al., 1710.09412) and cutmix (Yun et al., 1905.04899) of whole batches, as timm's collating mixup in its batch mode: image i of a batch of n
/// and image n-1-i become l times themselves and 1-l times one another, or exchange a rectangle; l is drawn once per batch. Pixels are mixed as bytes, rounded
/// to the nearest. What is drawn is a function of seed and step alone.
/// </summary>
internal sealed class BatchMixer(TrainingOptions options, int channels)
{
    /// <summary>A share of 1 in the whole numbers that pixels are mixed with, so that a label's weight is exactly that of the pixels.</summary>
    private const int One = 1 << 16;

    private readonly int[] _second = new int[options.ImagesPerStep];
    private readonly float[] _weights = new float[options.ImagesPerStep];

    /// <summary>In words, for the start of a run; null when nothing is mixed.</summary>
    public static string? Description(TrainingOptions options) => !options.MixesLabels ? null : FormattableString.Invariant(
        $"mixup alpha {options.Mixup}, cutmix alpha {options.Cutmix}, of {100 * options.MixProbability:0.##} % of the batches{(options is { Mixup: > 0, Cutmix: > 0 } ? FormattableString.Invariant($", {100 * options.CutmixShare:0.##} % of them cutmix") : "")}");

    /// <summary>Mixes the images of a step in place, each of its micro-batches by itself, as each rank does its own; what is returned is good until the next call.</summary>
    /// <param name="pixels">The images, NHWC.</param>
    /// <param name="labels">Their classes.</param>
    /// <param name="step">The number of the step in the order of the data.</param>
    public MixedLabels Mix(Span<byte> pixels, ReadOnlySpan<int> labels, long step)
    {
        int bytes = pixels.Length / options.Accumulate;
        for (int k = 0; k < options.Accumulate; k++)
        {
            var random = new RandomSequence(options.Seed, RandomStreams.Mix, (uint)step, (uint)(options.Rank * options.Accumulate + k));
            Mix(pixels.Slice(k * bytes, bytes), labels.Slice(k * options.Batch, options.Batch), k * options.Batch, ref random);
        }

        return new MixedLabels(labels, _second, _weights);
    }

    /// <summary>A draw from Beta(alpha, alpha), by two gamma variables in logarithms, which do not vanish for small alphas.</summary>
    internal static double Beta(double alpha, ref RandomSequence random)
    {
        double x = LogGamma(alpha, ref random), y = LogGamma(alpha, ref random);
        return 1 / (1 + Math.Exp(y - x));
    }

    private void Mix(Span<byte> pixels, ReadOnlySpan<int> labels, int first, ref RandomSequence random)
    {
        int images = labels.Length, bytes = pixels.Length / images;
        float weight = 1;
        if (random.NextDouble() < options.MixProbability)
        {
            bool cut = options.Cutmix > 0 && (options.Mixup == 0 || random.NextDouble() < options.CutmixShare);
            double share = Beta(cut ? options.Cutmix : options.Mixup, ref random);
            (int Top, int Bottom, int Left, int Right) box = cut ? Box(share, ref random) : default;
            int own = (int)Math.Round(share * One);
            for (int i = 0; i < images / 2; i++)
            {
                Span<byte> a = pixels.Slice(i * bytes, bytes), b = pixels.Slice((images - 1 - i) * bytes, bytes);
                if (cut)
                {
                    Exchange(a, b, box.Top, box.Bottom, box.Left, box.Right);
                }
                else
                {
                    Blend(a, b, own);
                }
            }

            weight = cut ? 1 - (box.Bottom - box.Top) * (box.Right - box.Left) / (float)(options.Height * options.Width) : own / (float)One;
        }

        for (int i = 0; i < images; i++)
        {
            _second[first + i] = labels[images - 1 - i];
            _weights[first + i] = weight;
        }
    }

    /// <summary>The rectangle that is exchanged: 1 - share of the image, cut off at its borders around a centre anywhere.</summary>
    private (int Top, int Bottom, int Left, int Right) Box(double share, ref RandomSequence random)
    {
        double ratio = Math.Sqrt(1 - share);
        int halfHeight = (int)(options.Height * ratio) / 2, halfWidth = (int)(options.Width * ratio) / 2;
        int y = (int)random.NextBelow((uint)options.Height), x = (int)random.NextBelow((uint)options.Width);
        return (Math.Max(0, y - halfHeight), Math.Min(options.Height, y + halfHeight), Math.Max(0, x - halfWidth), Math.Min(options.Width, x + halfWidth));
    }

    private void Exchange(Span<byte> a, Span<byte> b, int top, int bottom, int left, int right)
    {
        for (int y = top; y < bottom; y++)
        {
            int from = (y * options.Width + left) * channels, to = (y * options.Width + right) * channels;
            for (int i = from; i < to; i++)
            {
                (a[i], b[i]) = (b[i], a[i]);
            }
        }
    }

    private static void Blend(Span<byte> a, Span<byte> b, int own)
    {
        b = b[..a.Length];
        int other = One - own;
        for (int i = 0; i < a.Length; i++)
        {
            int x = a[i], y = b[i];
            a[i] = (byte)((x * own + y * other + One / 2) >> 16);
            b[i] = (byte)((y * own + x * other + One / 2) >> 16);
        }
    }

    /// <summary>The logarithm of a gamma variable (Marsaglia and Tsang, 2000; below 1 by the variable of alpha + 1 times a power of a uniform one).</summary>
    private static double LogGamma(double alpha, ref RandomSequence random)
    {
        double d = alpha + 1 - 1.0 / 3, c = 1 / Math.Sqrt(9 * d);
        while (true)
        {
            double x = random.NextGaussian(), v = 1 + c * x, u = 1 - random.NextDouble();
            v = v * v * v;
            if (v > 0 && Math.Log(u) < 0.5 * x * x + d - d * v + d * Math.Log(v))
            {
                return Math.Log(d * v) + Math.Log(1 - random.NextDouble()) / alpha;
            }
        }
    }
}
