namespace HpcBatchNorm.Data;

/// <summary>
/// Which image stands at each position of each epoch, in any <see cref="ShuffleMode"/>: a function of (seed, epoch, position). Looking one up takes
/// constant time, with shards a search among their ends; the first of an epoch with shards takes time and memory in proportion to their number.
/// Keeps its table; one per thread.
/// </summary>
/// <param name="mode">How images are mixed.</param>
/// <param name="seed">Key of the orders.</param>
/// <param name="count">Images there are.</param>
/// <param name="shards">The shards, for <see cref="ShuffleMode.Shard"/>.</param>
internal sealed class ImageOrder(ShuffleMode mode, ulong seed, int count, ShardTable shards)
{
    // Of the epoch that was looked at last: the shards in the order of their turn, and how many images precede the end of each turn.
    private readonly int[] _turns = mode == ShuffleMode.Shard ? new int[shards.Count] : [];
    private readonly int[] _ends = mode == ShuffleMode.Shard ? new int[shards.Count] : [];
    private long _epoch = -1;

    /// <summary>The image at a position of an epoch; a different one for every position.</summary>
    public int At(uint epoch, int position) => mode switch
    {
        ShuffleMode.Global => new EpochOrder(seed, epoch, count)[position],
        ShuffleMode.Fixed => new EpochOrder(seed, epoch: 0, count)[position],
        ShuffleMode.Shard => InShards(epoch, position),
        _ => position,
    };

    private int InShards(uint epoch, int position)
    {
        if (_epoch != epoch)
        {
            var order = new EpochOrder(seed, epoch, shards.Count, RandomStreams.Shards);
            for (int turn = 0, end = 0; turn < _turns.Length; turn++)
            {
                _turns[turn] = order[turn];
                _ends[turn] = end += shards.Length(_turns[turn]);
            }

            _epoch = epoch;
        }

        int found = _ends.AsSpan().BinarySearch(position);
        int now = found >= 0 ? found + 1 : ~found, shard = _turns[now], length = shards.Length(shard);
        int within = new EpochOrder(seed, epoch, length, RandomStreams.WithinShard, (uint)shard)[position - (_ends[now] - length)];
        return shards.Image(shard, within);
    }
}

/// <summary>
/// The shards of a data set, the same in every epoch. Either they are stored with the images, or the images are dealt out to shards of nearly equal
/// size at random: archives and folders lie class after class, and a shard of one class is no place to shuffle in.
/// </summary>
internal sealed class ShardTable
{
    private readonly IReadOnlyList<int>? _starts;
    private readonly int _count;
    private readonly EpochOrder _deal;

    /// <summary>Deals out <paramref name="count"/> images to as many shards as have about <paramref name="shardSize"/> images, by the seed.</summary>
    public ShardTable(ulong seed, int count, int shardSize)
    {
        _count = count;
        Count = (int)Math.Max(1, Math.Round(count / (double)shardSize));
        _deal = new EpochOrder(seed, epoch: 0, count, RandomStreams.Deal);
    }

    /// <summary>Shards of neighbouring images, given by the first of each.</summary>
    public ShardTable(IReadOnlyList<int> starts, int count) => (_starts, _count, Count) = (starts, count, starts.Count);

    /// <summary>How many shards there are.</summary>
    public int Count { get; }

    /// <summary>How many images a shard has.</summary>
    public int Length(int shard) => Start(shard + 1) - Start(shard);

    /// <summary>An image of a shard.</summary>
    public int Image(int shard, int within)
    {
        int place = Start(shard) + within;
        return _starts is null ? _deal[place] : place;
    }

    private int Start(int shard) => _starts is null ? (int)((long)_count * shard / Count) : shard < Count ? _starts[shard] : _count;
}
