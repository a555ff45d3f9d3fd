using HpcBatchNorm.Data;
using HpcBatchNorm.Tensors;

namespace OwnNetwork;

/// <summary>Pictures of 32x32 pixels in memory: a disc, a square, a cross or a ring in a random colour on a noisy ground, anywhere and of any size.</summary>
internal static class Shapes
{
    public const int Side = 32;

    public static readonly string[] Names = ["disc", "square", "cross", "ring"];

    /// <summary>So many pictures, the classes in turn; another seed gives other pictures.</summary>
    public static InMemoryImageSource Draw(int count, ulong seed)
    {
        byte[] pixels = new byte[count * Side * Side * 3];
        for (int i = 0; i < count; i++)
        {
            Draw(i % Names.Length, new RandomSequence(seed, stream: 0, (uint)i), pixels.AsSpan(i * Side * Side * 3, Side * Side * 3));
        }

        return new InMemoryImageSource(pixels, Side, Side, channels: 3, [.. Enumerable.Range(0, count).Select(i => i % Names.Length)], Names)
        {
            Source = $"{count} shapes",
        };
    }

    private static void Draw(int shape, RandomSequence random, Span<byte> pixels)
    {
        int radius = 7 + (int)random.NextBelow(5), x0 = radius + (int)random.NextBelow((uint)(Side - 2 * radius)), y0 = radius + (int)random.NextBelow((uint)(Side - 2 * radius));
        Span<int> colour = [110 + (int)random.NextBelow(120), 110 + (int)random.NextBelow(120), 110 + (int)random.NextBelow(120)];
        for (int i = 0; i < pixels.Length; i++)
        {
            int x = i / 3 % Side - x0, y = i / 3 / Side - y0, squared = x * x + y * y;
            bool inside = shape switch
            {
                0 => squared <= radius * radius,
                1 => Math.Max(Math.Abs(x), Math.Abs(y)) <= radius * 7 / 8,
                2 => Math.Min(Math.Abs(x), Math.Abs(y)) <= radius / 4 && Math.Max(Math.Abs(x), Math.Abs(y)) <= radius,
                _ => squared <= radius * radius && squared >= radius * radius * 4 / 10,
            };
            pixels[i] = (byte)((inside ? colour[i % 3] : 40) + (int)random.NextBelow(25));
        }
    }
}
