using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Data;

/// <summary>Encoded image to network input: read, decode, crop, resize, distort. Keeps its buffers; one per thread.</summary>
internal sealed class ImageRenderer(IImageSource dataset, LoaderOptions options, StageClock clock) : IDisposable
{
    // Training lets the codec reduce as far as no pixel has to be invented again. Evaluation keeps twice the pixels, so that its filter, not the
    // codec's, decides how the image looks: published accuracies were measured on fully decoded images.
    private const double TrainingMargin = 1, EvaluationMargin = 2;

    private readonly ImageDecoder _decoder = new();
    private readonly Resampler _resampler = new(options.ImageSize);
    private byte[] _encoded = new byte[1 << 20];
    private ViewRenderer? _views;

    /// <summary>
    /// Renders item <paramref name="position"/> of an epoch, which shows image <paramref name="index"/>, to size x size x channels bytes; in multi-crop evaluation
    /// all views of the image, one after the other.
    /// </summary>
    /// <param name="index">The image.</param>
    /// <param name="epoch">Key of the random draws, with the position.</param>
    /// <param name="position">Key of the random draws, with the epoch.</param>
    /// <param name="pixels">Where the pixels go; unchanged unless the result is <see cref="ImageStatus.Ok"/>.</param>
    public ImageStatus Render(int index, uint epoch, uint position, Span<byte> pixels)
    {
        clock.Begin(index);
        StoredImage image = dataset.Read(index, ref _encoded);
        clock.Enter(LoaderStage.Decode);
        try
        {
            ImageStatus status = _decoder.Open(_encoded, image);
            if (status != ImageStatus.Ok)
            {
                return status;
            }

            status = options.Augmentation is { } augmentation
                ? DecodeRandomCrop(augmentation, epoch, position)
                : options.Crops == 1 ? DecodeCenter() : DecodeViews(pixels);
            if (status == ImageStatus.Ok && options.Crops == 1)
            {
                if (options.Augmentation is { PhotometricStrength: > 0 } distortion)
                {
                    clock.Enter(LoaderStage.Augment);
                    var random = new RandomSequence(options.Seed, RandomStreams.Color, epoch, position);
                    PhotometricDistortion.Apply(_resampler.Pixels, distortion.PhotometricStrength, distortion.LightingNoise, ref random);
                }

                clock.Enter(LoaderStage.Copy);
                Store(pixels);
            }

            return status;
        }
        finally
        {
            _decoder.Close();
        }
    }

    public void Dispose() => _decoder.Dispose();

    private void Store(Span<byte> pixels)
    {
        if (options.Channels == 1)
        {
            _resampler.StoreGrey(pixels);
        }
        else
        {
            _resampler.StoreRgb(pixels);
        }

        if (options.Binarize)
        {
            foreach (ref byte value in pixels)
            {
                value = (byte)(value >= 128 ? 255 : 0);
            }
        }
    }

    private ImageStatus DecodeRandomCrop(AugmentationOptions augmentation, uint epoch, uint position)
    {
        var random = new RandomSequence(options.Seed, RandomStreams.Crop, epoch, position);
        ImageCrop crop = ImageCrop.Random(_decoder.Width, _decoder.Height, augmentation, ref random);
        // Only pixels of the crop: a training crop is cut out first and resized then.
        return DecodeAndResize(crop, margin: 0, TrainingMargin);
    }

    private ImageStatus DecodeCenter()
    {
        ImageCrop crop = ImageCrop.Center(_decoder.Width, _decoder.Height, options.ImageSize, options.CropFraction);
        // The image is resized first and cut out then, so pixels around the crop count within the filter's reach.
        double reach = Math.Max(1, Math.Max(crop.Width, crop.Height) / options.ImageSize);
        return DecodeAndResize(crop, margin: (int)Math.Ceiling(reach) + 1, EvaluationMargin);
    }

    private ImageStatus DecodeViews(Span<byte> pixels)
    {
        _views ??= new ViewRenderer(options, _resampler);
        double smallestScale = EvaluationMargin * _views.Prepare(_decoder.Width, _decoder.Height);
        ImageStatus status = _decoder.Decode(0, 0, _decoder.Width, _decoder.Height, smallestScale);
        clock.Enter(LoaderStage.Resize);
        int bytes = pixels.Length / options.Crops;
        for (int i = 0; i < _views.Count && status == ImageStatus.Ok; i++)
        {
            _views.Render(i, _decoder.Pixels, _decoder.Window);
            Store(pixels.Slice(i * bytes, bytes));
        }

        return status;
    }

    private ImageStatus DecodeAndResize(ImageCrop crop, int margin, double pixelsPerResult)
    {
        double smallestScale = pixelsPerResult * options.ImageSize / Math.Min(crop.Width, crop.Height);
        ImageStatus status = _decoder.Decode(
            Math.Max(0, (int)Math.Floor(crop.X) - margin), Math.Max(0, (int)Math.Floor(crop.Y) - margin),
            Math.Min(_decoder.Width, (int)Math.Ceiling(crop.X + crop.Width) + margin),
            Math.Min(_decoder.Height, (int)Math.Ceiling(crop.Y + crop.Height) + margin), smallestScale);
        if (status == ImageStatus.Ok)
        {
            clock.Enter(LoaderStage.Resize);
            DecodedWindow window = _decoder.Window;
            _resampler.Resize(_decoder.Pixels, window.Width, window.Height, window.Stride, window.ToWindow(crop));
        }

        return status;
    }
}
