using System.Text;

namespace HpcBatchNorm.Training.Distributed;

/// <summary>A mistake that all ranks know of: each ends by itself, and rank 0 says it for all.</summary>
internal sealed class AgreedException(string message, Exception? inner) : UserErrorException(message, inner ?? new InvalidOperationException(message))
{
    /// <summary>True when an error is one that all ranks know of, or was caused by one.</summary>
    public static bool IsIn(Exception? error)
    {
        while (error is not null and not AgreedException)
        {
            error = error.InnerException;
        }

        return error is not null;
    }
}

/// <summary>What ranks must do together because none of them may go on alone.</summary>
internal static class Agreement
{
    /// <summary>
    /// Throws on all ranks when <paramref name="error"/> is not null on any: the mistakes of those who made one, each with its rank unless all say the same.
    /// </summary>
    public static void ThrowIfAny(this Communicator ranks, Exception? error)
    {
        if (ranks.Size == 1)
        {
            if (error is not null)
            {
                System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(error);
            }

            return;
        }

        string[] messages = [.. ranks.AllGather(Encoding.UTF8.GetBytes(error?.Message ?? "")).Select(Encoding.UTF8.GetString)];
        if (messages.All(m => m.Length == 0))
        {
            return;
        }

        throw new AgreedException(
            messages.Distinct().Count() == 1
                ? messages[0]
                : string.Join(" ", messages.Select((m, r) => m.Length == 0 ? "" : $"{ranks.Names[r]}: {m}").Where(m => m.Length > 0)),
            error);
    }

    /// <summary>Does something on every rank; where it fails with a mistake of the user on any, it throws on all.</summary>
    public static T Together<T>(this Communicator ranks, Func<T> action)
    {
        (T? result, Exception? error) = Try(action);
        ranks.ThrowIfAny(error);
        return result!;
    }

    /// <summary>
    /// The same, first on one rank of each machine and then on the others: what leaves something in the machine's files (an index, generated images) is done once
    /// and found by the others.
    /// </summary>
    public static T OneBeforeOthers<T>(this Communicator ranks, Func<T> action)
    {
        (T? Result, Exception? Error) done = ranks.LocalRank == 0 ? Try(action) : default;
        ranks.ThrowIfAny(done.Error);
        if (ranks.Size == 1)
        {
            return done.Result!;
        }

        if (ranks.LocalRank != 0)
        {
            done = Try(action);
        }

        ranks.ThrowIfAny(done.Error);
        return done.Result!;
    }

    private static (T? Result, Exception? Error) Try<T>(Func<T> action)
    {
        try
        {
            return (action(), null);
        }
        catch (Exception error) when (error is UserErrorException or ArgumentException or NotSupportedException or IOException or UnauthorizedAccessException or OutOfMemoryException)
        {
            return (default, error);
        }
    }
}
