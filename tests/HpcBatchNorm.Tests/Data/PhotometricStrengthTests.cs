using System.Runtime.Intrinsics;
using HpcBatchNorm.Data;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Data;

/// <summary>How far the photometric distortion goes, told from what it makes of pixels, over many draws: both ends of every range, and the deviation of the lighting noise.</summary>
public sealed class PhotometricStrengthTests
{
    private const int Draws = 4000;

    /// <summary>Two grey pixels: contrast keeps their mean, saturation keeps both, so their mean tells brightness and their distance contrast.</summary>
    [Theory]
    [InlineData(1.0)]
    [InlineData(0.3)]
    public void BrightnessAndContrast_SpanTheirRange(double strength)
    {
        List<double> brightness = [], contrast = [];
        for (uint i = 0; i < Draws; i++)
        {
            Vector128<float>[] pixels = Distort([Vector128.Create(90f, 90, 90, 0), Vector128.Create(110f, 110, 110, 0)], strength, false, i);
            double mean = (pixels[0][0] + pixels[1][0]) / 200;
            brightness.Add(mean);
            contrast.Add((pixels[1][0] - pixels[0][0]) / 20 / mean);
        }

        AssertSpans(brightness, 1 - strength / 2, 1 + strength / 2);
        AssertSpans(contrast, 1 - strength / 2, 1 + strength / 2);
    }

    /// <summary>One coloured pixel is its own mean: contrast and saturation both scale its distance from grey, brightness all of it.</summary>
    [Fact]
    public void Saturation_SpansItsRange()
    {
        List<double> both = [];
        for (uint i = 0; i < Draws; i++)
        {
            Vector128<float> pixel = Distort([Vector128.Create(110f, 100, 90, 0)], 1, false, i)[0];
            double grey = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2], before = 0.299 * 110 + 0.587 * 100 + 0.114 * 90;
            both.Add((pixel[0] - pixel[2]) / 20 / (grey / before));
        }

        // The product of two factors from 0.5 to 1.5: with one side of either missing, it would not come near these.
        Assert.InRange(both.Min(), 0.25 - 1e-3, 0.3);
        Assert.InRange(both.Max(), 2.1, 2.25 + 1e-3);
        Assert.Equal(1, both.Average(), 0.02);
    }

    /// <summary>AlexNet's: components of deviations 0.2175, 0.0188 and 0.0045 of the range, times normal draws of deviation 0.1 times the strength.</summary>
    [Theory]
    [InlineData(1.0)]
    [InlineData(0.3)]
    public void LightingNoise_HasAlexNetsDeviation(double strength)
    {
        double[] squares = new double[3], means = new double[3];
        for (uint i = 0; i < Draws; i++)
        {
            Vector128<float>[] image = [Vector128.Create(100f, 100, 100, 0)];
            Vector128<float> plain = Distort(image, strength, false, i)[0], noisy = Distort(image, strength, true, i)[0];
            for (int c = 0; c < 3; c++)
            {
                double shift = noisy[c] - plain[c];
                means[c] += shift / Draws;
                squares[c] += shift * shift / Draws;
            }
        }

        double[] red = [0.2175 * 0.5675, 0.0188 * 0.7192, 0.0045 * 0.4009], green = [0.2175 * 0.5808, 0.0188 * 0.0045, 0.0045 * 0.8140], blue = [0.2175 * 0.5836, 0.0188 * 0.6948, 0.0045 * 0.4203];
        foreach ((double[] parts, int channel) in new[] { (red, 0), (green, 1), (blue, 2) })
        {
            double expected = 255 * 0.1 * strength * Math.Sqrt(parts.Sum(p => p * p));
            Assert.Equal(expected, Math.Sqrt(squares[channel]), 0.05 * expected);
            Assert.Equal(0, means[channel], 0.06 * expected);
        }
    }

    private static Vector128<float>[] Distort(Vector128<float>[] image, double strength, bool lighting, uint draw)
    {
        Vector128<float>[] pixels = [.. image];
        var random = new RandomSequence(1, RandomStreams.Color, 0, draw);
        PhotometricDistortion.Apply(pixels, strength, lighting, ref random);
        return pixels;
    }

    /// <summary>Uniform between two bounds: none outside, both ends come near, and the middle is the mean.</summary>
    private static void AssertSpans(List<double> values, double low, double high)
    {
        double near = 0.01 * (high - low);
        Assert.InRange(values.Min(), low - 1e-3, low + near);
        Assert.InRange(values.Max(), high - near, high + 1e-3);
        Assert.Equal((low + high) / 2, values.Average(), 0.03 * (high - low));
    }
}
