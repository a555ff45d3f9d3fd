namespace HpcBatchNorm.Data;

/// <summary>
/// What training, evaluation and <see cref="ImagePreprocessor"/> share: the part of an image that a crop needs is decoded and resized, and the result
/// rounded to bytes. Uses the buffers of its decoder and resampler; one per thread.
/// </summary>
internal sealed class CropPipeline(ImageDecoder decoder, Resampler resampler, int size)
{
    // Evaluation keeps twice the pixels, so that its filter, not the codec's, decides how the image looks: published accuracies were measured on fully
    // decoded images.
    public const double EvaluationMargin = 2;

    /// <summary>Decodes the opened image's central crop and resizes it.</summary>
    public ImageStatus Center(double cropFraction, StageClock? clock = null)
    {
        ImageCrop crop = ImageCrop.Center(decoder.Width, decoder.Height, size, cropFraction);
        // The image is resized first and cut out then, so pixels around the crop count within the filter's reach.
        double reach = Math.Max(1, Math.Max(crop.Width, crop.Height) / size) * (resampler.Interpolation == Interpolation.Bicubic ? 2 : 1);
        return Crop(crop, margin: (int)Math.Ceiling(reach) + 1, EvaluationMargin, clock);
    }

    /// <summary>Decodes a crop of the opened image, with <paramref name="margin"/> pixels around it, and resizes it.</summary>
    public ImageStatus Crop(ImageCrop crop, int margin, double pixelsPerResult, StageClock? clock = null)
    {
        double smallestScale = pixelsPerResult * size / Math.Min(crop.Width, crop.Height);
        ImageStatus status = decoder.Decode(
            Math.Max(0, (int)Math.Floor(crop.X) - margin), Math.Max(0, (int)Math.Floor(crop.Y) - margin),
            Math.Min(decoder.Width, (int)Math.Ceiling(crop.X + crop.Width) + margin),
            Math.Min(decoder.Height, (int)Math.Ceiling(crop.Y + crop.Height) + margin), smallestScale);
        if (status == ImageStatus.Ok)
        {
            clock?.Enter(LoaderStage.Resize);
            DecodedWindow window = decoder.Window;
            resampler.Resize(decoder.Pixels, window.Width, window.Height, window.Stride, window.ToWindow(crop));
        }

        return status;
    }

    /// <summary>Rounds the resized pixels to bytes: R, G, B, or one grey value; black or white where <paramref name="binarize"/> says so.</summary>
    public void Store(Span<byte> pixels, int channels, bool binarize)
    {
        if (channels == 1)
        {
            resampler.StoreGrey(pixels);
        }
        else
        {
            resampler.StoreRgb(pixels);
        }

        if (binarize)
        {
            foreach (ref byte value in pixels)
            {
                value = (byte)(value >= 128 ? 255 : 0);
            }
        }
    }
}
