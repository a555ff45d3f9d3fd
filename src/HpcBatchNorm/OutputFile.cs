using HpcBatchNorm.Interop;

namespace HpcBatchNorm;

/// <summary>
/// Files that people name for results: looked at before the work that fills them, and replaced whole. A device, a pipe or a file that is mounted by itself
/// is written in place.
/// </summary>
internal static class OutputFile
{
    /// <summary>Throws when the file could not be written; leaves nothing behind.</summary>
    /// <exception cref="UserErrorException">Says why, and what to change.</exception>
    public static void Check(string path)
    {
        if (path.Length == 0 || Directory.Exists(path))
        {
            throw new UserErrorException(path.Length == 0 ? "The name of the file to write is empty." : $"'{path}' is a folder; name a file in it.");
        }

        string target = Target(path), folder = Path.GetDirectoryName(target)!;
        if (!Directory.Exists(folder))
        {
            throw new UserErrorException($"There is no folder '{Path.GetDirectoryName(path)}' to write '{Path.GetFileName(path)}' to. Make it, or name another.");
        }

        if (!IsWrittenInPlace(target) && TryNewFile(folder) is { } error)
        {
            throw new UserErrorException($"'{path}' cannot be written: {error.Message} Put that right, or name another file.", error);
        }
    }

    /// <summary>Replaces the file by what <paramref name="write"/> writes to the path it is given.</summary>
    public static void Replace(string path, Action<string> write)
    {
        string target = Target(path);
        if (IsWrittenInPlace(target))
        {
            WriteInPlace(target, write);
        }
        else
        {
            AtomicFile.Replace(target, write);
        }
    }

    /// <summary>Replaces the file by a text (UTF-8).</summary>
    public static void WriteText(string path, string text) => Replace(path, target => File.WriteAllText(target, text));

    /// <summary>The file itself where the name is a link to it, so that the link stays.</summary>
    private static string Target(string path) =>
        Path.GetFullPath(File.Exists(path) && new FileInfo(path).ResolveLinkTarget(returnFinalTarget: true) is { } target ? target.FullName : path);

    /// <summary>True for what exists and is empty, as devices and pipes are, of which nothing can be lost; and where no file can be put beside it.</summary>
    private static bool IsWrittenInPlace(string target) =>
        File.Exists(target) && (new FileInfo(target).Length == 0 || TryNewFile(Path.GetDirectoryName(target)!) is not null);

    /// <summary>Of a file on a disk nothing is left when writing fails: half of one would look like a result.</summary>
    private static void WriteInPlace(string target, Action<string> write)
    {
        try
        {
            write(target);
        }
        catch (Exception error)
        {
            try
            {
                if (new FileInfo(target).Length > 0)
                {
                    using var file = new FileStream(target, FileMode.Truncate);
                }
            }
            catch (Exception further) when (further is IOException or UnauthorizedAccessException)
            {
                // What went wrong first is what people must read.
            }

            if (error is IOException full && AtomicFile.IsDiskFull(full))
            {
                throw AtomicFile.DiskFull(target, full);
            }

            throw;
        }
    }

    private static Exception? TryNewFile(string folder)
    {
        try
        {
            string trial = Path.Combine(folder, $".hpcbn-{Guid.NewGuid():N}{AtomicFile.TemporarySuffix}");
            using var file = new FileStream(trial, FileMode.CreateNew, FileAccess.Write, FileShare.None, bufferSize: 1, FileOptions.DeleteOnClose);
            return null;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return error;
        }
    }
}
