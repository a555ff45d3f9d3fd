namespace HpcBatchNorm.Data;

/// <summary>
/// One of the views of an image whose class probabilities are averaged (section 4.2.3, after section 7 of GoogLeNet): a rectangle of the
/// image is resized to a square of <paramref name="Size"/> x <paramref name="Size"/> pixels, of which a square part is taken, and resized to the
/// network's S x S pixels unless it has that many already.
/// </summary>
/// <param name="Source">The rectangle, in pixels of the full-size image; never mirrored.</param>
/// <param name="Size">Pixels per side of the square it is resized to.</param>
/// <param name="X">Left edge of the part, in pixels of that square.</param>
/// <param name="Y">Top edge of the part.</param>
/// <param name="Side">Pixels per side of the part: S (cut out as it is) or <paramref name="Size"/> (the whole square).</param>
/// <param name="Mirror">True to exchange left and right.</param>
internal readonly record struct EvaluationView(ImageCrop Source, int Size, int X, int Y, int Side, bool Mirror)
{
    /// <summary>Short sides of GoogLeNet's multi-crop evaluation, for inputs of <see cref="ReferenceSize"/> pixels.</summary>
    private static readonly int[] ShortSides = [256, 288, 320, 352];

    private const int ReferenceSize = 224;

    /// <summary>
    /// The views of an image of <paramref name="width"/> x <paramref name="height"/> pixels for a network input of <paramref name="size"/> pixels, each
    /// followed by its mirror image except with one crop:
    /// <list type="bullet">
    /// <item>1: <see cref="ImageCrop.Center"/>;</item>
    /// <item>10: the short side is resized to round(size / <paramref name="cropFraction"/>); upper left, upper right, lower left, lower right, centre;</item>
    /// <item>144: the short side is resized to 256, then 288, 320, 352 (in proportion to size / 224); of each, the left, central and right square (of a
    /// portrait the top, central and bottom one); of each square the five crops as above, and the whole square resized to the input's size.
    /// 4 * 3 * 6 * 2 = 144. Of a square image the three squares coincide.</item>
    /// </list>
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">Another number of crops.</exception>
    public static IReadOnlyList<EvaluationView> For(int width, int height, int size, double cropFraction, int crops)
    {
        var views = new List<EvaluationView>(crops);
        Fill(views, width, height, size, cropFraction, crops);
        return views;
    }

    internal static void Fill(List<EvaluationView> views, int width, int height, int size, double cropFraction, int crops)
    {
        views.Clear();
        switch (crops)
        {
            case 1:
                views.Add(new EvaluationView(ImageCrop.Center(width, height, size, cropFraction), size, 0, 0, size, Mirror: false));
                break;
            case 10:
                var resized = new ResizedImage(width, height, (int)Math.Round(size / cropFraction));
                foreach ((int x, int y) in Places(resized.Width - size, resized.Height - size))
                {
                    AddWithMirror(views, new EvaluationView(resized.Part(x, y, size), size, 0, 0, size, Mirror: false));
                }

                break;
            case 144:
                foreach (int shortSide in ShortSides)
                {
                    AddSquares(views, new ResizedImage(width, height, (int)Math.Round((double)shortSide * size / ReferenceSize)), size);
                }

                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(crops), crops, "Evaluation takes 1, 10 or 144 crops.");
        }
    }

    private static void AddSquares(List<EvaluationView> views, ResizedImage image, int size)
    {
        int side = Math.Min(image.Width, image.Height);
        foreach (int halves in (ReadOnlySpan<int>)[0, 1, 2])
        {
            ImageCrop square = image.Part((image.Width - side) * halves / 2, (image.Height - side) * halves / 2, side);
            foreach ((int x, int y) in Places(side - size, side - size))
            {
                AddWithMirror(views, new EvaluationView(square, side, x, y, size, Mirror: false));
            }

            AddWithMirror(views, new EvaluationView(square, side, 0, 0, side, Mirror: false));
        }
    }

    /// <summary>Four corners and the centre, of what is left and right of a part and above and below it.</summary>
    private static ReadOnlySpan<(int X, int Y)> Places(int right, int bottom) =>
        new[] { (0, 0), (right, 0), (0, bottom), (right, bottom), (right / 2, bottom / 2) };

    private static void AddWithMirror(List<EvaluationView> views, EvaluationView view)
    {
        views.Add(view);
        views.Add(view with { Mirror = true });
    }
}

/// <summary>An image resized, aspect ratio kept, until its short side has some number of pixels; the long side is rounded down to whole pixels.</summary>
internal readonly struct ResizedImage
{
    private readonly double _pixelWidth, _pixelHeight;

    public ResizedImage(int width, int height, int shortSide)
    {
        (Width, Height) = width <= height
            ? (shortSide, (int)((long)shortSide * height / width))
            : ((int)((long)shortSide * width / height), shortSide);
        (_pixelWidth, _pixelHeight) = ((double)width / Width, (double)height / Height);
    }

    public int Width { get; }

    public int Height { get; }

    /// <summary>A square of it, in pixels of the full-size image.</summary>
    public ImageCrop Part(int x, int y, int side) => new(x * _pixelWidth, y * _pixelHeight, side * _pixelWidth, side * _pixelHeight, Mirror: false);
}
