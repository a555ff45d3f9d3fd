using System.Globalization;
using System.Text.RegularExpressions;

namespace HpcBatchNorm.Data;

/// <summary>
/// Data sets in tar archives other than the official ones: one with class folders, with or without a folder for each split; one for each class; webdataset
/// shards, whose labels lie beside the images (<c>KEY.jpg</c>, <c>KEY.cls</c> or <c>KEY.json</c>); Hugging Face's ImageNet, whose names end in the class.
/// </summary>
internal static partial class TarLayouts
{
    /// <summary>Reads a data set.</summary>
    /// <param name="archives">The archives.</param>
    /// <param name="split">Which images, told by names in or of the archives where they tell; null where all are of one split.</param>
    /// <param name="cacheDirectory">Where indices are kept, or null.</param>
    /// <param name="progress">Told what takes time.</param>
    /// <exception cref="UserErrorException">The archives cannot be read, or it is not clear what is of which class.</exception>
    public static DatasetContents Read(string[] archives, DatasetSplit? split, string? cacheDirectory, IProgress<string>? progress)
    {
        string source = archives.Length == 1 ? archives[0] : Path.GetDirectoryName(archives[0])!;
        bool named = split is not null && archives.Length > 1 && archives.Any(archive => SplitOf(archive) is not null);
        // Both splits must give a class the same index, so the archives of both are looked at.
        string[] all = named ? [.. archives.Where(archive => SplitOf(archive) is not null)] : archives;
        if (named && all.All(archive => SplitOf(archive) != split))
        {
            throw new UserErrorException(
                $"'{source}' has no archive whose name says that it is of the {(split == DatasetSplit.Train ? "training" : "validation")} images; expected names such as {(split == DatasetSplit.Train ? "train" : "val")}-00000.tar.");
        }

        string[] unpacked = [.. all.Select(archive => UnpackedArchive.IsPacked(archive) ? UnpackedArchive.Ensure(archive, cacheDirectory, progress) : archive)];
        ImageTable[] tables = [.. unpacked.Select(archive => ArchiveIndex.Load(archive, cacheDirectory, progress))];
        int[] wanted = [.. Enumerable.Range(0, all.Length).Where(i => !named || SplitOf(all[i]) == split)];
        if (wanted.All(i => tables[i].Count == 0))
        {
            throw new UserErrorException(
                $"'{source}' holds no images; expected CLASS/image files.{string.Concat(wanted.SelectMany(i => tables[i].Notes).Take(1).Select(note => $" ({note})"))}");
        }

        if (tables.Any(table => table.Labels.Count > 0))
        {
            return ReadShards(source, unpacked, tables, wanted);
        }

        if (tables.All(table => All(table, name => !name.Contains('/', StringComparison.Ordinal) && ClassAtEnd().IsMatch(name))))
        {
            return Labelled(source, unpacked, tables, wanted, (_, name) => ClassAtEnd().Match(name).Groups["class"].Value, "archives of images whose names end in the class");
        }

        if (!named && all.Length > 1 && tables.All(table => All(table, name => !name.Contains('/', StringComparison.Ordinal))))
        {
            string[] classes = [.. all.Select(archive => Path.GetFileName(archive).Split(".tar")[0])];
            return Labelled(source, unpacked, tables, wanted, (table, _) => classes[table], "an archive for each class");
        }

        if (all.Length == 1 && split is { } one && Splits(tables[0], source) is { } splits)
        {
            return ReadSplit(source, unpacked[0], tables[0], one, splits);
        }

        CheckClassFolders(source, wanted.Select(i => tables[i]));
        string same = named || split is null ? "" : ", the same images for training and validation";
        return Labelled(source, unpacked, tables, wanted, (_, name) => DatasetLayouts.Folder(name), $"tar of class folders{same}");
    }

