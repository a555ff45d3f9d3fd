using System.Globalization;
using System.IO.Hashing;
using System.Reflection;
using System.Text;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>
/// Our CUDA kernels, compiled by NVRTC for the device when an element type is first used, and kept on disk: ~/.cache/hpcbn/cuda (or under
/// XDG_CACHE_HOME), one file per source, options, compiler, driver and device generation.
/// </summary>
internal sealed class CudaModules(CudaDevice device, NvrtcCompiler compiler, string? cacheFolder) : IDisposable
{
    private const int HashBytes = 16;

    private static readonly string[] Files = ["prelude.cuh", "batch_norm.cu", "batch_norm_variants.cu", "elementwise.cu", "pooling.cu", "convolution.cu", "training.cu", "probe.cu"];

    private readonly Dictionary<DataType, nint> _modules = [];
    private readonly Dictionary<(DataType, string), nint> _functions = [];

    /// <summary>The kernels' text.</summary>
    public static string Source { get; } = ReadSource();

    /// <summary>What the kernels are compiled with.</summary>
    public static IReadOnlyList<string> Options(DataType type, int architecture) =>
    [
        FormattableString.Invariant($"--gpu-architecture=sm_{architecture}"),
        FormattableString.Invariant($"-DHBN_ELEMENT={type switch { DataType.BFloat16 => 1, DataType.Float16 => 2, _ => 0 }}"),
        "--std=c++14",
    ];

    /// <summary>A kernel for activations of a type.</summary>
    public nint Function(DataType type, string name)
    {
        if (!_functions.TryGetValue((type, name), out nint function))
        {
            if (!_modules.TryGetValue(type, out nint module))
            {
                module = Load(type);
                _modules.Add(type, module);
            }

            function = device.Function(module, name);
            _functions.Add((type, name), function);
        }

        return function;
    }

    public void Dispose()
    {
        foreach (nint module in _modules.Values)
        {
            device.UnloadModule(module);
        }

        _modules.Clear();
        _functions.Clear();
    }

    private nint Load(DataType type)
    {
        int architecture = device.Major * 10 + device.Minor;
        IReadOnlyList<string> options = Options(type, architecture);
        string key = string.Join('\n', [Source, .. options, compiler.Version.ToString(), device.DriverVersion.ToString(CultureInfo.InvariantCulture)]);
        string? folder = cacheFolder ?? (UserCache.Folder is { } cache ? Path.Combine(cache, "cuda") : null);
        string? file = folder is null ? null : Path.Combine(folder, Convert.ToHexStringLower(XxHash128.Hash(Encoding.UTF8.GetBytes(key))) + ".cubin");
        try
        {
            if (file is not null && File.Exists(file) && Content(File.ReadAllBytes(file)) is { } kept)
            {
                return device.LoadModule(kept);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NativeException && device.Fault is null)
        {
            // A file that cannot be read or loaded is as good as none.
        }

        if (!compiler.Architectures.Contains(architecture))
        {
            throw new UserErrorException(string.Create(CultureInfo.InvariantCulture,
                $"NVRTC {compiler.Version} cannot compile for {device.Name} (compute capability {device.Major}.{device.Minor}); it knows {string.Join(", ", compiler.Architectures.Select(a => $"{a / 10}.{a % 10}"))}. Install a newer one: pip install nvidia-cuda-nvrtc."));
        }

        byte[] image = compiler.Compile(Source, "hpcbatchnorm.cu", options, out _);
        nint module = device.LoadModule(image);
        if (file is not null)
        {
            Keep(file, image);
        }

        return module;
    }

    /// <summary>The machine code of a cache file, which begins with the code's hash; null when that does not fit: the file was cut short or damaged.</summary>
    internal static byte[]? Content(byte[] file) =>
        file.Length > HashBytes && XxHash128.Hash(file.AsSpan(HashBytes)).AsSpan().SequenceEqual(file.AsSpan(0, HashBytes)) ? file[HashBytes..] : null;

    private static void Keep(string file, byte[] image)
    {
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(file)!);
            string temporary = FormattableString.Invariant($"{file}.{Environment.ProcessId}");
            File.WriteAllBytes(temporary, [.. XxHash128.Hash(image), .. image]);
            FileRename.Move(temporary, file, overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Compiled again next time.
        }
    }

    private static string ReadSource()
    {
        StringBuilder source = new();
        foreach (string file in Files)
        {
            using Stream stream = Assembly.GetExecutingAssembly().GetManifestResourceStream($"HpcBatchNorm.Cuda.{file}")!;
            using StreamReader reader = new(stream);
            source.Append("#line 1 \"").Append(file).Append("\"\n").Append(reader.ReadToEnd()).Append('\n');
        }

        return source.ToString();
    }
}
