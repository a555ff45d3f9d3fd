using System.Globalization;

namespace HpcBatchNorm.Backends;

/// <summary>How many threads a backend computes with is settled once, here; what the runtime then really gives is checked by who starts the threads.</summary>
/// <param name="Wanted">The number; 0: one per physical core that the process may use, but no more than <paramref name="Most"/>.</param>
/// <param name="Most">What a CPU quota leaves of the cores; 0 where there is none.</param>
/// <param name="Reason">Where the number comes from, for people.</param>
internal sealed record ThreadTeam(int Wanted, int Most, string Reason)
{
    /// <summary>More threads than any machine has processors: beyond it is a mistake.</summary>
    public const int Largest = 4096;

    /// <summary>
    /// What was asked for, else the first number of <c>OMP_NUM_THREADS</c>, as for every OpenMP program, else one per core within the CPU quotas of the process's
    /// control groups.
    /// </summary>
    /// <param name="asked">0: nothing was asked for.</param>
    /// <param name="ompNumThreads">The environment variable.</param>
    /// <param name="groups">The process's control groups.</param>
    /// <exception cref="UserErrorException">A number is negative or beyond <see cref="Largest"/>.</exception>
    public static ThreadTeam Choose(int asked, string? ompNumThreads, ControlGroups groups)
    {
        if (asked is < 0 or > Largest)
        {
            throw new UserErrorException(FormattableString.Invariant($"The number of threads is {asked}; it must be 0 (one per core) or at most {Largest}."));
        }

        if (asked > 0)
        {
            return new ThreadTeam(asked, 0, "as asked for");
        }

        // A list gives a number for each level of nesting; there is one level.
        string first = (ompNumThreads ?? "").Split(',')[0].Trim();
        if (first.Length > 0 && int.TryParse(first, NumberStyles.None, CultureInfo.InvariantCulture, out int variable) && variable > 0)
        {
            return variable <= Largest
                ? new ThreadTeam(variable, 0, "from OMP_NUM_THREADS")
                : throw new UserErrorException(FormattableString.Invariant($"OMP_NUM_THREADS is {variable}; it must be between 1 and {Largest}."));
        }

        double? quota = ProcessorQuota(groups);
        return quota is null
            ? new ThreadTeam(0, 0, "one per core")
            : new ThreadTeam(0, Math.Max(1, (int)Math.Round(Math.Min(quota.Value, Largest))), FormattableString.Invariant($"one per core, within a CPU quota of {quota:0.##}"));
    }

    /// <summary>
    /// The processors' worth of time that the process is granted: the smallest quota of its control group and those above it, in version 2 (<c>cpu.max</c>) and
    /// version 1 (<c>cpu.cfs_quota_us</c>); null where there is none.
    /// </summary>
    public static double? ProcessorQuota(ControlGroups groups)
    {
        double? smallest = null;
        foreach ((string folder, bool unified) in groups.Folders("cpu"))
        {
            string[] parts = unified
                ? ControlGroups.Text(Path.Combine(folder, "cpu.max")).Split((char[])[' ', '\n'], StringSplitOptions.RemoveEmptyEntries)
                : [.. new[] { "cpu.cfs_quota_us", "cpu.cfs_period_us" }.Select(f => ControlGroups.Text(Path.Combine(folder, f)).Trim())];
            if (parts.Length == 2 && Number(parts[0]) is > 0 and var quota && Number(parts[1]) is > 0 and var period)
            {
                smallest = Math.Min(smallest ?? double.MaxValue, quota / period);
            }
        }

        return smallest;

        static double Number(string text) => double.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out double value) ? value : 0;
    }

    /// <summary>Where the threads come from, when <paramref name="given"/> were got of <paramref name="wanted"/>.</summary>
    public string Describe(int given, int wanted) => given == wanted
        ? Reason
        : FormattableString.Invariant($"{wanted} wanted ({Reason}), but OpenMP gives no more: OMP_THREAD_LIMIT or another of its variables limits them");
}