    /// <summary>Throws where the last folder of an image's path, its class, is missing, or is found in two places.</summary>
    private static void CheckClassFolders(string source, IEnumerable<ImageTable> tables)
    {
        var parents = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (ImageTable table in tables)
        {
            for (int i = 0; i < table.Count; i++)
            {
                string name = table.Name(i), folder = Path.GetDirectoryName(name) ?? "", last = Path.GetFileName(folder);
                if (last.Length == 0)
                {
                    throw new UserErrorException($"'{source}' holds '{name}' outside of any class folder; expected CLASS/image files.");
                }

                if (!parents.TryAdd(last, folder) && parents[last] != folder)
                {
                    throw new UserErrorException(
                        $"'{source}' holds the class folder '{last}' twice, as '{parents[last]}' and '{folder}'; name the folders above them train and val if these are images to train and to evaluate on, or put each class into one folder.");
                }
            }
        }

        HashSet<string> folders = [.. parents.Values];
        foreach (string folder in parents.Values)
        {
            for (string? above = Path.GetDirectoryName(folder); above is { Length: > 0 }; above = Path.GetDirectoryName(above))
            {
                if (folders.Contains(above))
                {
                    throw new UserErrorException(
                        $"'{source}' holds images in the folder '{above}' and in '{folder}' below it, so that it is not clear which of them is a class; put the images of each class into one folder.");
                }
            }
        }
    }

    /// <summary>Which component of the images' paths names their split, and which images are of which; null where there are not two splits.</summary>
    private static (List<int> Train, List<int> Validation, int Depth, List<int> Others)? Splits(ImageTable table, string source)
    {
        List<int> train = [], validation = [], test = [], others = [];
        Dictionary<List<int>, string> folderOf = [];
        (string, string)? same = null;
        int depth = -1;
        for (int i = 0; i < table.Count; i++)
        {
            string[] folders = table.Name(i).Split('/')[..^1];
            // The last folder is a class, whatever it is called.
            int at = Array.FindIndex(folders, 0, Math.Max(0, folders.Length - 1), folder => SplitNames.Of(folder, out _) is not null);
            if (at < 0 || (depth >= 0 && at != depth))
            {
                others.Add(i);
                continue;
            }

            depth = at;
            DatasetSplit? split = SplitNames.Of(folders[at], out bool isTest);
            List<int> images = split == DatasetSplit.Train ? train : isTest ? test : validation;
            images.Add(i);
            string folder = string.Join('/', folders[..(at + 1)]);
            if (!folderOf.TryAdd(images, folder) && folderOf[images] != folder && images != test)
            {
                same ??= (folderOf[images], folder);
            }
        }

        (List<int> evaluated, List<int> unused) = validation.Count > 0 ? (validation, test) : (test, validation);
        if (same is ({ } first, { } second) && train.Count > 0 && evaluated.Count > 0)
        {
            throw new UserErrorException($"'{source}' has the folders '{first}' and '{second}', which are named for the same images; make it anew without the one that is not to be used.");
        }

        return train.Count > 0 && evaluated.Count > 0 ? (train, evaluated, depth, [.. others, .. unused]) : null;
    }

    private static DatasetContents ReadSplit(
        string source, string archive, ImageTable table, DatasetSplit split, (List<int> Train, List<int> Validation, int Depth, List<int> Others) splits)
    {
        string Class(string name) => name.Split('/')[splits.Depth + 1];
        SortedSet<string> Classes(List<int> images) => new(images.Select(i => Class(table.Name(i))), StringComparer.Ordinal);
        DatasetLayouts.CheckSameClasses([.. Classes(splits.Train)], "the training folder", [.. Classes(splits.Validation)], $"the validation folder of '{source}'");
        var passedOver = new PassedOver();
        foreach (int i in splits.Others)
        {
            passedOver.Add("images that are neither in the training nor in the validation folder", table.NameBytes(i));
        }

        ImageTable images = table.Select(split == DatasetSplit.Train ? splits.Train : splits.Validation);
        DatasetContents contents = Labelled(source, [archive], [images], [0], (_, name) => Class(name), "tar of class folders for training and validation");
        return contents with { Notes = [.. contents.Notes, .. passedOver.Lines] };
    }

