using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;

namespace HpcBatchNorm.Interop;

/// <summary>What was looked for, where, and found; <see cref="Handle"/> is 0 when nothing usable was.</summary>
/// <param name="Handle">The loaded library.</param>
/// <param name="Text">One line per place tried, then what to do about it.</param>
/// <param name="Version">Version of oneDNN, null when not loaded.</param>
internal sealed record LoadReport(nint Handle, string Text, Version? Version)
{
    public bool Loaded => Handle != 0;
}

/// <summary>
/// Finds libhbn. Places, in order: HBN_PATH (a file or its folder; when it is set nothing else is tried, so that a wrong setting shows; HBN_ONEDNN_PATH,
/// its older name, counts where it is not set), the application's folders (<see cref="NativeFolders"/>), the system. A library is taken only when its
/// ABI number and the sizes of its structs are ours.
/// </summary>
internal static partial class NativeLibraries
{
    public const string OverrideVariable = "HBN_PATH";

    /// <summary>What <see cref="OverrideVariable"/> was called before; it still works.</summary>
    public const string OlderOverrideVariable = "HBN_ONEDNN_PATH";

    /// <summary>The most that oneDNN and our own kernels may use of the processor: one of <see cref="InstructionSets"/>.</summary>
    public const string InstructionSetVariable = "HBN_MAX_CPU_ISA";

    private static readonly string FileName = $"lib{Interop.Hbn.Library}{(OperatingSystem.IsWindows() ? ".dll" : ".so")}";

    private static readonly Lazy<LoadReport> LazyHbn = new(() =>
    {
        if (!PrepareEnvironment(Environment.GetEnvironmentVariable, SetNative, out string cap, out string error))
        {
            return new LoadReport(0, error, null);
        }

        InstructionSetCap = cap;
        (string variable, string? path) = Override(Environment.GetEnvironmentVariable);
        return Probe(path, NativeFolders.Of(typeof(NativeLibraries).Assembly), variable: variable);
    });

