using System.Text.Json;
using System.Text.Json.Serialization;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Data;

/// <summary>A file of a packed set.</summary>
/// <param name="File">Its name.</param>
/// <param name="Images">Images in it.</param>
/// <param name="Bytes">Its length.</param>
internal sealed record PackedShard(string File, int Images, long Bytes);

/// <summary>What <c>pack.json</c> says: with which settings a set was or is being packed, and from when it is complete, what it consists of.</summary>
internal sealed record PackManifest
{
    public const string FileName = "pack.json";

    public int Version { get; init; } = 1;

    public bool Complete { get; init; }

    public required int ShortSide { get; init; }

    public required int Quality { get; init; }

    public required int ShardImages { get; init; }

    public required bool Shuffled { get; init; }

    public required ulong Seed { get; init; }

    /// <summary>Hash of the source's names and labels.</summary>
    public required string Source { get; init; }

    public required string[] Classes { get; init; }

    public required string[] Descriptions { get; init; }

    public PackedShard[] Train { get; init; } = [];

    /// <summary>The same as <see cref="Train"/> where the source has one set of images for both.</summary>
    public PackedShard[] Validation { get; init; } = [];

    /// <summary>Images that could not be read and were left out.</summary>
    public string[] Skipped { get; init; } = [];

    public PackedShard[] Shards(DatasetSplit split) => split == DatasetSplit.Train ? Train : Validation;

    public static PackManifest? Read(string folder)
    {
        string path = Path.Combine(folder, FileName);
        if (!File.Exists(path))
        {
            return null;
        }

        try
        {
            PackManifest manifest = JsonSerializer.Deserialize(RegularFile.ReadAllText(path), PackJson.Default.PackManifest) ?? throw Damaged("it says nothing", null);
            if (manifest.Version != 1)
            {
                throw new UserErrorException(
                    FormattableString.Invariant($"'{path}' is of version {manifest.Version}; this program reads version 1. Pack the data set again."));
            }

            return manifest.Contradiction() is string contradiction ? throw Damaged(contradiction, null) : manifest;
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            throw Damaged(exception.Message, exception);
        }

        UserErrorException Damaged(string why, Exception? exception) =>
            new($"'{path}' is damaged ({UserErrorException.Excerpt(why)}); remove the folder and pack the data set again.", exception!);
    }

    /// <summary>What of it cannot be, or null: JSON may leave anything out, or put null or another number in its place.</summary>
    private string? Contradiction()
    {
        if (Source is null || Classes is null || Descriptions is null || Train is null || Validation is null || Skipped is null
            || Classes.Contains(null!) || Descriptions.Contains(null!) || Skipped.Contains(null!))
        {
            return "a part of it is null";
        }

        if (Descriptions.Length != Classes.Length || Classes.Distinct(StringComparer.Ordinal).Count() != Classes.Length)
        {
            return "its classes are not as many as their descriptions, or not different";
        }

        foreach (PackedShard[] shards in (PackedShard[][])[Train, Validation])
        {
            // A shard is a file of the folder, never a path that leads elsewhere.
            if (shards.Any(shard => shard?.File is not { Length: > 0 } file || file != Path.GetFileName(file) || file is "." or ".."))
            {
                return "a shard has no name";
            }

            if (shards.Any(shard => shard.Images < 0 || shard.Bytes < 0) || shards.Sum(shard => (long)shard.Images) > Array.MaxLength)
            {
                return "a shard has an impossible number of images or bytes";
            }
        }

        return null;
    }

    public void Write(string folder) => AtomicFile.ReplaceText(Path.Combine(folder, FileName), JsonSerializer.Serialize(this, PackJson.Default.PackManifest));
}

/// <summary>Serialization without reflection.</summary>
[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(PackManifest))]
internal sealed partial class PackJson : JsonSerializerContext;

