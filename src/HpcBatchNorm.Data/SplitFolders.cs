namespace HpcBatchNorm.Data;

/// <summary>The folders of a data set that hold its splits.</summary>
/// <param name="Train">The images to train on, or null.</param>
/// <param name="Validation">The images to evaluate on, or null.</param>
/// <param name="TestIsValidation">True when that is a folder named for testing, there being none named for validation.</param>
internal readonly record struct SplitFolders(string? Train, string? Validation, bool TestIsValidation)
{
    /// <summary>A data set has no more splits than this.</summary>
    private const int MostSplits = 4;

    /// <summary>True when there is any.</summary>
    public bool Any => Train is not null || Validation is not null;

    /// <summary>Finds them by their names.</summary>
    /// <exception cref="UserErrorException">Two folders are named for the same split.</exception>
    public static SplitFolders Find(string path)
    {
        List<string> train = [], validation = [], test = [], others = [];
        foreach (string name in ClassFolders(path))
        {
            (SplitNames.Of(name, out bool isTest) switch { null => others, _ when isTest => test, DatasetSplit.Train => train, _ => validation }).Add(name);
        }

        foreach (List<string> same in (List<string>[])[train, validation])
        {
            if (same.Count > 1)
            {
                throw new UserErrorException($"'{path}' has the folders '{string.Join("' and '", same)}', which are named for the same images; rename or remove what is not to be used.");
            }
        }

        string? Folder(List<string> names) => names.Count == 0 ? null : Path.Combine(path, names[0]);
        string? tested = test.Select(name => Path.Combine(path, name)).FirstOrDefault(HoldsFolders);
        var found = new SplitFolders(Folder(train), Folder(validation) ?? tested, validation.Count == 0 && tested is not null);
        // Among other classes, train is a vehicle: a class folder holds images, a split's holds class folders.
        bool classes = others.Count > 0 && !HoldsFolders(found.Train) && !HoldsFolders(found.Validation);
        return classes ? default : found;
    }

    /// <summary>The folders in a folder that may be classes, sorted.</summary>
    public static string[] ClassFolders(string root) => [.. new FolderScan(root, new PassedOver(), refuseSame: false).Classes.Select(c => c.Name)];

    /// <summary>
    /// Throws when what would be classes are splits by names that are not known here: a few folders that hold no images but all the same folders.
    /// </summary>
    /// <param name="source">Where they lie, for the message.</param>
    /// <param name="classes">Names of the folders.</param>
    /// <param name="images">All images with their paths, which begin with one of them.</param>
    /// <exception cref="UserErrorException">They are.</exception>
    public static void RefuseSplits(string source, string[] classes, ImageTable images)
    {
        if (classes.Length is < 2 or > MostSplits)
        {
            return;
        }

        var below = classes.ToDictionary(name => name, _ => new SortedSet<string>(StringComparer.Ordinal), StringComparer.Ordinal);
        for (int i = 0; i < images.Count; i++)
        {
            string[] parts = images.Name(i).Split('/');
            if (parts.Length < 3 || !below.TryGetValue(parts[0], out SortedSet<string>? folders))
            {
                return;
            }

            folders.Add(parts[1]);
        }

        SortedSet<string> first = below[classes[0]];
        if (first.Count > 1 && below.Values.All(first.SetEquals))
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{source}' holds '{string.Join("', '", classes)}', each with the same {first.Count} folders ('{first.Min}', ...): these look like images to train and to evaluate on, not like classes. Rename them train and val, or name one of them."));
        }
    }

    private static bool HoldsFolders(string? folder) => folder is not null && ClassFolders(folder).Length > 0;
}
