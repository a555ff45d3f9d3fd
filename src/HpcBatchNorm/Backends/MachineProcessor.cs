using System.Runtime.InteropServices;
using Microsoft.Win32;

namespace HpcBatchNorm.Backends;

/// <summary>What the machine calls its processor.</summary>
internal static class MachineProcessor
{
    /// <summary>Its name, as "AMD EPYC 9B45"; the architecture where the system says none, as Linux on arm64.</summary>
    public static string Name()
    {
        string? name = OperatingSystem.IsWindows()
            ? Registry.GetValue(@"HKEY_LOCAL_MACHINE\HARDWARE\DESCRIPTION\System\CentralProcessor\0", "ProcessorNameString", null) as string
            : OperatingSystem.IsLinux() ? InCpuInfo(ControlGroups.Text("/proc/cpuinfo")) : null;
        return name?.Trim() is { Length: > 0 } found ? found : RuntimeInformation.ProcessArchitecture.ToString();
    }

    /// <summary>The value of the first line <c>model name</c>; null where there is none.</summary>
    internal static string? InCpuInfo(string text)
    {
        string? line = text.Split('\n').FirstOrDefault(l => l.StartsWith("model name", StringComparison.Ordinal));
        return line?[(line.IndexOf(':', StringComparison.Ordinal) + 1)..].Trim();
    }
}
