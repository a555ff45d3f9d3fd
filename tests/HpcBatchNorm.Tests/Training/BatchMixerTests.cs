using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>Mixup and cutmix by their definitions, pixel by pixel.</summary>
public sealed class BatchMixerTests
{
    private const int Batch = 5;
    private const int Size = 12;
    private const int Channels = 3;

    [Fact]
    public void Mixup_IsTheWeightedMeanOfAnImageAndItsPartner()
    {
        TrainingOptions options = Options() with { Mixup = 0.4f, Accumulate = 2 };
        HashSet<float> weights = [];
        for (long step = 0; step < 20; step++)
        {
            (byte[] before, byte[] after, int[] labels) = Images(2 * Batch);
            MixedLabels mixed = new BatchMixer(options, Channels).Mix(after, labels, step);
            int bytes = Size * Size * Channels;
            for (int i = 0; i < 2 * Batch; i++)
            {
                int partner = i / Batch * Batch + Batch - 1 - i % Batch; // of the same micro-batch
                Assert.Equal((labels[i], labels[partner]), (mixed.First[i], mixed.Second[i]));
                Assert.Equal(mixed.Weights[i / Batch * Batch], mixed.Weights[i]);
                for (int p = 0; p < bytes; p++)
                {
                    double exact = mixed.Weights[i] * (double)before[i * bytes + p] + (1 - mixed.Weights[i]) * (double)before[partner * bytes + p];
                    Assert.Equal(exact, after[i * bytes + p], 0.5000001); // the nearest byte
                }
            }

            weights.Add(mixed.Weights[0]);
            weights.Add(mixed.Weights[Batch]);
        }

        Assert.InRange(weights.Count, 37, 40); // one draw for each micro-batch of each step; small alphas give some that round to the same
    }

    [Fact]
    public void Cutmix_ExchangesOneRectangle_AndTheWeightIsWhatStays()
    {
        TrainingOptions options = Options() with { Cutmix = 1 };
        int cut = 0;
        for (long step = 0; step < 40; step++)
        {
            (byte[] before, byte[] after, int[] labels) = Images(Batch);
            MixedLabels mixed = new BatchMixer(options, Channels).Mix(after, labels, step);
            int bytes = Size * Size * Channels;
            foreach (int i in new[] { 0, 1, 3, 4 })
            {
                List<(int Y, int X)> exchanged = [];
                for (int p = 0; p < Size * Size; p++)
                {
                    Span<byte> now = after.AsSpan(i * bytes + p * Channels, Channels);
                    bool own = now.SequenceEqual(before.AsSpan(i * bytes + p * Channels, Channels));
                    Assert.True(own || now.SequenceEqual(before.AsSpan((Batch - 1 - i) * bytes + p * Channels, Channels)));
                    if (!own)
                    {
                        exchanged.Add((p / Size, p % Size));
                    }
                }

                Assert.Equal(1 - exchanged.Count / (double)(Size * Size), mixed.Weights[i], 1e-6);
                if (exchanged.Count > 0)
                {
                    cut++;
                    Assert.Equal(exchanged.Count, (exchanged.Max(e => e.Y) - exchanged.Min(e => e.Y) + 1) * (exchanged.Max(e => e.X) - exchanged.Min(e => e.X) + 1));
                }
            }

            Assert.Equal(before.AsSpan(2 * bytes, bytes), after.AsSpan(2 * bytes, bytes)); // its own partner
        }

        Assert.InRange(cut, 100, 160);
    }

    [Fact]
    public void Mix_IsAFunctionOfSeedAndStep()
    {
        TrainingOptions options = Options() with { Mixup = 0.2f, Cutmix = 1 };
        byte[] Mixed(TrainingOptions o, long step)
        {
            (_, byte[] pixels, int[] labels) = Images(Batch);
            new BatchMixer(o, Channels).Mix(pixels, labels, step);
            return pixels;
        }

        Assert.Equal(Mixed(options, 7), Mixed(options, 7));
        Assert.NotEqual(Mixed(options, 7), Mixed(options, 8));
        Assert.NotEqual(Mixed(options, 7), Mixed(options with { Seed = 4 }, 7));
        Assert.Equal(Images(Batch).Before, Mixed(options with { MixProbability = 0 }, 7));
    }

    /// <summary>Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2a + 1)); the bounds are five deviations of 20,000 draws.</summary>
    [Theory]
    [InlineData(0.1)]
    [InlineData(1.0)]
    [InlineData(4.0)]
    public void Beta_HasItsMeanAndVariance(double alpha)
    {
        const int Draws = 20_000;
        var random = new RandomSequence(11, 5);
        double sum = 0, squares = 0, variance = 1 / (4 * (2 * alpha + 1));
        for (int i = 0; i < Draws; i++)
        {
            double x = BatchMixer.Beta(alpha, ref random);
            Assert.InRange(x, 0, 1);
            (sum, squares) = (sum + x, squares + (x - 0.5) * (x - 0.5));
        }

        Assert.Equal(0.5, sum / Draws, 5 * Math.Sqrt(variance / Draws));
        Assert.Equal(variance, squares / Draws, 5 * 0.25 * Math.Sqrt(variance) / Math.Sqrt(Draws)); // (x - 1/2)^2 is at most 1/4, so its variance at most variance/4
    }

    private static TrainingOptions Options() => new() { Batch = Batch, Height = Size, Width = Size, Seed = 3 };

    private static (byte[] Before, byte[] After, int[] Labels) Images(int count)
    {
        // No two images have an equal pixel: an exchange shows.
        byte[] pixels = [.. Enumerable.Range(0, count * Size * Size * Channels).Select(i => (byte)(i / (Size * Size * Channels) * 25 + i % 25))];
        return (pixels, [.. pixels], [.. Enumerable.Range(0, count).Select(i => i * 3 % 7)]);
    }
}
