using System.IO.Hashing;
using System.Text;
using HpcBatchNorm.Interop;
using Microsoft.Win32.SafeHandles;

namespace HpcBatchNorm.Data;

/// <summary>
/// The images inside a tar archive, and inside the tar archives it holds (their images are named <c>inner/member</c> after the inner archive).
/// Built by walking every header once, then kept in the user's cache and trusted while the archive's path, size and time of change stay the same.
/// A cache that is missing, damaged or cannot be written only costs the walk.
/// </summary>
internal static class ArchiveIndex
{
    private const string Magic = "hpcbn image index 1";

    /// <summary>The user's cache directory of this program, or null when there is none.</summary>
    public static string? DefaultCacheDirectory => UserCache.Folder;

    public static ImageTable Load(string archive, string? cacheDirectory, IProgress<string>? progress = null)
    {
        var info = new FileInfo(archive);
        string key = FormattableString.Invariant($"{info.FullName}|{info.Length}|{info.LastWriteTimeUtc.Ticks}");
        string? cacheFile = cacheDirectory is null
            ? null
            : Path.Combine(cacheDirectory, $"index-{XxHash3.HashToUInt64(Encoding.UTF8.GetBytes(info.FullName)):x16}.bin");
        if (cacheFile is not null && TryRead(cacheFile, key) is { } cached)
        {
            return cached;
        }

        progress?.Report(FormattableString.Invariant($"indexing {archive} ({info.Length / 1e9:0.0} GB), once"));
        var images = new ImageTable.Builder();
        Walk(archive, images);
        ImageTable table = images.Build();
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
        starts = new int[archives.Length];
        for (int i = 0; i < archives.Length; i++)
        {
            starts[i] = images.Count;
            Walk(archives[i], images);
        }

        return images.BuildInOrder();
    }

    private static void Walk(string archive, ImageTable.Builder images)
    {
        using SafeFileHandle file = Open(archive);
        long length = RandomAccess.GetLength(file);
        var outer = new TarWalker(file, $"'{archive}'", 0, length);
        while (outer.TryNext(out TarMember member))
        {
            string name = member.Name.StartsWith("./", StringComparison.Ordinal) ? member.Name[2..] : member.Name;
            if (ImageTable.IsImageName(name))
            {
                images.Add(name, member.Offset, member.Size);
            }
            else if (name.EndsWith(".tar", StringComparison.OrdinalIgnoreCase))
            {
                string prefix = Path.GetFileNameWithoutExtension(name) + "/";
                var inner = new TarWalker(file, $"'{name}' in '{archive}'", member.Offset, member.Size);
                while (inner.TryNext(out TarMember image))
                {
                    if (ImageTable.IsImageName(image.Name))
                    {
                        images.Add(prefix + Path.GetFileName(image.Name), image.Offset, image.Size);
                    }
                }
            }
        }
    }

    public static SafeFileHandle Open(string path)
    {
        try
        {
            return File.OpenHandle(path, options: FileOptions.RandomAccess);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"'{path}' cannot be opened: {exception.Message}", exception);
        }
    }

    /// <summary>The table kept under this name, or null when there is none, it is damaged, or belongs to another key.</summary>
    public static ImageTable? TryRead(string cacheFile, string key)
    {
        try
        {
            byte[] bytes = File.ReadAllBytes(cacheFile);
            int body = bytes.Length - sizeof(ulong);
            if (body < 0 || BitConverter.ToUInt64(bytes, body) != XxHash3.HashToUInt64(bytes.AsSpan(0, body)))
            {
                return null;
            }

            using var reader = new BinaryReader(new MemoryStream(bytes));
            return reader.ReadString() == Magic && reader.ReadString() == key ? ImageTable.Read(reader) : null;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or FormatException)
        {
            return null;
        }
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

        File.Move(temporary, path, overwrite: true);
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
