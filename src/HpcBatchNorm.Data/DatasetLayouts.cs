using System.Text;

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
}

/// <summary>Recognises how a data set lies on disk.</summary>
internal static class DatasetLayouts
{
    public const string TrainArchive = "ILSVRC2012_img_train.tar", ValidationArchive = "ILSVRC2012_img_val.tar";
    private const string Recognised =
        $"expected the ImageNet archives ({TrainArchive}, {ValidationArchive}, {DevelopmentKit.FileName}), train/ and val/ with a folder per class, " +
        "one tar of CLASS/image files, MNIST's IDX files, or what hpcbn pack wrote";

    private static readonly string[] TrainFolders = ["train", "training"];
    private static readonly string[] ValidationFolders = ["val", "validation", "valid"];

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
                return path.EndsWith(".tar", StringComparison.OrdinalIgnoreCase)
                    ? ReadClassTar(path, cacheDirectory, progress)
                    : throw new UserErrorException($"'{path}' is a file but no .tar archive; {Recognised}.");
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
        string? train = Subfolder(path, TrainFolders), validation = Subfolder(path, ValidationFolders);
        // The development kit may also be there for the labels of a validation folder.
        bool folders = train is not null || validation is not null;
        string[] official = folders ? [TrainArchive, ValidationArchive] : [TrainArchive, ValidationArchive, DevelopmentKit.FileName];
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

        if (folders)
        {
            (string? wanted, string? other, string name) =
                split == DatasetSplit.Train ? (train, validation, TrainFolders[0]) : (validation, train, ValidationFolders[0]);
            if (wanted is null)
            {
                throw new UserErrorException($"'{path}' has '{Path.GetFileName(other)}' but no folder '{name}'; add '{name}' with a folder per class.");
            }

            if (split == DatasetSplit.Validation && IsFlat(wanted))
            {
                return ReadFlatValidation(wanted, train);
            }

            DatasetContents contents = ReadClassFolders(wanted, "class folders");
            if (other is not null && !IsFlat(other))
            {
                CheckSameClasses(contents.ClassNames, wanted, ClassFolders(other), other);
            }

            return contents;
        }

        string[] packed = [.. Directory.GetFiles(path, "*imagenet?object?localization*.tar.gz"), .. Directory.GetFiles(path, "*imagenet*.zip")];
        if (packed.Length > 0)
        {
            throw new UserErrorException(
                $"'{packed[0]}' can only be read unpacked; run {(packed[0].EndsWith(".zip", StringComparison.Ordinal) ? "unzip" : "tar -xzf")} on it, there.");
        }

        string[] archives = Directory.GetFiles(path, "*.tar");
        if (archives.Length > 0)
        {
            return archives.Length == 1
                ? ReadClassTar(archives[0], cacheDirectory, progress)
                : throw new UserErrorException($"'{path}' holds {archives.Length} tar archives; name the one to use.");
        }

