namespace HpcBatchNorm.Interop;

/// <summary>
/// Renames and deletes files that others may have open. Linux lets anybody do that; Windows refuses while a reader, a virus scanner or an indexer holds the
/// file, most often for milliseconds.
/// </summary>
internal static class FileRename
{
    // What Windows answers: the file is used by another process, a part of it is locked, access is denied (the file is being deleted).
    private static readonly int[] Held = [unchecked((int)0x80070020), unchecked((int)0x80070021), unchecked((int)0x80070005)];

    /// <summary>How long to wait before each further try, about five seconds in all.</summary>
    private static readonly TimeSpan[] Waits = [.. new[] { 5, 10, 20, 50, 100, 200, 400, 800, 1500, 2000 }.Select(ms => TimeSpan.FromMilliseconds(ms))];

    /// <summary>Renames a file; on Windows it is tried again while somebody holds one of the two.</summary>
    /// <exception cref="IOException">The file cannot be renamed, after the last try.</exception>
    public static void Move(string from, string to, bool overwrite) =>
        Patiently(() => File.Move(from, to, overwrite), OperatingSystem.IsWindows() ? Waits : []);

    /// <summary>Deletes a file; false when it is still held after the last try on Windows, where it then stays.</summary>
    /// <exception cref="IOException">The file cannot be deleted for another reason.</exception>
    public static bool TryDelete(string path)
    {
        try
        {
            Patiently(() => File.Delete(path), OperatingSystem.IsWindows() ? Waits[..4] : []);
            return true;
        }
        catch (Exception error) when (OperatingSystem.IsWindows() && IsHeld(error))
        {
            return false;
        }
    }

    /// <summary>Runs <paramref name="action"/>, again after each of <paramref name="waits"/> while it fails because a file is held; the last failure is thrown.</summary>
    internal static void Patiently(Action action, ReadOnlySpan<TimeSpan> waits)
    {
        foreach (TimeSpan wait in waits)
        {
            try
            {
                action();
                return;
            }
            catch (Exception error) when (IsHeld(error))
            {
                Thread.Sleep(wait);
            }
        }

        action();
    }

    private static bool IsHeld(Exception error) => error is IOException or UnauthorizedAccessException && Held.Contains(error.HResult);
}
