using System.Runtime.Intrinsics;

namespace HpcBatchNorm.Data;

/// <summary>
/// Makes all evaluation views of an image out of one decoding, in order, each in the pixels of <paramref name="result"/>: a square that views share is
/// resized once and its parts are copied out of it; a mirror image is made of the view before it. Keeps its buffers; one per thread.
/// </summary>
internal sealed class ViewRenderer(LoaderOptions options, Resampler result)
{
    private const int Rgba = 4;

    private readonly List<EvaluationView> _views = new(options.Crops);
    private readonly Dictionary<int, Resampler> _squares = [];
    private byte[] _bytes = [];
    private (ImageCrop Source, int Size) _rendered;

    /// <summary>Views per image.</summary>
    public int Count => _views.Count;

    /// <summary>Finds the views of an image of this size, and returns the smallest scale it can be decoded at so that none has to enlarge pixels.</summary>
    public double Prepare(int width, int height)
    {
        EvaluationView.Fill(_views, width, height, options.ImageSize, options.CropFraction, options.Crops);
        _rendered = default;
        double scale = 0;
        foreach (EvaluationView view in _views)
        {
            scale = Math.Max(scale, view.Size / Math.Min(view.Source.Width, view.Source.Height));
        }

        return scale;
    }

    /// <summary>Makes a view, after those before it.</summary>
    /// <param name="index">Which one.</param>
    /// <param name="pixels">The decoded image, as <see cref="ImageDecoder.Pixels"/>.</param>
    /// <param name="window">Where it lies in the full-size image.</param>
    public void Render(int index, ReadOnlySpan<byte> pixels, DecodedWindow window)
    {
        EvaluationView view = _views[index];
        int size = options.ImageSize;
        if (view.Mirror)
        {
            for (int y = 0; y < size; y++)
            {
                result.Pixels.AsSpan(y * size, size).Reverse();
            }
        }
        else if (view.Size == size)
        {
            result.Resize(pixels, window.Width, window.Height, window.Stride, window.ToWindow(view.Source));
        }
        else
        {
            Resampler square = Square(view, pixels, window);
            if (view.Side == size)
            {
                for (int y = 0; y < size; y++)
                {
                    square.Pixels.AsSpan((view.Y + y) * view.Size + view.X, size).CopyTo(result.Pixels.AsSpan(y * size));
                }
            }
            else
            {
                ResizeWhole(square.Pixels, view.Size);
            }
        }
    }

    private Resampler Square(EvaluationView view, ReadOnlySpan<byte> pixels, DecodedWindow window)
    {
        if (!_squares.TryGetValue(view.Size, out Resampler? square))
        {
            _squares[view.Size] = square = new Resampler(view.Size) { Interpolation = options.Interpolation };
        }

        if (_rendered != (view.Source, view.Size))
        {
            square.Resize(pixels, window.Width, window.Height, window.Stride, window.ToWindow(view.Source));
            _rendered = (view.Source, view.Size);
        }

        return square;
    }

    /// <summary>The square, rounded to bytes as any resized image is, resized once more.</summary>
    private void ResizeWhole(ReadOnlySpan<Vector128<float>> square, int side)
    {
        int stride = (side * Rgba + Resampler.RowAlignment - 1) & -Resampler.RowAlignment;
        if (_bytes.Length < side * stride)
        {
            _bytes = new byte[side * stride];
        }

        for (int y = 0; y < side; y++)
        {
            Span<byte> row = _bytes.AsSpan(y * stride, side * Rgba);
            foreach (Vector128<float> pixel in square.Slice(y * side, side))
            {
                Vector128<int> rounded = Vector128.ConvertToInt32(pixel + Vector128.Create(0.5f));
                (row[0], row[1], row[2], row[3]) = ((byte)rounded[0], (byte)rounded[1], (byte)rounded[2], byte.MaxValue);
                row = row[Rgba..];
            }
        }

        result.Resize(_bytes, side, side, stride, new ImageCrop(0, 0, side, side, Mirror: false));
    }
}
