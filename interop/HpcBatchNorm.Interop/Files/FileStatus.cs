using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace HpcBatchNorm.Interop;

/// <summary>What kind of thing a path leads to, links followed.</summary>
internal enum FileKind
{
    /// <summary>Nothing, or nothing that may be asked about.</summary>
    None,

    /// <summary>A file with bytes and an end.</summary>
    Regular,

    /// <summary>A folder.</summary>
    Folder,

    /// <summary>A named pipe, socket or device: opening or reading it may never end.</summary>
    Other,
}

/// <summary>
/// What the system knows of a path, links followed: kind, which file it is, and when anything of it last changed. .NET tells a named pipe from a file
/// in no way that does not open it, which waits for a writer. The kernel's statx has one layout on every architecture, unlike stat.
/// </summary>
/// <param name="Kind">Its kind.</param>
/// <param name="Identity">Device and inode in words: the same for two paths to one file; empty where the system does not say.</param>
/// <param name="ChangeTime">When content, name or rights last changed, in nanoseconds since 1970, which no program can set; 0 where the system does not say.</param>
internal readonly unsafe partial record struct FileStatus(FileKind Kind, string Identity, long ChangeTime)
{
    private const int CurrentFolder = -100, BufferBytes = 256;
    private const uint BasicStats = 0x7FF;
    private const int ModeAt = 28, InodeAt = 32, ChangeSecondsAt = 96, DeviceMajorAt = 136;
    private const int KindMask = 0xF000, RegularMode = 0x8000, FolderMode = 0x4000;

    private static bool _unsupported = !OperatingSystem.IsLinux();

    /// <summary>Asks about a path.</summary>
    public static FileStatus Of(string path) => Of(Encoding.UTF8.GetBytes(path + "\0"));

    /// <summary>Asks about a path of bytes, ended by a zero byte.</summary>
    public static FileStatus Of(ReadOnlySpan<byte> path)
    {
        if (!_unsupported)
        {
            try
            {
                byte* buffer = stackalloc byte[BufferBytes];
                fixed (byte* name = path)
                {
                    return statx(CurrentFolder, name, 0, BasicStats, buffer) == 0 ? Read(new ReadOnlySpan<byte>(buffer, BufferBytes)) : default;
                }
            }
            catch (EntryPointNotFoundException)
            {
                // A C library of before 2018.
                _unsupported = true;
            }
        }

        string text = Encoding.UTF8.GetString(path[..^1]);
        return new FileStatus(File.Exists(text) ? FileKind.Regular : Directory.Exists(text) ? FileKind.Folder : FileKind.None, "", 0);
    }

    private static FileStatus Read(ReadOnlySpan<byte> buffer)
    {
        int mode = Native<ushort>(buffer[ModeAt..]) & KindMask;
        long seconds = Native<long>(buffer[ChangeSecondsAt..]);
        uint nanoseconds = Native<uint>(buffer[(ChangeSecondsAt + sizeof(long))..]);
        FileKind kind = mode switch { RegularMode => FileKind.Regular, FolderMode => FileKind.Folder, _ => FileKind.Other };
        string identity = FormattableString.Invariant(
            $"{Native<uint>(buffer[DeviceMajorAt..])}:{Native<uint>(buffer[(DeviceMajorAt + sizeof(uint))..])}:{Native<ulong>(buffer[InodeAt..])}");
        return new FileStatus(kind, identity, unchecked(seconds * 1_000_000_000 + nanoseconds));
    }

    private static T Native<T>(ReadOnlySpan<byte> bytes)
        where T : unmanaged => MemoryMarshal.Read<T>(bytes);

    [LibraryImport("libc", SetLastError = true)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial int statx(int folder, byte* path, int flags, uint mask, byte* buffer);
}