    /// <summary>Shards with labels beside the images: numbers, or what they are called.</summary>
    private static DatasetContents ReadShards(string source, string[] archives, ImageTable[] tables, int[] wanted)
    {
        string Label(int table, string name) => tables[table].Labels.TryGetValue(Key(name), out string? label) ? label : throw new UserErrorException(
            $"'{archives[table]}' holds '{name}' without a label; expected '{Key(name)}.cls' or '{Key(name)}.json' beside it.");
        int digits = 0;
        bool numbers = true;
        for (int t = 0; t < tables.Length; t++)
        {
            foreach (string label in tables[t].Labels.Values)
            {
                numbers &= int.TryParse(label, NumberStyles.None, CultureInfo.InvariantCulture, out _);
                digits = Math.Max(digits, label.Length);
            }
        }

        // Padded, so that the order of names is that of numbers.
        return Labelled(
            source, archives, tables, wanted, (table, name) => numbers ? Label(table, name).PadLeft(digits, '0') : Label(table, name),
            FormattableString.Invariant($"webdataset shards, {wanted.Length} archives"));
    }

    /// <param name="source">Where they lie.</param>
    /// <param name="archives">All archives.</param>
    /// <param name="tables">Their images.</param>
    /// <param name="wanted">Which of them are of the split; the classes are those of all.</param>
    /// <param name="classOf">An image's class, from its archive and its name.</param>
    /// <param name="layout">The layout in words.</param>
    private static DatasetContents Labelled(string source, string[] archives, ImageTable[] tables, int[] wanted, Func<int, string, string> classOf, string layout)
    {
        string[][] names = [.. tables.Select((table, t) => Enumerable.Range(0, table.Count).Select(i => classOf(t, table.Name(i))).ToArray())];
        string[] classes = [.. names.SelectMany(n => n).Distinct().Order(StringComparer.Ordinal)];
        Dictionary<string, int> indices = Enumerable.Range(0, classes.Length).ToDictionary(i => classes[i], StringComparer.Ordinal);
        int[] labels = [.. wanted.SelectMany(t => names[t].Select(name => indices[name]))];
        return Join(source, [.. wanted.Select(t => archives[t])], [.. wanted.Select(t => tables[t])], labels, classes, layout);
    }

    private static DatasetContents Join(string source, string[] archives, ImageTable[] tables, int[] labels, string[] classes, string layout)
    {
        ImageTable images = tables.Length == 1 ? tables[0] : ImageTable.Concatenate(tables);
        int[] starts = new int[tables.Length];
        for (int i = 1; i < starts.Length; i++)
        {
            starts[i] = starts[i - 1] + tables[i - 1].Count;
        }

        string[] words = GroundTruth.Descriptions(Path.GetDirectoryName(archives[0])!, classes);
        return new DatasetContents(
            images, labels, classes, words, source, new ArchiveStore(images, archives, starts), layout, tables.Length == 1 ? Shards.Runs(images.Count) : [.. starts.Distinct()])
        {
            Notes = images.Notes,
        };
    }

    /// <summary>imagenet-train-000000.tar, val_images.tar.gz: a word of the name. Test images of published sets have no labels.</summary>
    private static DatasetSplit? SplitOf(string archive) => Path.GetFileName(archive).Split('.', '-', '_')
        .Select(word => SplitNames.Of(word, out bool isTest) is { } split && !isTest ? split : (DatasetSplit?)null).FirstOrDefault(split => split is not null);

    private static string Key(string name)
    {
        int file = name.LastIndexOf('/') + 1, dot = name.IndexOf('.', file);
        return dot < 0 ? name : name[..dot];
    }

    private static bool All(ImageTable table, Func<string, bool> condition) => Enumerable.Range(0, table.Count).All(i => condition(table.Name(i)));

    // n01440764_10026_n01440764.JPEG, ILSVRC2012_val_00000001_n01751748.JPEG
    [GeneratedRegex("_(?<class>n[0-9]{8})[.][A-Za-z]+$")]
    private static partial Regex ClassAtEnd();
}
