using System.Runtime.Intrinsics;
using HpcBatchNorm.Data;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Data;

/// <summary>What the two policies draw: torchvision's table of TrivialAugmentWide and timm's of RandAugment, by hand.</summary>
public sealed class AutomaticAugmentationTests
{
    private const int Draws = 20_000;

    /// <summary>The largest arguments of the wide space, and how many different ones there are: 31 strengths and a sign, of which 0 has none.</summary>
    [Theory]
    [InlineData("ShearX", -0.99, 0.99, 61)]
    [InlineData("ShearY", -0.99, 0.99, 61)]
    [InlineData("TranslateX", -32, 32, 61)]
    [InlineData("TranslateY", -32, 32, 61)]
    [InlineData("Rotate", -135, 135, 61)]
    [InlineData("Brightness", 0.01, 1.99, 61)]
    [InlineData("Color", 0.01, 1.99, 61)]
    [InlineData("Contrast", 0.01, 1.99, 61)]
    [InlineData("Sharpness", 0.01, 1.99, 61)]
    [InlineData("Posterize", 2, 8, 7)]
    [InlineData("Solarize", 0, 255, 31)]
    [InlineData("AutoContrast", 0, 0, 1)]
    [InlineData("Equalize", 0, 0, 1)]
    [InlineData("Identity", 0, 0, 1)]
    public void Trivial_DrawsTheWideSpace(string operation, double least, double most, int different)
    {
        var random = new RandomSequence(1, RandomStreams.Automatic);
        var arguments = new List<double>();
        for (int i = 0; i < Draws; i++)
        {
            (AutomaticAugmentation.Operation drawn, double argument) = AutomaticAugmentation.DrawTrivial(ref random);
            if (drawn.ToString() == operation)
            {
                arguments.Add(argument);
            }
        }

        // One of fourteen, within five deviations; every one of at most 61 arguments comes up among about 1,400 draws.
        Assert.Equal(Draws / 14.0, arguments.Count, 5 * Math.Sqrt(Draws * 13 / 196.0));
        Assert.Equal((least, most, different), (Math.Round(arguments.Min(), 12), Math.Round(arguments.Max(), 12), arguments.Distinct().Count()));
    }

    /// <summary>Magnitude 6 of 10 without deviation: 0.6 of each range, for an image of 100 pixels. Half of the operations are left out.</summary>
    [Theory]
    [InlineData("ShearX", -0.18, 0.18)]
    [InlineData("ShearY", -0.18, 0.18)]
    [InlineData("TranslateX", -27, 27)]
    [InlineData("TranslateY", -27, 27)]
    [InlineData("Rotate", -18, 18)]
    [InlineData("Brightness", 0.46, 1.54)]
    [InlineData("Color", 0.46, 1.54)]
    [InlineData("Contrast", 0.46, 1.54)]
    [InlineData("Sharpness", 0.46, 1.54)]
    [InlineData("Posterize", 2, 2)] // 4 - 2.4, the fraction dropped from what is taken away
    [InlineData("Solarize", 103, 103)] // 256 - 153.6, likewise
    [InlineData("SolarizeAdd", 66, 66)]
    [InlineData("AutoContrast", 0, 0)]
    [InlineData("Equalize", 0, 0)]
    [InlineData("Invert", 0, 0)]
    public void Rand_DrawsTimmsTable(string operation, double low, double high)
    {
        var automatic = new AutomaticAugmentation(100);
        var random = new RandomSequence(2, RandomStreams.Automatic);
        var arguments = new List<double>();
        for (int i = 0; i < Draws; i++)
        {
            (AutomaticAugmentation.Operation drawn, double argument) = automatic.DrawRand(6, 0, ref random);
            if (drawn.ToString() == operation)
            {
                arguments.Add(Math.Round(argument, 12));
            }
        }

        Assert.Equal(Draws / 30.0, arguments.Count, 5 * Math.Sqrt(Draws * 29 / 900.0));
        Assert.Equal([.. new[] { low, high }.Distinct()], arguments.Distinct().Order());
    }

    /// <summary>The magnitude is normal: of rotations by 3 degrees a unit, mean 18 and deviation 1.5, cut off at 30.</summary>
    [Fact]
    public void Rand_Deviation_IsThatOfTheMagnitude()
    {
        double[] usual = Angles(6, 0.5), cut = Angles(9, 5);
        double mean = usual.Average(), deviation = Math.Sqrt(usual.Average(a => (a - mean) * (a - mean)));
        Assert.Equal(18, mean, 5 * 1.5 / Math.Sqrt(usual.Length));
        Assert.Equal(1.5, deviation, 5 * 1.5 / Math.Sqrt(2 * usual.Length));
        Assert.Equal((0, 30), (cut.Min(), cut.Max()));

        static double[] Angles(double magnitude, double deviation)
        {
            var automatic = new AutomaticAugmentation(100);
            var random = new RandomSequence(3, RandomStreams.Automatic);
            return [.. Enumerable.Range(0, Draws).Select(_ => automatic.DrawRand(magnitude, deviation, ref random))
                .Where(d => d.Operation == AutomaticAugmentation.Operation.Rotate).Select(d => Math.Abs(d.Argument))];
        }
    }

