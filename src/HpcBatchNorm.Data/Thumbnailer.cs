using SkiaSharp;

namespace HpcBatchNorm.Data;

/// <summary>Small JPEGs of a data set's images, cut as evaluation cuts them: what the network was shown.</summary>
internal sealed class Thumbnailer : IDisposable
{
    private const int JpegQuality = 82, Rgb = 3, Rgba = 4;

    private readonly int _size;
    private readonly ImageRenderer _renderer;
    private readonly byte[] _rgb, _rgba;

    public Thumbnailer(IImageSource dataset, LoaderOptions evaluation, int size)
    {
        _size = size;
        _renderer = new ImageRenderer(dataset, evaluation with { ImageSize = size, Crops = 1, Channels = Rgb, Binarize = false }, new StageClock());
        _rgb = new byte[size * size * Rgb];
        _rgba = new byte[size * size * Rgba];
    }

    /// <summary>The image as JPEG; null when it cannot be read or decoded.</summary>
    public byte[]? Encode(int index)
    {
        try
        {
            if (_renderer.Render(index, epoch: 0, position: 0, _rgb) != ImageStatus.Ok)
            {
                return null;
            }
        }
        catch (UserErrorException)
        {
            return null;
        }

        for (int i = 0; i < _size * _size; i++)
        {
            _rgb.AsSpan(i * Rgb, Rgb).CopyTo(_rgba.AsSpan(i * Rgba));
            _rgba[i * Rgba + Rgb] = byte.MaxValue;
        }

        using var image = SKImage.FromPixelCopy(new SKImageInfo(_size, _size, SKColorType.Rgba8888, SKAlphaType.Opaque), _rgba);
        using SKData jpeg = image.Encode(SKEncodedImageFormat.Jpeg, JpegQuality);
        return jpeg.ToArray();
    }

    public void Dispose() => _renderer.Dispose();
}
