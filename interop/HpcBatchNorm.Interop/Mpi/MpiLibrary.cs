using System.Runtime.InteropServices;
using System.Text;

namespace HpcBatchNorm.Interop;

/// <summary>
/// Finds libhbn_mpi, and with it the MPI it was compiled against; only when several processes are asked for, or somebody wants to know. Places, in order:
/// HBN_MPI_PATH (a file or its folder; when it is set nothing else is tried), the application's folders, the system.
/// </summary>
internal static unsafe class MpiLibrary
{
    public const string OverrideVariable = "HBN_MPI_PATH";

    private const string FileName = $"lib{MpiApi.Library}.so";

    private static readonly Lazy<LoadReport> LazyFound =
        new(() => Probe(Environment.GetEnvironmentVariable(OverrideVariable), NativeFolders.Of(typeof(MpiLibrary).Assembly)));

    /// <summary>The library of this process, looked for once.</summary>
    public static LoadReport Found => LazyFound.Value;

    /// <summary>Looks for the library; <paramref name="overridePath"/> stands for the value of <see cref="OverrideVariable"/>.</summary>
    public static LoadReport Probe(string? overridePath, IEnumerable<string> folders)
    {
        if (OperatingSystem.IsWindows())
        {
            return new LoadReport(0, "Several processes are for Linux only. On Windows they work in WSL 2.", null);
        }

        var text = new StringBuilder();
        IEnumerable<string> places = string.IsNullOrEmpty(overridePath)
            ? folders.Select(f => Path.Combine(f, FileName)).Append(FileName)
            : [Directory.Exists(overridePath) ? Path.Combine(Path.GetFullPath(overridePath), FileName) : Path.GetFullPath(overridePath)];
        foreach (string place in places)
        {
            if (Path.IsPathRooted(place) && !File.Exists(place))
            {
                text.AppendLine($"{place}: not there");
                continue;
            }

            try
            {
                nint handle = NativeLibrary.Load(place);
                if (!NativeLibrary.TryGetExport(handle, nameof(MpiApi.hbn_mpi_abi_version), out nint version))
                {
                    text.AppendLine($"{place}: loads, but is not our library (it has no {nameof(MpiApi.hbn_mpi_abi_version)})");
                }
                else if (((delegate* unmanaged[Cdecl]<int>)version)() is int abi && abi != MpiApi.AbiVersion)
                {
                    text.AppendLine($"{place}: ABI {abi} found, {MpiApi.AbiVersion} expected; it was built from another version of this project");
                }
                else
                {
                    return new LoadReport(handle, text.Append($"{place}: loaded, ABI {MpiApi.AbiVersion}").ToString(), null);
                }

                NativeLibrary.Free(handle);
            }
            catch (Exception e) when (e is DllNotFoundException or BadImageFormatException)
            {
                text.AppendLine($"{place}: {NativeLibraries.Reason(e.Message)}");
            }
        }

        string advice = string.IsNullOrEmpty(overridePath)
            ? $"{FileName} is compiled against the MPI of the machine it runs on, and comes with no package. In a clone: apt-get install libopenmpi-dev openmpi-bin, then build again."
            : $"{OverrideVariable} is set to '{overridePath}': correct it or unset it.";
        return new LoadReport(0, text.Append(advice).ToString(), null);
    }
}
