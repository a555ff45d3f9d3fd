using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Data;

/// <summary>What a data set consists of, whatever the layout it was found in.</summary>
/// <param name="Images">The images, sorted by name.</param>
/// <param name="Labels">Class index of each image.</param>
/// <param name="ClassNames">WNIDs or folder names in class order.</param>
/// <param name="ClassDescriptions">What the classes are called, in class order; empty strings where unknown.</param>
/// <param name="Source">The archive the images lie in, or the folder their names are relative to.</param>
/// <param name="Store">Reads the images.</param>
/// <param name="Layout">The layout in words.</param>
/// <param name="ShardStarts">The first image of each shard, ascending from 0.</param>
internal sealed record DatasetContents(
    ImageTable Images, int[] Labels, string[] ClassNames, string[] ClassDescriptions, string Source, ImageStore Store, string Layout, int[] ShardStarts)
{
    /// <summary>Width and height of images that are bare grey pixels; null where each image is encoded.</summary>
    public (int Width, int Height)? GreyPixels { get; init; }

    /// <summary>True when every shard is a random sample of the data set.</summary>
    public bool ShardsAreMixed { get; init; }

    /// <summary>What lies there besides the images and is not used, a line for each kind.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];
}

/// <summary>Recognises how a data set lies on disk.</summary>
internal static class DatasetLayouts
{
    public const string TrainArchive = "ILSVRC2012_img_train.tar", ValidationArchive = "ILSVRC2012_img_val.tar";
    private const string Recognised =
        $"expected the ImageNet archives ({TrainArchive}, {ValidationArchive}, {DevelopmentKit.FileName}), train/ and val/ with a folder per class, " +
        "one tar of CLASS/image files, MNIST's IDX files, or what hpcbn pack wrote";