/// <summary>
/// Reads what <see cref="Packer"/> wrote: <c>pack.json</c>; shards <c>train-00000.tar</c>, ... of <c>CLASS/image</c> members, which any program that
/// knows tar can open; and an index of each split, so that nothing has to be searched. Images stay in the order they were packed in.
/// </summary>
internal static class PackedSet
{
    public static bool IsIn(string folder) => RegularFile.Exists(Path.Combine(folder, PackManifest.FileName));

    public static string ShardName(DatasetSplit split, int shard) => FormattableString.Invariant($"{Part(split)}-{shard:D5}.tar");

    public static string IndexPath(string folder, DatasetSplit split) => Path.Combine(folder, Part(split) + ".index");

    public static DatasetContents Read(string folder, DatasetSplit split)
    {
        PackManifest manifest = PackManifest.Read(folder)!;
        if (!manifest.Complete)
        {
            throw new UserErrorException($"'{folder}' is not packed to its end; run the same hpcbn pack again, which goes on where it stopped.");
        }

        PackedShard[] shards = manifest.Shards(split);
        foreach (PackedShard shard in shards)
        {
            var file = new FileInfo(Path.Combine(folder, shard.File));
            if (!file.Exists || file.Length != shard.Bytes)
            {
                string found = file.Exists ? FormattableString.Invariant($"has {file.Length} bytes") : "is missing";
                throw new UserErrorException(FormattableString.Invariant(
                    $"'{file.FullName}' {found}, but {PackManifest.FileName} says {shard.Bytes} bytes; remove it if it is there, and run hpcbn pack again."));
            }
        }

        string[] archives = [.. shards.Select(shard => Path.Combine(folder, shard.File))];
        int[] starts = [.. Starts(shards)];
        ImageTable images = ArchiveIndex.TryRead(IndexPath(folder, split), IndexKey(shards), i => shards.Length == 0 ? 0 : shards[Shards.Of(starts, i)].Bytes)
            ?? ArchiveIndex.Walk(archives, out starts);
        if (images.Count != shards.Sum(shard => shard.Images))
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{folder}' holds {images.Count} images instead of {shards.Sum(shard => shard.Images)}; remove it and pack the data set again."));
        }

        return new DatasetContents(
            images, Labels(images, manifest.Classes, folder), manifest.Classes, manifest.Descriptions, folder, new ArchiveStore(images, archives, starts),
            FormattableString.Invariant($"packed set of {archives.Length} shards"), starts)
        {
            ShardsAreMixed = manifest.Shuffled && split == DatasetSplit.Train,
        };
    }

    /// <summary>The first image of each shard.</summary>
    private static IEnumerable<int> Starts(PackedShard[] shards)
    {
        int start = 0;
        foreach (PackedShard shard in shards)
        {
            yield return start;
            start += shard.Images;
        }
    }

    /// <summary>What an index belongs to.</summary>
    public static string IndexKey(IEnumerable<PackedShard> shards) =>
        string.Join('|', shards.Select(shard => FormattableString.Invariant($"{shard.File}:{shard.Images}:{shard.Bytes}")));

    private static int[] Labels(ImageTable images, string[] classes, string folder)
    {
        Dictionary<string, int> indices = Enumerable.Range(0, classes.Length).ToDictionary(i => classes[i], StringComparer.Ordinal);
        Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> byName = indices.GetAlternateLookup<ReadOnlySpan<char>>();
        int[] labels = new int[images.Count];
        for (int i = 0; i < labels.Length; i++)
        {
            string name = images.Name(i);
            if (!byName.TryGetValue(name.AsSpan(0, Math.Max(0, name.IndexOf('/', StringComparison.Ordinal))), out labels[i]))
            {
                throw new UserErrorException($"'{folder}' holds '{name}', which is of no class of {PackManifest.FileName}; pack the data set again.");
            }
        }

        return labels;
    }

    private static string Part(DatasetSplit split) => split == DatasetSplit.Train ? "train" : "val";
}
