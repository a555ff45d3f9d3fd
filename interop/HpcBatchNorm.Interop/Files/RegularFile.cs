using Microsoft.Win32.SafeHandles;

namespace HpcBatchNorm.Interop;

/// <summary>
/// Opens and reads files that are files. A named pipe, socket or device where a file is expected would be waited for without end, or read without end;
/// here it is an <see cref="IOException"/> that says so.
/// </summary>
internal static class RegularFile
{
    /// <summary>True when the path leads to a file with bytes and an end.</summary>
    public static bool Exists(string path) => FileStatus.Of(path).Kind == FileKind.Regular;

    /// <summary>Opens a file for reading at any place.</summary>
    public static SafeFileHandle OpenHandle(string path, FileOptions options = FileOptions.None)
    {
        Check(path);
        return File.OpenHandle(path, options: options);
    }

    /// <summary>Opens a file for reading from its beginning.</summary>
    public static FileStream OpenRead(string path)
    {
        Check(path);
        // A writer may append to it or replace it meanwhile.
        return new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
    }

    /// <summary>All bytes of a file.</summary>
    public static byte[] ReadAllBytes(string path)
    {
        Check(path);
        return File.ReadAllBytes(path);
    }

    /// <summary>A file as text in UTF-8, or what its byte order mark says.</summary>
    public static string ReadAllText(string path)
    {
        Check(path);
        return File.ReadAllText(path);
    }

    /// <summary>The lines of a file, one after the other.</summary>
    public static IEnumerable<string> ReadLines(string path)
    {
        Check(path);
        return File.ReadLines(path);
    }

    /// <summary>Reads until the buffer is full or the file ends; returns how many bytes there were.</summary>
    public static int Read(SafeFileHandle file, Span<byte> buffer, long offset)
    {
        int done = 0;
        while (done < buffer.Length)
        {
            int read = RandomAccess.Read(file, buffer[done..], offset + done);
            if (read == 0)
            {
                break;
            }

            done += read;
        }

        return done;
    }

    private static void Check(string path)
    {
        // What is not there, and folders, .NET's own functions name best.
        if (FileStatus.Of(path).Kind == FileKind.Other)
        {
            throw new IOException($"'{path}' is a named pipe, a socket or a device, not a file");
        }
    }
}
