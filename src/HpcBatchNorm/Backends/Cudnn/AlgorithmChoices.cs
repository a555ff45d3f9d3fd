using System.Text.Json;
using System.Text.Json.Serialization;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Interop.Cuda;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>
/// Which of cuDNN's algorithms computes a convolution: the fastest deterministic one of a timed search (the second of two), made once per problem. With a
/// file, choices are kept there and used again, so that a continued run computes with the same algorithms, bit for bit.
/// </summary>
internal sealed class AlgorithmChoices : IDisposable
{
    /// <summary>Scratch memory a search may try algorithms with, at most.</summary>
    private const long WorkspaceLimit = 512L << 20;

    /// <summary>Of everything that the driver allocates.</summary>
    private const long Alignment = 256;

    private readonly string? _file;
    private readonly Dictionary<string, CudnnAlgorithm> _choices = [];
    private CudaDeviceMemory? _memory;
    private bool _unsaved;

    /// <summary>Reads what <paramref name="file"/> holds when it is not null and exists.</summary>
    public AlgorithmChoices(string? file)
    {
        _file = file;
        _choices = Read(damagedIsEmpty: file == UserFile);
    }

    /// <summary>Where choices are kept when no file is named: in the user's cache folder; null for a user without one.</summary>
    public static string? UserFile => UserCache.Folder is { } cache ? Path.Combine(cache, "cuda", "algorithms.json") : null;

    /// <summary>The algorithm of a problem named <paramref name="key"/>: a known one that still fits, else the result of a search. Null when there is none.</summary>
    /// <param name="device">Where the search runs.</param>
    /// <param name="convolution">The problem.</param>
    /// <param name="key">Everything the choice depends on, in words.</param>
    /// <param name="bytes">Sizes of its three tensors.</param>
    /// <param name="offsets">How far they begin behind an address that is aligned for everything; the search's do too, so that it finds what takes them.</param>
    /// <param name="mathType">The arithmetic to force, or null to take the search's.</param>
    public CudnnAlgorithm? Choose(CudaDevice device, CudnnConvolution convolution, string key, (long A, long B, long C) bytes, (long A, long B, long C) offsets, int? mathType)
    {
        if (_choices.TryGetValue(key, out CudnnAlgorithm? known) && convolution.WorkspaceBytes(known) is { } needed)
        {
            return known with { WorkspaceBytes = needed };
        }

        long a = Align(bytes.A + offsets.A), b = Align(bytes.B + offsets.B), c = Align(bytes.C + offsets.C), workspace = Math.Min(WorkspaceLimit, Math.Max(64L << 20, 2 * (a + b + c)));
        if (_memory is null || _memory.Bytes < a + b + c + workspace)
        {
            _memory?.Dispose();
            _memory = null;
            _memory = new CudaDeviceMemory(device, a + b + c + workspace);
        }

        nint first = _memory.Address;
        IReadOnlyList<CudnnAlgorithm> Search() => convolution.Search(
            first + (nint)offsets.A, first + (nint)(a + offsets.B), first + (nint)(a + b + offsets.C), first + (nint)(a + b + c), workspace);

        // Kernels are loaded when they first run, which an algorithm's first time holds; the second search measures them alone.
        if (Search().Count == 0)
        {
            return null;
        }

        foreach (CudnnAlgorithm candidate in Search().OrderBy(r => r.Milliseconds))
        {
            if (candidate.Deterministic)
            {
                CudnnAlgorithm choice = mathType is { } math ? candidate with { MathType = math } : candidate;
                if (convolution.WorkspaceBytes(choice) is { } bytesNeeded)
                {
                    choice = choice with { WorkspaceBytes = bytesNeeded };
                    _choices[key] = choice;
                    _unsaved = true;
                    return choice;
                }
            }
        }

        return null;
    }

    /// <summary>Gives the search's memory back and saves what was chosen; when planning is over.</summary>
    public void EndSearch()
    {
        _memory?.Dispose();
        _memory = null;
        if (_unsaved && _file is not null)
        {
            // Another process may have added to the file meanwhile.
            foreach ((string key, CudnnAlgorithm choice) in Read(damagedIsEmpty: true))
            {
                _ = _choices.TryAdd(key, choice);
            }

            Save();
        }

        _unsaved = false;
    }

    public void Dispose() => EndSearch();

    /// <summary>What the file holds. One that is damaged is an error, or counts as empty where it is a cache or about to be written anew.</summary>
    private Dictionary<string, CudnnAlgorithm> Read(bool damagedIsEmpty)
    {
        if (_file is null || !File.Exists(_file))
        {
            return [];
        }

        try
        {
            return Whole(JsonSerializer.Deserialize(RegularFile.ReadAllText(_file), AlgorithmJson.Default.DictionaryStringCudnnAlgorithm) ?? []);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or IOException or UnauthorizedAccessException)
        {
            return damagedIsEmpty
                ? []
                : throw new UserErrorException($"{_file} is not a file of algorithm choices ({e.Message}); delete it, and the algorithms are searched again.", e);
        }
    }

    private void Save()
    {
        try
        {
            var sorted = _choices.OrderBy(c => c.Key, StringComparer.Ordinal).ToDictionary(c => c.Key, c => c.Value);
            Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(_file!))!);
            AtomicFile.ReplaceText(_file!, JsonSerializer.Serialize(sorted, AlgorithmJson.Default.DictionaryStringCudnnAlgorithm));
        }
        catch (Exception e) when (_file == UserFile && (e is IOException or UnauthorizedAccessException))
        {
            // Searched again next time.
        }
    }

    /// <summary>Throws for a choice that is none: JSON may say null where an algorithm should be.</summary>
    private static Dictionary<string, CudnnAlgorithm> Whole(Dictionary<string, CudnnAlgorithm> choices) =>
        choices.FirstOrDefault(c => c.Value is null || c.Value.Algorithm < 0 || c.Value.WorkspaceBytes < 0).Key is string key
            ? throw new JsonException($"'{UserErrorException.Excerpt(key)}' has no algorithm")
            : choices;

    private static long Align(long bytes) => (bytes + Alignment - 1) / Alignment * Alignment;
}

[JsonSourceGenerationOptions(WriteIndented = true)]
[JsonSerializable(typeof(Dictionary<string, CudnnAlgorithm>))]
internal sealed partial class AlgorithmJson : JsonSerializerContext;
