using System.IO.Hashing;
using System.Text;
using HpcBatchNorm.Interop;
using Microsoft.Win32.SafeHandles;

namespace HpcBatchNorm.Data;

/// <summary>
/// The images inside a tar archive, and inside the tar archives it holds (their images are named <c>inner/member</c> after the inner archive).
/// Built by walking every header once, then kept in the user's cache and trusted while nothing shows that the archive was changed or replaced. A cache that is missing, damaged or cannot be written only costs the walk.
/// </summary>
internal static class ArchiveIndex
{
    private const string Magic = "hpcbn image index 3";

    /// <summary>Samples of an archive that are hashed as evidence, and the bytes of each: a millisecond even for ImageNet's.</summary>
    private const int Samples = 64, SampleBytes = 4096;

    /// <summary>The user's cache directory of this program, or null when there is none.</summary>
    public static string? DefaultCacheDirectory => UserCache.Folder;

    public static ImageTable Load(string archive, string? cacheDirectory, IProgress<string>? progress = null)
    {
        string? cacheFile = cacheDirectory is null
            ? null
            : Path.Combine(cacheDirectory, $"index-{XxHash3.HashToUInt64(Encoding.UTF8.GetBytes(Path.GetFullPath(archive))):x16}.bin");
        using SafeFileHandle file = Open(archive);
        long length = RandomAccess.GetLength(file);
        string key = cacheFile is null ? "" : Evidence(archive, file, length);
        if (cacheFile is not null && TryRead(cacheFile, key, _ => length) is { } cached)
        {
            return cached;
        }

        progress?.Report(FormattableString.Invariant($"indexing {archive} ({length / 1e9:0.0} GB), once"));
        var images = new ImageTable.Builder();
        var passedOver = new PassedOver();
        var walk = new ArchiveWalk(file, archive, passedOver);
        walk.Add(images);
        // As extracting does: what is appended to an archive takes the place of what it had.
        images.KeepLast(name => passedOver.Add("members that a later one of the same name replaces", name));
        ImageTable table = images.Build(passedOver.Lines, walk.Labels);
        if (cacheFile is not null)
        {
            TryWrite(cacheFile, key, table);
        }

        return table;
    }

    /// <summary>The images of several archives, one archive after the other, each in its own order.</summary>
    /// <param name="archives">Their paths.</param>
    /// <param name="starts">The first image of each.</param>
    public static ImageTable Walk(string[] archives, out int[] starts)
    {
        var images = new ImageTable.Builder();
        var passedOver = new PassedOver();
        starts = new int[archives.Length];
        for (int i = 0; i < archives.Length; i++)
        {
            starts[i] = images.Count;
            using SafeFileHandle file = Open(archives[i]);
            new ArchiveWalk(file, archives[i], passedOver).Add(images);
        }

        return images.BuildInOrder(passedOver.Lines);
    }

    public static SafeFileHandle Open(string path)
    {
        try
        {
            return RegularFile.OpenHandle(path, FileOptions.RandomAccess);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"'{path}' cannot be opened: {exception.Message}", exception);
        }
    }

    /// <summary>The table kept under this name, or null when there is none, it is damaged, or belongs to another key.</summary>
    /// <param name="cacheFile">Where it is kept.</param>
    /// <param name="key">What it must belong to.</param>
    /// <param name="archiveBytes">Length of the archive that holds an image: a right checksum does not make an offset right.</param>
    public static ImageTable? TryRead(string cacheFile, string key, Func<int, long> archiveBytes)
    {
        try
        {
            byte[] bytes = RegularFile.ReadAllBytes(cacheFile);
            int body = bytes.Length - sizeof(ulong);
            if (body < 0 || BitConverter.ToUInt64(bytes, body) != XxHash3.HashToUInt64(bytes.AsSpan(0, body)))
            {
                return null;
            }

            using var reader = new BinaryReader(new MemoryStream(bytes, 0, body));
            if (reader.ReadString() != Magic || reader.ReadString() != key)
            {
                return null;
            }

            var table = ImageTable.Read(reader);
            for (int i = 0; i < table.Count; i++)
            {
                if (table.Offsets[i] + table.Sizes[i] > archiveBytes(i))
                {
                    return null;
                }
            }

            return table;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or FormatException or ArgumentException)
        {
            return null;
        }
    }

    /// <summary>
    /// What shows that an archive is still the one that was walked: path, length, time of change, which file it is, the time that no program can set, and
    /// a hash of samples from its beginning to its end. Length and time of change alone stay the same when an archive is made anew with the times of its files.
    /// </summary>
    private static string Evidence(string archive, SafeFileHandle file, long length)
    {
        var info = new FileInfo(archive);
        FileStatus status = FileStatus.Of(info.FullName);
        var hash = new XxHash3();
        byte[] sample = new byte[SampleBytes];
        long stride = Math.Max(1, (length - SampleBytes) / (Samples - 1));
        for (int i = 0; i < Samples; i++)
        {
            hash.Append(sample.AsSpan(0, RegularFile.Read(file, sample, Math.Min(i * stride, length))));
        }

        return FormattableString.Invariant(
            $"{info.FullName}|{length}|{info.LastWriteTimeUtc.Ticks}|{status.Identity}|{status.ChangeTime}|{hash.GetCurrentHashAsUInt64():x16}");
    }

    /// <summary>Keeps a table for <see cref="TryRead"/>.</summary>
    public static void Write(string path, string key, ImageTable table) => Write(path, path + AtomicFile.TemporarySuffix, key, table);

    private static void Write(string path, string temporary, string key, ImageTable table)
    {
        var bytes = new MemoryStream();
        using (var writer = new BinaryWriter(bytes, Encoding.UTF8, leaveOpen: true))
        {
            writer.Write(Magic);
            writer.Write(key);
            table.Write(writer);
            writer.Flush();
            writer.Write(XxHash3.HashToUInt64(bytes.GetBuffer().AsSpan(0, (int)bytes.Length)));
        }

        using (FileStream file = File.Create(temporary))
        {
            bytes.WriteTo(file);
        }

        FileRename.Move(temporary, path, overwrite: true);
    }

    private static void TryWrite(string cacheFile, string key, ImageTable table)
    {
        string temporary = FormattableString.Invariant($"{cacheFile}.{Environment.ProcessId}.{Environment.CurrentManagedThreadId}.tmp");
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(cacheFile)!);
            Write(cacheFile, temporary, key, table);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // The cache only saves time; a full or read-only home must not stop a training run.
            if (File.Exists(temporary))
            {
                File.Delete(temporary);
            }
        }
    }
}
