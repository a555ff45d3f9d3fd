namespace HpcBatchNorm.Data;

/// <summary>What <see cref="DatasetCheck.Run"/> found.</summary>
/// <param name="Layout">The layout in words.</param>
/// <param name="Images">Number of images.</param>
/// <param name="Classes">Number of classes.</param>
/// <param name="SmallestClass">Images of the smallest class.</param>
/// <param name="LargestClass">Images of the largest class.</param>
/// <param name="Decoded">Images decoded whole.</param>
/// <param name="BadImages">Those of them that are bad.</param>
/// <param name="Notes">What a user should know, each one line: numbers that differ from ImageNet's, classes without images.</param>
public sealed record DatasetReport(
    string Layout, int Images, int Classes, int SmallestClass, int LargestClass, int Decoded, IReadOnlyList<BadImage> BadImages,
    IReadOnlyList<string> Notes);

/// <summary>Finds out whether a data set is what it should be.</summary>
public static class DatasetCheck
{
    private const int ImageNetClasses = 1000, ImageNetTrain = 1_281_167, ImageNetValidation = 50_000;

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
        Parallel.For(
            0, decoded, new ParallelOptions { MaxDegreeOfParallelism = workers, CancellationToken = cancellationToken },
            () => (Decoder: new ImageDecoder(), Buffer: Array.Empty<byte>()),
            (i, _, local) =>
            {
                int index = (int)((long)i * dataset.Count / decoded);
                int length = dataset.ReadEncoded(index, ref local.Buffer);
                ImageStatus status = dataset.GreyPixels is null ? local.Decoder.Open(local.Buffer, length) : ImageStatus.Ok;
                if (status == ImageStatus.Ok && dataset.GreyPixels is null)
                {
                    status = local.Decoder.Decode(0, 0, local.Decoder.Width, local.Decoder.Height, smallestScale: 1);
                }

                local.Decoder.Close();
                if (status != ImageStatus.Ok)
                {
                    lock (bad)
                    {
                        bad.Add(new BadImage(index, dataset.Name(index), status));
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
        return new DatasetReport(
            dataset.Layout, dataset.Count, dataset.ClassCount, perClass.Min(), perClass.Max(), decoded, bad, Notes(dataset, perClass));
    }

    private static List<string> Notes(ImageDataset dataset, int[] perClass)
    {
        var notes = new List<string>();
        int expected = dataset.Split == DatasetSplit.Train ? ImageNetTrain : ImageNetValidation;
        if (dataset.ClassCount == ImageNetClasses && dataset.Count != expected)
        {
            notes.Add(FormattableString.Invariant($"{ImageNetClasses} classes as in ImageNet, but {dataset.Count} images instead of {expected}"));
        }

        for (int label = 0; label < perClass.Length; label++)
        {
            if (perClass[label] == 0)
            {
                notes.Add($"class {dataset.ClassNames[label]} has no images");
            }
        }

        if (dataset.ClassCount == 1)
        {
            notes.Add("there is only one class, so there is nothing to learn");
        }

        return notes;
    }
}
