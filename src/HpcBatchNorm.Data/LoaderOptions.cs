namespace HpcBatchNorm.Data;

/// <summary>In which order an epoch visits the images.</summary>
public enum ShuffleMode
{
    /// <summary>By name: class after class.</summary>
    None,

    /// <summary>A new random order of all images in every epoch.</summary>
    Global,

    /// <summary>
    /// One random order of all images for the whole run, so that the same images meet in a batch in every epoch: what the paper had before it enabled
    /// shuffling within shards (section 4.2.1, change 6).
    /// </summary>
    Fixed,

    /// <summary>
    /// The paper's within-shard shuffling (section 4.2.1): every image belongs to one shard for good. Each epoch visits the shards one after the other in
    /// a new random order, and the images of each in a new random order, so that a batch holds images of one shard (of neighbouring ones where a shard
    /// ends within it) but never the same company. Shards are those of the data set where they are mixed
    /// (<see cref="ImageDataset.ShardsAreMixed"/>); images kept in another way are dealt out at random, by the seed, to shards of about
    /// <see cref="LoaderOptions.ShardSize"/> images. The paper does not say how large its shards were.
    /// </summary>
    Shard,
}

/// <summary>What to do with an image that cannot be decoded.</summary>
public enum BadImagePolicy
{
    /// <summary>
    /// Training takes the next good image of the epoch's order in its place, with that image's own label; evaluation leaves it out. Either way it is
    /// listed in <see cref="BatchLoader.BadImages"/>.
    /// </summary>
    Skip,

    /// <summary>Stop with an error that names it.</summary>
    Fail,
}

/// <summary>
/// The images of a step that one of several loaders takes. The step's images stand in rows of <paramref name="Parts"/> times <paramref name="Run"/>; of each row
/// part p takes the p-th run. So all loaders together take every image once, and the one that loads alone would take the same ones in the same order.
/// </summary>
/// <param name="Part">Which part, from 0.</param>
/// <param name="Parts">How many there are.</param>
/// <param name="Run">Images that stay together; 0: the whole batch.</param>
public readonly record struct LoaderShare(int Part, int Parts, int Run = 0)
{
    /// <summary>Everything.</summary>
    public static LoaderShare Whole => new(0, 1);

    /// <summary>Where image <paramref name="slot"/> of this loader's batch of <paramref name="batchSize"/> stands in the step.</summary>
    internal int PlaceOf(int slot, int batchSize)
    {
        int run = Run > 0 ? Run : batchSize;
        return (slot / run * Parts + Part) * run + slot % run;
    }
}

/// <summary>Moves the images of one epoch's steps.</summary>
/// <param name="Epoch">Which epoch.</param>
/// <param name="Images">By how many images: step b of the epoch begins at image b * (images of a step) + this. May be negative where its first steps are left out.</param>
public readonly record struct EpochShift(long Epoch, int Images);

/// <summary>What a <see cref="BatchLoader"/> makes of a data set. Defaults are those of evaluation.</summary>
public sealed record LoaderOptions
{
    /// <summary>Images per batch.</summary>
    public required int BatchSize { get; init; }

    /// <summary>Width and height S of a network's input in pixels.</summary>
    public required int ImageSize { get; init; }

    /// <summary>Values per pixel: 3 for R, G, B, or 1 for grey (colours become their luma).</summary>
    public int Channels { get; init; } = 3;

    /// <summary>Values of 128 and more become 255, the others 0: the binary images of section 4.1.</summary>
    public bool Binarize { get; init; }

    /// <summary>How training images are varied; null for evaluation, which takes the central crop (<see cref="CropFraction"/>).</summary>
    public AugmentationOptions? Augmentation { get; init; }

    /// <summary>Evaluation: S divided by the short side the image is resized to before its centre is cropped. 1 when images are about S pixels large.</summary>
    public double CropFraction { get; init; } = 0.875;

    /// <summary>The filter that images are resized with.</summary>
    public Interpolation Interpolation { get; init; }

    /// <summary>Evaluation: crops per image, 1, 10 (corners and centre, each mirrored too) or 144 (GoogLeNet's). An image is decoded once, and its batch holds all its crops.</summary>
    public int Crops { get; init; } = 1;

    /// <summary>The order of the images.</summary>
    public ShuffleMode Shuffle { get; init; }

    /// <summary>
    /// Images per shard where the data set has no shards of its own, at least 1; about what 1024 files of ImageNet's training images hold.
    /// </summary>
    public int ShardSize { get; init; } = 1024;

