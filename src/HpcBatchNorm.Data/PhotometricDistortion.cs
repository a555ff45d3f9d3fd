using System.Numerics;
using System.Runtime.Intrinsics;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Data;

/// <summary>
/// Brightness, contrast and saturation as in Howard 2013 (each a blend, with factor f, of the image and black, its mean grey, or its grey version;
/// clamped to 0..255 after each), then AlexNet's lighting noise. Works on pixels of four floats (R, G, B, unused) in 0..255.
/// </summary>
internal static class PhotometricDistortion
{
    // Luma weights of ITU-R BT.601.
    private const float RedWeight = 0.299f, GreenWeight = 0.587f, BlueWeight = 0.114f;

    // Square roots of the eigenvalues and eigenvectors of the covariance of ImageNet's RGB values in 0..1 (Krizhevsky et al. 2012).
    private static readonly Vector3[] LightingDirections =
    [
        0.2175f * new Vector3(-0.5675f, -0.5808f, -0.5836f),
        0.0188f * new Vector3(0.7192f, -0.0045f, -0.6948f),
        0.0045f * new Vector3(0.4009f, -0.8140f, 0.4203f),
    ];

    public static void Apply(Span<Vector128<float>> pixels, double strength, bool lightingNoise, ref RandomSequence random)
    {
        Span<float> factors = stackalloc float[3];
        Span<int> order = [0, 1, 2];
        foreach (ref float factor in factors)
        {
            factor = (float)random.NextDouble(1 - strength / 2, 1 + strength / 2);
        }

        for (int i = order.Length - 1; i > 0; i--)
        {
            int j = (int)random.NextBelow((uint)i + 1);
            (order[i], order[j]) = (order[j], order[i]);
        }

        foreach (int operation in order)
        {
            switch (operation)
            {
                case 0:
                    Blend(pixels, default, factors[0]);
                    break;
                case 1:
                    Blend(pixels, Vector128.Create(MeanGrey(pixels)), factors[1]);
                    break;
                default:
                    Saturate(pixels, factors[2]);
                    break;
            }
        }

        if (lightingNoise)
        {
            Vector3 shift = default;
            foreach (Vector3 direction in LightingDirections)
            {
                shift += direction * (float)(0.1 * strength * random.NextGaussian() * 255);
            }

            Shift(pixels, shift.AsVector128());
        }
    }

    /// <summary>pixel = other + (pixel - other) * factor.</summary>
    public static void Blend(Span<Vector128<float>> pixels, Vector128<float> other, float factor)
    {
        Vector128<float> rest = other * (1 - factor);
        foreach (ref Vector128<float> pixel in pixels)
        {
            pixel = Clamp(pixel * factor + rest);
        }
    }

    public static void Saturate(Span<Vector128<float>> pixels, float factor)
    {
        foreach (ref Vector128<float> pixel in pixels)
        {
            pixel = Clamp(pixel * factor + Grey(pixel) * (1 - factor));
        }
    }

    public static float MeanGrey(ReadOnlySpan<Vector128<float>> pixels)
    {
        // Sums of a few hundred values stay exact enough in single precision; sums of sums go to double.
        const int Chunk = 256;
        double red = 0, green = 0, blue = 0;
        for (int start = 0; start < pixels.Length; start += Chunk)
        {
            Vector128<float> sum = default;
            foreach (Vector128<float> pixel in pixels.Slice(start, Math.Min(Chunk, pixels.Length - start)))
            {
                sum += pixel;
            }

            red += sum[0];
            green += sum[1];
            blue += sum[2];
        }

        return (float)((RedWeight * red + GreenWeight * green + BlueWeight * blue) / pixels.Length);
    }

    private static void Shift(Span<Vector128<float>> pixels, Vector128<float> shift)
    {
        foreach (ref Vector128<float> pixel in pixels)
        {
            pixel = Clamp(pixel + shift);
        }
    }

    private static Vector128<float> Grey(Vector128<float> pixel) =>
        Vector128.Shuffle(pixel, Vector128.Create(0)) * RedWeight +
        Vector128.Shuffle(pixel, Vector128.Create(1)) * GreenWeight +
        Vector128.Shuffle(pixel, Vector128.Create(2)) * BlueWeight;

    private static Vector128<float> Clamp(Vector128<float> pixel) =>
        Vector128.Min(Vector128.Max(pixel, Vector128<float>.Zero), Vector128.Create(255f));
}
