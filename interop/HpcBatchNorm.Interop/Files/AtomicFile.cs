namespace HpcBatchNorm.Interop;

/// <summary>
/// Files that are either wholly there or not at all: written under a temporary name, flushed to the disk, renamed, and the folder synced, so that
/// neither a killed process nor a power cut leaves half a file under the real name.
/// </summary>
internal static class AtomicFile
{
    /// <summary>Every temporary name ends so; what a killed process left behind is found by it.</summary>
    public const string TemporarySuffix = ".partial";

    /// <summary>Replaces <paramref name="path"/> by what <paramref name="write"/> writes to the temporary path it is given, flushing it itself.</summary>
    public static void Replace(string path, Action<string> write)
    {
        string temporary = path + TemporarySuffix;
        try
        {
            write(temporary);
            FileRename.Move(temporary, path, overwrite: true);
            DirectorySync.Flush(Path.GetDirectoryName(Path.GetFullPath(path))!);
        }
        catch (ArgumentOutOfRangeException error) when (IsTooLarge(error))
        {
            long most = File.Exists(temporary) ? new FileInfo(temporary).Length : 0;
            DeleteIfPossible(temporary);
            throw TooLarge(path, most, error);
        }
        catch
        {
            DeleteIfPossible(temporary);
            throw;
        }
    }

    /// <summary>True for what .NET throws where a write goes beyond what the file system or the process's limit allows, in words about an argument.</summary>
    internal static bool IsTooLarge(ArgumentOutOfRangeException error) => error is { ParamName: "value", Source: "System.Private.CoreLib" };

    /// <summary>The same in words of files.</summary>
    internal static IOException TooLarge(string path, long most, ArgumentOutOfRangeException error) => new(FormattableString.Invariant(
        $"File too large : '{path}' takes more than {most} bytes, the most that its file system or the process's limit (ulimit -f) allows."), error);

    /// <summary>Replaces a text file (UTF-8).</summary>
    public static void ReplaceText(string path, string text) => Replace(path, temporary =>
    {
        using var stream = new FileStream(temporary, FileMode.Create, FileAccess.Write);
        using var writer = new StreamWriter(stream);
        writer.Write(text);
        writer.Flush();
        stream.Flush(flushToDisk: true);
    });

    /// <summary>Deletes what a killed process left behind in a folder; returns how many files.</summary>
    public static int Sweep(string folder)
    {
        int count = 0;
        foreach (string orphan in Directory.Exists(folder) ? Directory.EnumerateFiles(folder, "*" + TemporarySuffix).ToArray() : [])
        {
            File.Delete(orphan);
            count++;
        }

        return count;
    }

    /// <summary>What went wrong first is what people must read, not that cleaning up after it failed too.</summary>
    private static void DeleteIfPossible(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // The next run sweeps it away.
        }
    }
}
