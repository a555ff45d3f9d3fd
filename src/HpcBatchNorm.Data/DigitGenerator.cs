using System.Buffers.Binary;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Data;

/// <summary>
/// Draws digits for those who have no MNIST: strokes of ten figures, turned, slanted, scaled, moved, thickened and bent at random, as IDX files of
/// MNIST's names. Easier than handwriting; good for trying the experiments, not for their numbers. The same seed gives the same bytes.
/// </summary>
internal static class DigitGenerator
{
    private const int Size = 28, Classes = 10;
    private const uint Stream = 0xDA7A_0010;

    // Corners of each digit's strokes in a square of 0 to 1, downwards; curves have enough of them.
    private static readonly (double X, double Y)[][][] Strokes =
    [
        [Arc(0.5, 0.5, 0.3, 0.45, 0, 360)],
        [[(0.3, 0.25), (0.52, 0.05), (0.52, 0.95)]],
        [[.. Arc(0.5, 0.3, 0.28, 0.25, 180, 380), (0.2, 0.95), (0.8, 0.95)]],
        [Arc(0.45, 0.28, 0.28, 0.23, 200, 450), Arc(0.45, 0.73, 0.32, 0.23, 270, 520)],
        [[(0.6, 0.05), (0.15, 0.65), (0.85, 0.65)], [(0.62, 0.35), (0.62, 0.95)]],
        [[(0.78, 0.06), (0.3, 0.06), (0.27, 0.45), .. Arc(0.47, 0.68, 0.32, 0.27, 250, 500)]],
        [[(0.68, 0.05), (0.35, 0.4), .. Arc(0.48, 0.68, 0.28, 0.27, 190, 550)]],
        [[(0.18, 0.06), (0.82, 0.06), (0.4, 0.95)]],
        [Arc(0.5, 0.28, 0.25, 0.22, 90, 450), Arc(0.5, 0.73, 0.3, 0.23, 270, 630)],
        [[.. Arc(0.5, 0.32, 0.28, 0.26, 10, 370), (0.72, 0.95)]],
    ];

    /// <summary>The generated set in a folder, made there unless it is there already.</summary>
    public static string Ensure(string folder, Action<string> note, int train = 20_000, int test = 4_000)
    {
        if (!IdxFiles.AreIn(folder))
        {
            note(FormattableString.Invariant($"Drawing {train + test} digits into '{folder}' (once). They are no MNIST: only the direction of results means something."));
            string temporary = FormattableString.Invariant($"{folder}.{Environment.ProcessId}.tmp");
            Directory.CreateDirectory(temporary);
            Write(temporary, "train", train, 1);
            Write(temporary, "t10k", test, 2);
            Directory.Move(temporary, folder);
        }

        return folder;
    }

    private static void Write(string folder, string part, int count, uint key)
    {
        byte[] images = new byte[16 + count * Size * Size], labels = new byte[8 + count];
        Fields(images, 0x0803, count, Size, Size);
        Fields(labels, 0x0801, count);
        Parallel.For(0, count, i =>
        {
            var random = new RandomSequence(key, Stream, 0, (uint)i);
            int digit = (int)random.NextBelow(Classes);
            labels[8 + i] = (byte)digit;
            Draw(Strokes[digit], ref random, images.AsSpan(16 + i * Size * Size, Size * Size));
        });
        File.WriteAllBytes(Path.Combine(folder, $"{part}-images-idx3-ubyte"), images);
        File.WriteAllBytes(Path.Combine(folder, $"{part}-labels-idx1-ubyte"), labels);
    }

    private static void Draw((double X, double Y)[][] strokes, ref RandomSequence random, Span<byte> pixels)
    {
        double turn = random.NextDouble(-0.35, 0.35), slant = random.NextDouble(-0.35, 0.35), width = random.NextDouble(12, 20), height = random.NextDouble(15, 21);
        (double dx, double dy, double thickness) = (random.NextDouble(-2, 2), random.NextDouble(-2, 2), random.NextDouble(0.8, 1.9));
        (double cosine, double sine) = (Math.Cos(turn), Math.Sin(turn));
        List<(double X, double Y)[]> placed = [];
        foreach ((double X, double Y)[] stroke in strokes)
        {
            (double X, double Y)[] points = new (double, double)[stroke.Length];
            for (int i = 0; i < points.Length; i++)
            {
                double x = (stroke[i].X - 0.5) * width + random.NextGaussian() * 0.35, y = (stroke[i].Y - 0.5) * height + random.NextGaussian() * 0.35;
                x += slant * y;
                points[i] = (Size / 2.0 + dx + cosine * x - sine * y, Size / 2.0 + dy + sine * x + cosine * y);
            }

            placed.Add(points);
        }

        for (int y = 0; y < Size; y++)
        {
            for (int x = 0; x < Size; x++)
            {
                double nearest = double.PositiveInfinity;
                foreach ((double X, double Y)[] stroke in placed)
                {
                    for (int i = 1; i < stroke.Length; i++)
                    {
                        nearest = Math.Min(nearest, Distance(x + 0.5, y + 0.5, stroke[i - 1], stroke[i]));
                    }
                }

                double noise = random.NextBelow(100) == 0 ? 255 * random.NextDouble() : 0;
                pixels[y * Size + x] = (byte)Math.Clamp(Math.Max(255 * (thickness + 0.5 - nearest), noise), 0, 255);
            }
        }
    }

    private static double Distance(double x, double y, (double X, double Y) from, (double X, double Y) to)
    {
        (double ax, double ay) = (to.X - from.X, to.Y - from.Y);
        double along = Math.Clamp(((x - from.X) * ax + (y - from.Y) * ay) / Math.Max(ax * ax + ay * ay, 1e-12), 0, 1);
        return double.Hypot(x - from.X - along * ax, y - from.Y - along * ay);
    }

    /// <summary>Points of an ellipse's arc; degrees go clockwise from the right, as rows go downwards.</summary>
    private static (double X, double Y)[] Arc(double x, double y, double radiusX, double radiusY, double from, double to) =>
    [
        .. Enumerable.Range(0, 13).Select(i => (from + (to - from) * i / 12) * Math.PI / 180).Select(a => (x + radiusX * Math.Cos(a), y + radiusY * Math.Sin(a))),
    ];

    private static void Fields(Span<byte> bytes, params ReadOnlySpan<int> values)
    {
        for (int i = 0; i < values.Length; i++)
        {
            BinaryPrimitives.WriteInt32BigEndian(bytes[(4 * i)..], values[i]);
        }
    }
}
