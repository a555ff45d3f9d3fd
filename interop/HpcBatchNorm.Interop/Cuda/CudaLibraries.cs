using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace HpcBatchNorm.Interop.Cuda;

/// <summary>One library: where it was found and which version it is, or why it cannot be used.</summary>
/// <param name="Name">For people: <c>CUDA driver</c>.</param>
/// <param name="Soname">The file name that was found, or the first that was looked for.</param>
/// <param name="Handle">The loaded library, 0 when it cannot be used.</param>
/// <param name="Path">The file, null when not found.</param>
/// <param name="Version">Its version, null when it could not be asked.</param>
/// <param name="Problem">Why it cannot be used, null when it can.</param>
internal sealed record CudaLibrary(string Name, string Soname, nint Handle, string? Path, string? Version, string? Problem)
{
    public bool Usable => Problem is null;

    public override string ToString() =>
        Usable ? $"{Name}: {Soname} {Version} ({Path})" : $"{Name}: {Problem}{(Path is null ? "" : $" ({Path})")}";
}

/// <summary>
/// The CUDA driver, NVRTC and cuDNN of this process, with their functions. Everything they need in turn is loaded first, by full path and from one
/// place, because cuDNN opens its sub-libraries, and NVRTC its builtins, by bare name; a cuDNN that lacks one would end the process when first used.
/// </summary>
internal sealed class CudaLibraries
{
    /// <summary>What NVRTC needs to be there before it, then NVRTC; newest first. CUDA 11's is enough to compile for compute capability 9.0.</summary>
    private static readonly (string Nvrtc, string Builtins)[] NvrtcNames =
    [
        ("libnvrtc.so.13", "libnvrtc-builtins.so.13.*"), ("libnvrtc.so.12", "libnvrtc-builtins.so.12.*"), ("libnvrtc.so.11.2", "libnvrtc-builtins.so.11.*"),
    ];

    /// <summary>cuDNN's parts in loading order; without the required ones its calls fail or abort.</summary>
    private static readonly (string Soname, bool Required)[] CudnnParts =
    [
        ("libcudnn_graph.so.9", true), ("libcudnn_ops.so.9", true), ("libcudnn_cnn.so.9", true), ("libcudnn_adv.so.9", false),
        ("libcudnn_engines_precompiled.so.9", true), ("libcudnn_engines_runtime_compiled.so.9", true), ("libcudnn_heuristic.so.9", true),
        ("libcudnn_engines_tensor_ir.so.9", false), ("libcudnn_ext.so.9", false),
    ];

    private static readonly string[] CublasNames = ["libcublasLt.so.13", "libcublas.so.13", "libcublasLt.so.12", "libcublas.so.12"];

    private static readonly Lazy<CudaLibraries> LazyShared = new(() => new CudaLibraries(new CudaSearch(Environment.GetEnvironmentVariable)));

    private readonly Lazy<CudaLibrary> _nccl;

    /// <summary>Looks for everything but NCCL, which is looked for when somebody asks for it: one process needs none.</summary>
    public CudaLibraries(CudaSearch search)
    {
        _nccl = new Lazy<CudaLibrary>(() => FindNccl(search));
        Driver = FindDriver(search);
        Nvrtc = FindNvrtc(search);
        Cudnn = FindCudnn(search);
        (Devices, DeviceProblem) = FindDevices();
    }

    /// <summary>Those of this process, looked for once.</summary>
    public static CudaLibraries Shared => LazyShared.Value;

    public CudaLibrary Driver { get; }

    public CudaLibrary Nvrtc { get; }

    public CudaLibrary Cudnn { get; }

    /// <summary>Looks for NCCL when several ranks ask for it, and keeps what was found or why not: one process needs none of it.</summary>
    public CudaLibrary Nccl => _nccl.Value;

    /// <summary>Null unless <see cref="Nccl"/> was asked for and is usable.</summary>
    public NcclApi? NcclApi { get; private set; }

    /// <summary>Null unless <see cref="Driver"/> is usable; likewise the two below.</summary>
    public CudaDriverApi? DriverApi { get; private set; }

