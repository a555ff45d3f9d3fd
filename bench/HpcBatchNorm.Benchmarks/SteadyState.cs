using HpcBatchNorm.Backends;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Benchmarks;

/// <summary>What holds before anything is timed.</summary>
internal static class SteadyState
{
    /// <summary>Runs <paramref name="action"/> some times, and throws if the last ones allocated managed memory.</summary>
    public static void RequireNoAllocation(string name, Action action)
    {
        action();
        long allocated = ManagedAllocation.Measure(3, action);
        if (allocated > 0)
        {
            throw new InvalidOperationException($"Not timed: {name} allocated {allocated} managed bytes in three calls; a steady state allocates none.");
        }
    }
}

/// <summary>What each backend's machine can do at best, measured once, in this process.</summary>
internal static class MeasuredLimits
{
    private static readonly Dictionary<string, MachineLimits?> Known = [];

    /// <summary>Measures the first time it is asked.</summary>
    public static MachineLimits? Of(Backend backend)
    {
        if (!Known.TryGetValue(backend.Name, out MachineLimits? limits))
        {
            Known[backend.Name] = limits = backend.MeasureLimits();
        }

        return limits;
    }

    /// <summary>What was measured; null before, and for a backend that measures nothing.</summary>
    public static MachineLimits? Of(string backend) => Known.GetValueOrDefault(backend);
}