    public static DatasetContents Read(string path, DatasetSplit split, string? cacheDirectory, IProgress<string>? progress)
    {
        path = Path.GetFullPath(path);
        if (File.Exists(path))
        {
            if (Path.GetFileName(path) is TrainArchive or ValidationArchive or DevelopmentKit.FileName)
            {
                path = Path.GetDirectoryName(path)!;
            }
            else
            {
                return IsTar(path) ? TarLayouts.Read([path], split, cacheDirectory, progress)
                    : throw new UserErrorException($"'{path}' is a file but no .tar archive{Remedy(path)}; {Recognised}.");
            }
        }

        if (!Directory.Exists(path))
        {
            throw new UserErrorException($"data set '{path}' does not exist.");
        }

        try
        {
            return ReadFolder(path, split, cacheDirectory, progress);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"data set '{path}' cannot be read: {exception.Message}", exception);
        }
    }

    private static DatasetContents ReadFolder(string path, DatasetSplit split, string? cacheDirectory, IProgress<string>? progress)
    {
        path = GroundTruth.FindImages(path);
        SplitFolders splits = SplitFolders.Find(path);
        // The development kit may also be there for the labels of a validation folder.
        string[] official = splits.Any ? [TrainArchive, ValidationArchive] : [TrainArchive, ValidationArchive, DevelopmentKit.FileName];
        if (official.Any(name => File.Exists(Path.Combine(path, name))))
        {
            return ReadOfficialArchives(path, split, cacheDirectory, progress);
        }

        if (PackedSet.IsIn(path))
        {
            return PackedSet.Read(path, split);
        }

        if (IdxFiles.AreIn(path))
        {
            return IdxFiles.Read(path, split);
        }

        if (splits.Any)
        {
            return ReadSplit(path, splits, split, cacheDirectory, progress);
        }

        string[] packed = [.. Directory.GetFiles(path, "*imagenet?object?localization*.tar.gz"), .. Directory.GetFiles(path, "*imagenet*.zip")];
        if (packed.Length > 0)
        {
            throw new UserErrorException(
                $"'{packed[0]}' can only be read unpacked; run {(packed[0].EndsWith(".zip", StringComparison.Ordinal) ? "unzip" : "tar -xzf")} on it, there.");
        }

        return Archives(path) is { Length: > 0 } archives
            ? TarLayouts.Read(archives, split, cacheDirectory, progress)
            : ReadClassFolders(path, "class folders, the same images for training and validation");
    }

    private static DatasetContents ReadSplit(string path, SplitFolders splits, DatasetSplit split, string? cacheDirectory, IProgress<string>? progress)
    {
        (string? wanted, string? other, string name) =
            split == DatasetSplit.Train ? (splits.Train, splits.Validation, "train") : (splits.Validation, splits.Train, "val");
        if (wanted is null)
        {
            throw new UserErrorException($"'{path}' has '{Path.GetFileName(other)}' but no folder '{name}'; add '{name}' with a folder per class.");
        }

        if (GroundTruth.Annotations(wanted) is string annotations && split == DatasetSplit.Validation)
        {
            return ReadFlatValidation(Path.Combine(wanted, GroundTruth.AnnotatedFolder), splits.Train, annotations);
        }

        if (split == DatasetSplit.Validation && IsFlat(wanted))
        {
            return ReadFlatValidation(wanted, splits.Train, null);
        }

        bool otherHasFolders = other is not null && !IsFlat(other) && GroundTruth.Annotations(other) is null;
        if (SplitFolders.ClassFolders(wanted).Length == 0 && Archives(wanted) is { Length: > 0 } archives)
        {
            DatasetContents shards = TarLayouts.Read(archives, null, cacheDirectory, progress);
            string[]? otherClasses = other is null ? null
                : Archives(other) is { Length: > 0 } otherArchives && SplitFolders.ClassFolders(other).Length == 0 ? TarLayouts.Read(otherArchives, null, cacheDirectory, progress).ClassNames
                : otherHasFolders ? SplitFolders.ClassFolders(other) : null;
            if (otherClasses is not null)
            {
                CheckSameClasses(shards.ClassNames, wanted, otherClasses, other!);
            }

            return shards;
        }

        string layout = splits.TestIsValidation ? $"class folders, '{Path.GetFileName(splits.Validation)}' to validate with" : "class folders";
        DatasetContents contents = ReadClassFolders(wanted, layout);
        if (otherHasFolders)
        {
            string[] otherFolders = SplitFolders.ClassFolders(other!), otherArchives = Archives(other!);
            string[] otherClasses = otherFolders.Length > 0 || otherArchives.Length == 0 ? otherFolders : TarLayouts.Read(otherArchives, null, cacheDirectory, progress).ClassNames;
            CheckSameClasses(contents.ClassNames, wanted, otherClasses, other!);
        }

        return contents;
    }

    private static DatasetContents ReadOfficialArchives(string path, DatasetSplit split, string? cacheDirectory, IProgress<string>? progress)
    {
        string kitPath = DevelopmentKit.PathIn(path);
        string archive = Path.Combine(path, split == DatasetSplit.Train ? TrainArchive : ValidationArchive);
        foreach (string needed in (string[])[kitPath, archive])
        {
            if (!File.Exists(needed))
            {
                string? otherKit = Directory.GetFiles(path, "ILSVRC*devkit*").Select(file => Path.GetFileName(file)).FirstOrDefault(name => name != DevelopmentKit.FileName);
                throw new UserErrorException(
                    $"'{path}' has no {Path.GetFileName(needed)}, which the {Words(split)} images need; put it beside the other ImageNet archives." +
                    (needed == kitPath && otherKit is not null ? $" {otherKit} is of another year or task." : ""));
            }
        }

        DevelopmentKit kit = DevelopmentKit.Read(kitPath);
        ImageTable images = ArchiveIndex.Load(archive, cacheDirectory, progress);
        int[] labels;
        if (split == DatasetSplit.Train)
        {
            labels = LabelsByFolder(images, kit.Wnids, name => throw new UserErrorException(
                $"'{archive}' holds '{name}', whose class is no leaf synset of '{kitPath}'; the two do not belong together."));
            CheckNoClassIsEmpty(labels, kit.Wnids, archive);
        }
        else
        {
            kit.CheckValidationCount(images.Count, archive, kitPath);
            labels = kit.ValidationLabels;
        }

        // Training images lie class by class, in an inner archive each.
        int[] shards = split == DatasetSplit.Train ? Shards.Classes(labels) : Shards.Runs(images.Count);
        return new DatasetContents(
            images, labels, kit.Wnids, kit.Descriptions, archive, new ArchiveStore(images, archive), "official ImageNet archives", shards)
        {
            Notes = images.Notes,
        };
    }

    private static DatasetContents ReadClassFolders(string root, string layout)
    {
        var passedOver = new PassedOver();
        var scan = new FolderScan(root, passedOver);
        if (scan.Classes.Count == 0)
        {
            int loose = scan.AddLooseImages(new ImageTable.Builder());
            throw new UserErrorException(loose > 0
                ? $"'{root}' holds {loose} images but no class folders, so their labels are unknown; move each image into a folder named after its class."
                : $"'{root}' holds no data set{scan.Entries.Select(entry => Remedy(ImageTable.Text(entry.Name))).FirstOrDefault(remedy => remedy.Length > 0)}; {Recognised}.");
        }

        var images = new ImageTable.Builder();
        foreach ((byte[] folder, string name) in scan.Classes)
        {
            int before = passedOver.Count;
            if (scan.AddImages(folder, images) == 0)
            {
                string others = passedOver.Count > before ? FormattableString.Invariant($" ({passedOver.Count - before} other things: {passedOver.Lines[0]})") : "";
                throw new UserErrorException($"class folder '{Path.Combine(root, name)}' holds no images{others}; fill it or remove it.");
            }
        }

        foreach (FolderEntry entry in scan.Entries.Where(e => e.Kind != FileKind.Folder))
        {
            bool? image = ImageNames.IsImage(ImageTable.Text(entry.Name), out string reason);
            passedOver.Add(image == true ? "images outside of the class folders" : reason == ImageNames.Hidden ? reason : "files outside of the class folders", entry.Name);
        }

        ImageTable table = images.Build(passedOver.Lines);
        string[] classes = [.. scan.Classes.Select(c => c.Name)];
        SplitFolders.RefuseSplits(root, classes, table);
        int[] labels = LabelsByTopFolder(table, [.. scan.Classes.Select(c => c.Bytes)]);
        return new DatasetContents(
            table, labels, classes, GroundTruth.Descriptions(Path.GetDirectoryName(root) ?? root, classes), root, new FolderStore(root, table), layout, Shards.Runs(table.Count))
        {
            Notes = table.Notes,
        };
    }

    private static DatasetContents ReadFlatValidation(string folder, string? train, string? annotations)
    {
        var passedOver = new PassedOver();
        var images = new ImageTable.Builder();
        new FolderScan(folder, passedOver).AddLooseImages(images);
        ImageTable table = images.Build(passedOver.Lines);
        string[]? trained = train is null ? null : SplitFolders.ClassFolders(train);
        (int[] labels, string[] classes, string origin) = annotations is null
            ? GroundTruth.Read(table, folder, trained)
            : GroundTruth.FromAnnotations(table, folder, trained, annotations);
        string above = Path.GetDirectoryName(annotations is null ? folder : Path.GetDirectoryName(folder)!)!;
        return new DatasetContents(
            table, labels, classes, GroundTruth.Descriptions(above, classes), folder, new FolderStore(folder, table),
            $"images in one folder, labels from {origin}", Shards.Runs(table.Count))
        {
            Notes = table.Notes,
        };
    }

    /// <summary>The tar archives of a folder, sorted.</summary>
    private static string[] Archives(string folder) =>
        [.. Directory.GetFiles(folder).Where(file => IsTar(file) && !Path.GetFileName(file).StartsWith('.')).Order(StringComparer.Ordinal)];

    /// <summary>What makes a file that cannot be read one that can; empty where that is not known.</summary>
    private static string Remedy(string file) => Path.GetExtension(file).ToLowerInvariant() switch
    {
        ".zip" or ".7z" or ".rar" => $"; unpack '{file}' first",
        ".xz" or ".bz2" or ".zst" or ".lz4" => $"; decompress '{file}' first",
        ".parquet" or ".arrow" or ".tfrecord" or ".mdb" or ".hdf5" or ".h5" or ".rec" => $"; write the images of '{file}' as files into class folders first, or as webdataset shards",
        _ => "",
    };

    private static bool IsTar(string path) => path.EndsWith(".tar", StringComparison.OrdinalIgnoreCase) || UnpackedArchive.IsPacked(path);

    /// <summary>True for a folder with images and without class folders.</summary>
    private static bool IsFlat(string folder) =>
        SplitFolders.ClassFolders(folder).Length == 0 && Directory.EnumerateFiles(folder).Any(file => ImageNames.IsImage(file, out _) == true);

    internal static int[] LabelsByFolder(ImageTable images, string[] classes, Action<string> unknown)
    {
        var indices = new Dictionary<string, int>(StringComparer.Ordinal);
        for (int i = 0; i < classes.Length; i++)
        {
            indices.Add(classes[i], i);
        }

        int[] labels = new int[images.Count];
        for (int i = 0; i < labels.Length; i++)
        {
            string name = images.Name(i);
            if (!indices.TryGetValue(Folder(name), out labels[i]))
            {
                unknown(name);
            }
        }

        return labels;
    }

    private static int[] LabelsByTopFolder(ImageTable images, byte[][] classes)
    {
        int[] labels = new int[images.Count];
        byte[][] prefixes = [.. classes.Select(name => (byte[])[.. name, (byte)'/'])];
        for (int i = 0; i < labels.Length; i++)
        {
            ReadOnlySpan<byte> name = images.NameBytes(i);
            ReadOnlySpan<byte> top = name[..(name.IndexOf((byte)'/') + 1)];
            // Images come sorted, so the class is nearly always that of the image before.
            int label = i == 0 ? 0 : labels[i - 1];
            while (!top.SequenceEqual(prefixes[label]))
            {
                label = (label + 1) % classes.Length;
            }

            labels[i] = label;
        }

        return labels;
    }

    private static void CheckNoClassIsEmpty(int[] labels, string[] classes, string archive)
    {
        int[] counts = new int[classes.Length];
        foreach (int label in labels)
        {
            counts[label]++;
        }

        int empty = Array.IndexOf(counts, 0);
        if (empty >= 0)
        {
            throw new UserErrorException(
                $"'{archive}' has no image of class {classes[empty]} ({counts.Count(count => count == 0)} of {classes.Length} classes are empty); " +
                "the archive is incomplete, get it again.");
        }
    }

    internal static void CheckSameClasses(string[] classes, string folder, string[] otherClasses, string other)
    {
        string[] only = [.. classes.Except(otherClasses)], onlyOther = [.. otherClasses.Except(classes)];
        if (only.Length + onlyOther.Length > 0)
        {
            (string name, string present, string absent) = only.Length > 0 ? (only[0], folder, other) : (onlyOther[0], other, folder);
            int more = only.Length + onlyOther.Length - 1;
            throw new UserErrorException(
                $"class '{name}' is in '{present}' but not in '{absent}'" + (more > 0 ? FormattableString.Invariant($", and {more} more are only in one of them") : "") +
                "; both must have the same class folders, or labels would not agree: add what is missing, or remove it from both.");
        }
    }

    /// <summary>The folder an archive member lies in; of nested folders the last: <c>photos/n01440764/x.JPEG</c> is of class n01440764.</summary>
    internal static string Folder(string name) => Path.GetFileName(Path.GetDirectoryName(name)) ?? "";

    private static string Words(DatasetSplit split) => split == DatasetSplit.Train ? "training" : "validation";
}