    public NvrtcApi? NvrtcApi { get; private set; }

    public CudnnApi? CudnnApi { get; private set; }

    /// <summary>Every function that is bound, by library; tests check that each was called.</summary>
    public IReadOnlyList<string> BoundFunctions { get; private set; } = [];

    /// <summary>Every device that this process may use, in words, in the driver's order; what went wrong with one that cannot be asked.</summary>
    public IReadOnlyList<string> Devices { get; }

    /// <summary>Why there is no device that can be used, or null.</summary>
    public string? DeviceProblem { get; }

    public bool Available => Driver.Usable && Nvrtc.Usable && Cudnn.Usable && DeviceProblem is null;

    /// <summary>One line per library and device, then what is mixed, and what to do about what is missing.</summary>
    public string Text
    {
        get
        {
            if (!OperatingSystem.IsLinux())
            {
                return "This backend is for Linux only. On Windows it works in WSL 2.";
            }

            StringBuilder text = new();
            foreach (CudaLibrary library in new[] { Driver, Nvrtc, Cudnn })
            {
                text.Append(library).Append('\n');
            }

            text.Append(DeviceProblem is { } none
                ? $"device: {none}"
                : string.Join('\n', Devices.Select((d, i) => Devices.Count == 1 ? $"device: {d}" : string.Create(CultureInfo.InvariantCulture, $"device {i}: {d}"))));
            if (Cudnn.Usable && CudnnInstallations.Mixture() is { } mixture)
            {
                text.Append("\nwarning: ").Append(mixture);
            }

            if (Advice() is { } advice)
            {
                text.Append('\n').Append(advice);
            }

            return text.ToString();
        }
    }

    /// <summary>What a version number of cuDNN means: 91900 is 9.19.0, 8907 is 8.9.7.</summary>
    public static string CudnnVersionText(ulong version) => version >= 90000
        ? string.Create(CultureInfo.InvariantCulture, $"{version / 10000}.{version / 100 % 100}.{version % 100}")
        : string.Create(CultureInfo.InvariantCulture, $"{version / 1000}.{version / 100 % 10}.{version % 100}");

    /// <summary>CUDA's version numbers: 13000 is 13.0.</summary>
    public static string CudaVersionText(int version) => string.Create(CultureInfo.InvariantCulture, $"{version / 1000}.{version / 10 % 100}");

    private unsafe CudaLibrary FindDriver(CudaSearch search)
    {
        const string Name = "CUDA driver", Soname = "libcuda.so.1";
        (nint handle, string? path, string problem) = Load(search, Soname, overrideOnly: false);
        if (handle == 0)
        {
            return new CudaLibrary(Name, Soname, 0, path, null, problem);
        }

        ExportTable exports = new(handle);
        CudaDriverApi api = new(exports);
        Bound(exports);
        if (exports.Missing.Count > 0)
        {
            return new CudaLibrary(Name, Soname, 0, path, null, $"it lacks {Some(exports.Missing)}; a driver for CUDA 12 or later is needed");
        }

        int status = api.cuInit(0);
        if (status != CudaDriverApi.Success)
        {
            return new CudaLibrary(Name, Soname, 0, path, null, $"cuInit reports {CudaErrors.Describe(api, status)}");
        }

        int version = 0;
        _ = api.cuDriverGetVersion(&version);
        DriverApi = api;
        return new CudaLibrary(Name, Soname, handle, path, $"for CUDA {CudaVersionText(version)}", null);
    }

