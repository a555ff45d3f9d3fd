using HpcBatchNorm.Data;

namespace HpcBatchNorm.Tests.Distributed;

/// <summary>What ranks load: together the images of one loader, in its order.</summary>
public class LoaderShareTests
{
    [Theory]
    [InlineData(100, 1, 7, 1)]
    [InlineData(100, 2, 7, 1)]
    [InlineData(97, 3, 4, 2)]
    [InlineData(64, 4, 4, 4)]
    [InlineData(40, 8, 5, 1)]
    public void Parts_TogetherAreTheStepsOfOneLoader(int images, int parts, int batch, int accumulate)
    {
        InMemoryImageSource source = Source(images);
        LoaderOptions options = LoaderOptions.ForTraining(parts * batch * accumulate, 4, 5) with { Augmentation = AugmentationOptions.None };
        int[][] whole = Load(source, options, 2 * (images / options.BatchSize));

        int[][][] shares = [.. Enumerable.Range(0, parts).Select(p => Load(
            source, options with { BatchSize = batch * accumulate, Share = new LoaderShare(p, parts, batch) }, whole.Length))];

        Assert.NotEmpty(whole);
        for (int step = 0; step < whole.Length; step++)
        {
            // Pass k of the whole step is pass k of every part, one after the other.
            int[] joined = [.. Enumerable.Range(0, accumulate).SelectMany(k => shares.SelectMany(s => s[step].Skip(k * batch).Take(batch)))];
            Assert.Equal(whole[step], joined);
        }

        int perEpoch = whole.Length / 2;
        Assert.Equal(perEpoch * options.BatchSize, whole[..perEpoch].SelectMany(i => i).Distinct().Count());
    }

    /// <summary>An epoch of 100 images of which 37 are behind: the next steps take the ones after them, each once, and the epoch after is whole again.</summary>
    [Theory]
    [InlineData(8)]
    [InlineData(21)]
    [InlineData(50)]
    public void Shift_GoesOnBehindTheImagesSeen(int batch)
    {
        InMemoryImageSource source = Source(100);
        LoaderOptions one = LoaderOptions.ForTraining(1, 4, 5) with { Augmentation = AugmentationOptions.None };
        int[] order = [.. Load(source, one, 200).SelectMany(i => i)];
        int left = 63 / batch, first = 100 / batch - left;

        int[][] steps = Load(source, one with { BatchSize = batch, Shift = new EpochShift(0, 37 - first * batch) }, left + 100 / batch, first);

        Assert.Equal(order[37..(37 + left * batch)], steps[..left].SelectMany(i => i));
        Assert.Equal(order[100..(100 + 100 / batch * batch)], steps[left..].SelectMany(i => i));
    }

    [Fact]
    public void Share_WhosePartIsNone_IsRefused() =>
        Assert.Throws<UserErrorException>(() => new BatchLoader(Source(9), LoaderOptions.ForTraining(2, 4, 5) with { Share = new LoaderShare(2, 2) }));

    private static int[][] Load(InMemoryImageSource source, LoaderOptions options, int steps, int first = 0)
    {
        using var loader = new BatchLoader(source, options, first);
        return [.. Enumerable.Range(0, steps).Select(_ => loader.Next(TestContext.Current.CancellationToken).Indices.ToArray())];
    }

    private static InMemoryImageSource Source(int images) =>
        new(new byte[images * 4 * 4 * 3], 4, 4, 3, [.. Enumerable.Range(0, images).Select(i => i % 3)], ["a", "b", "c"]);
}
