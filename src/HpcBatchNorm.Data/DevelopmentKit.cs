using System.Formats.Tar;
using System.Globalization;

namespace HpcBatchNorm.Data;

/// <summary>
/// The ILSVRC2012 development kit (tasks 1 and 2), read from its archive: the leaf synsets in class order (sorted WNIDs), what they are called,
/// and the validation labels. The kit numbers synsets by ILSVRC2012_ID, whose order is not the class order; <c>meta.mat</c> maps one to the other.
/// </summary>
internal sealed class DevelopmentKit
{
    public const string FileName = "ILSVRC2012_devkit_t12.tar.gz";
    private const string MetaName = "data/meta.mat", TruthName = "data/ILSVRC2012_validation_ground_truth.txt";

    private DevelopmentKit(string[] wnids, string[] descriptions, int[] validationLabels)
    {
        Wnids = wnids;
        Descriptions = descriptions;
        ValidationLabels = validationLabels;
    }

    /// <summary>WNIDs of the leaf synsets in ordinal order; the position is the class index.</summary>
    public string[] Wnids { get; }

    /// <summary>The words of each synset, in class order.</summary>
    public string[] Descriptions { get; }

    /// <summary>Class index of validation image k, images in name order.</summary>
    public int[] ValidationLabels { get; }

    /// <summary>Throws when there are not as many images as labels: then no label could be trusted.</summary>
    public void CheckValidationCount(int images, string source, string kitPath)
    {
        if (ValidationLabels.Length != images)
        {
            throw new UserErrorException(
                $"'{source}' holds {images} images, but the ground truth in '{kitPath}' has {ValidationLabels.Length} lines; the two do not belong together.");
        }
    }

    /// <summary>The kit's path in a folder; that of the unpacked archive where only this is there.</summary>
    public static string PathIn(string folder)
    {
        string packed = Path.Combine(folder, FileName), unpacked = packed[..^".gz".Length];
        return !File.Exists(packed) && File.Exists(unpacked) ? unpacked : packed;
    }

    public static DevelopmentKit Read(string path)
    {
        byte[]? meta = null, truth = null;
        try
        {
            using FileStream file = File.OpenRead(path);
            using Stream unpacked = GzipFile.Decompress(file);
            using var tar = new TarReader(unpacked);
            while (tar.GetNextEntry() is { } entry)
            {
                if (entry.DataStream is null)
                {
                    continue;
                }

                if (entry.Name.EndsWith(MetaName, StringComparison.Ordinal))
                {
                    meta = ReadAll(entry.DataStream);
                }
                else if (entry.Name.EndsWith(TruthName, StringComparison.Ordinal))
                {
                    truth = ReadAll(entry.DataStream);
                }
            }
        }
        catch (Exception exception) when (exception is InvalidDataException or IOException or FormatException)
        {
            throw new UserErrorException($"'{path}' cannot be read as a tar archive, gzipped or not ({exception.Message}); download it again.", exception);
        }

        if (meta is null || truth is null)
        {
            throw new UserErrorException(
                $"'{path}' holds no {(meta is null ? MetaName : TruthName)}; it should be the ILSVRC2012 development kit for tasks 1 and 2.");
        }

        return Parse(path, meta, truth);
    }

    private static DevelopmentKit Parse(string path, byte[] meta, byte[] truth)
    {
        var leaves = new List<(string Wnid, string Words, int Id)>();
        try
        {
            foreach (Dictionary<string, object?> synset in MatFile.ReadStructArray(meta, "synsets"))
            {
                if (Number(synset, "num_children") == 0)
                {
                    leaves.Add(((string)synset["WNID"]!, synset["words"] as string ?? "", (int)Number(synset, "ILSVRC2012_ID")));
                }
            }
        }
        catch (Exception exception) when (exception is InvalidDataException or KeyNotFoundException or InvalidCastException or IndexOutOfRangeException)
        {
            throw new UserErrorException($"'{path}': meta.mat is {exception.Message}; download the development kit again.", exception);
        }

        leaves.Sort((a, b) => string.CompareOrdinal(a.Wnid, b.Wnid));
        var classOfId = new Dictionary<int, int>(leaves.Count);
        for (int i = 0; i < leaves.Count; i++)
        {
            if (!classOfId.TryAdd(leaves[i].Id, i) || (i > 0 && leaves[i].Wnid == leaves[i - 1].Wnid))
            {
                throw new UserErrorException($"'{path}': meta.mat lists synset {leaves[i].Wnid} (ILSVRC2012_ID {leaves[i].Id}) twice.");
            }
        }

        var labels = new List<int>();
        using var lines = new StreamReader(new MemoryStream(truth));
        while (lines.ReadLine() is { } line)
        {
            if (line.Length == 0)
            {
                continue;
            }

            if (!int.TryParse(line, NumberStyles.Integer, CultureInfo.InvariantCulture, out int id) || !classOfId.TryGetValue(id, out int label))
            {
                throw new UserErrorException(
                    $"'{path}': line {labels.Count + 1} of {TruthName} is '{line}', not the ILSVRC2012_ID of one of the {leaves.Count} leaf synsets.");
            }

            labels.Add(label);
        }

        return new DevelopmentKit([.. leaves.Select(leaf => leaf.Wnid)], [.. leaves.Select(leaf => leaf.Words)], [.. labels]);
    }

    private static double Number(Dictionary<string, object?> synset, string field) => ((double[])synset[field]!)[0];

    private static byte[] ReadAll(Stream stream)
    {
        var bytes = new MemoryStream();
        stream.CopyTo(bytes);
        return bytes.ToArray();
    }
}
