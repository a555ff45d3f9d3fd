using System.Runtime.CompilerServices;

namespace HpcBatchNorm.Data;

/// <summary>
/// The operations of automatic augmentation on a square image of bytes in the order R, G, B, each with Pillow's definition, its rounding included, so that
/// policies found with Pillow mean the same here.
/// </summary>
internal static class PixelOperations
{
    /// <summary>
    /// A place (x, y) of the result shows the place (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5]) of the source, between pixels the bilinear mean, outside
    /// the image <paramref name="fill"/>; coordinates are those of pixels' corners (Image.transform with AFFINE and BILINEAR).
    /// </summary>
    public static void Affine(ReadOnlySpan<byte> source, Span<byte> result, int size, ReadOnlySpan<double> m, byte fill)
    {
        for (int y = 0; y < size; y++)
        {
            for (int x = 0; x < size; x++)
            {
                double fromX = m[0] * (x + 0.5) + m[1] * (y + 0.5) + m[2], fromY = m[3] * (x + 0.5) + m[4] * (y + 0.5) + m[5];
                Span<byte> pixel = result.Slice((y * size + x) * 3, 3);
                if (fromX < 0 || fromX >= size || fromY < 0 || fromY >= size)
                {
                    pixel.Fill(fill);
                    continue;
                }

                fromX -= 0.5;
                fromY -= 0.5;
                int column = (int)Math.Floor(fromX), row = (int)Math.Floor(fromY);
                double right = fromX - column, below = fromY - row;
                int left = Math.Max(column, 0) * 3, next = Math.Min(column + 1, size - 1) * 3;
                int upper = Math.Max(row, 0) * size * 3, lower = Math.Min(row + 1, size - 1) * size * 3;
                for (int c = 0; c < 3; c++)
                {
                    double above = Mix(source[upper + left + c], source[upper + next + c], right), under = Mix(source[lower + left + c], source[lower + next + c], right);
                    pixel[c] = (byte)Mix(above, under, below);
                }
            }
        }
    }

    /// <summary>A turn about the middle, counter-clockwise (Image.rotate with BILINEAR).</summary>
    public static void Rotate(ReadOnlySpan<byte> source, Span<byte> result, int size, double degrees, byte fill)
    {
        // Fifteen decimals, as Pillow, so that a quarter turn is one.
        double cosine = Math.Round(Math.Cos(degrees * Math.PI / 180), 15), sine = Math.Round(Math.Sin(degrees * Math.PI / 180), 15), middle = size / 2.0;
        Affine(source, result, size, [cosine, -sine, middle - cosine * middle + sine * middle, sine, cosine, middle - sine * middle - cosine * middle], fill);
    }

    /// <summary>Away from black by a factor (ImageEnhance.Brightness).</summary>
    public static void Brightness(Span<byte> pixels, float factor)
    {
        foreach (ref byte value in pixels)
        {
            value = Blend(0, value, factor);
        }
    }

    /// <summary>Away from the mean grey by a factor (ImageEnhance.Contrast).</summary>
    public static void Contrast(Span<byte> pixels, float factor)
    {
        long sum = 0;
        for (int i = 0; i < pixels.Length; i += 3)
        {
            sum += Grey(pixels[i..]);
        }

        byte mean = (byte)((double)sum / (pixels.Length / 3) + 0.5);
        foreach (ref byte value in pixels)
        {
            value = Blend(mean, value, factor);
        }
    }

    /// <summary>Away from the grey version by a factor (ImageEnhance.Color).</summary>
    public static void Color(Span<byte> pixels, float factor)
    {
        for (int i = 0; i < pixels.Length; i += 3)
        {
            byte grey = Grey(pixels[i..]);
            for (int c = i; c < i + 3; c++)
            {
                pixels[c] = Blend(grey, pixels[c], factor);
            }
        }
    }

