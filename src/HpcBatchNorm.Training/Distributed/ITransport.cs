using HpcBatchNorm.Backends;

namespace HpcBatchNorm.Training.Distributed;

/// <summary>How the ranks of a <see cref="Communicator"/> reach one another. One thread per rank makes all calls, in the same order on all ranks.</summary>
internal interface ITransport : ICollectives, IDisposable
{
    /// <summary>Number of this rank among those of its machine.</summary>
    int LocalRank { get; }

    /// <summary>Ranks of its machine.</summary>
    int LocalRanks { get; }

    /// <summary>What does it, for people: the library and its version.</summary>
    string Description { get; }

    /// <summary>What each rank is called in messages: its number, machine and process; set once they are known.</summary>
    IReadOnlyList<string> Names { get; set; }

    /// <summary>How long an answer may take; zero: for ever.</summary>
    TimeSpan Timeout { get; set; }

    /// <summary>Seconds in which means were under way, and those of them that somebody waited for.</summary>
    (double Busy, double Waited) MeanSeconds { get; }

    /// <summary>Brings <paramref name="lengths"/>[r] bytes of each rank r to rank <paramref name="root"/>, or to all where that is -1, one after the other.</summary>
    void Gather(ReadOnlySpan<byte> mine, ReadOnlySpan<long> lengths, int root, Span<byte> all);

    /// <summary>Ends all ranks at once; <paramref name="code"/> is what the launcher reports.</summary>
    void Abort(int code);
}
