using System.Globalization;
using System.IO.Hashing;
using System.Runtime.InteropServices;
using System.Text;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Training;

/// <summary>
/// What must be the same on all ranks before they train together: version, settings, images, kernels and where their weights lie, and the state they begin with.
/// Different settings would give numbers that nobody asked for, different layouts would add weights to other weights.
/// </summary>
internal static class Fingerprint
{
    /// <summary>Settings that each rank may have its own of.</summary>
    private static readonly string[] Own = ["data", "threads", "workers", "loader-timeout", "output", "name"];

    /// <summary>Compares the ranks; throws on all of them where one differs from rank 0.</summary>
    /// <exception cref="UserErrorException">The message names the rank, what differs, and how.</exception>
    public static void Compare(Communicator ranks, RunConfig config, TrainingSession session, IImageSource train, IImageSource? validation)
    {
        if (ranks.Size == 1)
        {
            return;
        }

        string[] mine = [.. Of(config, session, train, validation).Select(f => $"{f.Name}\t{f.Value}")];
        string[][] all = [.. ranks.AllGather(Encoding.UTF8.GetBytes(string.Join('\n', mine))).Select(b => Encoding.UTF8.GetString(b).Split('\n'))];
        string? difference = Difference(all, ranks.Names);
        if (difference is not null)
        {
            throw new AgreedException(difference, null);
        }
    }

    /// <summary>What differs between the ranks, in a sentence; null where nothing does.</summary>
    internal static string? Difference(IReadOnlyList<string[]> ranks, IReadOnlyList<string> names)
    {
        for (int r = 1; r < ranks.Count; r++)
        {
            for (int i = 0; i < Math.Max(ranks[0].Length, ranks[r].Length); i++)
            {
                string first = ranks[0].ElementAtOrDefault(i) ?? "\t(nothing)", other = ranks[r].ElementAtOrDefault(i) ?? "\t(nothing)";
                if (Compared(first) != Compared(other))
                {
                    string name = (first.Length > 0 ? first : other).Split('\t')[0];
                    return $"The ranks do not have the same {name}: {names[0]} has {first.Split('\t')[^1]}, {names[r]} has {other.Split('\t')[^1]}. Start all ranks with the same program, settings and data.";
                }
            }
        }

        return null;
    }

    /// <summary>What stands behind the hash of the kernels is for people: it counts threads, of which each rank may have its own number.</summary>
    private static string Compared(string line) => line.StartsWith("kernels", StringComparison.Ordinal) ? line.Split(" by ")[0] : line;

    private static IEnumerable<(string Name, string Value)> Of(RunConfig config, TrainingSession session, IImageSource train, IImageSource? validation)
    {
        yield return ("version of hpcbn", $"{typeof(Fingerprint).Assembly.GetName().Version} ({typeof(Fingerprint).Module.ModuleVersionId})");
        foreach (Setting setting in TrainingSettings.All.Where(s => !Own.Contains(s.Name)))
        {
            yield return ($"setting {setting.Name}", Shown(setting.Get(config)));
        }

        yield return ("training images", Images(train));
        yield return ("validation images", validation is null ? "none" : Images(validation));
        yield return ("backend", session.Backend.Name);
        yield return ("kernels (another processor, or another oneDNN)", $"{Hash(Kernels(session))} by {session.Backend.Description}");
        yield return ("initial state", State(session));
    }

    private static string Shown(string value) => value.Length == 0 ? "(none)" : value.Replace('\n', ' ').Replace('\t', ' ');

    private static string Images(IImageSource source)
    {
        var hash = new XxHash64();
        for (int i = 0; i < source.Count; i++)
        {
            hash.Append(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{source.Label(i)} {source.Name(i)}\n")));
        }

        return string.Create(CultureInfo.InvariantCulture, $"{source.Count} of {source.ClassCount} classes (labels and names {hash.GetCurrentHashAsUInt64():x16})");
    }

    /// <summary>Who computes each operation, and the bytes of everything that is averaged: ranks with the same ones lay their tensors out alike.</summary>
    private static string Kernels(TrainingSession session)
    {
        // What cuDNN's search by timing has chosen may differ from GPU to GPU, and may: it changes how gradients are rounded, not how they lie.
        bool searched = session.Backend.Name == "cudnn";
        var text = new StringBuilder();
        foreach (Kernel kernel in session.Prepared.Kernels)
        {
            text.Append(kernel.Operation.Name).Append(' ').Append(searched ? "" : kernel.Implementation).Append('\n');
        }

        foreach (StateTensor entry in session.State)
        {
            text.Append(CultureInfo.InvariantCulture, $"{entry.Tensor.Name} {session.Prepared[entry.Tensor.Root].Bytes}\n");
        }

        return text.ToString();
    }

    private static string State(TrainingSession session)
    {
        var hash = new XxHash64();
        foreach (StateTensor entry in session.State)
        {
            float[] values = new float[entry.Tensor.Shape.Count];
            session.Read(entry.Tensor, values);
            hash.Append(MemoryMarshal.AsBytes(values.AsSpan()));
        }

        return hash.GetCurrentHashAsUInt64().ToString("x16", CultureInfo.InvariantCulture);
    }

    private static string Hash(string text) => XxHash64.HashToUInt64(Encoding.UTF8.GetBytes(text)).ToString("x16", CultureInfo.InvariantCulture);
}
