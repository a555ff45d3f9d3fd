namespace HpcBatchNorm.Data;

/// <summary>How the bytes of an image are to be read.</summary>
public enum ImageEncoding
{
    /// <summary>A file: JPEG, PNG, WebP or BMP, recognised by its content.</summary>
    File,

    /// <summary>Bare pixels, one byte of grey each, row by row.</summary>
    Grey,

    /// <summary>Bare pixels, three bytes R, G, B each, row by row.</summary>
    Rgb,
}

/// <summary>What <see cref="IImageSource.Read"/> put into a buffer.</summary>
/// <param name="Length">Bytes of the image, from the beginning of the buffer on.</param>
/// <param name="Encoding">What they are.</param>
/// <param name="Width">Width in pixels; 0 for <see cref="ImageEncoding.File"/>, whose header says it.</param>
/// <param name="Height">Height in pixels; 0 for <see cref="ImageEncoding.File"/>.</param>
public readonly record struct StoredImage(int Length, ImageEncoding Encoding, int Width, int Height)
{
    /// <summary>An encoded file of <paramref name="length"/> bytes.</summary>
    public static StoredImage File(int length) => new(length, ImageEncoding.File, 0, 0);

    /// <summary>Bare grey pixels, a byte each, row by row.</summary>
    public static StoredImage Grey(int width, int height) => new(checked(width * height), ImageEncoding.Grey, width, height);

    /// <summary>Bare pixels of three bytes, R, G and B, row by row.</summary>
    public static StoredImage Rgb(int width, int height) => new(checked(3 * width * height), ImageEncoding.Rgb, width, height);
}

/// <summary>
/// Labelled images, wherever they are kept: <see cref="ImageDataset"/> reads them from folders and archives, <see cref="InMemoryImageSource"/> from memory,
/// and anybody may write another one. Loading, training and evaluation ask for nothing else, and give every source the same determinism, crops,
/// distortion and exact resume. Images keep their index, label and bytes for as long as the source is used. All members may be called from any thread,
/// from several at once.
/// </summary>
public interface IImageSource
{
    /// <summary>What the source is called in messages: a folder, an archive, or a few words.</summary>
    string Source { get; }

    /// <summary>How the images are kept, in words, for the first lines of a run.</summary>
    string Layout => "images of the caller's";

    /// <summary>Number of images.</summary>
    int Count { get; }

    /// <summary>Name of each class, in the order of their indices; a network has one output for each. A checkpoint remembers them.</summary>
    IReadOnlyList<string> ClassNames { get; }

    /// <summary>What each class is called in plain words; an empty string where the name says it all. One for each of <see cref="ClassNames"/>.</summary>
    IReadOnlyList<string> ClassDescriptions => [.. ClassNames.Select(_ => "")];

    /// <summary>Number of classes.</summary>
    int ClassCount => ClassNames.Count;

    /// <summary>
    /// The first image of each shard, ascending from 0. A shard is a group of neighbouring images that lie together; a source without such groups says
    /// that all its images are one.
    /// </summary>
    IReadOnlyList<int> ShardStarts => [0];

    /// <summary>
    /// True when every shard is a random sample of all images, so that <see cref="ShuffleMode.Shard"/> may shuffle within them; false makes it deal out the
    /// images to shards of its own.
    /// </summary>
    bool ShardsAreMixed => false;

    /// <summary>Class index of image <paramref name="index"/>, from 0 on.</summary>
    int Label(int index);

    /// <summary>Name of image <paramref name="index"/>, for messages and reports.</summary>
    string Name(int index) => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"image {index}");

    /// <summary>
    /// Reads image <paramref name="index"/> into <paramref name="buffer"/>, replacing it by a larger array when it is too small, and says what was read. The
    /// buffer belongs to the caller: nobody else writes to it meanwhile.
    /// </summary>
    /// <exception cref="UserErrorException">The image cannot be read any more; the line says why.</exception>
    StoredImage Read(int index, ref byte[] buffer);
}
