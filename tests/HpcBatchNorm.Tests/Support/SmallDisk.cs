using System.Diagnostics;
using System.Globalization;

namespace HpcBatchNorm.Tests.Support;

/// <summary>A file system of a few MB in memory, to be filled up or to be read-only. Needs the right to mount; skips the calling test without it.</summary>
internal sealed class SmallDisk : IDisposable
{
    private const int FillerBytes = 64 << 10;

    private SmallDisk(string path) => Path = path;

    public string Path { get; }

    private string Filler => System.IO.Path.Combine(Path, "filler");

    public static SmallDisk MountOrSkip(int megabytes, bool readOnly = false)
    {
        string path = Directory.CreateTempSubdirectory("hpcbn-disk").FullName;
        string options = string.Create(CultureInfo.InvariantCulture, $"size={megabytes}m{(readOnly ? ",ro" : "")}");
        string? reason = OperatingSystem.IsLinux() ? Run("mount", "-t", "tmpfs", "-o", options, "tmpfs", path) : "it is not Linux";
        if (reason is not null)
        {
            Directory.Delete(path);
            Assert.Skip($"needs to mount a small tmpfs, which cannot be done here: {reason}");
        }

        return new SmallDisk(path);
    }

    /// <summary>Leaves no byte free.</summary>
    public void Fill()
    {
        try
        {
            using var file = new FileStream(Filler, FileMode.Append, FileAccess.Write, FileShare.Read, bufferSize: 0);
            for (int bytes = FillerBytes; bytes > 0;)
            {
                try
                {
                    file.Write(new byte[bytes]);
                }
                catch (IOException)
                {
                    bytes /= 2;
                }
            }
        }
        catch (IOException)
        {
            // Full.
        }
    }

    public void Free() => File.Delete(Filler);

    public void Dispose()
    {
        Run("umount", "-l", Path);
        Directory.Delete(Path);
    }

    /// <summary>Null when the command succeeded, else what it said.</summary>
    private static string? Run(string command, params string[] arguments)
    {
        try
        {
            using Process process = Process.Start(new ProcessStartInfo(command, arguments) { RedirectStandardError = true })!;
            string error = process.StandardError.ReadToEnd();
            process.WaitForExit();
            return process.ExitCode == 0 ? null : error.Trim();
        }
        catch (System.ComponentModel.Win32Exception error)
        {
            return error.Message;
        }
    }
}
