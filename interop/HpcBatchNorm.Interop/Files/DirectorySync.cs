using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

/// <summary>Makes a rename durable: on Unix a folder is synced like a file, which .NET has no call for.</summary>
internal static partial class DirectorySync
{
    private const int ReadOnly = 0;

    /// <summary>Flushes the folder's entries to the disk; does nothing where the system has no such call or refuses it.</summary>
    public static void Flush(string folder)
    {
        if (OperatingSystem.IsWindows())
        {
            return;
        }

        int descriptor = open(folder, ReadOnly);
        if (descriptor >= 0)
        {
            // A file system that cannot sync folders (some network mounts) says so; the file itself is already on the disk.
            _ = fsync(descriptor);
            _ = close(descriptor);
        }
    }

    [LibraryImport("libc", StringMarshalling = StringMarshalling.Utf8)]
    [UnmanagedCallConv(CallConvs = [typeof(System.Runtime.CompilerServices.CallConvCdecl)])]
    private static partial int open(string path, int flags);

    [LibraryImport("libc")]
    [UnmanagedCallConv(CallConvs = [typeof(System.Runtime.CompilerServices.CallConvCdecl)])]
    private static partial int fsync(int descriptor);

    [LibraryImport("libc")]
    [UnmanagedCallConv(CallConvs = [typeof(System.Runtime.CompilerServices.CallConvCdecl)])]
    private static partial int close(int descriptor);
}
