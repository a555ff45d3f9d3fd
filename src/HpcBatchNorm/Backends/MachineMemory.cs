using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Backends;

/// <summary>Memory that the process can still get.</summary>
/// <param name="Bytes">How much.</param>
/// <param name="Limit">What limits it, for people.</param>
public readonly record struct AvailableMemory(long Bytes, string Limit);

/// <summary>
/// How much of the machine's memory the process can still get before the kernel ends it: what the machine has free, swap included, what its control groups
/// leave it, and its address space.
/// </summary>
internal static class MachineMemory
{
    // Version 1 writes "no limit" as the largest multiple of a page.
    private const long NoLimit = 1L << 60;

    /// <summary>The least of what limits the process; null where the system does not say.</summary>
    /// <param name="root">The file system's root; another one for tests.</param>
    public static AvailableMemory? Available(string? root = null)
    {
        if (root is null && OperatingSystem.IsWindows())
        {
            return WindowsMemory.Read() is { } memory
                ? new(memory.Free, FormattableString.Invariant($"of the machine's {memory.Total / 1e9:0.0} GB and its page file"))
                : null;
        }

        var groups = new ControlGroups(root ?? "/");
        AvailableMemory? least = null;
        foreach (AvailableMemory? one in Limits(groups))
        {
            least = one is { } limit && (least is not { } before || limit.Bytes < before.Bytes) ? limit : least;
        }

        return least;
    }

    private static IEnumerable<AvailableMemory?> Limits(ControlGroups groups)
    {
        string meminfo = groups.InRoot("/proc/meminfo");
        if (ControlGroups.ReadLine(meminfo, "MemAvailable") is long available)
        {
            yield return new(1024 * (available + (ControlGroups.ReadLine(meminfo, "SwapFree") ?? 0)),
                FormattableString.Invariant($"of the machine's {1024 * (ControlGroups.ReadLine(meminfo, "MemTotal") ?? 0) / 1e9:0.0} GB"));
        }

        foreach ((string folder, bool unified) in groups.Folders("memory"))
        {
            long? most = ControlGroups.Read(folder, unified ? "memory.max" : "memory.limit_in_bytes");
            long? used = ControlGroups.Read(folder, unified ? "memory.current" : "memory.usage_in_bytes");
            if (most is < NoLimit and long limit && used is long now)
            {
                // Pages of files that nobody has used lately are given up before anything else.
                long files = ControlGroups.ReadLine(Path.Combine(folder, "memory.stat"), unified ? "inactive_file" : "total_inactive_file") ?? 0;
                yield return new(Math.Max(0, limit - Math.Max(0, now - files)), FormattableString.Invariant($"of the {limit / 1e9:0.0} GB that the control group '{folder}' allows (a container's or a batch job's limit)"));
            }
        }

        if (AddressSpace(groups) is long space && ControlGroups.ReadLine(groups.InRoot("/proc/self/status"), "VmSize") is long taken)
        {
            yield return new(Math.Max(0, space - 1024 * taken), FormattableString.Invariant($"of the {space / 1e9:0.0} GB of address space that the process may have (ulimit -v)"));
        }
    }

    /// <summary>The line <c>Max address space</c> of <c>/proc/self/limits</c>: soft limit, hard limit, bytes.</summary>
    private static long? AddressSpace(ControlGroups groups)
    {
        const string Name = "Max address space";
        foreach (string line in ControlGroups.Text(groups.InRoot("/proc/self/limits")).Split('\n'))
        {
            if (line.StartsWith(Name, StringComparison.Ordinal))
            {
                return long.TryParse(line[Name.Length..].Split(' ', StringSplitOptions.RemoveEmptyEntries)[0], out long bytes) ? bytes : null;
            }
        }

        return null;
    }
}
