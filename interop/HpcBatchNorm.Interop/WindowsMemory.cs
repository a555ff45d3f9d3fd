using System.Runtime.InteropServices;
using System.Runtime.Versioning;

namespace HpcBatchNorm.Interop;

/// <summary>How much memory Windows can still give to the process.</summary>
[SupportedOSPlatform("windows")]
internal static unsafe partial class WindowsMemory
{
    /// <summary>
    /// The bytes that may still be committed (memory and page file) and those of the machine's memory; null when the system does not say.
    /// </summary>
    public static (long Free, long Total)? Read()
    {
        Status status = new() { Length = (uint)sizeof(Status) };
        return GlobalMemoryStatusEx(&status) != 0 ? ((long)Math.Min(status.FreePageFile, long.MaxValue), (long)status.TotalPhysical) : null;
    }

    // MEMORYSTATUSEX
    private struct Status
    {
        public uint Length, Load;
        public ulong TotalPhysical, FreePhysical, TotalPageFile, FreePageFile, TotalVirtual, FreeVirtual, FreeExtendedVirtual;
    }

    [LibraryImport("kernel32")]
    private static partial int GlobalMemoryStatusEx(Status* status);
}
