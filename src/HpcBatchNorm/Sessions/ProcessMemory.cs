using System.Diagnostics;
using System.Globalization;

namespace HpcBatchNorm.Sessions;

/// <summary>The process's peak resident memory, native allocations included.</summary>
internal static class ProcessMemory
{
    /// <summary>Peak resident memory in MB (10^6 bytes): <c>VmHWM</c> of Linux, elsewhere what the runtime knows.</summary>
    public static double PeakMb()
    {
        try
        {
            foreach (string line in OperatingSystem.IsLinux() ? File.ReadLines("/proc/self/status") : [])
            {
                if (line.StartsWith("VmHWM:", StringComparison.Ordinal))
                {
                    return long.Parse(line.AsSpan()["VmHWM:".Length..].Trim().TrimEnd("kB").Trim(), CultureInfo.InvariantCulture) * 1024 / 1e6;
                }
            }
        }
        catch (IOException)
        {
            // No such file where /proc is not mounted.
        }

        using Process process = Process.GetCurrentProcess();
        return process.PeakWorkingSet64 / 1e6;
    }
}
