using System.Text.Json;
using System.Text.Json.Serialization;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Interop.Cuda;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>
/// Which of cuDNN's algorithms computes a convolution: the fastest deterministic one of a timed search, made once per problem. With a file, choices are
/// kept there and used again, so that a continued run computes with the same algorithms, bit for bit.
/// </summary>
internal sealed class AlgorithmChoices : IDisposable
{
    /// <summary>Scratch memory a search may try algorithms with, at most.</summary>
    private const long WorkspaceLimit = 512L << 20;

    private readonly string? _file;
    private readonly Dictionary<string, CudnnAlgorithm> _choices = [];
    private CudaDeviceMemory? _memory;
    private bool _unsaved;

    /// <summary>Reads what <paramref name="file"/> holds when it is not null and exists.</summary>
    public AlgorithmChoices(string? file)
    {
        _file = file;
        if (file is not null && File.Exists(file))
        {
            try
            {
                _choices = Whole(JsonSerializer.Deserialize(RegularFile.ReadAllText(file), AlgorithmJson.Default.DictionaryStringCudnnAlgorithm) ?? []);
            }
            catch (Exception e) when (e is JsonException or InvalidOperationException or IOException or UnauthorizedAccessException)
            {
                throw new UserErrorException($"{file} is not a file of algorithm choices ({e.Message}); delete it, and the algorithms are searched again.", e);
            }
        }
    }

    /// <summary>The algorithm of a problem named <paramref name="key"/>: a known one that still fits, else the result of a search. Null when there is none.</summary>
    /// <param name="device">Where the search runs.</param>
    /// <param name="convolution">The problem.</param>
    /// <param name="key">Everything the choice depends on, in words.</param>
    /// <param name="bytes">Sizes of its three tensors.</param>
    /// <param name="mathType">The arithmetic to force, or null to take the search's.</param>
    public CudnnAlgorithm? Choose(CudaDevice device, CudnnConvolution convolution, string key, (long A, long B, long C) bytes, int? mathType)
    {
        if (_choices.TryGetValue(key, out CudnnAlgorithm? known) && convolution.WorkspaceBytes(known) is { } needed)
        {
            return known with { WorkspaceBytes = needed };
        }

        long a = Align(bytes.A), b = Align(bytes.B), c = Align(bytes.C), workspace = Math.Min(WorkspaceLimit, Math.Max(64L << 20, 2 * (a + b + c)));
        if (_memory is null || _memory.Bytes < a + b + c + workspace)
        {
            _memory?.Dispose();
            _memory = null;
            _memory = new CudaDeviceMemory(device, a + b + c + workspace);
        }

        nint first = _memory.Address;
        foreach (CudnnAlgorithm candidate in convolution.Search(first, first + (nint)a, first + (nint)(a + b), first + (nint)(a + b + c), workspace).OrderBy(r => r.Milliseconds))
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
            var sorted = _choices.OrderBy(c => c.Key, StringComparer.Ordinal).ToDictionary(c => c.Key, c => c.Value);
            Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(_file))!);
            AtomicFile.ReplaceText(_file, JsonSerializer.Serialize(sorted, AlgorithmJson.Default.DictionaryStringCudnnAlgorithm));
        }

        _unsaved = false;
    }

    public void Dispose() => EndSearch();

    /// <summary>Throws for a choice that is none: JSON may say null where an algorithm should be.</summary>
    private static Dictionary<string, CudnnAlgorithm> Whole(Dictionary<string, CudnnAlgorithm> choices) =>
        choices.FirstOrDefault(c => c.Value is null || c.Value.Algorithm < 0 || c.Value.WorkspaceBytes < 0).Key is string key
            ? throw new JsonException($"'{UserErrorException.Excerpt(key)}' has no algorithm")
            : choices;

    private static long Align(long bytes) => (bytes + 255) & ~255L;
}

[JsonSourceGenerationOptions(WriteIndented = true)]
[JsonSerializable(typeof(Dictionary<string, CudnnAlgorithm>))]
internal sealed partial class AlgorithmJson : JsonSerializerContext;
