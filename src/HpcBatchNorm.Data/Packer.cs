using System.Formats.Tar;
using System.IO.Hashing;
using System.Runtime.InteropServices;
using System.Text;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Data;

/// <summary>How a data set is packed.</summary>
internal sealed record PackOptions
{
    /// <summary>
    /// Short side in pixels that larger images are reduced to; 0 for none. The default is the largest that any evaluation of the paper uses (144 crops at
    /// 224 pixels); 256 is what the single centre crop needs, and faster.
    /// </summary>
    public int ShortSide { get; init; } = 352;

    /// <summary>JPEG quality of reduced images, 1 to 100. Other images keep their bytes.</summary>
    public int Quality { get; init; } = 90;

    /// <summary>Images of a shard.</summary>
    public int ShardImages { get; init; } = 4096;

    /// <summary>Put the training images in a random order, so that reading shards one after the other is shuffled already. Validation keeps its order.</summary>
    public bool Shuffle { get; init; } = true;

    /// <summary>Key of that order.</summary>
    public ulong Seed { get; init; } = 1;

    /// <summary>Threads that decode and encode. What is written does not depend on it.</summary>
    public int Workers { get; init; } = 1;

    /// <summary>What an unreadable image does: it is left out and named, or ends the packing.</summary>
    public BadImagePolicy OnBadImage { get; init; }

    /// <summary>Throws when a setting is out of its range.</summary>
    /// <exception cref="UserErrorException">The line names the setting, its range and its value.</exception>
    public void Validate()
    {
        Check(ShortSide is >= 0 and <= 8192, "short side", "between 0 and 8192", ShortSide);
        Check(Quality is >= 1 and <= 100, "JPEG quality", "between 1 and 100", Quality);
        Check(ShardImages is >= 1 and <= 1 << 20, "number of images per shard", "between 1 and 1048576", ShardImages);
        Check(Workers is >= 1 and <= LoaderOptions.MostWorkers, "number of workers", FormattableString.Invariant($"between 1 and {LoaderOptions.MostWorkers}"), Workers);
    }

    private static void Check(bool valid, string name, string range, int value)
    {
        if (!valid)
        {
            throw new UserErrorException(FormattableString.Invariant($"the {name} must be {range}; it is {value}."));
        }
    }
}

/// <summary>How far packing is.</summary>
/// <param name="Split">Which images.</param>
/// <param name="Done">Images done, those of shards that were there already included.</param>
/// <param name="Total">Images in all.</param>
internal readonly record struct PackProgress(DatasetSplit Split, int Done, int Total);

/// <summary>What a packed set consists of.</summary>
/// <param name="TrainImages">Training images.</param>
/// <param name="ValidationImages">Validation images; the same ones where the source makes no difference.</param>
/// <param name="Shards">Files.</param>
/// <param name="KeptShards">How many of them were there already.</param>
/// <param name="Bytes">Length of all files together.</param>
/// <param name="Skipped">Names of unreadable images, which were left out.</param>
internal sealed record PackResult(int TrainImages, int ValidationImages, int Shards, int KeptShards, long Bytes, IReadOnlyList<string> Skipped)
{
    /// <summary>What lies in the source besides the images and is not packed, a line for each kind.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];
}

/// <summary>
/// Writes a data set as a few large files that are read in sequence: images reduced to a useful size, in random order. The same source and options give
/// the same bytes, whatever the number of workers and however often the packing was stopped: a shard appears under its name only when it is
/// complete, and is not made again.
/// </summary>
internal static class Packer
{
    /// <summary>Images decoded by each worker between two writes.</summary>
    private const int ImagesPerTurn = 32;

    /// <summary>Apart from the orders of training epochs.</summary>
    private const uint OrderKey = uint.MaxValue - 1;

    /// <summary>Packs <paramref name="source"/> into the folder <paramref name="destination"/>, or completes what was begun there.</summary>
    /// <exception cref="UserErrorException">
    /// The source cannot be read, the destination cannot be written, holds something else or a set packed otherwise, or an image is bad and the policy is to fail.
    /// </exception>
    public static PackResult Run(
        string source, string destination, PackOptions options, IProgress<PackProgress>? progress = null, CancellationToken cancellationToken = default)
    {
        options.Validate();
        destination = Path.TrimEndingDirectorySeparator(Path.GetFullPath(destination));
        using ImageDataset train = ImageDataset.Open(source, DatasetSplit.Train);
        using ImageDataset validation = ImageDataset.Open(source, DatasetSplit.Validation);
        if (!train.ClassNames.SequenceEqual(validation.ClassNames))
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{source}': training has {train.ClassCount} classes, validation {validation.ClassCount} others; labels would not agree."));
        }