    private unsafe CudaLibrary FindNvrtc(CudaSearch search)
    {
        const string Name = "NVRTC";
        foreach ((string soname, string builtins) in NvrtcNames)
        {
            foreach (string candidate in search.Candidates(soname, overrideOnly: true))
            {
                if (Path.IsPathRooted(candidate))
                {
                    foreach (string file in Directory.EnumerateFiles(Path.GetDirectoryName(candidate)!, builtins).Order(StringComparer.Ordinal))
                    {
                        _ = NativeLibrary.TryLoad(file, out _);
                    }
                }

                if (!NativeLibrary.TryLoad(candidate, out nint handle))
                {
                    continue;
                }

                string? path = CudaSearch.LoadedPath(soname) ?? candidate;
                ExportTable exports = new(handle);
                NvrtcApi api = new(exports);
                if (exports.Missing.Count > 0)
                {
                    return new CudaLibrary(Name, soname, 0, path, null, $"it lacks {Some(exports.Missing)}");
                }

                Bound(exports);
                int major = 0, minor = 0;
                _ = api.nvrtcVersion(&major, &minor);
                NvrtcApi = api;
                return new CudaLibrary(Name, soname, handle, path, string.Create(CultureInfo.InvariantCulture, $"{major}.{minor}"), null);
            }
        }

        return new CudaLibrary(Name, NvrtcNames[0].Nvrtc, 0, null, null,
            $"none of {string.Join(", ", NvrtcNames.Select(n => n.Nvrtc))} found in {search.Places(overrideOnly: true)}");
    }

    private unsafe CudaLibrary FindCudnn(CudaSearch search)
    {
        const string Name = "cuDNN", Soname = "libcudnn.so.9";
        string problem = $"{Soname} not found in {search.Places(overrideOnly: true)}";
        foreach (string candidate in search.Candidates(Soname, overrideOnly: true))
        {
            if (Path.IsPathRooted(candidate) && PreloadCudnnParts(search, Path.GetDirectoryName(candidate)!) is { } missing)
            {
                return new CudaLibrary(Name, Soname, 0, candidate, null, missing);
            }

            if (!TryLoad(candidate, out nint handle, out string reason))
            {
                if (Path.IsPathRooted(candidate))
                {
                    problem = reason;
                }

                continue;
            }

            // Found by the linker's own search: its parts must be found in the same folder.
            string path = CudaSearch.LoadedPath(Soname) ?? candidate;
            if (!Path.IsPathRooted(candidate) && Path.IsPathRooted(path) && PreloadCudnnParts(search, Path.GetDirectoryName(path)!) is { } absent)
            {
                return new CudaLibrary(Name, Soname, 0, path, null, absent);
            }

            ExportTable exports = new(handle);
            CudnnApi api = new(exports);
            if (exports.Missing.Count > 0)
            {
                return new CudaLibrary(Name, Soname, 0, path, null,
                    $"it lacks {Some(exports.Missing)}; a packaging without the classic API (JIT only) cannot be used, install the full one");
            }

            Bound(exports);
            ulong version = api.cudnnGetVersion();
            if (version < 90000)
            {
                return new CudaLibrary(Name, Soname, 0, path, CudnnVersionText(version), $"version {CudnnVersionText(version)} found, 9.0 or later expected");
            }

            CudnnApi = api;
            return new CudaLibrary(Name, Soname, handle, path, CudnnVersionText(version), null);
        }

        return new CudaLibrary(Name, Soname, 0, null, null, problem);
    }

    private unsafe CudaLibrary FindNccl(CudaSearch search)
    {
        const string Name = "NCCL", Soname = "libnccl.so.2";
        (nint handle, string? path, string problem) = Load(search, Soname, overrideOnly: true);
        if (handle == 0)
        {
            return new CudaLibrary(Name, Soname, 0, path, null, problem);
        }

        ExportTable exports = new(handle);
        NcclApi api = new(exports);
        string[] missing = [.. exports.Missing.Where(m => m != nameof(api.ncclGetLastError))];
        if (missing.Length > 0)
        {
            return new CudaLibrary(Name, Soname, 0, path, null, $"it lacks {Some(missing)}");
        }

        Bound(exports);
        int version = 0;
        _ = api.ncclGetVersion(&version);
        string text = NcclCommunicator.VersionText(version);
        if (version < NcclApi.OldestVersion)
        {
            return new CudaLibrary(Name, Soname, 0, path, text, $"version {text} found, {NcclCommunicator.VersionText(NcclApi.OldestVersion)} or later expected");
        }

        NcclApi = api;
        return new CudaLibrary(Name, Soname, handle, path, text, null);
    }