        return ReadClassFolders(path, "class folders, the same images for training and validation");
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
            images, labels, kit.Wnids, kit.Descriptions, archive, new ArchiveStore(images, archive), "official ImageNet archives", shards);
    }

    private static DatasetContents ReadClassTar(string archive, string? cacheDirectory, IProgress<string>? progress)
    {
        ImageTable images = ArchiveIndex.Load(archive, cacheDirectory, progress);
        var classes = new SortedSet<string>(StringComparer.Ordinal);
        for (int i = 0; i < images.Count; i++)
        {
            string folder = Folder(images.Name(i));
            classes.Add(folder.Length > 0 ? folder : throw new UserErrorException(
                $"'{archive}' holds '{images.Name(i)}' outside of any class folder; expected CLASS/image files."));
        }

        if (classes.Count == 0)
        {
            throw new UserErrorException($"'{archive}' holds no images; expected CLASS/image files.");
        }

        string[] names = [.. classes];
        int[] labels = LabelsByFolder(images, names, _ => throw new InvalidOperationException("Every folder is a class."));
        return new DatasetContents(images, labels, names, Unknown(names), archive, new ArchiveStore(images, archive),
            "tar of class folders, the same images for training and validation", Shards.Runs(images.Count));
    }

    private static DatasetContents ReadClassFolders(string root, string layout)
    {
        string[] classes = ClassFolders(root);
        if (classes.Length == 0)
        {
            int loose = Directory.EnumerateFiles(root).Count(ImageTable.IsImageName);
            throw new UserErrorException(loose > 0
                ? $"'{root}' holds {loose} images but no class folders, so their labels are unknown; move each image into a folder named after its class."
                : $"'{root}' holds no data set; {Recognised}.");
        }

        var images = new ImageTable.Builder();
        foreach (string name in classes)
        {
            bool any = false;
            foreach (string file in Directory.EnumerateFiles(Path.Combine(root, name), "*", SearchOption.AllDirectories))
            {
                if (ImageTable.IsImageName(file))
                {
                    images.Add(Path.GetRelativePath(root, file).Replace(Path.DirectorySeparatorChar, '/'));
                    any = true;
                }
            }

            if (!any)
            {
                throw new UserErrorException($"class folder '{Path.Combine(root, name)}' holds no images; fill it or remove it.");
            }
        }

        ImageTable table = images.Build();
        int[] labels = LabelsByTopFolder(table, classes);
        return new DatasetContents(table, labels, classes, GroundTruth.Descriptions(Path.GetDirectoryName(root) ?? root, classes), root, new FolderStore(root, table), layout, Shards.Runs(table.Count));
    }

    private static DatasetContents ReadFlatValidation(string folder, string? train)
    {
        var images = new ImageTable.Builder();
        foreach (string file in Directory.EnumerateFiles(folder).Where(ImageTable.IsImageName))
        {
            images.Add(Path.GetFileName(file));
        }

        ImageTable table = images.Build();
        (int[] labels, string[] classes, string origin) = GroundTruth.Read(table, folder, train is null ? null : ClassFolders(train));
        return new DatasetContents(
            table, labels, classes, GroundTruth.Descriptions(Path.GetDirectoryName(folder)!, classes), folder, new FolderStore(folder, table),
            $"images in one folder, labels from {origin}", Shards.Runs(table.Count));
    }

    /// <summary>True for a folder with images and without class folders.</summary>
    private static bool IsFlat(string folder) => ClassFolders(folder).Length == 0 && Directory.EnumerateFiles(folder).Any(ImageTable.IsImageName);

    private static int[] LabelsByFolder(ImageTable images, string[] classes, Action<string> unknown)
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

    private static int[] LabelsByTopFolder(ImageTable images, string[] classes)
    {
        int[] labels = new int[images.Count];
        byte[][] prefixes = [.. classes.Select(name => Encoding.UTF8.GetBytes(name + "/"))];
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

    private static void CheckSameClasses(string[] classes, string folder, string[] otherClasses, string other)
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

    private static string[] ClassFolders(string root)
    {
        string[] names = [.. Directory.EnumerateDirectories(root).Select(path => Path.GetFileName(path)).Where(name => !name.StartsWith('.'))];
        Array.Sort(names, StringComparer.Ordinal);
        return names;
    }

    /// <summary>The folder an archive member lies in; of nested folders the last: <c>photos/n01440764/x.JPEG</c> is of class n01440764.</summary>
    private static string Folder(string name) => Path.GetFileName(Path.GetDirectoryName(name)) ?? "";

    private static string? Subfolder(string path, string[] names) =>
        names.Select(name => Path.Combine(path, name)).FirstOrDefault(Directory.Exists);

    private static string[] Unknown(string[] classes) => [.. classes.Select(_ => "")];

    private static string Words(DatasetSplit split) => split == DatasetSplit.Train ? "training" : "validation";
}
