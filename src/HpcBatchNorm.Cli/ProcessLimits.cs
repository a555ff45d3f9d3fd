using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace HpcBatchNorm.Cli;

/// <summary>
/// Limits of the process that are too low for any work. Looked at first of all and with what the runtime has loaded already: with too few open files the
/// next assembly cannot be loaded, which nobody can read as such.
/// </summary>
internal static class ProcessLimits
{
    /// <summary>Assemblies and native libraries hold about 100 files, archives of a data set and the loader the rest. The runtime has raised the limit as far as it may.</summary>
    public const int OpenFiles = 256;

    private const string Name = "Max open files";

    // The runtime has no name for it.
    private const PosixSignal FileSizeExceeded = (PosixSignal)25;

    // Kept for as long as the process lives: one that is collected listens no more.
    private static PosixSignalRegistration? _fileSize;

    /// <summary>A sentence when a limit is too low, written to standard error; false then.</summary>
    public static bool Suffice()
    {
        string? problem = OperatingSystem.IsLinux() ? Problem(ReadLimits()) : null;
        if (problem is not null)
        {
            // Not Console, whose assembly may be the one that cannot be loaded.
            using var error = new FileStream(new SafeFileHandle(2, ownsHandle: false), FileAccess.Write, bufferSize: 0);
            error.Write(Encoding.UTF8.GetBytes($"error: {problem}\n"));
        }

        return problem is null;
    }

    /// <summary>
    /// A file that reaches the limit of sizes (<c>ulimit -f</c>) becomes an error of the write, as on a full disk, which is told and leaves the last good
    /// checkpoint. Unless it is caught, the signal that comes first ends the process without a word.
    /// </summary>
    public static void TakeFileSizeForAnError()
    {
        if (OperatingSystem.IsLinux())
        {
            _fileSize ??= PosixSignalRegistration.Create(FileSizeExceeded, context => context.Cancel = true);
        }
    }

    /// <summary>What is wrong with the limits in the text of <c>/proc/self/limits</c>; null when nothing is.</summary>
    internal static string? Problem(string limits)
    {
        int at = limits.IndexOf(Name, StringComparison.Ordinal);
        if (at < 0)
        {
            return null;
        }

        string line = limits[(at + Name.Length)..].TrimStart();
        int end = line.IndexOf(' ', StringComparison.Ordinal);
        return int.TryParse(end < 0 ? line : line[..end], NumberStyles.None, CultureInfo.InvariantCulture, out int files) && files < OpenFiles
            ? string.Create(CultureInfo.InvariantCulture, $"this process may have only {files} files open at once; it needs {OpenFiles}. Raise the limit (RLIMIT_NOFILE): ulimit -n 4096, or LimitNOFILE of a service.")
            : null;
    }

    private static string ReadLimits()
    {
        try
        {
            return File.ReadAllText("/proc/self/limits");
        }
        catch (IOException)
        {
            return "";
        }
    }
}
