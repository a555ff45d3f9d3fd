using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Data;

/// <summary>
/// A random order of 0 .. count - 1 for each (seed, epoch), any position of which is computed on its own in constant time and memory: a Feistel
/// network over pairs (a, b) of base-r digits, r = ceil(sqrt(count)), whose values at or above count are walked on until they fall below it.
/// </summary>
internal readonly struct EpochOrder
{
    private const int Rounds = 8;

    private readonly ulong _seed;
    private readonly uint _epoch, _count, _radix, _stream, _firstRound;

    /// <summary>The order of an epoch.</summary>
    /// <param name="seed">Key of the order.</param>
    /// <param name="epoch">Key of the order.</param>
    /// <param name="count">How many there are to order, at least 1.</param>
    public EpochOrder(ulong seed, uint epoch, int count)
        : this(seed, epoch, count, RandomStreams.Order)
    {
    }

    /// <param name="seed">Key of the order.</param>
    /// <param name="epoch">Key of the order.</param>
    /// <param name="count">How many there are to order, at least 1.</param>
    /// <param name="stream">What is ordered, one of <see cref="RandomStreams"/>.</param>
    /// <param name="part">Which part of it.</param>
    internal EpochOrder(ulong seed, uint epoch, int count, uint stream, uint part = 0)
    {
        _seed = seed;
        _epoch = epoch;
        _stream = stream;
        _firstRound = part * Rounds;
        _count = (uint)count;
        _radix = (uint)Math.Ceiling(Math.Sqrt(count));
    }

    /// <summary>The image at a position; a different one for every position.</summary>
    public int this[int position]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)position, _count, nameof(position));
            uint value = (uint)position;
            do
            {
                value = Permute(value);
            }
            while (value >= _count);

            return (int)value;
        }
    }

    private uint Permute(uint value)
    {
        (uint a, uint b) = (value / _radix, value % _radix);
        for (uint round = 0; round < Rounds; round++)
        {
            uint random = CounterRandom.Words(_seed, b, _stream, _epoch, _firstRound + round).X;
            (a, b) = (b, (a + (uint)((ulong)random * _radix >> 32)) % _radix);
        }

        return a * _radix + b;
    }
}

/// <summary>The streams of random numbers of this folder: one for each purpose, so that switching one off leaves the others as they were.</summary>
internal static class RandomStreams
{
    public const uint Order = 0xDA7A_0001, Crop = 0xDA7A_0002, Color = 0xDA7A_0003, Sample = 0xDA7A_0004, Deal = 0xDA7A_0005, Shards = 0xDA7A_0006, WithinShard = 0xDA7A_0007, Mix = 0xDA7A_0008, Erase = 0xDA7A_0009,
        Automatic = 0xDA7A_000A;
}