    /// <summary>Loads what cuDNN will open by bare name later; what is wrong, or null.</summary>
    private static string? PreloadCudnnParts(CudaSearch search, string folder)
    {
        // cuBLAS lies in another folder; cuDNN uses it where it is.
        foreach (string soname in CublasNames)
        {
            foreach (string candidate in search.Candidates(soname, overrideOnly: false))
            {
                if (NativeLibrary.TryLoad(candidate, out _))
                {
                    break;
                }
            }
        }

        foreach ((string soname, bool required) in CudnnParts)
        {
            string file = Path.Combine(folder, soname);
            if (!File.Exists(file))
            {
                if (required)
                {
                    return $"its part {soname} is missing beside it";
                }
            }
            else if (!TryLoad(file, out _, out string reason) && required)
            {
                return $"its part {soname} cannot be loaded: {reason}";
            }
        }

        return null;
    }

    private (IReadOnlyList<string> Devices, string? Problem) FindDevices()
    {
        const string Visible = "CUDA_VISIBLE_DEVICES";
        if (DriverApi is not { } api)
        {
            return ([], "none without the driver");
        }

        try
        {
            int count = CudaDevice.Count(api), usable = 0;
            if (count == 0)
            {
                // The driver counts only what this variable names.
                return ([], Environment.GetEnvironmentVariable(Visible) is { } visible ? $"the driver knows no device ({Visible} is '{visible}')" : "the driver knows no device");
            }

            string[] devices = [.. Enumerable.Range(0, count).Select(Describe)];
            return (devices, usable > 0 ? null : string.Join("; ", devices));

            // A device that is broken, or another's alone, takes nothing from the rest.
            string Describe(int ordinal)
            {
                try
                {
                    string found = CudaDevice.Describe(api, ordinal);
                    usable++;
                    return found;
                }
                catch (NativeException e)
                {
                    return e.Message;
                }
            }
        }
        catch (NativeException e)
        {
            return ([], e.Message);
        }
    }

    private string? Advice()
    {
        if (Driver.Usable && Nvrtc.Usable && Cudnn.Usable)
        {
            return null;
        }

        List<string> advice = [];
        if (!Driver.Usable)
        {
            advice.Add("the driver comes with the GPU's machine (in a container: start it with its GPUs)");
        }

        if (!Nvrtc.Usable || !Cudnn.Usable)
        {
            advice.Add($"pip install nvidia-cudnn-cu12 nvidia-cuda-nvrtc-cu12 (or -cu13 for CUDA 13), or name the folders that hold them in {CudaSearch.OverrideVariable}");
        }

        return "to do: " + string.Join("; ", advice);
    }

    private void Bound(ExportTable exports) => BoundFunctions = [.. BoundFunctions, .. exports.Names];

    private static (nint Handle, string? Path, string Problem) Load(CudaSearch search, string soname, bool overrideOnly)
    {
        string problem = $"{soname} not found in {search.Places(overrideOnly)}";
        foreach (string candidate in search.Candidates(soname, overrideOnly))
        {
            if (TryLoad(candidate, out nint handle, out string reason))
            {
                return (handle, CudaSearch.LoadedPath(soname) ?? candidate, "");
            }

            if (Path.IsPathRooted(candidate))
            {
                problem = reason;
            }
        }

        return (0, null, problem);
    }

    private static bool TryLoad(string candidate, out nint handle, out string reason)
    {
        try
        {
            handle = NativeLibrary.Load(candidate);
            reason = "";
            return true;
        }
        catch (Exception e) when (e is DllNotFoundException or BadImageFormatException)
        {
            handle = 0;
            reason = NativeLibraries.Reason(e.Message);
            return false;
        }
    }

    private static string Some(IReadOnlyList<string> names) =>
        string.Join(", ", names.Take(3)) + (names.Count > 3 ? string.Create(CultureInfo.InvariantCulture, $" and {names.Count - 3} more functions") : "");
}
