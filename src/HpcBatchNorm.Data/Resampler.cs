using System.Numerics;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace HpcBatchNorm.Data;

/// <summary>The filter that images are resized with; both are antialiased.</summary>
public enum Interpolation
{
    /// <summary>A triangle, as Pillow's BILINEAR.</summary>
    Bilinear,

    /// <summary>Keys's cubic with a = -1/2, as Pillow's BICUBIC: sharper; what it overshoots is cut off at 0 and 255.</summary>
    Bicubic,
}

/// <summary>
/// Antialiased bilinear (or bicubic) resizing to columns x rows pixels: a separable triangle filter whose half-width is one source pixel when enlarging and one
/// destination pixel when shrinking, cut off at the borders of the window and normalised to sum 1 (as Pillow's BILINEAR). Intermediate values are
/// single precision and never rounded; each destination value is a sum in a fixed order, so results do not depend on the vector width of the machine.
/// Keeps its buffers; one per thread.
/// </summary>
internal sealed class Resampler(int columns, int rows)
{
    /// <summary>Rows of a window are readable up to a multiple of this many bytes, so that the vertical pass needs no remainder.</summary>
    public const int RowAlignment = 64;

    private readonly Filter _horizontal = new(columns), _vertical = new(rows);

    // Large enough for what decoding to scale leaves of nearly every image, so that a long run stops growing it early.
    private float[] _row = new float[4096 * 4];

    public Resampler(int size)
        : this(size, size)
    {
    }

    /// <summary>The filter.</summary>
    public Interpolation Interpolation { get; init; }

    /// <summary>The result of the last <see cref="Resize"/>: columns x rows pixels of four floats (R, G, B, unused) in 0..255.</summary>
    public Vector128<float>[] Pixels { get; } = new Vector128<float>[columns * rows];

    /// <summary>Resizes a rectangle of the window to <see cref="Pixels"/>.</summary>
    /// <param name="window">Rows of RGBA bytes, <paramref name="stride"/> bytes apart.</param>
    /// <param name="width">Pixels per row.</param>
    /// <param name="height">Rows.</param>
    /// <param name="stride">Bytes from one row to the next.</param>
    /// <param name="crop">The rectangle, in pixels of the window.</param>
    public void Resize(ReadOnlySpan<byte> window, int width, int height, int stride, ImageCrop crop)
    {
        _horizontal.Compute(crop.X, crop.Width, width, Interpolation);
        _vertical.Compute(crop.Y, crop.Height, height, Interpolation);
        int rowBytes = (width * 4 + RowAlignment - 1) & -RowAlignment;
        if (_row.Length < rowBytes)
        {
            _row = new float[rowBytes];
        }

        for (int y = 0; y < rows; y++)
        {
            BlendRows(window, stride, _vertical.Start(y), _vertical.Weights(y), _row.AsSpan(0, rowBytes));
            BlendColumns(MemoryMarshal.Cast<float, Vector128<float>>(_row), Pixels.AsSpan(y * columns, columns), crop.Mirror);
        }
    }

    /// <summary>Rounds <see cref="Pixels"/> to bytes in the order R, G, B.</summary>
    public void StoreRgb(Span<byte> rgb)
    {
        rgb = rgb[..(Pixels.Length * 3)];
        ReadOnlySpan<Vector128<float>> pixels = Pixels;
        var order = Vector128.Create((byte)0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 255, 255, 255, 255);
        // Four pixels at a time: 12 bytes that count and 4 that the next pixels write over.
        while (rgb.Length >= Vector128<byte>.Count)
        {
            Vector128<short> first = Vector128.Narrow(Round(pixels[0]), Round(pixels[1])), second = Vector128.Narrow(Round(pixels[2]), Round(pixels[3]));
            Vector128.Shuffle(Vector128.Narrow(first, second).AsByte(), order).CopyTo(rgb);
            pixels = pixels[4..];
            rgb = rgb[12..];
        }

        foreach (Vector128<float> pixel in pixels)
        {
            Vector128<int> rounded = Round(pixel);
            (rgb[0], rgb[1], rgb[2]) = ((byte)rounded[0], (byte)rounded[1], (byte)rounded[2]);
            rgb = rgb[3..];
        }
    }

    /// <summary>Rounds the luma of <see cref="Pixels"/> (ITU-R BT.601) to bytes; grey stays as it is.</summary>
    public void StoreGrey(Span<byte> grey)
    {
        grey = grey[..Pixels.Length];
        for (int i = 0; i < grey.Length; i++)
        {
            Vector128<float> pixel = Pixels[i];
            grey[i] = (byte)(0.299f * pixel[0] + 0.587f * pixel[1] + 0.114f * pixel[2] + 0.5f);
        }
    }

