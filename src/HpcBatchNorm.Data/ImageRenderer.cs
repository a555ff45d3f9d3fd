using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Data;

/// <summary>Encoded image to network input: read, decode, crop, resize, distort. Keeps its buffers; one per thread.</summary>
internal sealed class ImageRenderer(IImageSource dataset, LoaderOptions options, StageClock clock) : IDisposable
{
    /// <summary>Training lets the codec reduce as far as no pixel has to be invented again.</summary>
    private const double TrainingMargin = 1;

    private readonly ImageDecoder _decoder = new();
    private readonly Resampler _resampler = new(options.ImageSize) { Interpolation = options.Interpolation };
    private readonly AutomaticAugmentation? _automatic = options.Augmentation is null or { Policy: AutomaticPolicy.None } ? null : new AutomaticAugmentation(options.ImageSize);
    private byte[] _encoded = new byte[1 << 20];
    private CropPipeline? _pipeline;
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
        StoredImage image = Read(index);
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
                : options.Crops == 1 ? Pipeline.Center(options.CropFraction, clock) : DecodeViews(pixels);
            if (status == ImageStatus.Ok && options.Crops == 1)
            {
                if (_automatic is not null)
                {
                    clock.Enter(LoaderStage.Augment);
                    var random = new RandomSequence(options.Seed, RandomStreams.Automatic, epoch, position);
                    _automatic.Apply(_resampler, options.Augmentation!, ref random);
                }

                if (options.Augmentation is { PhotometricStrength: > 0 } distortion)
                {
                    clock.Enter(LoaderStage.Augment);
                    var random = new RandomSequence(options.Seed, RandomStreams.Color, epoch, position);
                    PhotometricDistortion.Apply(_resampler.Pixels, distortion.PhotometricStrength, distortion.LightingNoise, ref random);
                }

                if (options.Augmentation is { ErasingProbability: > 0 } erasing)
                {
                    clock.Enter(LoaderStage.Augment);
                    var random = new RandomSequence(options.Seed, RandomStreams.Erase, epoch, position);
                    RandomErasing.Apply(_resampler.Pixels, options.ImageSize, erasing.ErasingProbability, ref random);
                }

                clock.Enter(LoaderStage.Copy);
                Pipeline.Store(pixels, options.Channels, options.Binarize);
            }

            return status;
        }
        finally
        {
            _decoder.Close();
        }
    }

    public void Dispose() => _decoder.Dispose();

    private CropPipeline Pipeline => _pipeline ??= new CropPipeline(_decoder, _resampler, options.ImageSize);

    private ImageStatus DecodeRandomCrop(AugmentationOptions augmentation, uint epoch, uint position)
    {
        var random = new RandomSequence(options.Seed, RandomStreams.Crop, epoch, position);
        ImageCrop crop = ImageCrop.Random(_decoder.Width, _decoder.Height, augmentation, ref random);
        // Only pixels of the crop: a training crop is cut out first and resized then.
        return Pipeline.Crop(crop, margin: 0, TrainingMargin, clock);
    }

    private ImageStatus DecodeViews(Span<byte> pixels)
    {
        _views ??= new ViewRenderer(options, _resampler);
        double smallestScale = CropPipeline.EvaluationMargin * _views.Prepare(_decoder.Width, _decoder.Height);
        ImageStatus status = _decoder.Decode(0, 0, _decoder.Width, _decoder.Height, smallestScale);
        clock.Enter(LoaderStage.Resize);
        int bytes = pixels.Length / options.Crops;
        for (int i = 0; i < _views.Count && status == ImageStatus.Ok; i++)
        {
            _views.Render(i, _decoder.Pixels, _decoder.Window);
            Pipeline.Store(pixels.Slice(i * bytes, bytes), options.Channels, options.Binarize);
        }

        return status;
    }

    /// <summary>What a source of the caller's throws when a file or a connection fails is about the image, not about what the run writes.</summary>
    private StoredImage Read(int index)
    {
        try
        {
            return dataset.Read(index, ref _encoded);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"image '{dataset.Name(index)}' in '{dataset.Source}' cannot be read: {exception.Message}", exception);
        }
    }
}