    /// <summary>What <see cref="InstructionSetVariable"/> may be: names that oneDNN 2.x and 3.x share (it ignores others without a word).</summary>
    public static IReadOnlyList<string> InstructionSets { get; } =
        ["SSE41", "AVX", "AVX2", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16", "AVX512_CORE_AMX", "DEFAULT"];

    /// <summary>The cap on instruction sets, as <c>VARIABLE=VALUE</c>; empty when there is none.</summary>
    public static string InstructionSetCap { get; private set; } = "";

    static NativeLibraries()
    {
        try
        {
            NativeLibrary.SetDllImportResolver(typeof(NativeLibraries).Assembly, Resolve);
        }
        catch (InvalidOperationException)
        {
            // The host resolves for this assembly; that is its right.
        }
    }

    /// <summary>The library of this process, looked for once.</summary>
    public static LoadReport Hbn => LazyHbn.Value;

    /// <summary>The variable that names the library, and its value; the newer name where none does.</summary>
    public static (string Variable, string? Path) Override(Func<string, string?> environment)
    {
        foreach (string variable in new[] { OverrideVariable, OlderOverrideVariable })
        {
            if (environment(variable) is { Length: > 0 } path)
            {
                return (variable, path);
            }
        }

        return (OverrideVariable, null);
    }

    /// <summary>Looks for the library; <paramref name="overridePath"/> stands for the value of the environment variable <paramref name="variable"/>.</summary>
    public static LoadReport Probe(string? overridePath, IEnumerable<string> folders, string? fileName = null, string variable = OverrideVariable)
    {
        StringBuilder text = new();
        foreach (string place in Places(overridePath, folders, fileName ?? FileName))
        {
            if (Path.IsPathRooted(place) && !File.Exists(place))
            {
                text.AppendLine($"{place}: not there");
                continue;
            }

            try
            {
                nint handle = NativeLibrary.Load(place);
                if (Check(handle, place, text) is { } version)
                {
                    return new LoadReport(handle, text.ToString().TrimEnd(), version);
                }

                NativeLibrary.Free(handle);
            }
            catch (Exception e) when (e is DllNotFoundException or BadImageFormatException)
            {
                text.AppendLine($"{place}: {Reason(e.Message)}");
            }
        }

        return new LoadReport(0, text.Append(Advice(text.ToString(), variable, overridePath)).ToString(), null);
    }

    private static IEnumerable<string> Places(string? overridePath, IEnumerable<string> folders, string fileName)
    {
        if (!string.IsNullOrEmpty(overridePath))
        {
            string full = Path.GetFullPath(overridePath);
            yield return Directory.Exists(full) ? Path.Combine(full, fileName) : full;
            yield break;
        }

        foreach (string folder in folders)
        {
            yield return Path.Combine(folder, fileName);
        }

        yield return fileName;
    }

    /// <summary>The version of oneDNN when the library is one that we can call; what is wrong with it goes to the report.</summary>
    private static unsafe Version? Check(nint handle, string place, StringBuilder text)
    {
        if (!NativeLibrary.TryGetExport(handle, nameof(Interop.Hbn.hbn_abi_version), out nint abiVersion) ||
            !NativeLibrary.TryGetExport(handle, nameof(Interop.Hbn.hbn_library_version), out nint libraryVersion) ||
            !NativeLibrary.TryGetExport(handle, nameof(Interop.Hbn.hbn_struct_size), out nint structSize))
        {
            text.AppendLine($"{place}: loads, but is not our library (it has no {nameof(Interop.Hbn.hbn_abi_version)})");
            return null;
        }

        int abi = ((delegate* unmanaged[Cdecl]<int>)abiVersion)();
        if (abi != Interop.Hbn.AbiVersion)
        {
            text.AppendLine($"{place}: ABI {abi} found, {Interop.Hbn.AbiVersion} expected; it was built from another version of this project");
            return null;
        }

        ReadOnlySpan<(string Name, int Size)> structs =
        [
            (nameof(HbnEngineDesc), Unsafe.SizeOf<HbnEngineDesc>()), (nameof(HbnEngineInfo), Unsafe.SizeOf<HbnEngineInfo>()),
            (nameof(HbnTensor), Unsafe.SizeOf<HbnTensor>()), (nameof(HbnConvDesc), Unsafe.SizeOf<HbnConvDesc>()),
            (nameof(HbnInnerProductDesc), Unsafe.SizeOf<HbnInnerProductDesc>()), (nameof(HbnBatchNormDesc), Unsafe.SizeOf<HbnBatchNormDesc>()),
            (nameof(HbnPoolDesc), Unsafe.SizeOf<HbnPoolDesc>()), (nameof(HbnLrnDesc), Unsafe.SizeOf<HbnLrnDesc>()),
            (nameof(HbnActivationDesc), Unsafe.SizeOf<HbnActivationDesc>()), (nameof(HbnDropoutDesc), Unsafe.SizeOf<HbnDropoutDesc>()),
            (nameof(HbnLossDesc), Unsafe.SizeOf<HbnLossDesc>()), (nameof(HbnOptimizerDesc), Unsafe.SizeOf<HbnOptimizerDesc>()),
        ];
        for (int i = 0; i < structs.Length; i++)
        {
            int found = 0;
            int status = ((delegate* unmanaged[Cdecl]<int, int*, int>)structSize)(i, &found);
            if (status != Interop.Hbn.Ok || found != structs[i].Size)
            {
                text.AppendLine($"{place}: {structs[i].Name} has {found} bytes there and {structs[i].Size} here");
                return null;
            }
        }

        int major = 0, minor = 0, patch = 0;
        _ = ((delegate* unmanaged[Cdecl]<int*, int*, int*, int>)libraryVersion)(&major, &minor, &patch);
        Version version = new(major, minor, patch);
        text.AppendLine($"{place}: loaded, ABI {abi}, oneDNN {version}");
        return version;
    }

    /// <summary>The dynamic linker's own words, without .NET's list of variations.</summary>
    internal static string Reason(string message)
    {
        string[] lines = message.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        return lines.FirstOrDefault(l => l.Contains(".so", StringComparison.Ordinal) && l.Contains(": ", StringComparison.Ordinal) &&
            !l.StartsWith("Unable", StringComparison.Ordinal)) ?? lines.FirstOrDefault() ?? message;
    }

    private static string Advice(string report, string variable, string? overridePath)
    {
        // Debian and Ubuntu name the package after the number in the file name: libdnnl2, libdnnl3.6.
        Match missing = MissingOneDnn().Match(report);
        if (missing.Success)
        {
            string major = missing.Groups[1].Value;
            return $"libdnnl is missing: apt-get install libdnnl{major}. Where there is no such package, build again with the libdnnl-dev there is.";
        }

        return string.IsNullOrEmpty(overridePath)
            ? Missing(RuntimeInformation.RuntimeIdentifier)
            : $"{variable} is set to '{overridePath}': correct it or unset it.";
    }

    /// <summary>What to do where there is no library at all, on the platform <paramref name="rid"/>.</summary>
    internal static string Missing(string rid)
    {
        const string Without = "the reference backend is what runs without it";
        bool x64 = rid.EndsWith("-x64", StringComparison.Ordinal), arm64 = rid.EndsWith("-arm64", StringComparison.Ordinal);
        return (x64, arm64) switch
        {
            (true, _) when rid.StartsWith("win", StringComparison.Ordinal) =>
                $"The package HpcBatchNorm.Native.win-x64 brings libhbn.dll (an experiment: tested under Wine, no Windows has run it); {Without}. In WSL 2 everything for Linux works.",
            _ when !(x64 || arm64) || rid.StartsWith("win", StringComparison.Ordinal) || rid.StartsWith("osx", StringComparison.Ordinal) =>
                $"There is no package of the native library for {rid}: the reference backend is what runs here.",
            _ when rid.Contains("musl", StringComparison.Ordinal) =>
                "The package of the native library is for glibc, and this system has musl (Alpine): use a Debian or Ubuntu image, or the reference backend.",
            (_, true) =>
                $"The package HpcBatchNorm.Native.linux-arm64 brings libhbn.so (an experiment: no arm64 hardware has run it); {Without}. In a clone the build makes it: apt-get install cmake g++ libdnnl-dev, then build again without SkipNative.",
            _ =>
                "libhbn.so comes with the package HpcBatchNorm.Native.linux-x64. In a clone the build makes it: apt-get install cmake g++ libdnnl-dev, then build again without SkipNative.",
        };
    }

    private static nint Resolve(string name, Assembly assembly, DllImportSearchPath? searchPath) => name switch
    {
        Interop.Hbn.Library => Hbn.Handle,
        MpiApi.Library => MpiLibrary.Found.Handle,
        _ => 0,
    };

    /// <summary>
    /// Sets what native libraries read in their environment when they are loaded; Environment.SetEnvironmentVariable does not reach it.
    /// The cap on instruction sets: oneDNN's, which our own kernels follow. A cap the user gave oneDNN himself counts where ours is not set.
    /// Spinning: GNU OpenMP's idle threads spin for milliseconds by default and take the cores from .NET's threads (data loading). A short spin costs
    /// the kernels nothing. Who sets OpenMP's own policy gets that.
    /// </summary>
    /// <returns>False, with the reason, when <see cref="InstructionSetVariable"/> is none of <see cref="InstructionSets"/>.</returns>
    internal static bool PrepareEnvironment(Func<string, string?> environment, Action<string, string> set, out string cap, out string error)
    {
        const string OfOneDnn = "ONEDNN_MAX_CPU_ISA", OfOneDnnBefore = "DNNL_MAX_CPU_ISA";
        (cap, error) = ("", "");
        if (environment(InstructionSetVariable) is { Length: > 0 } wanted)
        {
            string? known = InstructionSets.FirstOrDefault(s => s.Equals(wanted, StringComparison.OrdinalIgnoreCase));
            if (known is null)
            {
                error = $"{InstructionSetVariable} is '{wanted}'; it must be one of {string.Join(", ", InstructionSets)}. Correct it or unset it.";
                return false;
            }

            set(OfOneDnn, known);
            cap = $"{InstructionSetVariable}={known}";
        }
        else if (new[] { OfOneDnn, OfOneDnnBefore }.FirstOrDefault(v => environment(v) is { Length: > 0 }) is { } variable)
        {
            cap = $"{variable}={environment(variable)}";
        }

        if (string.IsNullOrEmpty(environment("OMP_WAIT_POLICY")) && environment("GOMP_SPINCOUNT") is null)
        {
            set("GOMP_SPINCOUNT", "10000");
        }

        return true;
    }

    private static void SetNative(string name, string value)
    {
        if (OperatingSystem.IsLinux())
        {
            _ = setenv(name, value, 1);
        }
        else if (OperatingSystem.IsWindows())
        {
            // OpenMP's runtime reads the variables of the C library it is linked with; this sets the process's own too, which oneDNN reads.
            _ = _putenv($"{name}={value}");
        }
    }

    [GeneratedRegex(@"libdnnl\.so\.(\d+(?:\.\d+)*): cannot open")]
    private static partial Regex MissingOneDnn();

    [LibraryImport("msvcrt", StringMarshalling = StringMarshalling.Utf8)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial int _putenv(string assignment);

    [LibraryImport("libc", StringMarshalling = StringMarshalling.Utf8)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    private static partial int setenv(string name, string value, int overwrite);
}
