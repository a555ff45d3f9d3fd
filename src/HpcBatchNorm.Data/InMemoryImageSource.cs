namespace HpcBatchNorm.Data;

/// <summary>In which order the values of bare colour pixels follow one another.</summary>
public enum PixelOrder
{
    /// <summary>Pixel after pixel, R, G and B of each (height, width, channels).</summary>
    Interleaved,

    /// <summary>All of red, then all of green, then all of blue (channels, height, width), as CIFAR's files have them.</summary>
    Planar,
}

/// <summary>
/// Labelled images in the memory of this process: encoded files, or bare pixels that are all of one size. Nothing is copied: arrays that are given must
/// not be changed while the source is used.
/// </summary>
public sealed class InMemoryImageSource : IImageSource
{
    private readonly IReadOnlyList<ReadOnlyMemory<byte>>? _files;
    private readonly ReadOnlyMemory<byte> _pixels;
    private readonly PixelOrder _order;
    private readonly int _width, _height, _channels;
    private readonly IReadOnlyList<int> _labels;
    private readonly IReadOnlyList<string>? _names, _descriptions;

    /// <summary>Bare pixels, image after image.</summary>
    /// <param name="pixels">Exactly labels x height x width x channels bytes.</param>
    /// <param name="width">Width of every image.</param>
    /// <param name="height">Height of every image.</param>
    /// <param name="channels">Bytes per pixel: 3 for R, G, B, or 1 for grey.</param>
    /// <param name="labels">Class index of each image.</param>
    /// <param name="classNames">Name of each class.</param>
    /// <param name="order">How the colours of an image lie.</param>
    /// <exception cref="ArgumentException">The numbers do not fit together, or a label is of no class.</exception>
    public InMemoryImageSource(
        ReadOnlyMemory<byte> pixels, int width, int height, int channels, IReadOnlyList<int> labels, IReadOnlyList<string> classNames,
        PixelOrder order = PixelOrder.Interleaved)
        : this(labels, classNames)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(width);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(height);
        if (channels is not (1 or 3))
        {
            throw new ArgumentException($"Pixels have 1 byte (grey) or 3 bytes (R, G, B), not {channels}.", nameof(channels));
        }

        long needed = (long)labels.Count * width * height * channels;
        if (pixels.Length != needed)
        {
            throw new ArgumentException(FormattableString.Invariant(
                $"{labels.Count} images of {width}x{height} pixels of {channels} bytes need {needed} bytes, but {pixels.Length} were given."), nameof(pixels));
        }

        (_pixels, _width, _height, _channels, _order) = (pixels, width, height, channels, order);
    }

    /// <summary>Encoded images: the bytes of JPEG, PNG, WebP or BMP files.</summary>
    /// <param name="files">The bytes of each image.</param>
    /// <param name="labels">Class index of each image.</param>
    /// <param name="classNames">Name of each class.</param>
    /// <exception cref="ArgumentException">There are not as many labels as images, or a label is of no class.</exception>
    public InMemoryImageSource(IReadOnlyList<ReadOnlyMemory<byte>> files, IReadOnlyList<int> labels, IReadOnlyList<string> classNames)
        : this(labels, classNames)
    {
        if (files.Count != labels.Count)
        {
            throw new ArgumentException($"There are {files.Count} images but {labels.Count} labels; each image needs one.", nameof(labels));
        }

        _files = files;
    }

    private InMemoryImageSource(IReadOnlyList<int> labels, IReadOnlyList<string> classNames)
    {
        if (labels.Count == 0)
        {
            throw new ArgumentException("There are no images.", nameof(labels));
        }

        for (int i = 0; i < labels.Count; i++)
        {
            if (labels[i] < 0 || labels[i] >= classNames.Count)
            {
                throw new ArgumentException(
                    $"Image {i} has label {labels[i]}, but the names are those of {classNames.Count} classes; labels count from 0.", nameof(labels));
            }
        }

        (_labels, ClassNames) = (labels, classNames);
    }

    /// <inheritdoc/>
    public string Source { get; init; } = "images in memory";

    /// <inheritdoc/>
    public string Layout => _files is not null
        ? "encoded images in memory"
        : FormattableString.Invariant($"{_width}x{_height} {(_channels == 1 ? "grey" : "RGB")} pixels in memory");

    /// <inheritdoc/>
    public int Count => _labels.Count;

    /// <inheritdoc/>
    public IReadOnlyList<string> ClassNames { get; }

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">There is not one for each class.</exception>
    public IReadOnlyList<string> ClassDescriptions
    {
        get => _descriptions ?? [.. ClassNames.Select(_ => "")];
        init => _descriptions = value.Count == ClassNames.Count
            ? value
            : throw new ArgumentException($"There are {value.Count} descriptions of {ClassNames.Count} classes.", nameof(value));
    }

    /// <summary>Name of each image, for messages and reports; null for their numbers.</summary>
    /// <exception cref="ArgumentException">There is not one for each image.</exception>
    public IReadOnlyList<string>? Names
    {
        get => _names;
        init => _names = value is null || value.Count == Count
            ? value
            : throw new ArgumentException($"There are {value.Count} names of {Count} images.", nameof(value));
    }

    /// <inheritdoc/>
    public int Label(int index) => _labels[index];

    /// <inheritdoc/>
    public string Name(int index) => _names?[index] ?? string.Create(System.Globalization.CultureInfo.InvariantCulture, $"image {index}");

    /// <inheritdoc/>
    public StoredImage Read(int index, ref byte[] buffer)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, Count);
        ReadOnlySpan<byte> image;
        if (_files is not null)
        {
            image = _files[index].Span;
        }
        else
        {
            int bytes = _width * _height * _channels;
            image = _pixels.Span.Slice(index * bytes, bytes);
        }

        if (buffer.Length < image.Length)
        {
            buffer = new byte[image.Length];
        }

        if (_files is null && _channels == 3 && _order == PixelOrder.Planar)
        {
            int pixels = _width * _height;
            for (int i = 0; i < pixels; i++)
            {
                (buffer[3 * i], buffer[3 * i + 1], buffer[3 * i + 2]) = (image[i], image[pixels + i], image[2 * pixels + i]);
            }
        }
        else
        {
            image.CopyTo(buffer);
        }

        return _files is not null ? StoredImage.File(image.Length)
            : _channels == 1 ? StoredImage.Grey(_width, _height) : StoredImage.Rgb(_width, _height);
    }
}
