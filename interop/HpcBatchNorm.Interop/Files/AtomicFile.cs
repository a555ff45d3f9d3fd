namespace HpcBatchNorm.Interop;

/// <summary>
/// Files that are either wholly there or not at all: written under a temporary name, flushed to the disk, renamed, and the folder synced, so that
/// neither a killed process nor a power cut leaves half a file under the real name.
/// </summary>
internal static class AtomicFile
{
    // The system's numbers: ENOSPC and EDQUOT of Linux, and ERROR_HANDLE_DISK_FULL and ERROR_DISK_FULL of Windows.
    private const int NoSpace = 28, QuotaExceeded = 122, WindowsHandleDiskFull = unchecked((int)0x80070027), WindowsDiskFull = unchecked((int)0x80070070);

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
        catch (IOException error) when (IsDiskFull(error))
        {
            DeleteIfPossible(temporary); // first, so that what is said to be free is what is free now
            throw DiskFull(path, error);
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

    /// <summary>True for what is thrown where a disk, or the share of it that a user may fill, is full.</summary>
    internal static bool IsDiskFull(IOException error) => error.HResult is NoSpace or QuotaExceeded or WindowsHandleDiskFull or WindowsDiskFull;

    /// <summary>The same with the file's own name and what to do.</summary>
    internal static IOException DiskFull(string path, IOException error)
    {
        string folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
        if (folder == "/dev")
        {
            return error; // a device, which is no file of a disk
        }

        string free = "";
        try
        {
            free = FormattableString.Invariant($", which has {new DriveInfo(folder).AvailableFreeSpace / 1024} KB free");
        }
        catch (Exception unknown) when (unknown is IOException or UnauthorizedAccessException or ArgumentException)
        {
            // The message does without.
        }

        return new IOException($"No space left on device: '{path}' does not fit on the disk of '{folder}'{free}. Make room there, or write to another disk.", error) { HResult = error.HResult };
    }

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
