using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends;

/// <summary>
/// What connects the processes ("ranks") that train one network together. All ranks make the same calls in the same order, from one thread each. Every result is the
/// same on all ranks, bit for bit, and in every run of as many ranks: sums go through the ranks in their order.
/// </summary>
internal interface ICollectives
{
    /// <summary>Number of this rank, from 0.</summary>
    int Rank { get; }

    /// <summary>How many there are.</summary>
    int Ranks { get; }

    /// <summary>
    /// A mean over the ranks of values that stay where they are; made once and started every step. Every rank has pieces of the same lengths. With
    /// <paramref name="narrow"/> each rank's values, and then their mean, are rounded to bfloat16, as which they travel.
    /// </summary>
    ICollectiveMean CreateMean(IReadOnlyList<HostValues> pieces, bool narrow);

    /// <summary>
    /// Values of every rank of this rank's group, one rank after the other; returns when they are there. All give equally many. Groups are <paramref name="members"/>
    /// ranks in a row, the first one beginning with rank 0.
    /// </summary>
    void AllGather(ReadOnlySpan<double> mine, Span<double> all, int members);
}

/// <summary>A mean over the ranks, written over each rank's own values.</summary>
internal interface ICollectiveMean : IDisposable
{
    /// <summary>Begins; the values must not be touched until <see cref="Wait"/> has returned. Allocates nothing.</summary>
    void Start();

    /// <summary>Waits until the mean stands in the place of the values.</summary>
    void Wait();
}

/// <summary>Values that lie together in the host's memory.</summary>
/// <param name="Address">The first.</param>
/// <param name="Count">How many.</param>
/// <param name="Type"><see cref="DataType.Float32"/> or <see cref="DataType.Float64"/>.</param>
internal readonly record struct HostValues(nint Address, long Count, DataType Type);