    /// <summary>To the nearest whole number; for values that are not negative.</summary>
    private static Vector128<int> Round(Vector128<float> value) => Vector128.ConvertToInt32(value + Vector128.Create(0.5f));

    /// <summary>row = sum of weights[k] * window row (first + k), for all bytes of the row.</summary>
    private static void BlendRows(ReadOnlySpan<byte> window, int stride, int first, ReadOnlySpan<float> weights, Span<float> row)
    {
        int lanes = Vector<float>.Count;
        for (int at = 0; at < row.Length; at += Vector<byte>.Count)
        {
            Vector<float> sum0 = default, sum1 = default, sum2 = default, sum3 = default;
            int from = first * stride + at;
            foreach (float weight in weights)
            {
                Vector.Widen(new Vector<byte>(window[from..]), out Vector<ushort> low, out Vector<ushort> high);
                Vector.Widen(low, out Vector<uint> value0, out Vector<uint> value1);
                Vector.Widen(high, out Vector<uint> value2, out Vector<uint> value3);
                var factor = new Vector<float>(weight);
                sum0 += Vector.ConvertToSingle(Vector.AsVectorInt32(value0)) * factor;
                sum1 += Vector.ConvertToSingle(Vector.AsVectorInt32(value1)) * factor;
                sum2 += Vector.ConvertToSingle(Vector.AsVectorInt32(value2)) * factor;
                sum3 += Vector.ConvertToSingle(Vector.AsVectorInt32(value3)) * factor;
                from += stride;
            }

            Span<float> to = row.Slice(at, 4 * lanes);
            sum0.CopyTo(to);
            sum1.CopyTo(to[lanes..]);
            sum2.CopyTo(to[(2 * lanes)..]);
            sum3.CopyTo(to[(3 * lanes)..]);
        }
    }

    private void BlendColumns(ReadOnlySpan<Vector128<float>> row, Span<Vector128<float>> result, bool mirror)
    {
        for (int x = 0; x < result.Length; x++)
        {
            ReadOnlySpan<float> weights = _horizontal.Weights(x);
            ReadOnlySpan<Vector128<float>> pixels = row.Slice(_horizontal.Start(x), weights.Length);
            Vector128<float> sum = default;
            for (int k = 0; k < weights.Length; k++)
            {
                sum += pixels[k] * weights[k];
            }

            if (Interpolation == Interpolation.Bicubic)
            {
                sum = Vector128.Min(Vector128.Max(sum, Vector128<float>.Zero), Vector128.Create(255f));
            }

            result[mirror ? result.Length - 1 - x : x] = sum;
        }
    }

    /// <summary>Which source pixels make each destination pixel along one axis, and with what weights.</summary>
    private sealed class Filter(int size)
    {
        private readonly int[] _starts = new int[size], _counts = new int[size];

        // Shrinking to a third, as with the row.
        private float[] _weights = new float[7 * size];
        private int _pitch;

        public int Start(int index) => _starts[index];

        public ReadOnlySpan<float> Weights(int index) => _weights.AsSpan(index * _pitch, _counts[index]);

        /// <param name="origin">Where the cropped part begins.</param>
        /// <param name="length">How long it is.</param>
        /// <param name="extent">Source pixels there are.</param>
        /// <param name="interpolation">The filter.</param>
        public void Compute(double origin, double length, int extent, Interpolation interpolation)
        {
            double scale = length / size, stretch = Math.Max(scale, 1), support = interpolation == Interpolation.Bicubic ? 2 * stretch : stretch;
            _pitch = (int)Math.Ceiling(2 * support) + 1;
            if (_weights.Length < size * _pitch)
            {
                _weights = new float[size * _pitch];
            }

            Span<double> exact = stackalloc double[Math.Min(_pitch, 256)];
            if (_pitch > exact.Length)
            {
                exact = new double[_pitch];
            }

            for (int i = 0; i < size; i++)
            {
                double center = origin + (i + 0.5) * scale;
                int start = Math.Clamp((int)Math.Floor(center - support + 0.5), 0, extent - 1);
                int end = Math.Clamp((int)Math.Floor(center + support + 0.5), start + 1, extent);
                double sum = 0;
                for (int k = start; k < end; k++)
                {
                    double distance = Math.Abs(k + 0.5 - center) / stretch;
                    double weight = interpolation == Interpolation.Bicubic ? Cubic(distance) : Math.Max(0, 1 - distance);
                    exact[k - start] = weight;
                    sum += weight;
                }

                _starts[i] = start;
                _counts[i] = end - start;
                for (int k = 0; k < end - start; k++)
                {
                    _weights[i * _pitch + k] = (float)(exact[k] / sum);
                }
            }
        }

        /// <summary>Keys (1981), a = -1/2.</summary>
        private static double Cubic(double x) => x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
    }
}
