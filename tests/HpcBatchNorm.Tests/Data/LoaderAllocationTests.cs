using HpcBatchNorm.Data;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Tests.Data;

/// <summary>Loading makes no garbage: not a byte per image once buffers have grown to the largest image.</summary>
public sealed class LoaderAllocationTests(SampleFixture sample) : IClassFixture<SampleFixture>
{
    private static readonly AugmentationOptions Augmentation = new() { PhotometricStrength = 1, LightingNoise = true, Policy = AutomaticPolicy.Rand, ErasingProbability = 0.5 };

    [Fact]
    public void Render_Archive_AllocatesNothing() => AssertNoGarbage(sample.Train, 32, 500);

    [Fact]
    public void Render_ClassFolders_AllocatesNothing()
    {
        using var folder = new TemporaryFolder();
        for (int i = 0; i < 10; i++)
        {
            folder.Write($"a/{i}.jpg", TestImages.Texture(60 + i, 50));
        }

        using ImageDataset data = ImageDataset.Open(folder.Path, DatasetSplit.Train, cacheDirectory: null);
        AssertNoGarbage(data, 32, 500);
    }

    [Theory]
    [InlineData("imagenet-photos", 224, 300)]
    [InlineData("tiny-ilsvrc2012", 64, 2000)]
    public void Render_RealImages_AllocatesNothing(string name, int size, int images)
    {
        using ImageDataset data = ImageDataset.Open(RepoPaths.SharedDataOrSkip(name), DatasetSplit.Train, cacheDirectory: null);
        AssertNoGarbage(data, size, images);
    }

    [Fact]
    public void Next_SteadyState_AllocatesNothingOnTheConsumersThread()
    {
        using var source = new CancellationTokenSource();
        using var loader = new BatchLoader(sample.Train, LoaderOptions.ForTraining(8, 32, 1) with { Workers = 2 });
        for (int step = 0; step < 100; step++)
        {
            loader.Next(source.Token);
        }

        Assert.Equal(0, ManagedAllocation.Measure(200, () => loader.Next(source.Token)));
    }

    private static void AssertNoGarbage(ImageDataset data, int size, int images)
    {
        LoaderOptions options = LoaderOptions.ForTraining(8, size, seed: 3) with { Augmentation = Augmentation };
        byte[] pixels = new byte[size * size * 3];
        using var renderer = new ImageRenderer(data, options, new StageClock());
        var order = new ImageOrder(ShuffleMode.Shard, 3, data.Count, new ShardTable(3, data.Count, 50));
        int next = 0;
        void Render()
        {
            int position = next % images % data.Count;
            _ = order.At((uint)next++ / 10, position);
            if (renderer.Render(order.At(0, position), 0, (uint)position, pixels) != ImageStatus.Ok)
            {
                throw new InvalidOperationException($"'{data.Name(order.At(0, position))}' is bad.");
            }
        }

        // The same crops again and again: the first time buffers grow, and code is compiled.
        for (int i = 0; i < images; i++)
        {
            Render();
        }

        Assert.Equal(0, ManagedAllocation.Measure(images, Render));
    }
}
