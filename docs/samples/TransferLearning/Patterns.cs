using HpcBatchNorm.Data;
using HpcBatchNorm.Tensors;

namespace TransferLearning;

/// <summary>Pictures of 32x32 pixels: stripes in one of twelve directions, with any phase, width and contrast, under noise.</summary>
internal static class Patterns
{
    public const int Side = 32;

    private const int Directions = 12;

    /// <summary>Pictures of some of the directions, which are the classes, in turn.</summary>
    public static InMemoryImageSource Draw(int count, ulong seed, params ReadOnlySpan<int> directions)
    {
        byte[] pixels = new byte[count * Side * Side * 3];
        int[] labels = new int[count];
        for (int n = 0; n < count; n++)
        {
            labels[n] = n % directions.Length;
            var random = new RandomSequence(seed, stream: 0, (uint)n);
            (float sin, float cos) = MathF.SinCos(directions[labels[n]] * MathF.PI / Directions);
            float frequency = 0.7f + random.NextBelow(100) * 0.008f, phase = random.NextBelow(100) * 0.0628f, contrast = 20 + random.NextBelow(50);
            for (int i = 0; i < Side * Side * 3; i++)
            {
                float position = i / 3 % Side * cos + i / 3 / Side * sin;
                pixels[n * Side * Side * 3 + i] = (byte)(75 + contrast * MathF.Sin(position * frequency + phase) + random.NextBelow(80));
            }
        }

        string[] names = [.. directions.ToArray().Select(d => $"{d * 180 / Directions} degrees")];
        return new InMemoryImageSource(pixels, Side, Side, channels: 3, labels, names) { Source = $"stripes of {names.Length} directions" };
    }
}
