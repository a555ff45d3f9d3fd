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
internal readonly record struct ImageCrop(double X, double Y, double Width, double Height, bool Mirror)
{
    private const int Tries = 10;

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
    public static ImageCrop Center(int width, int height, int size, double cropFraction)
    {
        var resized = new ResizedImage(width, height, (int)Math.Round(size / cropFraction));
        return resized.Part((resized.Width - size) / 2, (resized.Height - size) / 2, size);
    }
}
