using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

/// <summary>
/// Zero-filled native memory aligned to 2 MiB when it is large (transparent huge pages are advised, which halves the first step's page faults)
/// and to 64 bytes otherwise.
/// </summary>
internal sealed partial class AlignedMemory : SafeHandle
{
    private const nuint HugePage = 2u << 20;
    private const int AdviseHugePages = 14;

    /// <summary>Allocates; <paramref name="clear"/> sets (address, bytes) to zero, where somebody has more threads for that than the calling one.</summary>
    public AlignedMemory(long bytes, Action<nint, long>? clear = null)
        : base(0, ownsHandle: true)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(bytes);
        Bytes = bytes;
        nuint size = (nuint)Math.Max(bytes, 64);
        nuint alignment = size >= HugePage ? HugePage : 64;
        unsafe
        {
            void* memory;
            try
            {
                memory = NativeMemory.AlignedAlloc(size, alignment);
            }
            catch (OutOfMemoryException)
            {
                throw NativeException.OutOfMemory(FormattableString.Invariant(
                    $"{size / 1e9:0.00} GB of memory were asked for in one piece and not granted. Use a smaller batch{(OperatingSystem.IsWindows() ? ", or a larger page file" : ", or raise the limit of the address space (ulimit -v)")}."));
            }

            if (alignment == HugePage && OperatingSystem.IsLinux())
            {
                // Advice only: where the kernel refuses, memory works as before.
                _ = madvise(memory, size, AdviseHugePages);
            }

            SetHandle((nint)memory);
            if (clear is not null)
            {
                clear((nint)memory, (long)size);
            }
            else
            {
                NativeMemory.Clear(memory, size);
            }
        }
    }

    public long Bytes { get; }

    public nint Address => handle;

    public override bool IsInvalid => handle == 0;

    /// <summary>The elements at an address somebody keeps alive.</summary>
    public static unsafe Span<T> AsSpan<T>(nint address, int length)
        where T : unmanaged => new((void*)address, length);

    protected override unsafe bool ReleaseHandle()
    {
        NativeMemory.AlignedFree((void*)handle);
        return true;
    }

    [LibraryImport("libc")]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static unsafe partial int madvise(void* address, nuint length, int advice);
}
