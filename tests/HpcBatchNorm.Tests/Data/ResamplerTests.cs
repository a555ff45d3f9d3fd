using System.Runtime.Intrinsics;
using CsCheck;
using HpcBatchNorm.Data;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Data;

public sealed class ResamplerTests
{
    [Fact]
    public void Resize_AnyWindowAndCrop_EqualsTheDefinition() =>
        Gen.Select(Gen.Int[1, 40], Gen.Int[1, 40], Gen.Int[1, 20], Gen.Int[0, 1000], Gen.Bool).Sample((width, height, size, seed, mirror) =>
        {
            var random = new Random(seed);
            byte[] window = Window(width, height, out int stride, (_, _, _) => random.Next(256));
            double w = width * (0.1 + 0.9 * random.NextDouble()), h = height * (0.1 + 0.9 * random.NextDouble());
            var crop = new ImageCrop(random.NextDouble() * (width - w), random.NextDouble() * (height - h), w, h, mirror);
            var resampler = new Resampler(size);

            resampler.Resize(window, width, height, stride, crop);

            for (int y = 0; y < size; y++)
            {
                for (int x = 0; x < size; x++)
                {
                    for (int c = 0; c < 3; c++)
                    {
                        double expected = Definition(window, width, height, stride, crop, size, mirror ? size - 1 - x : x, y, c);
                        Assert.Equal(expected, resampler.Pixels[y * size + x][c], 2e-3);
                    }
                }
            }
        }, iter: 200);

    /// <summary>
    /// Keys's cubic, a = -1/2, by hand: enlarged twice, a destination pixel lies 1/4 or 3/4 from its neighbours, whose weights are 0.8671875 and 0.2265625, and
    /// -0.0703125 and -0.0234375 beyond. A white column on black rises over 255 nowhere and falls below 0 beside it, where it is cut off.
    /// </summary>
    [Fact]
    public void Bicubic_OfOneColumn_HasTheCubicsWeights()
    {
        byte[] window = Window(8, 8, out int stride, (x, _, _) => x == 4 ? 200 : 0), inverse = Window(8, 8, out _, (x, _, _) => x == 4 ? 55 : 255);
        Resampler plain = new(16) { Interpolation = Interpolation.Bicubic }, inverted = new(16) { Interpolation = Interpolation.Bicubic };
        var crop = new ImageCrop(0, 0, 8, 8, Mirror: false);
        plain.Resize(window, 8, 8, stride, crop);
        inverted.Resize(inverse, 8, 8, stride, crop);

        double[] expected = [0, 0, 0, 0, 0, 0, 0, 45.3125, 173.4375, 173.4375, 45.3125, 0, 0, 0, 0, 0];
        for (int x = 0; x < 16; x++)
        {
            Assert.Equal(expected[x], plain.Pixels[5 * 16 + x][0], 1e-3);
            Assert.Equal(255 - expected[x], inverted.Pixels[5 * 16 + x][0], 1e-3); // overshoots 255 beside it
        }
    }

    /// <summary>Shrinking to a third stretches the filter: a ramp stays one, away from the borders, and a constant a constant.</summary>
    [Fact]
    public void Bicubic_Shrinking_KeepsRampsAndConstants()
    {
        byte[] window = Window(48, 48, out int stride, (x, y, channel) => channel == 0 ? 5 * x : channel == 1 ? 4 * y : 77);
        var resampler = new Resampler(16) { Interpolation = Interpolation.Bicubic };
        resampler.Resize(window, 48, 48, stride, new ImageCrop(0, 0, 48, 48, Mirror: false));
        for (int i = 2; i < 14; i++)
        {
            Assert.Equal(5 * (3 * i + 1), resampler.Pixels[7 * 16 + i][0], 1e-3);
            Assert.Equal(4 * (3 * i + 1), resampler.Pixels[i * 16 + 7][1], 1e-3);
            Assert.Equal(77, resampler.Pixels[i * 16 + 3][2], 1e-3);
        }
    }

