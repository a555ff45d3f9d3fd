using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Data;

/// <summary>
/// The part of an image that becomes a network's square input: a rectangle in pixels of the full-size image (fractional where it comes from a
/// resized one), and whether left and right are exchanged.
/// </summary>
/// <param name="X">Left edge.</param>
/// <param name="Y">Top edge.</param>
/// <param name="Width">Width, greater than 0.</param>
/// <param name="Height">Height, greater than 0.</param>
/// <param name="Mirror">True to exchange left and right.</param>
public readonly record struct ImageCrop(double X, double Y, double Width, double Height, bool Mirror)
{
    private const int Tries = 10;

    /// <summary>Short sides of the paper's multi-crop evaluation, for crops of 224 pixels.</summary>
    private static readonly int[] ShortSides = [256, 288, 320, 352];

    /// <summary>
    /// GoogLeNet's training crop: area uniform in [<see cref="AugmentationOptions.MinArea"/>, 1] of the image, aspect ratio log-uniform in
    /// [<see cref="AugmentationOptions.MinAspect"/>, <see cref="AugmentationOptions.MaxAspect"/>], position uniform among whole pixels, mirrored with
    /// probability 1/2. After ten rectangles that do not fit: the largest centred one whose aspect ratio is allowed.
    /// </summary>
    public static ImageCrop Random(int width, int height, AugmentationOptions options, ref RandomSequence random)
    {
        bool mirror = random.NextDouble() < 0.5 && options.Mirror;
        for (int attempt = 0; attempt < Tries; attempt++)
        {
            double area = random.NextDouble(options.MinArea, 1) * width * height;
            double aspect = Math.Exp(random.NextDouble(Math.Log(options.MinAspect), Math.Log(options.MaxAspect)));
            int w = (int)Math.Round(Math.Sqrt(area * aspect)), h = (int)Math.Round(Math.Sqrt(area / aspect));
            if (w > 0 && h > 0 && w <= width && h <= height)
            {
                uint x = random.NextBelow((uint)(width - w + 1)), y = random.NextBelow((uint)(height - h + 1));
                return new ImageCrop(x, y, w, h, mirror);
            }
        }

        double ratio = (double)width / height;
        int fallbackWidth = ratio > options.MaxAspect ? Math.Clamp((int)Math.Round(height * options.MaxAspect), 1, width) : width;
        int fallbackHeight = ratio < options.MinAspect ? Math.Clamp((int)Math.Round(width / options.MinAspect), 1, height) : height;
        return new ImageCrop((width - fallbackWidth) / 2, (height - fallbackHeight) / 2, fallbackWidth, fallbackHeight, mirror);
    }

    /// <summary>
    /// The evaluation crop: the image is resized, aspect ratio kept, until its short side is round(<paramref name="size"/> /
    /// <paramref name="cropFraction"/>), and the central <paramref name="size"/> x <paramref name="size"/> pixels are taken. Smaller images are enlarged.
    /// </summary>
    public static ImageCrop Center(int width, int height, int size, double cropFraction) =>
        Resized(width, height, (int)Math.Round(size / cropFraction)).Part(0.5, 0.5, size, mirror: false);

    /// <summary>
    /// The crops that are averaged in multi-crop evaluation: 1, the <see cref="Center"/> crop; 10, four corners and the centre of the same resized image
    /// and their mirrors; 144, GoogLeNet's: short side 256, 288, 320 and 352 (in proportion to <paramref name="size"/> / 224), of each three squares along
    /// the long side, of each square four corners, centre and the whole square, and mirrors.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">Another number of crops.</exception>
    public static ImageCrop[] Views(int width, int height, int size, double cropFraction, int crops)
    {
        var views = new List<ImageCrop>(crops);
        switch (crops)
        {
            case 1:
                return [Center(width, height, size, cropFraction)];
            case 10:
                AddCornersAndCentre(views, Resized(width, height, (int)Math.Round(size / cropFraction)), size);
                break;
            case 144:
                foreach (int shortSide in ShortSides)
                {
                    ResizedImage image = Resized(width, height, (int)Math.Round(shortSide * size / 224.0));
                    int square = Math.Min(image.Width, image.Height);
                    foreach (double along in (double[])[0, 0.5, 1])
                    {
                        // Left, centre, right of a landscape image; top, centre, bottom of a portrait.
                        ResizedImage part = image with
                        {
                            Left = Math.Floor((image.Width - square) * along),
                            Top = Math.Floor((image.Height - square) * along),
                            Width = square,
                            Height = square,
                        };
                        AddCornersAndCentre(views, part, size);
                        views.Add(part.Part(0, 0, square, mirror: false));
                        views.Add(part.Part(0, 0, square, mirror: true));
                    }
                }

                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(crops), crops, "Evaluation takes 1, 10 or 144 crops.");
        }

        return [.. views];
    }

    private static void AddCornersAndCentre(List<ImageCrop> views, ResizedImage image, int size)
    {
        foreach ((double x, double y) in ((double, double)[])[(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5)])
        {
            views.Add(image.Part(x, y, size, mirror: false));
            views.Add(image.Part(x, y, size, mirror: true));
        }
    }

    private static ResizedImage Resized(int width, int height, int shortSide)
    {
        (int w, int h) = width <= height
            ? (shortSide, (int)((long)shortSide * height / width))
            : ((int)((long)shortSide * width / height), shortSide);
        return new ResizedImage(0, 0, w, h, (double)width / w, (double)height / h);
    }

    /// <summary>A window of an image resized to whole pixels, and how many full-size pixels one of its pixels is wide and high.</summary>
    private readonly record struct ResizedImage(double Left, double Top, int Width, int Height, double PixelWidth, double PixelHeight)
    {
        public ImageCrop Part(double alongX, double alongY, int size, bool mirror) => new(
            (Left + Math.Floor((Width - size) * alongX)) * PixelWidth, (Top + Math.Floor((Height - size) * alongY)) * PixelHeight,
            size * PixelWidth, size * PixelHeight, mirror);
    }
}
