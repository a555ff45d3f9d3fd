using System.Globalization;
using System.IO.Compression;
using System.IO.Hashing;
using System.Text;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Data;

/// <summary>
/// Gzipped tar archives, in which no place can be read without all that lies before it: they are decompressed once, into the user's cache, and the copy
/// is used while the archive stays the same.
/// </summary>
internal static class UnpackedArchive
{
    private const int BlockBytes = 1 << 20;

    /// <summary>What is left free on the disk that holds the cache.</summary>
    private const long LeastFreeBytes = 1L << 30;

    /// <summary>True for names that say so.</summary>
    public static bool IsPacked(string path) =>
        path.EndsWith(".tar.gz", StringComparison.OrdinalIgnoreCase) || path.EndsWith(".tgz", StringComparison.OrdinalIgnoreCase);

    /// <summary>The decompressed archive's path.</summary>
    /// <exception cref="UserErrorException">It cannot be decompressed, or there is no room for it.</exception>
    public static string Ensure(string archive, string? cacheDirectory, IProgress<string>? progress)
    {
        archive = Path.GetFullPath(archive);
        string folder = cacheDirectory ?? ArchiveIndex.DefaultCacheDirectory ?? Path.GetTempPath();
        var info = new FileInfo(archive);
        FileStatus status = FileStatus.Of(archive);
        string of = string.Create(CultureInfo.InvariantCulture, $"unpacked-{XxHash3.HashToUInt64(Encoding.UTF8.GetBytes(archive)):x16}-");
        string evidence = FormattableString.Invariant($"{info.Length}|{info.LastWriteTimeUtc.Ticks}|{status.Identity}|{status.ChangeTime}");
        string path = Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"{of}{XxHash3.HashToUInt64(Encoding.UTF8.GetBytes(evidence)):x16}.tar"));
        if (File.Exists(path))
        {
            return path;
        }

        try
        {
            Directory.CreateDirectory(folder);
            foreach (string old in Directory.EnumerateFiles(folder, of + "*"))
            {
                File.Delete(old);
            }

            progress?.Report(FormattableString.Invariant($"decompressing {archive} ({info.Length / 1e9:0.0} GB) to {path}, once"));
            AtomicFile.Replace(path, temporary => Decompress(archive, temporary, new DriveInfo(folder)));
            return path;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or InvalidDataException)
        {
            throw new UserErrorException(
                $"'{archive}' cannot be decompressed to '{folder}' ({exception.Message.TrimEnd('.')}); decompress it with gunzip and name the .tar, or get it again if it is damaged.", exception);
        }
    }

    private static void Decompress(string archive, string temporary, DriveInfo disk)
    {
        using FileStream file = RegularFile.OpenRead(archive);
        using var gzip = new GZipStream(file, CompressionMode.Decompress);
        using var tar = new FileStream(temporary, FileMode.Create, FileAccess.Write, FileShare.None, 0);
        byte[] block = new byte[BlockBytes];
        for (int read; (read = gzip.ReadAtLeast(block, block.Length, throwOnEndOfStream: false)) > 0;)
        {
            if (disk.AvailableFreeSpace < LeastFreeBytes)
            {
                throw new IOException("the disk is full");
            }

            tar.Write(block, 0, read);
        }

        tar.Flush(flushToDisk: true);
    }
}