        var manifest = new PackManifest
        {
            ShortSide = options.ShortSide,
            Quality = options.Quality,
            ShardImages = options.ShardImages,
            Shuffled = options.Shuffle,
            Seed = options.Shuffle ? options.Seed : 0,
            Source = Fingerprint(train) + Fingerprint(validation),
            Classes = [.. train.ClassNames],
            Descriptions = [.. train.ClassDescriptions],
        };
        try
        {
            return Complete(destination, manifest, train, validation, options, progress, cancellationToken);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException(
                $"'{destination}' cannot be written: {exception.Message.TrimEnd('.')}. What is complete is kept; the same command goes on from there.", exception);
        }
    }

    private static PackResult Complete(
        string destination, PackManifest manifest, ImageDataset train, ImageDataset validation, PackOptions options, IProgress<PackProgress>? progress,
        CancellationToken cancellationToken)
    {
        PackManifest? begun = CheckDestination(destination, manifest);
        Directory.CreateDirectory(destination);
        using FileStream alone = Lock(destination);
        AtomicFile.Sweep(destination);
        if (begun is not { Complete: true })
        {
            manifest.Write(destination);
        }

        bool sameImages = validation.Source == train.Source && Fingerprint(validation) == Fingerprint(train);
        var skipped = new List<string>();
        int kept = 0;
        PackedShard[] trainShards = Pack(train, options.Shuffle), validationShards = trainShards;
        if (!sameImages)
        {
            validationShards = Pack(validation, shuffle: false);
        }
        else
        {
            File.Copy(PackedSet.IndexPath(destination, DatasetSplit.Train), PackedSet.IndexPath(destination, DatasetSplit.Validation), overwrite: true);
        }

        (manifest with { Complete = true, Train = trainShards, Validation = validationShards, Skipped = [.. skipped] }).Write(destination);
        PackedShard[] all = [.. trainShards, .. sameImages ? [] : validationShards];
        return new PackResult(
            trainShards.Sum(shard => shard.Images), validationShards.Sum(shard => shard.Images), all.Length, kept, all.Sum(shard => shard.Bytes), skipped)
        {
            Notes = [.. train.Notes.Concat(validation.Notes).Distinct()],
        };

        PackedShard[] Pack(ImageDataset dataset, bool shuffle)
        {
            int[] order = [.. Enumerable.Range(0, dataset.Count)];
            if (shuffle)
            {
                var random = new EpochOrder(options.Seed, OrderKey, dataset.Count);
                order = [.. order.Select(i => random[i])];
            }

            int[][] contents = [.. order.Chunk(options.ShardImages)];
            string[] paths = [.. contents.Select((_, shard) => Path.Combine(destination, PackedSet.ShardName(dataset.Split, shard)))];
            using var writer = new ShardWriter(dataset, options);
            int done = 0;
            for (int shard = 0; shard < paths.Length; shard++)
            {
                if (File.Exists(paths[shard]))
                {
                    kept++;
                }
                else
                {
                    int before = done;
                    writer.Write(paths[shard], contents[shard], count => progress?.Report(new PackProgress(dataset.Split, before + count, dataset.Count)), cancellationToken);
                }

                done += contents[shard].Length;
                progress?.Report(new PackProgress(dataset.Split, done, dataset.Count));
            }

            return Index(destination, dataset, paths, contents, skipped);
        }
    }

    /// <summary>Reads back what was written, by this run or by one before, and keeps where everything lies.</summary>
    private static PackedShard[] Index(string destination, ImageDataset dataset, string[] paths, int[][] contents, List<string> skipped)
    {
        ImageTable images = ArchiveIndex.Walk(paths, out int[] starts);
        var shards = new PackedShard[paths.Length];
        for (int shard = 0; shard < paths.Length; shard++)
        {
            int end = shard + 1 < starts.Length ? starts[shard + 1] : images.Count;
            shards[shard] = new PackedShard(Path.GetFileName(paths[shard]), end - starts[shard], new FileInfo(paths[shard]).Length);
            if (shards[shard].Images < contents[shard].Length)
            {
                HashSet<string> present = [.. Enumerable.Range(starts[shard], shards[shard].Images).Select(images.Name)];
                skipped.AddRange(contents[shard].Where(index => !present.Contains(MemberName(dataset, index))).Select(dataset.Name));
            }
        }

        ArchiveIndex.Write(PackedSet.IndexPath(destination, dataset.Split), PackedSet.IndexKey(shards), images);
        return shards;
    }

    private static PackManifest? CheckDestination(string destination, PackManifest manifest)
    {
        if (File.Exists(destination) || (Directory.Exists(destination) && !PackedSet.IsIn(destination) && Directory.EnumerateFileSystemEntries(destination).Any()))
        {
            throw new UserErrorException($"'{destination}' exists and holds something else; name a new folder for the packed set.");
        }

        PackManifest? begun = PackManifest.Read(destination);
        string? difference = begun is null ? null
            : begun.Source != manifest.Source ? "from another data set, or this one has changed"
            : begun.ShortSide != manifest.ShortSide ? FormattableString.Invariant($"with short-side {begun.ShortSide}")
            : begun.Quality != manifest.Quality ? FormattableString.Invariant($"with quality {begun.Quality}")
            : begun.ShardImages != manifest.ShardImages ? FormattableString.Invariant($"with shard-images {begun.ShardImages}")
            : begun.Shuffled != manifest.Shuffled ? $"with shuffle {(begun.Shuffled ? "true" : "false")}"
            : begun.Seed != manifest.Seed ? FormattableString.Invariant($"with seed {begun.Seed}")
            : null;
        return difference is null ? begun : throw new UserErrorException(
            $"'{destination}' was packed {difference}; give the same settings to complete it, or name another folder.");
    }

    private static FileStream Lock(string destination)
    {
        string path = Path.Combine(destination, ".lock");
        try
        {
            return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, 1, FileOptions.DeleteOnClose);
        }
        catch (IOException exception) when (File.Exists(path))
        {
            throw new UserErrorException($"another hpcbn pack is writing to '{destination}'; wait for it, or stop it.", exception);
        }
    }

    /// <summary>Hash of names and labels.</summary>
    private static string Fingerprint(ImageDataset dataset)
    {
        var hash = new XxHash64();
        for (int i = 0; i < dataset.Count; i++)
        {
            hash.Append(Encoding.UTF8.GetBytes(dataset.Name(i)));
            int label = dataset.Label(i);
            hash.Append(MemoryMarshal.AsBytes(new ReadOnlySpan<int>(in label)));
        }

        return Convert.ToHexStringLower(hash.GetCurrentHash());
    }

    /// <summary>CLASS/image: an image's own name, below its class where it does not say so itself.</summary>
    private static string MemberName(ImageDataset dataset, int index)
    {
        string name = dataset.Name(index), folder = dataset.ClassNames[dataset.Label(index)] + "/";
        return (name.StartsWith(folder, StringComparison.Ordinal) ? name : folder + Path.GetFileName(name)) + (dataset.GreyPixels is null ? "" : ".png");
    }

    /// <summary>Writes shards one after the other; the images of each are made by several threads.</summary>
    private sealed class ShardWriter(ImageDataset dataset, PackOptions options) : IDisposable
    {
        private readonly ThreadLocal<ImageShrinker> _shrinkers = new(() => new ImageShrinker(options.ShortSide, options.Quality), trackAllValues: true);
        private readonly ThreadLocal<byte[]> _buffers = new(() => new byte[1 << 18]);

        public void Write(string path, int[] images, Action<int> progress, CancellationToken cancellationToken) => AtomicFile.Replace(path, temporary =>
        {
            using var file = new FileStream(temporary, FileMode.Create, FileAccess.Write, FileShare.None, 1 << 20);
            using (var tar = new TarWriter(file, TarEntryFormat.Gnu, leaveOpen: true))
            {
                var parallel = new ParallelOptions { MaxDegreeOfParallelism = options.Workers, CancellationToken = cancellationToken };
                int done = 0;
                foreach (int[] turn in images.Chunk(ImagesPerTurn * options.Workers))
                {
                    byte[]?[] made = new byte[turn.Length][];
                    try
                    {
                        Parallel.For(0, turn.Length, parallel, i => made[i] = Make(turn[i]));
                    }
                    catch (AggregateException several)
                    {
                        throw several.InnerExceptions.OfType<UserErrorException>().FirstOrDefault() ?? several.InnerExceptions[0];
                    }

                    for (int i = 0; i < turn.Length; i++)
                    {
                        if (made[i] is { } bytes)
                        {
                            tar.WriteEntry(new GnuTarEntry(TarEntryType.RegularFile, MemberName(dataset, turn[i]))
                            {
                                ModificationTime = DateTimeOffset.UnixEpoch,
                                DataStream = new MemoryStream(bytes),
                            });
                        }
                    }

                    progress(done += turn.Length);
                }
            }

            file.Flush(flushToDisk: true);
        });

        public void Dispose()
        {
            foreach (ImageShrinker shrinker in _shrinkers.Values)
            {
                shrinker.Dispose();
            }

            _shrinkers.Dispose();
            _buffers.Dispose();
        }

        /// <summary>The image's new bytes, or null when it is bad and to be left out.</summary>
        private byte[]? Make(int index)
        {
            byte[] buffer = _buffers.Value!;
            int length = dataset.ReadEncoded(index, ref buffer);
            _buffers.Value = buffer;
            if (dataset.GreyPixels is var (width, height))
            {
                return ImageShrinker.EncodeGrey(buffer, width, height);
            }

            ImageStatus status = _shrinkers.Value!.Shrink(buffer, length, out byte[] result);
            return status == ImageStatus.Ok ? result
                : options.OnBadImage == BadImagePolicy.Skip ? null
                : throw new UserErrorException($"image '{dataset.Name(index)}' in '{dataset.Source}' is bad ({status}); replace it, or let bad images be skipped.");
        }
    }
}
