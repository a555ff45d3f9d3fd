using System.Buffers.Binary;
using System.Globalization;

namespace HpcBatchNorm.Data;

/// <summary>
/// MNIST and its relatives in their original IDX files, gzipped or not: images are bare grey bytes, kept in memory (47 MB for MNIST). Classes are
/// the digits, by number.
/// </summary>
internal static class IdxFiles
{
    private const int ImageMagic = 0x0803, LabelMagic = 0x0801, ImageHeader = 16, LabelHeader = 8;
    private const long MostPixels = 1 << 24;

    /// <summary>True when the folder holds an IDX file of MNIST's names.</summary>
    public static bool AreIn(string folder) => Find(folder, "train", "images") is not null || Find(folder, "t10k", "images") is not null;

    public static DatasetContents Read(string folder, DatasetSplit split)
    {
        string part = Part(split);
        string imageFile = Find(folder, part, "images") ?? throw Missing(folder, part, "images");
        string labelFile = Find(folder, part, "labels") ?? throw Missing(folder, part, "labels");
        byte[] pixels = ReadAll(imageFile);
        int count = Field(pixels, 1), height = Field(pixels, 2), width = Field(pixels, 3);
        long imageBytes = (long)height * width;
        if (pixels.Length < ImageHeader || Field(pixels, 0) != ImageMagic || count < 0 || height < 1 || width < 1 || imageBytes > MostPixels)
        {
            throw new UserErrorException($"'{imageFile}' is no IDX file of grey images (magic number 0x{ImageMagic:X8} and three sizes); get it again.");
        }

        if (pixels.Length != ImageHeader + count * imageBytes)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{imageFile}' has {pixels.Length} bytes where {count} images of {width}x{height} need {ImageHeader + count * imageBytes}; get it again."));
        }

        int[] labels = ReadLabels(labelFile);
        if (labels.Length != count)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{imageFile}' has {count} images, but '{labelFile}' has {labels.Length} labels; the two do not belong together."));
        }

        string[] classes = ClassNames(folder, split, labels);
        ImageTable images = Table(count, (int)imageBytes);
        string layout = FormattableString.Invariant($"IDX files of {width}x{height} grey pixels");
        return new DatasetContents(
            images, labels, classes, [.. classes.Select(_ => "")], imageFile, new MemoryStore(images, pixels), layout, Shards.Runs(count))
        {
            GreyPixels = (width, height),
        };
    }

    /// <summary>Both parts must give a class the same index, so both are looked at.</summary>
    private static string[] ClassNames(string folder, DatasetSplit split, int[] labels)
    {
        string? other = Find(folder, Part(split == DatasetSplit.Train ? DatasetSplit.Validation : DatasetSplit.Train), "labels");
        int classes = labels.Concat(other is null ? [] : ReadLabels(other)).DefaultIfEmpty(0).Max() + 1;
        // Padded, so that the order of names is that of numbers.
        string format = "D" + (classes - 1).ToString(CultureInfo.InvariantCulture).Length;
        return [.. Enumerable.Range(0, classes).Select(label => label.ToString(format, CultureInfo.InvariantCulture))];
    }

    private static ImageTable Table(int count, int imageBytes)
    {
        var images = new ImageTable.Builder();
        string format = "D" + Math.Max(5, count.ToString(CultureInfo.InvariantCulture).Length);
        for (int i = 0; i < count; i++)
        {
            images.Add(i.ToString(format, CultureInfo.InvariantCulture), ImageHeader + (long)i * imageBytes, imageBytes);
        }

        return images.Build();
    }

    private static int[] ReadLabels(string path)
    {
        byte[] bytes = ReadAll(path);
        if (bytes.Length < LabelHeader || Field(bytes, 0) != LabelMagic || bytes.Length != LabelHeader + Field(bytes, 1))
        {
            throw new UserErrorException($"'{path}' is no whole IDX file of labels (magic number 0x{LabelMagic:X8}, a count, a byte each); get it again.");
        }

        return [.. bytes.Skip(LabelHeader).Select(label => (int)label)];
    }

    private static int Field(byte[] bytes, int index) =>
        bytes.Length >= 4 * index + 4 ? BinaryPrimitives.ReadInt32BigEndian(bytes.AsSpan(4 * index)) : -1;

    private static byte[] ReadAll(string path)
    {
        try
        {
            if (!path.EndsWith(".gz", StringComparison.OrdinalIgnoreCase))
            {
                return File.ReadAllBytes(path);
            }

            using Stream gzip = GzipFile.Decompress(File.OpenRead(path));
            var bytes = new MemoryStream();
            gzip.CopyTo(bytes);
            return bytes.ToArray();
        }
        catch (InvalidDataException exception)
        {
            throw new UserErrorException($"'{path}' cannot be decompressed ({exception.Message}); get it again.", exception);
        }
    }

    private static string? Find(string folder, string part, string what)
    {
        int dimensions = what == "images" ? 3 : 1;
        string[] names = [$"{part}-{what}-idx{dimensions}-ubyte", $"{part}-{what}.idx{dimensions}-ubyte"];
        return names.SelectMany(name => (string[])[name, name + ".gz"]).Select(name => Path.Combine(folder, name)).FirstOrDefault(File.Exists);
    }

    private static string Part(DatasetSplit split) => split == DatasetSplit.Train ? "train" : "t10k";

    private static UserErrorException Missing(string folder, string part, string what) =>
        new($"'{folder}' has no {part}-{what}-idx{(what == "images" ? 3 : 1)}-ubyte (or .gz); put it beside the other IDX files.");
}
