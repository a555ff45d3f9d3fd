using System.Formats.Tar;
using System.Globalization;
using System.IO.Compression;
using System.Text;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Data;

/// <summary>How large a generated data set is.</summary>
internal sealed record SampleOptions
{
    /// <summary>Classes, 2 to 10: the first of circle, square, triangle, star, cross, stripes, checker, dots, rings, waves.</summary>
    public int Classes { get; init; } = 10;

    /// <summary>Training images of each class.</summary>
    public int TrainPerClass { get; init; } = 400;

    /// <summary>Validation images of each class.</summary>
    public int ValidationPerClass { get; init; } = 50;

    /// <summary>Width and height of the images in pixels.</summary>
    public int ImageSize { get; init; } = 64;

    /// <summary>Key of everything random.</summary>
    public ulong Seed { get; init; }
}

/// <summary>
/// Makes a small data set of drawn figures in the official ImageNet layout, so that every command can be tried without downloading anything.
/// Classes differ in shape and texture; colours, place, size, rotation, background and clutter are random, so colour alone tells nothing.
/// The same options give the same bytes on the same machine.
/// </summary>
internal static class SampleGenerator
{
    private static readonly DateTimeOffset Epoch = new(2012, 1, 1, 0, 0, 0, TimeSpan.Zero);
    private static readonly string[] MetaFields =
        ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"];

    /// <summary>Writes the three archives to <paramref name="directory"/>, which appears only when they are complete.</summary>
    /// <exception cref="UserErrorException">The directory is not empty or cannot be written, or an option is out of its range.</exception>
    public static void Write(string directory, SampleOptions options, CancellationToken cancellationToken = default)
    {
        Check(options.Classes >= 2 && options.Classes <= SampleArtist.ClassNames.Count, "number of classes", $"2 to {SampleArtist.ClassNames.Count}", options.Classes);
        Check(options.TrainPerClass is >= 1 and <= 1_000_000, "number of training images per class", "1 to 1000000", options.TrainPerClass);
        Check(options.ValidationPerClass is >= 1 and <= 1_000_000, "number of validation images per class", "1 to 1000000", options.ValidationPerClass);
        Check(options.ImageSize is >= 16 and <= 2048, "image size", "16 to 2048", options.ImageSize);
        directory = Path.GetFullPath(directory);
        if (File.Exists(directory) || (Directory.Exists(directory) && Directory.EnumerateFileSystemEntries(directory).Any()))
        {
            throw new UserErrorException($"'{directory}' exists and is not empty; name a new folder for the sample, or remove it first.");
        }

        string temporary = FormattableString.Invariant($"{directory.TrimEnd(Path.DirectorySeparatorChar)}.{Environment.ProcessId}.tmp");
        try
        {
            Directory.CreateDirectory(temporary);
            WriteTrain(Path.Combine(temporary, DatasetLayouts.TrainArchive), options, cancellationToken);
            int[] labels = WriteValidation(Path.Combine(temporary, DatasetLayouts.ValidationArchive), options, cancellationToken);
            WriteKit(Path.Combine(temporary, DevelopmentKit.FileName), options, labels);
            if (Directory.Exists(directory))
            {
                Directory.Delete(directory);
            }

            Directory.Move(temporary, directory);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"the sample cannot be written to '{directory}': {exception.Message.TrimEnd('.')}. Put that right, or name another folder.", exception);
        }
        finally
        {
            if (Directory.Exists(temporary))
            {
                Directory.Delete(temporary, recursive: true);
            }
        }
    }

    private static void WriteTrain(string path, SampleOptions options, CancellationToken cancellationToken)
    {
        using var artist = new SampleArtist(options.ImageSize);
        using var archive = new TarWriter(File.Create(path), TarEntryFormat.Ustar);
        for (int label = 0; label < options.Classes; label++)
        {
            var members = new MemoryStream();
            using (var inner = new TarWriter(members, TarEntryFormat.Ustar, leaveOpen: true))
            {
                for (int i = 0; i < options.TrainPerClass; i++)
                {
                    cancellationToken.ThrowIfCancellationRequested();
                    var random = new RandomSequence(options.Seed, RandomStreams.Sample, (uint)label, (uint)i);
                    Add(inner, FormattableString.Invariant($"{Wnid(label)}_{i + 1}.JPEG"), artist.Draw(label, ref random));
                }
            }

            Add(archive, Wnid(label) + ".tar", members.ToArray());
        }
    }

    private static int[] WriteValidation(string path, SampleOptions options, CancellationToken cancellationToken)
    {
        using var artist = new SampleArtist(options.ImageSize);
        using var archive = new TarWriter(File.Create(path), TarEntryFormat.Ustar);
        int[] labels = new int[options.Classes * options.ValidationPerClass];
        // Equally many of each class, in random order.
        var order = new EpochOrder(options.Seed, uint.MaxValue, labels.Length);
        for (int i = 0; i < labels.Length; i++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            labels[i] = order[i] % options.Classes;
            // Numbers of validation images lie beyond those of training images, which are at most a million.
            var random = new RandomSequence(options.Seed, RandomStreams.Sample, (uint)labels[i], 1u << 31 | (uint)i);
            Add(archive, FormattableString.Invariant($"ILSVRC2012_val_{i + 1:D8}.JPEG"), artist.Draw(labels[i], ref random));
        }

        return labels;
    }

    private static void WriteKit(string path, SampleOptions options, int[] validationLabels)
    {
        var synsets = new List<object[]>();
        for (int id = 1; id <= options.Classes; id++)
        {
            int label = options.Classes - id;
            string name = SampleArtist.ClassNames[label];
            synsets.Add([(double[])[id], Wnid(label), name, $"a drawn figure: {name}", (double[])[0], (double[])[], (double[])[0], (double[])[options.TrainPerClass]]);
        }

        // As in the real kit, inner nodes of the hierarchy follow the leaves.
        double[] children = [.. Enumerable.Range(1, options.Classes)];
        synsets.Add([(double[])[options.Classes + 1], "n90000000", "figure", "anything drawn", (double[])[options.Classes], children, (double[])[1], (double[])[0]]);
        var truth = new StringBuilder();
        foreach (int label in validationLabels)
        {
            truth.Append(CultureInfo.InvariantCulture, $"{Id(label, options)}\n");
        }

        using var gzip = new GZipStream(File.Create(path), CompressionLevel.Optimal);
        using var archive = new TarWriter(gzip, TarEntryFormat.Ustar);
        const string Folder = "ILSVRC2012_devkit_t12/data/";
        Add(archive, Folder + "meta.mat", MatFile.WriteStructArray("synsets", MetaFields, synsets));
        Add(archive, Folder + "ILSVRC2012_validation_ground_truth.txt", Encoding.ASCII.GetBytes(truth.ToString()));
    }

    /// <summary>WNIDs of no real synset.</summary>
    private static string Wnid(int label) => FormattableString.Invariant($"n{90000001 + label}");

    /// <summary>The order of IDs is the reverse of the class order, so that confusing the two shows at once.</summary>
    private static int Id(int label, SampleOptions options) => options.Classes - label;

    private static void Add(TarWriter archive, string name, byte[] data) => archive.WriteEntry(new UstarTarEntry(TarEntryType.RegularFile, name)
    {
        ModificationTime = Epoch,
        DataStream = new MemoryStream(data),
    });

    private static void Check(bool valid, string name, string range, int value)
    {
        if (!valid)
        {
            throw new UserErrorException(FormattableString.Invariant($"the {name} must be {range}; it is {value}."));
        }
    }
}
