namespace HpcBatchNorm.Data;

/// <summary>Which images of a data set.</summary>
public enum DatasetSplit
{
    /// <summary>The images to train on.</summary>
    Train,

    /// <summary>The images to evaluate on.</summary>
    Validation,
}

/// <summary>
/// Labelled images, read where they lie. These layouts are recognised:
/// <list type="bullet">
/// <item>the official ILSVRC2012 archives in one folder, never extracted: <c>ILSVRC2012_img_train.tar</c>, <c>ILSVRC2012_img_val.tar</c>,
/// <c>ILSVRC2012_devkit_t12.tar.gz</c>;</item>
/// <item>a folder per class, under <c>train/</c> and <c>val/</c> or directly under the path (then both splits are the same images);</item>
/// <item>Kaggle's ImageNet as unpacked (<c>ILSVRC/Data/CLS-LOC</c>, <c>LOC_val_solution.csv</c>), and any <c>train/</c> and flat <c>val/</c> with that
/// file or the development kit beside them;</item>
/// <item>Tiny-ImageNet, whose validation labels are in <c>val_annotations.txt</c>;</item>
/// <item>tars, gzipped or not: one of <c>CLASS/image</c> files, with or without <c>train/</c> and <c>val/</c> above; one for each class; webdataset shards;
/// Hugging Face's ImageNet;</item>
/// <item>IDX files of MNIST and its relatives, gzipped or not;</item>
/// <item>what <c>hpcbn pack</c> wrote.</item>
/// </list>
/// Classes are sorted by name, ordinally, so for ImageNet the class index is the position among the sorted WNIDs (not the ILSVRC2012_ID).
/// Images are sorted by name, so archives and the folders extracted from them give the same order; only those of a packed set stay as they were packed. All members may be used from any thread.
/// </summary>
public sealed class ImageDataset : IImageSource, IDisposable
{
    private readonly DatasetContents _contents;
    private volatile bool _disposed;

    private ImageDataset(DatasetContents contents, DatasetSplit split)
    {
        _contents = contents;
        Split = split;
    }

    /// <summary>Which images these are.</summary>
    public DatasetSplit Split { get; }

    /// <summary>The layout in words, with what is unusual about it: <c>official ImageNet archives</c>.</summary>
    public string Layout => _contents.Layout;

    /// <summary>The archive the images lie in, or the folder their names are relative to.</summary>
    public string Source => _contents.Source;

    /// <summary>Number of images.</summary>
    public int Count => _contents.Images.Count;

    /// <summary>Number of classes.</summary>
    public int ClassCount => _contents.ClassNames.Length;

    /// <summary>WNID or folder name of each class, sorted.</summary>
    public IReadOnlyList<string> ClassNames => _contents.ClassNames;

    /// <summary>What each class is called (the synset's words); an empty string where unknown.</summary>
    public IReadOnlyList<string> ClassDescriptions => _contents.ClassDescriptions;

    /// <summary>
    /// Opens the data set at <paramref name="path"/>. Archives are indexed at the first opening (one small read per image), which is kept under
    /// <c>$XDG_CACHE_HOME/hpcbn</c> or <c>~/.cache/hpcbn</c> until the archive changes; <paramref name="progress"/> is told when that is necessary.
    /// </summary>
    /// <exception cref="UserErrorException">There is no usable data set; the line says what is missing or wrong and what to do.</exception>
    public static ImageDataset Open(string path, DatasetSplit split, IProgress<string>? progress = null) =>
        Open(path, split, ArchiveIndex.DefaultCacheDirectory, progress);

    internal static ImageDataset Open(string path, DatasetSplit split, string? cacheDirectory, IProgress<string>? progress = null)
    {
        DatasetContents contents = DatasetLayouts.Read(path, split, cacheDirectory, progress);
        if (contents.Images.Count == 0)
        {
            contents.Store.Dispose();
            throw new UserErrorException($"'{contents.Source}' holds no images.{string.Concat(contents.Notes.Take(1).Select(note => $" ({note})"))}");
        }

        foreach (string note in contents.Notes)
        {
            progress?.Report(note);
        }

        return new ImageDataset(contents, split);
    }

    /// <summary>
    /// What lies there besides the images and is not used, a line for each kind: <c>passed over files that are no images by name (2): 'a/1.txt', 'b/2.txt'</c>.
    /// </summary>
    public IReadOnlyList<string> Notes => _contents.Notes;

    /// <summary>Class index of image <paramref name="index"/>.</summary>
    public int Label(int index) => _contents.Labels[index];

    /// <summary>Name of image <paramref name="index"/> within <see cref="Source"/>: <c>n01440764/n01440764_10026.JPEG</c>.</summary>
    public string Name(int index) => _contents.Images.Name(index);

    internal ReadOnlySpan<byte> NameBytes(int index) => _contents.Images.NameBytes(index);

    /// <summary>
    /// The first image of each shard, ascending from 0. A shard is a group of neighbouring images that lie together: the archive of a class, a file of
    /// a packed set; 1024 images where a layout has no groups of its own.
    /// </summary>
    public IReadOnlyList<int> ShardStarts => _contents.ShardStarts;

    /// <summary>
    /// True when every shard is a random sample of the data set, as in a set that was shuffled when it was packed; false when shards follow the order of
    /// the classes, so that shuffling within them alone would give batches of one class.
    /// </summary>
    public bool ShardsAreMixed => _contents.ShardsAreMixed;

    /// <summary>Which shard image <paramref name="index"/> is in.</summary>
    internal int Shard(int index) => Shards.Of(_contents.ShardStarts, index);

    /// <summary>
    /// Width and height of images that are kept as bare grey pixels, a byte each, row by row (MNIST); null where each image is an encoded file.
    /// </summary>
    internal (int Width, int Height)? GreyPixels => _contents.GreyPixels;

    /// <summary>
    /// Reads the bytes of image <paramref name="index"/>, as they are stored, into <paramref name="buffer"/>, replacing it by a larger one when it is
    /// too small, and returns how many there are.
    /// </summary>
    /// <exception cref="UserErrorException">The file or archive cannot be read any more.</exception>
    internal int ReadEncoded(int index, ref byte[] buffer)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        try
        {
            return _contents.Store.Read(index, ref buffer);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"image '{Name(index)}' in '{Source}' cannot be read: {exception.Message}", exception);
        }
    }

    /// <inheritdoc/>
    public StoredImage Read(int index, ref byte[] buffer)
    {
        int length = ReadEncoded(index, ref buffer);
        return _contents.GreyPixels is var (width, height) ? StoredImage.Grey(width, height) : StoredImage.File(length);
    }

    /// <summary>Closes the files; images cannot be read any more, names and labels can.</summary>
    public void Dispose()
    {
        _disposed = true;
        _contents.Store.Dispose();
    }
}
