using System.Buffers.Binary;
using System.Globalization;
using System.Text.RegularExpressions;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Data;

/// <summary>
/// MNIST and its relatives (Fashion-MNIST, EMNIST, QMNIST) in their original IDX files, gzipped or not: images are bare grey bytes, kept in memory (47 MB
/// for MNIST). Classes are the labels, by number.
/// </summary>
internal static partial class IdxFiles
{
    private const int ImageMagic = 0x0803, LabelMagic = 0x0801, RecordMagic = 0x0C02, ImageHeader = 16, LabelHeader = 8, RecordHeader = 12;
    private const long MostPixels = 1 << 24;

    /// <summary>What an image takes besides its pixels: its name, its place, its label.</summary>
    private const int BytesPerImage = 40;

    /// <summary>Compressed files may take so many times their length in memory, and so much more. MNIST's take five times theirs.</summary>
    private const int MostExpansion = 8;
    private const long AlwaysAllowed = 32 << 20;

    /// <summary>True when the folder holds an IDX file of MNIST's names, or its relatives'.</summary>
    public static bool AreIn(string folder) => Find(folder).Count > 0;

    public static DatasetContents Read(string folder, DatasetSplit split)
    {
        List<IdxFile> files = Find(folder);
        string[] sets = [.. files.Select(file => file.Set).Distinct().Order(StringComparer.Ordinal)];
        if (sets.Length > 1)
        {
            throw new UserErrorException(
                $"'{folder}' holds IDX files of {sets.Length} data sets ('{string.Join("', '", sets)}'); put the four files of one into a folder of their own.");
        }

        string imageFile = Path(files, split, "images") ?? throw Missing(folder, sets[0], split, "images");
        string labelFile = Path(files, split, "labels") ?? throw Missing(folder, sets[0], split, "labels");
        int[] labels = ReadLabels(labelFile);
        (byte[] pixels, int count, int height, int width) = ReadImages(imageFile);
        if (labels.Length != count)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{imageFile}' has {count} images, but '{labelFile}' has {labels.Length} labels; the two do not belong together."));
        }

        // Both parts must give a class the same index, so both are looked at.
        string? other = Path(files, split == DatasetSplit.Train ? DatasetSplit.Validation : DatasetSplit.Train, "labels");
        int[] numbers = [.. (other is null ? labels : labels.Concat(ReadLabels(other))).Distinct().Order()];
        // Padded, so that the order of names is that of numbers.
        string format = "D" + (numbers.Length == 0 ? 1 : numbers[^1].ToString(CultureInfo.InvariantCulture).Length);
        string[] classes = [.. numbers.Select(number => number.ToString(format, CultureInfo.InvariantCulture))];
        ImageTable images = ImageTable.Numbered(count, ImageHeader, height * width);
        for (int i = 0; i < labels.Length; i++)
        {
            labels[i] = Array.BinarySearch(numbers, labels[i]);
        }

