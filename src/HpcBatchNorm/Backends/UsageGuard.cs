using System.Diagnostics.CodeAnalysis;

namespace HpcBatchNorm.Backends;

/// <summary>
/// Lets one thread at a time into something, as often as that thread likes, and refuses a second one with an exception instead of letting both compute
/// garbage. Entering costs one interlocked operation and allocates nothing.
/// </summary>
internal sealed class UsageGuard
{
    private int _thread;

    /// <summary>Enters until the result is disposed of.</summary>
    /// <param name="what">What is entered, for the message.</param>
    /// <exception cref="InvalidOperationException">Another thread is inside.</exception>
    public Scope Enter(string what)
    {
        int current = Environment.CurrentManagedThreadId;
        int inside = Interlocked.CompareExchange(ref _thread, current, 0);
        if (inside != 0 && inside != current)
        {
            ThrowInUse(what, inside, current);
        }

        return new Scope(inside == 0 ? this : null);
    }

    [DoesNotReturn]
    private static void ThrowInUse(string what, int inside, int current) => throw new InvalidOperationException(FormattableString.Invariant(
        $"Thread {current} called {what} while thread {inside} is inside it. One thread at a time may use it, and whatever shares its memory: wait for the other call, or give each thread one of its own (a Classifier does that for you)."));

    /// <summary>The time inside.</summary>
    public readonly ref struct Scope(UsageGuard? guard)
    {
        /// <summary>The thread was inside already.</summary>
        public bool IsNested => guard is null;

        /// <summary>Leaves, unless the thread was inside already.</summary>
        public void Dispose()
        {
            if (guard is not null)
            {
                Volatile.Write(ref guard._thread, 0);
            }
        }
    }
}
