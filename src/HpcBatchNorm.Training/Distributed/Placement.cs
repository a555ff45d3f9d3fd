using System.Globalization;
using System.Text;

namespace HpcBatchNorm.Training.Distributed;

/// <summary>Which processors the ranks of a machine may use, and so how many threads each computes and loads with.</summary>
/// <param name="Share">Of the processors that this rank may use, those that are its own share.</param>
/// <param name="Description">The same for people.</param>
/// <param name="Warning">What is wrong with how the ranks are bound; empty where nothing is.</param>
internal sealed record Placement(int Share, string Description, string Warning)
{
    private const string StatusFile = "/proc/self/status", OnlineFile = "/sys/devices/system/cpu/online", SiblingsFile = "/sys/devices/system/cpu/smt/active";

    /// <summary>Asks all ranks.</summary>
    public static Placement Of(Communicator ranks)
    {
        string mine = Allowed();
        string[] all = [.. ranks.AllGather(Encoding.UTF8.GetBytes($"{Environment.MachineName}\n{mine}")).Select(Encoding.UTF8.GetString)];
        string[] here = [.. all.Where(a => a.StartsWith($"{Environment.MachineName}\n", StringComparison.Ordinal)).Select(a => a[(a.IndexOf('\n') + 1)..])];
        return Choose(mine, here, Text(OnlineFile), hyperthreads: Text(SiblingsFile) == "1", quota: Environment.ProcessorCount);
    }

    /// <summary>The same from what was found.</summary>
    /// <param name="mine">The processors that this rank may use, as Linux lists them: <c>0-3,8</c>.</param>
    /// <param name="here">The same of all ranks of its machine.</param>
    /// <param name="online">All processors of the machine.</param>
    /// <param name="hyperthreads">Two processors are one core.</param>
    /// <param name="quota">Processors that this process is granted, by its binding and by quotas.</param>
    public static Placement Choose(string mine, IReadOnlyList<string> here, string online, bool hyperthreads, int quota)
    {
        HashSet<int> own = Parse(mine);
        int sharers = here.Count(h => Parse(h).Overlaps(own)), processors = Math.Min(own.Count, quota);
        int threads = Math.Max(1, processors / (hyperthreads && processors > 1 ? 2 : 1) / Math.Max(1, sharers));
        HashSet<int> used = [.. here.SelectMany(Parse)], there = Parse(online);
        string shared = sharers > 1 ? FormattableString.Invariant($", which {sharers} ranks share") : "";
        return new Placement(
            threads,
            FormattableString.Invariant($"{threads} {(threads == 1 ? "thread" : "threads")} each; rank 0 may use processors {mine} of {online}{shared}"),
            used.Count * 2 <= there.Count && there.Count > 2
                ? FormattableString.Invariant(
                    $"warning: the launcher lets the {here.Count} ranks of {Environment.MachineName} use {used.Count} of its {there.Count} processors, and the others idle. Bind ranks to sockets or memory nodes, or to nothing (mpirun's option bind-to, srun's cpus-per-task).")
                : "");
    }

    private static HashSet<int> Parse(string list)
    {
        HashSet<int> processors = [];
        foreach (string part in list.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            string[] ends = part.Split('-');
            if (int.TryParse(ends[0], NumberStyles.None, CultureInfo.InvariantCulture, out int first) && int.TryParse(ends[^1], NumberStyles.None, CultureInfo.InvariantCulture, out int last))
            {
                processors.UnionWith(Enumerable.Range(first, Math.Max(0, last - first + 1)));
            }
        }

        return processors;
    }

    private static string Allowed()
    {
        const string Key = "Cpus_allowed_list:";
        string? line = Text(StatusFile).Split('\n').FirstOrDefault(l => l.StartsWith(Key, StringComparison.Ordinal));
        return line is null ? FormattableString.Invariant($"0-{Environment.ProcessorCount - 1}") : line[Key.Length..].Trim();
    }

    private static string Text(string file)
    {
        try
        {
            return File.ReadAllText(file).Trim();
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}
