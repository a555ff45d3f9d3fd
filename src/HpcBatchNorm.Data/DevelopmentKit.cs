using System.Globalization;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Data;

/// <summary>
/// The ILSVRC2012 development kit (tasks 1 and 2), read from its archive: the leaf synsets in class order (sorted WNIDs), what they are called,
/// and the validation labels. The kit numbers synsets by ILSVRC2012_ID, whose order is not the class order; <c>meta.mat</c> maps one to the other.
/// </summary>
internal sealed class DevelopmentKit
{
    public const string FileName = "ILSVRC2012_devkit_t12.tar.gz";

    /// <summary>Far above the kit's own, of which none has a megabyte.</summary>
    private const long MostMemberBytes = 16 << 20, LongestKit = 1L << 40;

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
            using FileStream file = RegularFile.OpenRead(path);
            using Stream unpacked = GzipFile.Decompress(file);
            // Not the library's reader, which takes as much memory as a damaged header asks for.
            var tar = new TarWalker(new ForwardTarSource(unpacked), $"'{path}'", 0, LongestKit, new PassedOver());
            while ((meta is null || truth is null) && tar.TryNext(out TarMember entry))
            {
                if (entry.Target is null && entry.Name.EndsWith(MetaName, StringComparison.Ordinal))
                {
                    meta = ReadAll(tar, entry, path);
                }
                else if (entry.Target is null && entry.Name.EndsWith(TruthName, StringComparison.Ordinal))
                {
                    truth = ReadAll(tar, entry, path);
                }
            }
        }
        catch (Exception exception) when (exception is InvalidDataException or IOException or UnauthorizedAccessException)
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
            MatStructArray synsets = MatFile.ReadStructArray(meta, "synsets");
            for (int i = 0; i < synsets.Count; i++)
            {
                if (Number(synsets, i, "num_children") == 0)
                {
                    leaves.Add((Wnid(synsets, i), synsets[i, "words"] as string ?? "", Number(synsets, i, "ILSVRC2012_ID")));
                }
            }
        }
        catch (InvalidDataException exception)
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
                    $"'{path}': line {labels.Count + 1} of {TruthName} is '{UserErrorException.Excerpt(line)}', not the ILSVRC2012_ID of one of the {leaves.Count} leaf synsets.");
            }

            labels.Add(label);
        }

        return new DevelopmentKit([.. leaves.Select(leaf => leaf.Wnid)], [.. leaves.Select(leaf => leaf.Words)], [.. labels]);
    }

    private static int Number(MatStructArray synsets, int element, string field) =>
        synsets[element, field] is double[] { Length: > 0 } numbers && numbers[0] == Math.Truncate(numbers[0]) && Math.Abs(numbers[0]) <= int.MaxValue
            ? (int)numbers[0]
            : throw new InvalidDataException(FormattableString.Invariant($"damaged: {field} of synset {element + 1} is no whole number"));

    /// <summary>A synset's name becomes a class's, and the name of a folder.</summary>
    private static string Wnid(MatStructArray synsets, int element) =>
        synsets[element, "WNID"] is string { Length: > 0 } wnid && wnid.All(c => !char.IsControl(c) && c != '/')
            ? wnid
            : throw new InvalidDataException(FormattableString.Invariant($"damaged: WNID of synset {element + 1} is no name"));

    private static byte[] ReadAll(TarWalker tar, in TarMember member, string path) => member.Size <= MostMemberBytes
        ? tar.ReadAll(member)
        : throw new UserErrorException(FormattableString.Invariant(
            $"'{path}' holds a '{UserErrorException.Excerpt(member.Name)}' of {member.Size} bytes, far more than the kit's; download it again."));
}
