using HpcBatchNorm.Data;

namespace HpcBatchNorm.Tests.Data;

public sealed class ImageOrderTests
{
    [Fact]
    public void EpochOrder_AnyCount_VisitsEachImageOnceDifferentlyInEachEpoch()
    {
        foreach (int count in (int[])[1, 2, 3, 10, 1000, 1024, 1025])
        {
            int[] first = Order(1, 0, count), second = Order(1, 1, count);
            Assert.Equal(Enumerable.Range(0, count), first.Order());
            Assert.Equal(Enumerable.Range(0, count), second.Order());
            if (count >= 1000)
            {
                Assert.InRange(first.Zip(second).Count(pair => pair.First == pair.Second), 0, 8);
                Assert.InRange(first.Zip(first.Skip(1)).Count(pair => pair.Second == pair.First + 1), 0, 8);
            }
        }
    }

    [Fact]
    public void EpochOrder_ManyEpochs_PutsEveryImageEverywhereEquallyOften()
    {
        const int Count = 11, Epochs = 5500;
        int[,] seen = new int[Count, Count];
        for (uint epoch = 0; epoch < Epochs; epoch++)
        {
            int[] order = Order(3, epoch, Count);
            for (int i = 0; i < Count; i++)
            {
                seen[i, order[i]]++;
            }
        }

        // Chi-square with 100 degrees of freedom: mean 100, deviation 14.
        double expected = Epochs / (double)Count, chiSquare = 0;
        foreach (int times in seen)
        {
            chiSquare += (times - expected) * (times - expected) / expected;
        }

        Assert.InRange(chiSquare, 50, 160);
    }

    [Theory]
    [InlineData(ShuffleMode.None, true)]
    [InlineData(ShuffleMode.Fixed, true)]
    [InlineData(ShuffleMode.Global, false)]
    [InlineData(ShuffleMode.Shard, false)]
    public void At_TheNextEpoch_IsAnotherOrderWhereTheModeSaysSo(ShuffleMode mode, bool same)
    {
        var order = new ImageOrder(mode, 7, 1000, new ShardTable(7, 1000, 100));
        int[] first = Epoch(order, 0, 1000), second = Epoch(order, 1, 1000);
        Assert.Equal(Enumerable.Range(0, 1000), second.Order());
        // At random, one image is where it was; of shards, one of ten is too, and one of its images.
        Assert.InRange(first.Zip(second).Count(pair => pair.First == pair.Second), same ? 1000 : 0, same ? 1000 : 20);
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(10, 3)]
    [InlineData(1000, 1)]
    [InlineData(1000, 64)]
    [InlineData(1000, 5000)]
    public void Shard_AnySize_VisitsEachImageOnceInEveryEpoch(int count, int shardSize)
    {
        var shards = new ShardTable(7, count, shardSize);
        var order = new ImageOrder(ShuffleMode.Shard, 7, count, shards);
        for (uint epoch = 0; epoch < 3; epoch++)
        {
            Assert.Equal(Enumerable.Range(0, count), Epoch(order, epoch, count).Order());
        }

        int[] lengths = [.. Enumerable.Range(0, shards.Count).Select(shards.Length)];
        Assert.Equal(count, lengths.Sum());
        Assert.InRange(lengths.Max() - lengths.Min(), 0, 1);
    }

    [Fact]
    public void Shard_Dealt_MixesWithinShardsOnlyAndInANewOrderEachEpoch()
    {
        const int Count = 1000;
        var shards = new ShardTable(7, Count, 100);
        int[] home = new int[Count];
        for (int shard = 0; shard < shards.Count; shard++)
        {
            for (int i = 0; i < shards.Length(shard); i++)
            {
                home[shards.Image(shard, i)] = shard;
            }
        }

        CheckMixing(new ImageOrder(ShuffleMode.Shard, 7, Count, shards), home, shards);

        // Dealt out at random: a shard holds images from everywhere (mean 499.5, deviation of a mean of 100 about 29), and another seed deals otherwise.
        for (int shard = 0; shard < shards.Count; shard++)
        {
            Assert.InRange(Enumerable.Range(0, Count).Where(i => home[i] == shard).Average(), 380, 620);
        }

        var others = new ShardTable(8, Count, 100);
        Assert.InRange(Enumerable.Range(0, 100).Count(i => home[others.Image(0, i)] == 0), 0, 30);
    }