    /// <summary>
    /// What Pillow 9.4 gives for <c>resize((size, size), Image.BILINEAR, box=...)</c>, which rounds between its two passes and calculates in fixed point,
    /// hence the tolerance of one grey level.
    /// </summary>
    [Theory]
    [InlineData(61, 47, 0, 0, 61, 47, 8,
        "PDo8UFhhaXaGepSpkbSoq6lEuklfokt/VU5Qamxyf4yVmam5rrV4v15HjEhrSGCPdWdkhoWDnaOktrqvuXRNckBaQVx/S3mkknxwppmTu7a5qo+AXT5JQlVrVHKPao2y" +
        "q5aDurOhl6ayTUVPSE1WX2x+dI2gi6e8uquSfLG0Q1eITEhHYWZne4SPkqW2qL+bYrujP2u0UkNVbF5TgX51mpyesLm2v5xfRYe5WT6WbFhEhHRhnpKGs7Otv6ydgE9D")]
    [InlineData(9, 7, 0, 0, 9, 7, 12,
        "IRImLyIiLCgeHSIgPx81JBsiEiIdFjEvGzk5Nyk3QDFCNVBYKCAiKyohKC8mJC4wPy48LCMxHiQvHTI8H0M7Mjg5OjdANkNOMzQbJDUgIToyLkJJPkVHOC9HMCdLKDNQ" +
        "JlM9K1A7MkE8Ny4+ICUuICUjJDEuLUVKOUhIMy47MSQ4NzBAOFQ8Qk08PURELENRFBk5HhklJygrLUFINEVJMC0xMiIoPi0zQ1Q+U0k9R0dJJVheKyEhIyYmKSc0OCdF" +
        "LzlOOi87OSYxKio3LVVERUw9RU5BLmJRLSQcLSsuNSs+QChGMDxLPDhAOzM2KzQ1MUpHPkdDQU5FPWFQGiMrOig8TDNJRUNLNk5ANUlAOkk4QkotUDNFPTpQPEdWUFVa" +
        "MjYuPDMzPjw1Nk03NEhBQUpGRk49Qk4tRTU+Oz9UP0tgUFNhUkwvO0ElKUUeJVIhMTxFT0dOVE9EPEwxMz84OklWRVFoTFRoS081PkIyM0M0L0w5MzRBR0ZSSFRVOFNH" +
        "UEZEVlNaW1dpYFBrRlE4QEM7OkFCNklJNC8/QkVVQFdfNldVY0pLaFpdaVtqbE1s")]
    [InlineData(40, 30, 3.25, 2.5, 32.5, 24.5, 8,
        "QD1BS1BWWmdnY3CAb4SUfYyhiKK6lbDBTE1LWGJbZm1ycnuFfY6ci5+xmrHMqL2pW1tTamtkcXx5gouUjJmtk6W/qLvMssdlbWNcem9ugISEk5eal6qvoLnIscewwq0+" +
        "hHRiioF8lI+OoqKkr7O8uMDMvcFzw1U4j390mZGHoqWXq62pvry/xr6zunU+aDRAmZB8q6KOta+ivLa60cnOuImHUDYvMj1IopOCt6iYxrmmzMjBpabDST5DMTs5QkpW")]
    [InlineData(200, 20, 10, 0, 180, 20, 8,
        "ZHiGoYtwb2yQbI90p2aLZJV9eGV1pZmLbX+Kp4RxYHSOd4xxqWiDXZSEhGNynpSMfIuMpHdwWHyShYR1n3GAWI2Fj2dxkZWOiJGSm3BtV4aNkXh5jnd7WYWLm3Bxf46O" +
        "k5eTjGhzX46NnGx8eoN5Yn2Lp3pvbIWQnpiReWRzaJWKo2p8aZJ2cXSOqYRuX3yPpZiNZ2N2c5iHpmWDXJZ0e2uRootvWHCKpJWOW2N1fph+pGaHWJpximeQmZNwWGyL")]
    public void Resize_EqualsPillow(int width, int height, double x, double y, double w, double h, int size, string expected) =>
        AssertPillow(Interpolation.Bilinear, width, height, x, y, w, h, size, expected);

