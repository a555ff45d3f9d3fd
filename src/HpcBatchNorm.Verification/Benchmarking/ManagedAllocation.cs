namespace HpcBatchNorm.Verification.Benchmarking;

/// <summary>What something allocates on the managed heap in steady state.</summary>
internal static class ManagedAllocation
{
    /// <summary>
    /// A collection, which the garbage of any thread may cause, takes what is left of this thread's allocation buffer, and the runtime counts that as
    /// allocated. It is rare: in one of so many windows none happens.
    /// </summary>
    private const int Windows = 5;

    /// <summary>Managed bytes that this thread allocates in a number of calls: the least of up to five such windows, so that only what each allocates counts.</summary>
    /// <param name="calls">Calls in a window, at least 1.</param>
    /// <param name="action">Called <paramref name="calls"/> times or a multiple of that. Make what it needs, and compile it, before.</param>
    public static long Measure(int calls, Action action)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(calls, 1);
        ArgumentNullException.ThrowIfNull(action);
        long least = long.MaxValue;
        for (int window = 0; window < Windows && least > 0; window++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < calls; i++)
            {
                action();
            }

            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }

        return least;
    }
}