        string layout = FormattableString.Invariant($"IDX files of {width}x{height} grey pixels");
        return new DatasetContents(
            images, labels, classes, [.. classes.Select(_ => "")], imageFile, new MemoryStore(images, pixels), layout, Shards.Runs(count))
        {
            GreyPixels = (width, height),
        };
    }

    private static (byte[] Pixels, int Count, int Height, int Width) ReadImages(string path) => Reading(path, (stream, fileBytes) =>
    {
        byte[] header = new byte[ImageHeader];
        bool whole = stream.ReadAtLeast(header, ImageHeader, throwOnEndOfStream: false) == ImageHeader;
        int count = Field(header, 1), height = Field(header, 2), width = Field(header, 3);
        long imageBytes = (long)height * width;
        if (!whole || Field(header, 0) != ImageMagic || count < 0 || height < 1 || width < 1 || imageBytes > MostPixels)
        {
            throw new UserErrorException($"'{path}' is no IDX file of grey images (magic number 0x{ImageMagic:X8} and three sizes); get it again.");
        }

        CheckMemory(path, fileBytes, count * (imageBytes + BytesPerImage));
        // One byte more than there should be, to see whether there is more.
        byte[] bytes = new byte[ImageHeader + count * imageBytes + 1];
        header.CopyTo(bytes, 0);
        int length = ImageHeader + stream.ReadAtLeast(bytes.AsSpan(ImageHeader), bytes.Length - ImageHeader, throwOnEndOfStream: false);
        return length == bytes.Length - 1 ? (bytes, count, height, width) : throw new UserErrorException(FormattableString.Invariant(
            $"'{path}' has {(length == bytes.Length ? "more" : "fewer")} bytes than the {bytes.Length - 1} that {count} images of {width}x{height} need; get it again."));
    });

    /// <summary>A byte for each image, or, in QMNIST's files, a record of whole numbers whose first is the class.</summary>
    private static int[] ReadLabels(string path) => Reading(path, (stream, fileBytes) =>
    {
        byte[] header = new byte[RecordHeader];
        int read = stream.ReadAtLeast(header.AsSpan(0, LabelHeader), LabelHeader, throwOnEndOfStream: false), magic = Field(header, 0), count = Field(header, 1);
        bool records = magic == RecordMagic;
        if (records && read < RecordHeader)
        {
            read += stream.ReadAtLeast(header.AsSpan(read), RecordHeader - read, throwOnEndOfStream: false);
        }

        int headerBytes = records ? RecordHeader : LabelHeader, columns = records ? Field(header, 2) : 1, width = records ? sizeof(int) : 1;
        if (read < headerBytes || magic is not (LabelMagic or RecordMagic) || count < 0 || columns is < 1 or > 256)
        {
            throw NotLabels();
        }

        long expected = (long)count * columns * width;
        CheckMemory(path, fileBytes, expected + (long)count * sizeof(int) * 2);
        byte[] bytes = new byte[expected + 1];
        if (stream.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false) != expected)
        {
            throw NotLabels();
        }

        int[] labels = new int[count];
        for (int i = 0; i < count; i++)
        {
            labels[i] = records ? BinaryPrimitives.ReadInt32BigEndian(bytes.AsSpan(i * columns * width)) : bytes[i];
            if (labels[i] is < 0 or > byte.MaxValue)
            {
                throw NotLabels();
            }
        }

        return labels;

        UserErrorException NotLabels() => new(
            $"'{path}' is no whole IDX file of labels (magic number 0x{LabelMagic:X8}, a count, a byte each; or 0x{RecordMagic:X8}, two counts, whole numbers); get it again.");
    });

    private static void CheckMemory(string path, long fileBytes, long needed)
    {
        if (needed > Array.MaxLength)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{path}' would take {needed >> 20} MB of memory, of which images in IDX files may take 2 GB; make image files in class folders of it."));
        }

        if (needed > MostExpansion * fileBytes + AlwaysAllowed)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{path}' of {fileBytes} bytes would take {needed >> 20} MB of memory, more than such a file can mean; get it again, or, if it is right, decompress it with gunzip."));
        }
    }

    /// <summary>Opens a file, decompressing it when its first bytes say that it is gzipped, whatever its name says.</summary>
    private static T Reading<T>(string path, Func<Stream, long, T> read)
    {
        try
        {
            using FileStream file = RegularFile.OpenRead(path);
            using Stream stream = GzipFile.Decompress(file);
            return read(stream, file.Length);
        }
        catch (InvalidDataException exception)
        {
            throw new UserErrorException($"'{path}' cannot be decompressed ({exception.Message}); get it again.", exception);
        }
    }

    private static int Field(byte[] bytes, int index) => BinaryPrimitives.ReadInt32BigEndian(bytes.AsSpan(4 * index));

    private static List<IdxFile> Find(string folder)
    {
        var files = new List<IdxFile>();
        foreach (string path in Directory.EnumerateFiles(folder).Order(StringComparer.Ordinal))
        {
            if (NamePattern().Match(System.IO.Path.GetFileName(path)) is { Success: true } match)
            {
                DatasetSplit split = match.Groups["part"].Value == "train" ? DatasetSplit.Train : DatasetSplit.Validation;
                files.Add(new IdxFile(path, match.Groups["set"].Value, split, match.Groups["what"].Value));
            }
        }

        return files;
    }

    private static string? Path(List<IdxFile> files, DatasetSplit split, string what) =>
        files.Find(file => file.Split == split && file.What == what)?.Path;

    private static UserErrorException Missing(string folder, string set, DatasetSplit split, string what)
    {
        string part = split == DatasetSplit.Train ? "train" : set.Length > 0 ? "test" : "t10k";
        return new UserErrorException($"'{folder}' has no {set}{part}-{what}-idx{(what == "images" ? 3 : 1)}-ubyte (or .gz); put it beside the other IDX files.");
    }

    // train-images-idx3-ubyte, t10k-labels.idx1-ubyte.gz, emnist-letters-test-images-idx3-ubyte.gz, qmnist-train-labels-idx2-int.gz
    [GeneratedRegex("^(?<set>(?:[a-z0-9]+-)*?)(?<part>train|t10k|test)-(?<what>images|labels)[.-]idx(?:3-ubyte|1-ubyte|2-int)(?:[.]gz)?$")]
    private static partial Regex NamePattern();

    private sealed record IdxFile(string Path, string Set, DatasetSplit Split, string What);
}