    /// <summary>The same with <c>Image.BICUBIC</c>.</summary>
    [Theory]
    [InlineData(61, 47, 0, 0, 61, 47, 8,
        "ODY3TlZfZ3SFeJKsj7eyq7Y6wkFep0iAU0tOaWtxfoyVmarEr8N3zFc+j0FrPGGRdGVihYWCnaSnu8a7x3JCbjVYNV2ASXumkXptpZiTxMDDtZSAVDE/N1RrU3KPa4+1q5SB" +
        "xbiinbG+QTZFQklTX2x+dI6hjarCx6yPfb+8Nk2KSEE9YGZme4WPk6e9qsacYcaiNGe+UTlMbV9PgX91mp2gssG/x51XQIe/XDOXblk6h3ZhoZSHtri0xa+ed0E5")]
    [InlineData(9, 7, 0, 0, 9, 7, 12,
        "Hg4nMyEiLSkaGB8aQxw2IhcdCyAVFTIsGDk6OyE1RC5CNFZcKB4gLSohJzAkISwtQiw8LCAuGSEsGzI8G0Q7MjU2PDU/NkRPNTYZIzUeHjoyL0JMP0hIOy9ILyFOJzJSJFU8" +
        "KFU5MUE8OCs9HiYxHiEfIjArLEtQO01JMi46MB04OjBCPFg8RVA6PUNEKkBSEBc+HRQhJyUmLEVLNUhLLSstMBshQSwxRlg+W0c7SkVJIFtjLiAdHycjJSUyOiFELDhSPi46" +
        "Ox8rJSQ3Jl1HSkw6SU0+KmdSLyMWKi0tNSpBRCFGLDxOPzlAPjA0JjA0LE5KPUZCQ05CPWVOEyEqPCU+VDJOSEVONVE+MktAOEs3RE4pVi9FOjVSOUhYVFVaLzUwPjAzQjw0" +
        "NlM2M0tBQkxISVI8RVEnRzA8NTpXOktkUlJiVk4wO0AkJUQYI1UdLzpHVUZSWlFEO0wuMD41OEhYRVJrTVRoTlI2P0ExMUIyLk86MTBAS0VWSldZNVRIUkVCWVVcXlpsYU9r" +
        "RVI5QUE7PEBFNkpNMys7Q0VXPltlMllYaUlLbl1dbF5sbkts")]
    [InlineData(40, 30, 3.25, 2.5, 32.5, 24.5, 8,
        "PztASlBWWmhmZHCBbYWUfImgiKK6lbDKS0xKWGVaZmtzcXuEfI6cjKCwm7PTqL6xWltTamtjcH15gouUjZmwkaPAqLvXss9gbWJbe21uf4SElJeblauuoLrOsMy5xLc0hXRg" +
        "ioJ9lI2Oo6KjsbO9uMPWv85xzkouj351mJGGo6eYqK2pv7zAy8m9xnIzZCk+l5F7rKONtq+ju7a72tTYxIuIRiglKD1IoZKAt6iZx7ql1M7EqqzOPDI3Kjg1QkpY")]
    [InlineData(200, 20, 10, 0, 180, 20, 8,
        "YHmIqY1vb2iRZJRysGCMYJt8c112q56MaYGNsoVwWnOPdI5vtGOCVpqFhl1xopmNe4+PrnZvT3yTh4Vzpm+AT5GHlGJwkpqQipWWoG5qTIeOl3h4kXd6T4WOo25xfpGPlpyV" +
        "jmNwVpGPpGp7eYR5WX2MsXptaoeTo52TeF1xYZyLrWZ7ZpZ3bHORs4RrWn6Rq5yOYlx1cJ+Hr16EVZt0emeUqo5tUnCKqpiOU1x0f599q1+KTqJwj2CSnJhuUmuM")]
    public void Resize_Bicubic_EqualsPillow(int width, int height, double x, double y, double w, double h, int size, string expected) =>
        AssertPillow(Interpolation.Bicubic, width, height, x, y, w, h, size, expected);

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(5)]
    [InlineData(18)]
    public void StoreRgb_AnyNumberOfPixels_RoundsEachAndWritesNothingBehind(int size)
    {
        var random = new Random(size);
        var resampler = new Resampler(size);
        foreach (ref Vector128<float> pixel in resampler.Pixels.AsSpan())
        {
            pixel = Vector128.Create(random.NextSingle() * 255, random.Next(256), random.Next(255) + 0.5f, random.NextSingle());
        }

        byte[] rgb = new byte[size * size * 3 + 20];
        rgb.AsSpan().Fill(77);
        resampler.StoreRgb(rgb);
        for (int i = 0; i < size * size * 3; i++)
        {
            Assert.Equal((byte)Math.Floor(resampler.Pixels[i / 3][i % 3] + 0.5f), rgb[i]);
        }

        Assert.All(rgb[(size * size * 3)..], value => Assert.Equal(77, value));
    }

    [Fact]
    public void Resize_ToTheSameSize_IsExact()
    {
        var random = new Random(1);
        byte[] window = Window(17, 17, out int stride, (_, _, _) => random.Next(256));
        byte[] rgb = Render(new Resampler(17), window, 17, 17, stride, new ImageCrop(0, 0, 17, 17, false));
        Assert.Equal(Rgb(window, 17, 17, stride), rgb);
    }

    [Fact]
    public void Resize_Mirrored_IsTheReverseOfEachRow()
    {
        var random = new Random(1);
        byte[] window = Window(31, 23, out int stride, (_, _, _) => random.Next(256));
        var crop = new ImageCrop(2, 3, 20.5, 18, false);
        byte[] straight = Render(new Resampler(12), window, 31, 23, stride, crop);
        byte[] mirrored = Render(new Resampler(12), window, 31, 23, stride, crop with { Mirror = true });
        for (int y = 0; y < 12; y++)
        {
            for (int x = 0; x < 12; x++)
            {
                Assert.Equal(straight.AsSpan((y * 12 + x) * 3, 3).ToArray(), mirrored.AsSpan((y * 12 + 11 - x) * 3, 3).ToArray());
            }
        }
    }

    [Theory]
    [InlineData(3, 5, 32)]
    [InlineData(500, 375, 224)]
    [InlineData(1000, 9, 7)]
    public void Resize_ConstantImage_StaysConstant(int width, int height, int size)
    {
        byte[] window = Window(width, height, out int stride, (_, _, c) => 80 + 60 * c);
        byte[] rgb = Render(new Resampler(size), window, width, height, stride, new ImageCrop(0, 0, width, height, true));
        Assert.All(Enumerable.Range(0, size * size), i => Assert.Equal([80, 140, 200], rgb[(3 * i)..(3 * i + 3)]));
    }

    [Fact]
    public void Resize_FineStripesShrunk_AreGreyNotAliased()
    {
        byte[] window = Window(256, 256, out int stride, (x, _, _) => x % 2 * 255);
        byte[] rgb = Render(new Resampler(32), window, 256, 256, stride, new ImageCrop(0, 0, 256, 256, false));
        // Not exactly grey at the borders, where the filter is cut off; without a filter all values would be 0 or 255.
        Assert.All(rgb, value => Assert.InRange(value, 120, 135));
    }

    [Fact]
    public void Photometric_EachFactor_DoesWhatItsNameSays()
    {
        Vector128<float>[] pixels = [Vector128.Create(10f, 20, 30, 0), Vector128.Create(200f, 150, 100, 0)];
        double grey0 = 0.299 * 10 + 0.587 * 20 + 0.114 * 30, grey1 = 0.299 * 200 + 0.587 * 150 + 0.114 * 100, mean = (grey0 + grey1) / 2;
        Assert.Equal(mean, PhotometricDistortion.MeanGrey(pixels), 1e-4);

        Vector128<float>[] brighter = [.. pixels];
        PhotometricDistortion.Blend(brighter, default, 1.5f);
        Assert.Equal([15f, 30, 45], Channels(brighter[0]));
        Assert.Equal([255f, 225, 150], Channels(brighter[1]));

        Vector128<float>[] flat = [.. pixels];
        PhotometricDistortion.Blend(flat, Vector128.Create((float)mean), 0);
        Assert.All(flat, pixel => Assert.All(Channels(pixel), value => Assert.Equal(mean, value, 1e-4)));

        Vector128<float>[] faded = [.. pixels];
        PhotometricDistortion.Saturate(faded, 0.5f);
        Assert.Equal(150 * 0.5 + grey1 * 0.5, faded[1][1], 1e-3);
    }

    [Fact]
    public void Photometric_ZeroStrength_ChangesNothingAndFullStrengthStaysInRange()
    {
        var source = new Random(2);
        Vector128<float>[] pixels = [.. Enumerable.Range(0, 1000).Select(_ =>
            Vector128.Create(source.NextSingle() * 255, source.NextSingle() * 255, source.NextSingle() * 255, 0))];
        Vector128<float>[] same = [.. pixels];
        var random = new RandomSequence(1, RandomStreams.Color);
        PhotometricDistortion.Apply(same, 0, lightingNoise: true, ref random);
        Assert.All(pixels.Zip(same), pair => Assert.All(Channels(pair.First).Zip(Channels(pair.Second)), value => Assert.Equal(value.First, value.Second, 1e-3)));

        for (uint i = 0; i < 50; i++)
        {
            Vector128<float>[] distorted = [.. pixels];
            random = new RandomSequence(1, RandomStreams.Color, 0, i);
            PhotometricDistortion.Apply(distorted, 1, lightingNoise: true, ref random);
            Assert.NotEqual(pixels, distorted);
            Assert.All(distorted, pixel => Assert.All(Channels(pixel), value => Assert.InRange(value, 0, 255)));
        }
    }

    /// <summary>The triangle filter written from its definition, over all pixels of the window, in double precision.</summary>
    private static double Definition(byte[] window, int width, int height, int stride, ImageCrop crop, int size, int x, int y, int channel)
    {
        double sum = 0, weights = 0;
        for (int j = 0; j < height; j++)
        {
            for (int i = 0; i < width; i++)
            {
                double weight = Triangle(i, crop.X, crop.Width / size, x) * Triangle(j, crop.Y, crop.Height / size, y);
                sum += weight * window[j * stride + i * 4 + channel];
                weights += weight;
            }
        }

        return sum / weights;

        static double Triangle(int source, double origin, double scale, int result) =>
            Math.Max(0, 1 - Math.Abs(source + 0.5 - (origin + (result + 0.5) * scale)) / Math.Max(1, scale));
    }

    private static void AssertPillow(Interpolation interpolation, int width, int height, double x, double y, double w, double h, int size, string expected)
    {
        uint state = (uint)(width * 1000 + height);
        byte[] window = Window(width, height, out int stride, (column, row, channel) =>
        {
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF;
            return Math.Min(255, (column * (3 + channel) + row * (5 - channel)) % 192 + (int)(state >> 16) % 64);
        });
        byte[] rgb = Render(new Resampler(size) { Interpolation = interpolation }, window, width, height, stride, new ImageCrop(x, y, w, h, Mirror: false));
        byte[] pillow = Convert.FromBase64String(expected);
        Assert.Equal(pillow.Length, rgb.Length);
        for (int i = 0; i < rgb.Length; i++)
        {
            Assert.InRange(rgb[i], pillow[i] - 1, pillow[i] + 1);
        }
    }

    private static byte[] Window(int width, int height, out int stride, Func<int, int, int, int> value)
    {
        stride = (width * 4 + Resampler.RowAlignment - 1) / Resampler.RowAlignment * Resampler.RowAlignment;
        byte[] window = new byte[stride * height];
        for (int y = 0; y < height; y++)
        {
            for (int x = 0; x < width; x++)
            {
                for (int c = 0; c < 3; c++)
                {
                    window[y * stride + x * 4 + c] = (byte)value(x, y, c);
                }
            }
        }

        return window;
    }

    private static byte[] Rgb(byte[] window, int width, int height, int stride) =>
        [.. from y in Enumerable.Range(0, height) from x in Enumerable.Range(0, width) from c in Enumerable.Range(0, 3) select window[y * stride + x * 4 + c]];

    private static byte[] Render(Resampler resampler, byte[] window, int width, int height, int stride, ImageCrop crop)
    {
        resampler.Resize(window, width, height, stride, crop);
        byte[] rgb = new byte[resampler.Pixels.Length * 3];
        resampler.StoreRgb(rgb);
        return rgb;
    }

    private static float[] Channels(Vector128<float> pixel) => [pixel[0], pixel[1], pixel[2]];
}
