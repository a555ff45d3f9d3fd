using System.Globalization;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Training;

/// <summary>
/// Held while a process writes to a run. The system releases it when the process ends, however it ends; what a killed one leaves is an empty file.
/// </summary>
internal sealed class RunLock : IDisposable
{
    private const string Name = "lock";

    private readonly string _path;
    private readonly FileStream _file;
    private bool _released;

    private RunLock(string path, FileStream file) => (_path, _file) = (path, file);

    /// <summary>Takes the lock of a run's folder.</summary>
    /// <exception cref="UserErrorException">Another process has it.</exception>
    /// <exception cref="IOException">The folder cannot be written.</exception>
    public static RunLock Take(string folder)
    {
        string path = Path.Combine(folder, Name);
        while (true)
        {
            RunLock taken = new(path, Open(folder, path));
            if (taken.IsThere)
            {
                return taken;
            }

            // Who had it took it away between the moments in which it was opened and locked here: another process may have made a new one.
            taken._file.Dispose();
        }
    }

    /// <summary>Deletes the file, unless the folder is another's by now: then its lock is not this one.</summary>
    public void Dispose()
    {
        try
        {
            if (!_released && !OperatingSystem.IsWindows() && IsThere)
            {
                File.Delete(_path);
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // An empty file is no obstacle.
        }
        finally
        {
            _released = true;
            _file.Dispose();
        }
    }

    /// <summary>True where the path leads to the file that is held, as far as the system says.</summary>
    private bool IsThere
    {
        get
        {
            string held = FileStatus.Of(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{_file.SafeFileHandle.DangerousGetHandle()}")).Identity;
            return held.Length == 0 || held == FileStatus.Of(_path).Identity;
        }
    }

    private static FileStream Open(string folder, string path)
    {
        try
        {
            // Linux deletes by the path, whoever's file that is by then; Windows the file itself.
            FileOptions options = OperatingSystem.IsWindows() ? FileOptions.DeleteOnClose : FileOptions.None;
            return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, bufferSize: 0, options);
        }
        catch (IOException error) when (File.Exists(path) && error is not FileNotFoundException)
        {
            throw new UserErrorException($"'{folder}' is in use by another hpcbn. Wait until it has ended, or set output to another folder.", error);
        }
    }
}
