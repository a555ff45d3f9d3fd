using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

/// <summary>
/// Reads small files, millions of them, by a path of bytes: .NET's own way makes a string, a handle object and a finalizer of each.
/// </summary>
internal static unsafe partial class WholeFile
{
    private const int ReadOnlyCloseOnExec = 0x80000, SeekSet = 0, SeekEnd = 2, Interrupted = 4;

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
    public static bool TryRead(ReadOnlySpan<byte> path, ref byte[] buffer, out int length)
    {
        length = 0;
        if (!IsSupported || path.IsEmpty || path[^1] != 0)
        {
            return false;
        }

        int file;
        do
        {
            file = open(path, ReadOnlyCloseOnExec);
        }
        while (file < 0 && Marshal.GetLastPInvokeError() == Interrupted);

        if (file < 0)
        {
            return false;
        }

        try
        {
            // Something without an end (a pipe) is read as far as it goes. One byte more shows that there is no more.
            long size = lseek(file, 0, SeekEnd);
            _ = lseek(file, 0, SeekSet);
            Grow(ref buffer, Math.Max(0, size) + 1);
            while (true)
            {
                nint count;
                fixed (byte* bytes = &buffer[length])
                {
                    count = read(file, bytes, buffer.Length - length);
                }

                if (count < 0 && Marshal.GetLastPInvokeError() != Interrupted)
                {
                    return false;
                }

                length += (int)Math.Max(0, count);
                if (count == 0)
                {
                    return true;
                }

                if (length == buffer.Length)
                {
                    if (length == Array.MaxLength)
                    {
                        return false;
                    }

                    byte[] smaller = buffer;
                    Grow(ref buffer, length + 1L);
                    smaller.CopyTo(buffer, 0);
                }
            }
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
