using System.IO.Hashing;
using HpcBatchNorm.Data;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

public sealed class BatchLoaderTests(SampleFixture sample) : IClassFixture<SampleFixture>
{
    private static readonly LoaderOptions Training = LoaderOptions.ForTraining(batchSize: 7, imageSize: 32, seed: 11) with
    {
        Augmentation = new AugmentationOptions { PhotometricStrength = 0.6, LightingNoise = true, Policy = AutomaticPolicy.Rand, ErasingProbability = 0.25 },
    };

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(ShuffleMode.Global)]
    [InlineData(ShuffleMode.Shard)]
    public void Next_OneOrFourWorkers_GivesIdenticalBatches(ShuffleMode shuffle)
    {
        const int Batches = 1000;
        LoaderOptions options = Training with { Shuffle = shuffle, ShardSize = 20 };
        string[] one = Hashes(options with { Workers = 1 }, 0, Batches), four = Hashes(options with { Workers = 4, Prefetch = 5 }, 0, Batches);
        Assert.Equal(one, four);
        Assert.Equal(Batches, one.Distinct().Count());
    }

    [Theory]
    [InlineData(ShuffleMode.None)]
    [InlineData(ShuffleMode.Global)]
    [InlineData(ShuffleMode.Shard)]
    public void FirstStep_InTheMiddleOfAnEpoch_GivesTheRestOfIt(ShuffleMode shuffle)
    {
        LoaderOptions options = Training with { Shuffle = shuffle, ShardSize = 13, Workers = 2 };
        Assert.Equal(Hashes(options, 0, 40)[23..], Hashes(options with { Workers = 3 }, 23, 17));
    }

    [Fact]
    public void BatchThatWentBack_AndSourceThatIsClosed_AreNotRead()
    {
        ImageDataset closed = ImageDataset.Open(sample.Path, DatasetSplit.Train, cacheDirectory: null);
        closed.Dispose();
        byte[] buffer = [];
        Assert.Throws<ObjectDisposedException>(() => closed.Read(0, ref buffer));

        using var loader = new BatchLoader(sample.Train, LoaderOptions.ForTraining(4, 32, seed: 1));
        Batch first = loader.Next(Token);
        Assert.Equal(first.PixelArray, first.Pixels);
        Batch second = loader.Next(Token);
        Assert.Throws<ObjectDisposedException>(() => _ = first.Pixels.Length);
        Assert.Equal(4, second.Labels.Length);
        second.Dispose();
        Assert.Throws<ObjectDisposedException>(() => _ = second.Labels.Length);
        Assert.Throws<ObjectDisposedException>(() => _ = second.Indices.Length);
    }

    [Fact]
    public void Seek_AnyStep_GivesTheBatchesOfAnUninterruptedRun()
    {
        string[] whole = Hashes(Training, 0, 60);
        Assert.Equal(whole[43..], Hashes(Training, 43, 17));

        using var loader = new BatchLoader(sample.Train, Training with { Workers = 3 });
        for (int i = 0; i < 5; i++)
        {
            loader.Next(Token);
        }

        foreach (int step in (int[])[30, 0, 59])
        {
            loader.Seek(step);
            Assert.Equal(step, loader.NextStep);
            Batch batch = loader.Next(Token);
            Assert.Equal(step, batch.Step);
            Assert.Equal(whole[step], Hash(batch));
        }
    }

    [Theory]
    [InlineData(ShuffleMode.Global)]
    [InlineData(ShuffleMode.Shard)]
    public void Next_TrainingEpoch_ShufflesWithoutRepeatAndDropsTheRest(ShuffleMode shuffle)
    {
        using var loader = new BatchLoader(sample.Train, Training with { Shuffle = shuffle, ShardSize = 25 });
        Assert.Equal(120 / 7, loader.BatchesPerEpoch);
        for (int epoch = 0; epoch < 3; epoch++)
        {
            var seen = new HashSet<int>();
            for (int i = 0; i < loader.BatchesPerEpoch; i++)
            {
                Batch batch = loader.Next(Token);
                Assert.Equal((7, epoch, i == loader.BatchesPerEpoch - 1), (batch.Count, (int)batch.Epoch, batch.LastOfEpoch));
                Assert.All(batch.IndexArray, index => Assert.True(seen.Add(index)));
                Assert.Equal(batch.IndexArray.Select(sample.Train.Label), batch.LabelArray);
            }
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Next_PackedSetInShards_UsesItsShardsWhereTheyAreMixed(bool packedShuffled)
    {
        using var folder = new TemporaryFolder();
        Packer.Run(sample.Path, folder["packed"], new PackOptions { ShardImages = 24, Shuffle = packedShuffled }, cancellationToken: Token);
        using ImageDataset packed = ImageDataset.Open(folder["packed"], DatasetSplit.Train, cacheDirectory: null);
        LoaderOptions options = LoaderOptions.ForTraining(8, 16, seed: 4) with { Shuffle = ShuffleMode.Shard, ShardSize = 24 };
        using var loader = new BatchLoader(packed, options);
        var together = new HashSet<string>();
        for (int epoch = 0; epoch < 2; epoch++)
        {
            int[] shards = [.. Enumerable.Range(0, loader.BatchesPerEpoch).SelectMany(_ => loader.Next(Token).IndexArray).Select(packed.Shard)];
            int[] turns = [.. shards.Where((shard, i) => i % 24 == 0)];
            Assert.Equal(packedShuffled, shards.Select((shard, i) => shard == turns[i / 24]).All(same => same));
            together.Add(string.Join(',', turns));
        }

        Assert.Equal(2, together.Count);
    }

    [Fact]
    public void Next_Evaluation_ShowsEachImageExactlyOnceWithItsLabel()
    {
        using var loader = new BatchLoader(sample.Validation, LoaderOptions.ForEvaluation(8, 32) with { Workers = 2, EndStep = 5 });
        var indices = new List<int>();
        Batch batch;
        do
        {
            batch = loader.Next(Token);
            indices.AddRange(batch.IndexArray.AsSpan(0, batch.Count));
            Assert.Equal(batch.IndexArray.Take(batch.Count).Select(sample.Validation.Label), batch.LabelArray.Take(batch.Count));
        }
        while (!batch.LastOfEpoch);

        Assert.Equal(Enumerable.Range(0, 36), indices);
        Assert.Equal(4, batch.Count);
        Assert.All(batch.PixelArray.AsSpan(4 * batch.ImageBytes).ToArray(), value => Assert.Equal(0, value));
        Assert.Throws<InvalidOperationException>(() => loader.Next(Token));
        loader.Seek(0);
        Assert.Equal(0, loader.Next(Token).Indices[0]);
    }

    [Fact]
    public void Next_TenCrops_HoldsAllViewsOfEachImage()
    {
        using var loader = new BatchLoader(sample.Validation, LoaderOptions.ForEvaluation(2, 32) with { Crops = 10 });
        Batch batch = loader.Next(Token);
        Assert.Equal([0, 1], batch.IndexArray);
        Assert.Equal(10 * 32 * 32 * 3, batch.ImageBytes);
        byte[] first = batch.PixelArray[..(32 * 32 * 3)], mirrored = batch.PixelArray[(32 * 32 * 3)..(2 * 32 * 32 * 3)];
        Assert.Equal(first[..3], mirrored[93..96]);
        Assert.NotEqual(first, mirrored);
    }

    [Fact]
    public void Next_EvaluationCropOfAnImageOfTheSameSize_IsTheImage()
    {
        using var folder = new TemporaryFolder();
        folder.Write("a/1.png", TestImages.Encode(16, 16, (x, y) => new SKColor((byte)(x * 16), (byte)(y * 16), 5), SKEncodedImageFormat.Png));
        using ImageDataset data = ImageDataset.Open(folder.Path, DatasetSplit.Validation, cacheDirectory: null);
        using var loader = new BatchLoader(data, LoaderOptions.ForEvaluation(1, 16) with { CropFraction = 1 });
        Batch batch = loader.Next(Token);
        for (int i = 0; i < 256; i++)
        {
            Assert.Equal([(byte)(i % 16 * 16), (byte)(i / 16 * 16), 5], batch.PixelArray[(3 * i)..(3 * i + 3)]);
        }
    }

    [Fact]
    public void BadImages_InTraining_AreReplacedWithTheNextOnesOwnLabelWhateverTheWorkers()
    {
        using TemporaryFolder folder = WithBadImages();
        using ImageDataset data = ImageDataset.Open(folder.Path, DatasetSplit.Train, cacheDirectory: null);
        LoaderOptions options = LoaderOptions.ForTraining(4, 16, seed: 2);
        foreach (int workers in (int[])[1, 3])
        {
            using var loader = new BatchLoader(data, options with { Workers = workers });
            for (int step = 0; step < 3 * loader.BatchesPerEpoch; step++)
            {
                Batch batch = loader.Next(Token);
                Assert.Equal(4, batch.Count);
                for (int i = 0; i < 4; i++)
                {
                    // Every class has its own colour, so a wrong label would show.
                    Assert.Equal(data.Label(batch.IndexArray[i]), batch.LabelArray[i]);
                    Assert.Equal(batch.LabelArray[i] == 0 ? 255 : 0, batch.PixelArray[i * batch.ImageBytes], 3.0);
                }
            }

            Assert.Equal(
                [("red/cut.jpg", ImageStatus.Truncated), ("red/empty.jpg", ImageStatus.Empty), ("red/text.jpg", ImageStatus.NotAnImage)],
                loader.BadImages.Select(bad => (bad.Name, bad.Status)));
        }
    }

    [Fact]
    public void BadImages_InEvaluation_AreLeftOut()
    {
        using TemporaryFolder folder = WithBadImages();
        using ImageDataset data = ImageDataset.Open(folder.Path, DatasetSplit.Validation, cacheDirectory: null);
        using var loader = new BatchLoader(data, LoaderOptions.ForEvaluation(5, 16));
        var seen = new List<string>();
        Batch batch;
        do
        {
            batch = loader.Next(Token);
            seen.AddRange(batch.IndexArray.Take(batch.Count).Select(data.Name));
            for (int i = 0; i < batch.Count; i++)
            {
                Assert.Equal(batch.LabelArray[i] == 0 ? 255 : 0, batch.PixelArray[i * batch.ImageBytes], 3.0);
            }
        }
        while (!batch.LastOfEpoch);

        Assert.Equal(Enumerable.Range(0, data.Count).Select(data.Name).Except(loader.BadImages.Select(bad => bad.Name)), seen);
        Assert.Equal(3, loader.BadImages.Count);
    }

    [Fact]
    public void BadImages_PolicyFail_NamesTheFile()
    {
        using TemporaryFolder folder = WithBadImages();
        using ImageDataset data = ImageDataset.Open(folder.Path, DatasetSplit.Validation, cacheDirectory: null);
        using var loader = new BatchLoader(data, LoaderOptions.ForEvaluation(20, 16) with { OnBadImage = BadImagePolicy.Fail, Workers = 2 });
        var error = Assert.Throws<UserErrorException>(() => loader.Next(Token));
        Assert.Contains("'red/cut.jpg'", error.Message, StringComparison.Ordinal);
        Assert.Contains("is cut short", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void BadImages_NothingElse_IsAnErrorNotAnEndlessSearch()
    {
        using var folder = new TemporaryFolder();
        folder.Write("a/1.jpg", []);
        folder.Write("a/2.jpg", "no"u8.ToArray());
        using ImageDataset data = ImageDataset.Open(folder.Path, DatasetSplit.Train, cacheDirectory: null);
        using var loader = new BatchLoader(data, LoaderOptions.ForTraining(2, 16, 0));
        Assert.Contains("none of the 2 images", Assert.Throws<UserErrorException>(() => loader.Next(Token)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Next_Cancelled_StopsWaitingAndCanBeAskedAgain()
    {
        using var loader = new BatchLoader(sample.Train, Training with { BatchSize = 60, ImageSize = 224, Prefetch = 1 });
        using var source = new CancellationTokenSource(TimeSpan.FromMilliseconds(2));
        Assert.Throws<OperationCanceledException>(() => loader.Next(source.Token));
        Assert.Equal(0, loader.NextStep);
        Assert.Equal(0, loader.Next(Token).Step);
    }

    [Fact]
    public void Options_OutOfRange_AreUserErrors()
    {
        foreach (LoaderOptions options in (LoaderOptions[])[
            Training with { BatchSize = 0 }, Training with { ImageSize = 0 }, Training with { Workers = 0 }, Training with { Prefetch = 0 },
            Training with { CropFraction = 0 }, Training with { Crops = 10 }, Training with { Augmentation = new() { MinArea = 0 } },
            Training with { Augmentation = new() { PhotometricStrength = double.NaN } }, Training with { BatchSize = 121 }])
        {
            Assert.Throws<UserErrorException>(() => new BatchLoader(sample.Train, options));
        }
    }

    private static TemporaryFolder WithBadImages()
    {
        var folder = new TemporaryFolder();
        for (int i = 0; i < 6; i++)
        {
            folder.Write($"red/good{i}.jpg", TestImages.Jpeg(40, 30, SKColors.Red));
            folder.Write($"teal/good{i}.jpg", TestImages.Jpeg(30, 40, new SKColor(0, 128, 128)));
        }

        folder.Write("red/empty.jpg", []);
        folder.Write("red/text.jpg", "not an image"u8.ToArray());
        folder.Write("red/cut.jpg", TestImages.Texture(80, 60)[..900]);
        return folder;
    }

    private string[] Hashes(LoaderOptions options, long first, int count)
    {
        using var loader = new BatchLoader(sample.Train, options, first);
        string[] hashes = new string[count];
        for (int i = 0; i < count; i++)
        {
            hashes[i] = Hash(loader.Next(Token));
        }

        return hashes;
    }

    private static string Hash(Batch batch) =>
        $"{XxHash3.HashToUInt64(batch.PixelArray):x} {string.Join(',', batch.LabelArray)} {string.Join(',', batch.IndexArray)} {batch.Count} {batch.LastOfEpoch}";
}