    /// <summary>Away from the smoothed version by a factor (ImageEnhance.Sharpness): a pixel counts five times, its eight neighbours once; the border stays.</summary>
    public static void Sharpness(ReadOnlySpan<byte> source, Span<byte> result, int size, float factor)
    {
        source.CopyTo(result);
        int pitch = size * 3;
        for (int y = 1; y < size - 1; y++)
        {
            for (int i = y * pitch + 3; i < (y + 1) * pitch - 3; i++)
            {
                int sum = 4 * source[i];
                for (int row = i - pitch; row <= i + pitch; row += pitch)
                {
                    sum += source[row - 3] + source[row] + source[row + 3];
                }

                result[i] = Blend((2 * sum + 13) / 26, source[i], factor); // sum / 13, rounded
            }
        }
    }

    /// <summary>Keeps the upper bits of every value (ImageOps.posterize); 8 leaves all.</summary>
    public static void Posterize(Span<byte> pixels, int bits)
    {
        int mask = 0xFF << (8 - bits);
        foreach (ref byte value in pixels)
        {
            value &= (byte)mask;
        }
    }

    /// <summary>Inverts the values that are not below a threshold (ImageOps.solarize); 0 inverts all, 256 none.</summary>
    public static void Solarize(Span<byte> pixels, double threshold)
    {
        foreach (ref byte value in pixels)
        {
            value = value < threshold ? value : (byte)(255 - value);
        }
    }

    /// <summary>Adds to the values below 128 (timm's SolarizeAdd).</summary>
    public static void SolarizeAdd(Span<byte> pixels, int addend)
    {
        foreach (ref byte value in pixels)
        {
            value = value < 128 ? (byte)Math.Min(255, value + addend) : value;
        }
    }

    /// <summary>Stretches every channel to 0..255 (ImageOps.autocontrast); a channel of one value stays.</summary>
    public static void AutoContrast(Span<byte> pixels)
    {
        Span<int> histogram = stackalloc int[256];
        Span<byte> table = stackalloc byte[256];
        for (int channel = 0; channel < 3; channel++)
        {
            Count(pixels, channel, histogram);
            int low = histogram.IndexOfAnyExcept(0), high = histogram.LastIndexOfAnyExcept(0);
            if (high > low)
            {
                double scale = 255.0 / (high - low), offset = -low * scale;
                for (int value = 0; value < 256; value++)
                {
                    table[value] = (byte)Math.Clamp(value * scale + offset, 0, 255);
                }

                Replace(pixels, channel, table);
            }
        }
    }

    /// <summary>Makes every channel's histogram even (ImageOps.equalize); a channel of one value, or of too few pixels, stays.</summary>
    public static void Equalize(Span<byte> pixels)
    {
        Span<int> histogram = stackalloc int[256];
        Span<byte> table = stackalloc byte[256];
        for (int channel = 0; channel < 3; channel++)
        {
            Count(pixels, channel, histogram);
            int step = (pixels.Length / 3 - histogram[histogram.LastIndexOfAnyExcept(0)]) / 255;
            if (step > 0)
            {
                int sum = step / 2;
                for (int value = 0; value < 256; value++)
                {
                    table[value] = (byte)Math.Min(255, sum / step);
                    sum += histogram[value];
                }

                Replace(pixels, channel, table);
            }
        }
    }

    /// <summary>255 less every value (ImageOps.invert).</summary>
    public static void Invert(Span<byte> pixels)
    {
        foreach (ref byte value in pixels)
        {
            value = (byte)(255 - value);
        }
    }

    /// <summary>Luma in whole numbers (ITU-R BT.601), as Pillow converts R, G, B to grey.</summary>
    private static byte Grey(ReadOnlySpan<byte> pixel) => (byte)((pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 0x8000) >> 16);

    /// <summary>Image.blend: single precision, cut off at 0 and 255, what lies behind the point dropped.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static byte Blend(int from, int to, float factor) => (byte)Math.Clamp(from + factor * (to - from), 0, 255);

    private static double Mix(double first, double second, double share) => first + (second - first) * share;

    private static void Count(ReadOnlySpan<byte> pixels, int channel, Span<int> histogram)
    {
        histogram.Clear();
        for (int i = channel; i < pixels.Length; i += 3)
        {
            histogram[pixels[i]]++;
        }
    }

    private static void Replace(Span<byte> pixels, int channel, ReadOnlySpan<byte> table)
    {
        for (int i = channel; i < pixels.Length; i += 3)
        {
            pixels[i] = table[pixels[i]];
        }
    }
}