    /// <summary>Leave out the last batch of an epoch when it is not full.</summary>
    public bool DropLast { get; init; }

    /// <summary>The key of everything random: order, crops, distortion.</summary>
    public ulong Seed { get; init; }

    /// <summary>Threads that decode, at least 1. The batches do not depend on it.</summary>
    public int Workers { get; init; } = 1;

    /// <summary>The most <see cref="Workers"/> there may be: beyond every machine's processors.</summary>
    public const int MostWorkers = 4096;

    /// <summary>Batches kept ready, at least 1.</summary>
    public int Prefetch { get; init; } = 3;

    /// <summary>
    /// Seconds without a finished image, while somebody waits for one, after which the loader gives up with a message that says what its workers are
    /// doing; 0 for never. A disk or network mount that does not answer would otherwise hang the run without a word.
    /// </summary>
    public double StallSeconds { get; init; } = 120;

    /// <summary>What to do with an image that cannot be decoded.</summary>
    public BadImagePolicy OnBadImage { get; init; }

    /// <summary>The first step that is not loaded any more; workers stop there instead of preparing batches nobody will ask for.</summary>
    public long EndStep { get; init; } = long.MaxValue;

    /// <summary>Which images of each step are this loader's, where several processes share the steps; all by default.</summary>
    public LoaderShare Share { get; init; } = LoaderShare.Whole;

    /// <summary>
    /// An epoch whose images begin elsewhere than at its first one, because the run went on in the middle of it with steps of another size; null for none.
    /// </summary>
    public EpochShift? Shift { get; init; }

    /// <summary>The usual way to train: augmented, shuffled, full batches only.</summary>
    public static LoaderOptions ForTraining(int batchSize, int imageSize, ulong seed) => new()
    {
        BatchSize = batchSize,
        ImageSize = imageSize,
        Seed = seed,
        Augmentation = new AugmentationOptions(),
        Shuffle = ShuffleMode.Global,
        DropLast = true,
    };

    /// <summary>The usual way to evaluate: each image once, central crop, in order.</summary>
    public static LoaderOptions ForEvaluation(int batchSize, int imageSize) => new() { BatchSize = batchSize, ImageSize = imageSize };

    /// <summary>Throws when a setting is out of its range.</summary>
    /// <exception cref="UserErrorException">The line names the setting, its range and its value.</exception>
    internal void Validate()
    {
        Check(BatchSize >= 1, "batch size", "at least 1", BatchSize);
        Check(ImageSize is >= 1 and <= 4096, "image size", "between 1 and 4096", ImageSize);
        Check(Channels is 1 or 3, "number of channels", "1 or 3", Channels);
        Check(CropFraction is > 0 and <= 1, "crop fraction", "greater than 0 and at most 1", CropFraction);
        Check(Crops is 1 or 10 or 144, "number of crops", "1, 10 or 144", Crops);
        Check(Crops == 1 || Augmentation is null, "number of crops in training", "1", Crops);
        Check(Workers is >= 1 and <= MostWorkers, "number of workers", FormattableString.Invariant($"between 1 and {MostWorkers}"), Workers);
        Check(Prefetch is >= 1 and <= 1024, "number of prefetched batches", "between 1 and 1024", Prefetch);
        Check(ShardSize >= 1, "shard size", "at least 1", ShardSize);
        Check(StallSeconds is >= 0 and <= 1e6, "loader timeout", "between 0 and 1,000,000 seconds", StallSeconds);
        Check(Share.Parts >= 1 && Share.Run >= 0, "number of parts of a step", "at least 1", Share.Parts);
        Check(Share.Part >= 0 && Share.Part < Share.Parts, "part of a step", FormattableString.Invariant($"between 0 and {Share.Parts - 1}"), Share.Part);
        Check(Share.Run == 0 || BatchSize % Share.Run == 0, "batch size", FormattableString.Invariant($"a multiple of {Share.Run}"), BatchSize);
        Check((Share.Parts == 1 && Shift is null) || DropLast, "last batch of shared or shifted epochs", "left out when it is not full (1)", DropLast ? 1 : 0);
        Augmentation?.Validate();
    }

    private static void Check(bool valid, string name, string range, double value)
    {
        if (!valid)
        {
            throw new UserErrorException(FormattableString.Invariant($"the {name} must be {range}; it is {value}."));
        }
    }
}
