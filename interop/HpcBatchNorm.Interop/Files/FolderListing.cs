using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace HpcBatchNorm.Interop;

/// <summary>An entry of a folder.</summary>
/// <param name="Name">Its name as the bytes that the system keeps, which need not be UTF-8.</param>
/// <param name="Kind">What it is, links followed.</param>
/// <param name="IsLink">True for a symbolic link.</param>
internal readonly record struct FolderEntry(byte[] Name, FileKind Kind, bool IsLink);

/// <summary>
/// Lists a folder by the bytes of its names. .NET turns names into text, in which two that differ only in bytes that are not UTF-8 are the same, and
/// neither leads to its file any more.
/// </summary>
internal static unsafe partial class FolderListing
{
    // struct dirent of Linux with 64-bit offsets, which glibc and musl share: inode, offset, length (2), kind (1), name.
    private const int KindAt = 18, NameAt = 19;
    private const byte KindFolder = 4, KindRegular = 8, KindLink = 10, KindUnknown = 0;

    /// <summary>The entries of a folder but <c>.</c> and <c>..</c>, in the system's order.</summary>
    /// <param name="folder">The folder's path, bytes without an ending zero.</param>
    /// <exception cref="IOException">The folder cannot be read.</exception>
    public static List<FolderEntry> Read(byte[] folder)
    {
        var entries = new List<FolderEntry>();
        if (!WholeFile.IsSupported)
        {
            foreach (FileSystemInfo info in new DirectoryInfo(Encoding.UTF8.GetString(folder)).EnumerateFileSystemInfos())
            {
                entries.Add(new FolderEntry(
                    Encoding.UTF8.GetBytes(info.Name), info.Attributes.HasFlag(FileAttributes.Directory) ? FileKind.Folder : FileKind.Regular, info.LinkTarget is not null));
            }

            return entries;
        }

        nint stream = opendir((byte[])[.. folder, 0]);
        if (stream == 0)
        {
            throw new IOException($"the folder '{Encoding.UTF8.GetString(folder)}' cannot be listed: {Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError())}");
        }

        try
        {
            for (byte* entry = readdir(stream); entry is not null; entry = readdir(stream))
            {
                ReadOnlySpan<byte> name = MemoryMarshal.CreateReadOnlySpanFromNullTerminated(entry + NameAt);
                if (!name.SequenceEqual("."u8) && !name.SequenceEqual(".."u8))
                {
                    byte kind = entry[KindAt];
                    entries.Add(new FolderEntry(
                        name.ToArray(),
                        kind switch
                        {
                            KindRegular => FileKind.Regular,
                            KindFolder => FileKind.Folder,
                            // Some file systems do not say, and a link is what it leads to.
                            KindUnknown or KindLink => FileStatus.Of((byte[])[.. folder, (byte)'/', .. name, 0]).Kind,
                            _ => FileKind.Other,
                        },
                        kind == KindLink));
                }
            }
        }
        finally
        {
            _ = closedir(stream);
        }

        return entries;
    }

    [LibraryImport("libc", SetLastError = true)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial nint opendir(ReadOnlySpan<byte> path);

    [LibraryImport("libc")]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial byte* readdir(nint stream);

    [LibraryImport("libc")]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial int closedir(nint stream);
}