    /// <summary>The image is rounded, and comes back: with the seed's sixth draw, an inversion, as 255 less every value.</summary>
    [Fact]
    public void Apply_GoesOverTheResamplersPixels()
    {
        var options = new AugmentationOptions { Policy = AutomaticPolicy.Rand, RandOperations = 1, RandDeviation = 0 };
        var automatic = new AutomaticAugmentation(4);
        var random = new RandomSequence(5, RandomStreams.Automatic);
        RandomSequence ahead = random;
        while (automatic.DrawRand(9, 0, ref ahead).Operation != AutomaticAugmentation.Operation.Invert)
        {
            random = ahead;
        }

        var image = new Resampler(4);
        image.Pixels.AsSpan().Fill(Vector128.Create(10.4f, 100.6f, 255f, 0f));
        automatic.Apply(image, options, ref random);
        Assert.All(image.Pixels, p => Assert.Equal(Vector128.Create(245f, 154f, 0f, 0f), p));
    }

    /// <summary>Forty times the same image: what is drawn differs from place to place and from epoch to epoch.</summary>
    [Theory]
    [InlineData(AutomaticPolicy.Trivial)]
    [InlineData(AutomaticPolicy.Rand)]
    public void Loader_DrawsForEachImageAndEpoch(AutomaticPolicy policy)
    {
        const int Images = 40, Size = 16, Bytes = Size * Size * 3;
        byte[] pixels = [.. Enumerable.Range(0, Images * Bytes).Select(i => (byte)(i % Bytes * 7 % 251))];
        var source = new InMemoryImageSource(pixels, Size, Size, 3, new int[Images], ["only"]);
        using var loader = new BatchLoader(source, LoaderOptions.ForTraining(Images, Size, 1) with { Augmentation = AugmentationOptions.None with { Policy = policy } });
        var seen = new HashSet<string>();
        for (int epoch = 1; epoch <= 2; epoch++)
        {
            using Batch batch = loader.Next(TestContext.Current.CancellationToken);
            for (int i = 0; i < Images; i++)
            {
                seen.Add(Convert.ToHexString(batch.Pixels.Slice(i * Bytes, Bytes)));
            }

            // The identity comes up for one of fourteen, or, twice left out, for one of four.
            Assert.InRange(seen.Count, Images * epoch / 2, Images * epoch);
        }
    }

    /// <summary>
    /// What Pillow 9.4 makes of the same image, byte for byte: <c>transform</c> and <c>rotate</c> with BILINEAR and fillcolor (9, 9, 9), ImageEnhance, ImageOps.
    /// The checksum is the sum of (i + 1) times byte i, modulo 1,000,000,007.
    /// </summary>
    [Theory]
    [MemberData(nameof(Pillow))]
    public void Operation_OnATextureOf20Pixels_IsPillows(string operation, double argument, long checksum)
    {
        const int Size = 20;
        var automatic = new AutomaticAugmentation(Size);
        uint state = 12345;
        for (int i = 0; i < automatic.Bytes.Length; i++)
        {
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF;
            int pixel = i / 3, channel = i % 3;
            automatic.Bytes[i] = (byte)Math.Min(255, 20 + (pixel % Size * (3 + channel) + pixel / Size * (5 - channel)) % 160 + (state >> 16) % 50);
        }

        automatic.Apply(Enum.Parse<AutomaticAugmentation.Operation>(operation), argument, 9);
        long sum = 0;
        for (int i = 0; i < automatic.Bytes.Length; i++)
        {
            sum += (i + 1L) * automatic.Bytes[i];
        }

        Assert.Equal(checksum, sum % 1_000_000_007);
    }

    public static TheoryData<string, double, long> Pillow() => new()
    {
        { "ShearX", 0.3, 81388964 },
        { "ShearX", -0.99, 30867028 },
        { "ShearY", 0.17, 82764392 },
        { "TranslateX", 3.7, 81855109 },
        { "TranslateY", -2, 90993781 },
        { "Rotate", 18, 82455685 },
        { "Rotate", -112.5, 79772860 },
        { "Brightness", 0.46, 44414993 },
        { "Brightness", 1.9, 165619036 },
        { "Color", 0.1, 97468228 },
        { "Color", 1.54, 96711815 },
        { "Contrast", 0.46, 91504830 },
        { "Contrast", 1.99, 106548439 },
        { "Sharpness", 0.1, 97098962 },
        { "Sharpness", 1.9, 97043953 },
        { "Posterize", 3, 86246048 },
        { "Solarize", 103, 75467221 },
        { "AutoContrast", 0, 101890428 },
        { "Equalize", 0, 146573699 },
        { "Invert", 0, 86422691 },
        { "SolarizeAdd", 66, 116313295 },
        { "Identity", 0, 97330309 },
    };
}