    [Fact]
    public void Shard_Stored_MixesWithinTheStoredShardsOnly()
    {
        int[] starts = [0, 1, 40, 300, 777];
        const int Count = 800;
        var shards = new ShardTable(starts, Count);
        int[] home = [.. Enumerable.Range(0, Count).Select(i => starts.Count(start => start <= i) - 1)];
        Assert.Equal([1, 39, 260, 477, 23], Enumerable.Range(0, 5).Select(shards.Length));
        CheckMixing(new ImageOrder(ShuffleMode.Shard, 3, Count, shards), home, shards);
    }

    [Fact]
    public void Shard_AnyPositionInAnyOrderOfAsking_IsTheSame()
    {
        var shards = new ShardTable(1, 500, 32);
        int[] expected = Epoch(new ImageOrder(ShuffleMode.Shard, 1, 500, shards), 4, 500);
        var order = new ImageOrder(ShuffleMode.Shard, 1, 500, shards);
        var random = new Random(1);
        for (int i = 0; i < 300; i++)
        {
            int position = random.Next(500);
            _ = order.At((uint)random.Next(6), random.Next(500));
            Assert.Equal(expected[position], order.At(4, position));
        }
    }

    [Fact]
    public void None_IsTheOrderOfTheDataSet() =>
        Assert.Equal(Enumerable.Range(0, 50), Epoch(new ImageOrder(ShuffleMode.None, 1, 50, new ShardTable(1, 50, 8)), 3, 50));

    [Fact]
    public void Fixed_IsOneRandomOrderForAllEpochs()
    {
        int[] first = Epoch(new ImageOrder(ShuffleMode.Fixed, 3, 1000, new ShardTable(3, 1000, 8)), 0, 1000);

        Assert.Equal(Enumerable.Range(0, 1000), first.Order());
        Assert.InRange(first.Zip(first.Skip(1)).Count(pair => pair.Second == pair.First + 1), 0, 8);
        Assert.Equal(first, Epoch(new ImageOrder(ShuffleMode.Fixed, 3, 1000, new ShardTable(3, 1000, 8)), 7, 1000));
        Assert.NotEqual(first, Epoch(new ImageOrder(ShuffleMode.Fixed, 4, 1000, new ShardTable(4, 1000, 8)), 0, 1000));
    }

    /// <summary>Every shard's images stand together, whole and mixed, and shards and images change places between epochs.</summary>
    private static void CheckMixing(ImageOrder order, int[] home, ShardTable shards)
    {
        int[][] epochs = [.. Enumerable.Range(0, 2).Select(epoch => Epoch(order, (uint)epoch, home.Length))];
        int[][] turns = new int[2][];
        for (int epoch = 0; epoch < 2; epoch++)
        {
            Assert.Equal(Enumerable.Range(0, home.Length), epochs[epoch].Order());
            int[] visited = [.. epochs[epoch].Select(image => home[image])];
            turns[epoch] = [.. visited.Where((shard, i) => i == 0 || visited[i - 1] != shard)];
            Assert.Equal(Enumerable.Range(0, shards.Count), turns[epoch].Order());
        }

        Assert.NotEqual(turns[0], turns[1]);
        for (int shard = 0; shard < shards.Count; shard++)
        {
            int[] first = [.. epochs[0].Where(i => home[i] == shard)], second = [.. epochs[1].Where(i => home[i] == shard)];
            if (first.Length > 20)
            {
                // The expected number of images that keep their place, or their successor, is about 1.
                Assert.InRange(first.Zip(second).Count(pair => pair.First == pair.Second), 0, 8);
                Assert.InRange(first.Zip(first.Skip(1)).Count(pair => pair.Second == pair.First + 1), 0, 8);
            }
        }
    }

    private static int[] Epoch(ImageOrder order, uint epoch, int count) => [.. Enumerable.Range(0, count).Select(i => order.At(epoch, i))];

    private static int[] Order(ulong seed, uint epoch, int count)
    {
        var order = new EpochOrder(seed, epoch, count);
        return [.. Enumerable.Range(0, count).Select(i => order[i])];
    }
}
