using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

/// <summary>
/// Reads small files, millions of them, by a path of bytes: .NET's own way makes a string, a handle object and a finalizer of each.
/// </summary>
internal static unsafe partial class WholeFile
{
    // Opening a named pipe without a writer returns at once with the second flag; for files it means nothing.
    private const int ReadOnlyCloseOnExec = 0x80000, NonBlocking = 0x800, SeekSet = 0, SeekEnd = 2, Interrupted = 4;

    /// <summary>True where this works; elsewhere <see cref="TryRead"/> always fails.</summary>
    public static bool IsSupported { get; } =
        OperatingSystem.IsLinux() && RuntimeInformation.ProcessArchitecture is Architecture.X64 or Architecture.Arm64;

    /// <summary>
    /// Reads a file into <paramref name="buffer"/>, replacing it by a larger one when it is too small; false when that does not work, for a reason that
    /// .NET's functions will name better.
    /// </summary>
    /// <param name="path">The path in UTF-8, ended by a zero byte.</param>
    /// <param name="buffer">Where the bytes go.</param>
    /// <param name="length">How many there are.</param>
    public static bool TryRead(ReadOnlySpan<byte> path, ref byte[] buffer, out int length) => ReadUpTo(path, ref buffer, Array.MaxLength, out length, out _);

    /// <summary>Reads the first bytes of a file, as many as it has up to the buffer's length; false when that does not work.</summary>
    /// <param name="path">The path in UTF-8, ended by a zero byte.</param>
    /// <param name="buffer">Where the bytes go.</param>
    /// <param name="length">How many there are.</param>
    /// <param name="size">Bytes of the whole file.</param>
    public static bool TryReadBeginning(ReadOnlySpan<byte> path, byte[] buffer, out int length, out long size) =>
        ReadUpTo(path, ref buffer, buffer.Length, out length, out size);

    private static bool ReadUpTo(ReadOnlySpan<byte> path, ref byte[] buffer, int most, out int length, out long size)
    {
        (length, size) = (0, 0);
        if (!IsSupported || path.IsEmpty || path[^1] != 0)
        {
            return false;
        }

        int file;
        do
        {
            file = open(path, ReadOnlyCloseOnExec | NonBlocking);
        }
        while (file < 0 && Marshal.GetLastPInvokeError() == Interrupted);

        if (file < 0)
        {
            return false;
        }

        try
        {
            // A pipe has no place to seek to, and a device no end: what is read is what the file held when it was opened, no more.
            size = lseek(file, 0, SeekEnd);
            if (size < 0 || lseek(file, 0, SeekSet) != 0)
            {
                return false;
            }

            int wanted = (int)Math.Min(size, most);
            Grow(ref buffer, wanted);
            while (length < wanted)
            {
                nint count;
                fixed (byte* bytes = &buffer[length])
                {
                    count = read(file, bytes, wanted - length);
                }

                if (count < 0 && Marshal.GetLastPInvokeError() != Interrupted)
                {
                    return false;
                }

                if (count == 0)
                {
                    break;
                }

                length += (int)Math.Max(0, count);
            }

            return true;
        }
        finally
        {
            _ = close(file);
        }
    }

    private static void Grow(ref byte[] buffer, long size)
    {
        if (buffer.Length < size)
        {
            buffer = new byte[Math.Min(Math.Max(size, 2L * buffer.Length), Array.MaxLength)];
        }
    }

    [LibraryImport("libc", SetLastError = true)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial int open(ReadOnlySpan<byte> path, int flags);

    [LibraryImport("libc", SetLastError = true)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial nint read(int file, byte* bytes, nint count);

    [LibraryImport("libc")]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial long lseek(int file, long offset, int origin);

    [LibraryImport("libc")]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial int close(int file);
}
