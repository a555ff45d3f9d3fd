namespace HpcBatchNorm.Data;

/// <summary>What <see cref="DatasetCheck.Run"/> found.</summary>
/// <param name="Layout">The layout in words.</param>
/// <param name="Images">Number of images.</param>
/// <param name="ClassNames">The classes in the order of their indices.</param>
/// <param name="PerClass">Images of each.</param>
/// <param name="Decoded">Images decoded whole.</param>
/// <param name="BadImages">Those of them that are bad.</param>
/// <param name="Problems">What is wrong, each one line that ends with what to do.</param>
internal sealed record DatasetReport(
    string Layout, int Images, IReadOnlyList<string> ClassNames, IReadOnlyList<int> PerClass, int Decoded, IReadOnlyList<BadImage> BadImages,
    IReadOnlyList<string> Problems)
{
    /// <summary>What lies there besides the images and is not used, a line for each kind.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];

    /// <summary>Number of classes.</summary>
    public int Classes => PerClass.Count;

    /// <summary>Images of the smallest class.</summary>
    public int SmallestClass => PerClass.Min();

    /// <summary>Images of the largest class.</summary>
    public int LargestClass => PerClass.Max();
}

/// <summary>Finds out whether a data set is what it should be.</summary>
internal static class DatasetCheck
{
    private const int ImageNetClasses = 1000, ImageNetTrain = 1_281_167, ImageNetValidation = 50_000;
    private const string FirstWnid = "n01440764", LastWnid = "n15075141";

    /// <summary>Of many files with the same trouble, so many are named.</summary>
    private const int MostNamed = 10;

    /// <summary>
    /// Counts a data set and decodes images of it whole, evenly spread when <paramref name="limit"/> is fewer than there are.
    /// </summary>
    /// <param name="dataset">The data set.</param>
    /// <param name="limit">Most images to decode; 0 for none.</param>
    /// <param name="workers">Threads.</param>
    /// <param name="progress">Told how many images have been decoded, now and then.</param>
    /// <param name="cancellationToken">Stops the check.</param>
    public static DatasetReport Run(
        ImageDataset dataset, int limit = int.MaxValue, int workers = 1, IProgress<int>? progress = null, CancellationToken cancellationToken = default)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(limit);
        int[] perClass = new int[dataset.ClassCount];
        for (int i = 0; i < dataset.Count; i++)
        {
            perClass[dataset.Label(i)]++;
        }

        int decoded = Math.Min(limit, dataset.Count), done = 0;
        var bad = new List<BadImage>();
        var unreadable = new List<string>();
        Parallel.For(
            0, decoded, new ParallelOptions { MaxDegreeOfParallelism = workers, CancellationToken = cancellationToken },
            () => (Decoder: new ImageDecoder(), Buffer: Array.Empty<byte>()),
            (i, _, local) =>
            {
                int index = (int)((long)i * dataset.Count / decoded);
                try
                {
                    int length = dataset.ReadEncoded(index, ref local.Buffer);
                    ImageStatus status = dataset.GreyPixels is null ? DecodeWhole(local.Decoder, local.Buffer, length) : ImageStatus.Ok;
                    if (status != ImageStatus.Ok)
                    {
                        lock (bad)
                        {
                            bad.Add(new BadImage(index, dataset.Name(index), status));
                        }
                    }
                }
                catch (UserErrorException exception)
                {
                    lock (bad)
                    {
                        unreadable.Add(exception.Message);
                    }
                }

                int count = Interlocked.Increment(ref done);
                if (count % 1000 == 0 || count == decoded)
                {
                    progress?.Report(count);
                }

                return local;
            },
            local => local.Decoder.Dispose());

        bad.Sort((a, b) => a.Index.CompareTo(b.Index));
        unreadable.Sort(StringComparer.Ordinal);
        if (unreadable.Count > MostNamed)
        {
            unreadable = [.. unreadable.Take(MostNamed), FormattableString.Invariant($"{unreadable.Count - MostNamed} more images cannot be read.")];
        }

        return new DatasetReport(
            dataset.Layout, dataset.Count, dataset.ClassNames, perClass, decoded, bad, [.. unreadable, .. Problems(dataset, perClass)])
        {
            Notes = dataset.Notes,
        };
    }

    private static ImageStatus DecodeWhole(ImageDecoder decoder, byte[] encoded, int length)
    {
        ImageStatus status = decoder.Open(encoded, length);
        if (status == ImageStatus.Ok)
        {
            status = decoder.Decode(0, 0, decoder.Width, decoder.Height, smallestScale: 1);
        }

        decoder.Close();
        return status;
    }

    private static IEnumerable<string> Problems(ImageDataset dataset, int[] perClass)
    {
        IReadOnlyList<string> classes = dataset.ClassNames;
        if (classes.Count == ImageNetClasses && classes.All(IsWnid))
        {
            int expected = dataset.Split == DatasetSplit.Train ? ImageNetTrain : ImageNetValidation;
            if (dataset.Count != expected)
            {
                yield return FormattableString.Invariant($"{classes.Count} classes as in ImageNet, but {dataset.Count} images instead of {expected}; ")
                    + (dataset.Count < expected ? "the download or its unpacking was not finished, do it again." : "other images were mixed in, remove them.");
            }

            if (classes[0] != FirstWnid || classes[^1] != LastWnid)
            {
                yield return $"{classes.Count} classes as in ImageNet, but from {classes[0]} to {classes[^1]} instead of {FirstWnid} to {LastWnid}; "
                    + "networks trained on ImageNet's classes do not fit, get the data set of ILSVRC2012.";
            }
        }
        else if (classes.Count is > ImageNetClasses * 9 / 10 and < ImageNetClasses && classes.All(IsWnid))
        {
            yield return FormattableString.Invariant(
                $"{classes.Count} classes of ImageNet's {ImageNetClasses}; if it is meant to be all of it, some are missing: unpack it again.");
        }

        for (int label = 0; label < perClass.Length; label++)
        {
            if (perClass[label] == 0)
            {
                yield return $"class '{classes[label]}' has no images; fill it or remove it from both splits.";
            }
        }

        if (classes.Count == 1)
        {
            yield return $"there is only one class, '{classes[0]}', so there is nothing to learn; name the folder that holds the class folders.";
        }

        foreach (IGrouping<string, string> alike in classes.GroupBy(name => name.Normalize().Trim().ToUpperInvariant()).Where(group => group.Count() > 1))
        {
            yield return $"classes '{string.Join("' and '", alike)}' differ only by case, spaces or the way accents are written; if they are one class, put their images into one folder.";
        }
    }

    private static bool IsWnid(string name) => name.Length == 9 && name[0] == 'n' && !name.AsSpan(1).ContainsAnyExceptInRange('0', '9');
}
