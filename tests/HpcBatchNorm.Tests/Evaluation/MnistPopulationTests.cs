using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Tests.Evaluation;

/// <summary>
/// Section 3.1 on MNIST: after training, population statistics give better predictions than the statistics of the test batch, and a prediction does not
/// depend on its neighbours. 784-100-100-100-10 with ReLU, plain descent at 0.05, 6000 steps.
/// </summary>
[Trait("Category", "Slow")]
public sealed class MnistPopulationTests
{
    private const int Size = 28, Pixels = Size * Size, Steps = 6000, PopulationBatches = 100;

    // Averaging factor 0.01, as Keras's decay of 0.99.
    private static readonly Network Mlp = NetworkCatalog.Create(
        "mnist-mlp", new NetworkOptions { Classes = 10, Activation = ActivationKind.Relu, InitialDeviation = 0, AveragingFactor = 0.01f });

    [Theory]
    [InlineData(60, 0.005)]
    [InlineData(8, 0.03)]
    public void PopulationStatistics_BeatBatchStatisticsAtTestTime(int batch, double expectedGain)
    {
        string path = RepoPaths.SharedDataOrSkip("mnist");
        Assert.SkipWhen(TrainingFixture.Backend == "reference", "training takes minutes on the reference backend");
        using ImageDataset train = ImageDataset.Open(path, DatasetSplit.Train, cacheDirectory: null), test = ImageDataset.Open(path, DatasetSplit.Validation, cacheDirectory: null);
        using Backend backend = Backend.Create(TrainingFixture.Backend, new BackendOptions { Threads = 1 });
        (byte[] images, int[] labels) = LoadAll(train);

        using var training = new TrainingSession(backend, Mlp, new TrainingOptions { Batch = batch, Height = Size, Width = Size, Mu = 0 });
        var batches = new BatchSource(images, labels, batch);
        for (int step = 0; step < Steps; step++)
        {
            batches.Next();
            training.Step(batches.Images, batches.Labels, new StepContext(step, LearningRate: 0.05f));
        }

        NetworkState running = training.ReadNetworkState();
        using var population = new PopulationStatistics(backend, Mlp, Options(batch), running);
        for (int i = 0; i < PopulationBatches; i++)
        {
            batches.Next();
            population.Add(batches.Images);
        }

        NetworkState state = population.ToState();
        double withPopulation = Accuracy(state, BatchNormStatistics.Running).Top1;
        double withRunning = Accuracy(running, BatchNormStatistics.Running).Top1;
        double withBatch = Accuracy(running, BatchNormStatistics.Batch).Top1;
        TestContext.Current.SendDiagnosticMessage($"batch {batch}: population {withPopulation:P2}, running {withRunning:P2}, batch statistics {withBatch:P2}");
        Assert.True(withPopulation - withBatch >= expectedGain, $"population {withPopulation}, batch {withBatch}");
        Assert.InRange(withRunning - withPopulation, -0.005, 0.005);
        Assert.InRange(withPopulation, batch == 60 ? 0.96 : 0.94, 1);
        AssertIndependent(backend, state, test, batch);

        EvaluationResult Accuracy(NetworkState of, BatchNormStatistics by) =>
            new Evaluator(backend, test, Loading(batch), Options(batch) with { Statistics = by }).Run([new EnsembleMember(Mlp, of)], cancellationToken: TestContext.Current.CancellationToken);
    }

    /// <summary>The same image alone, and in a batch among quite different ones.</summary>
    private static void AssertIndependent(Backend backend, NetworkState state, ImageDataset test, int batch)
    {
        using var loader = new BatchLoader(test, Loading(batch));
        Batch images = loader.Next(TestContext.Current.CancellationToken);
        using ForwardSession together = new(backend, Mlp, Options(batch), state), alone = new(backend, Mlp, Options(1), state);
        float[] all = new float[batch * 10], others = new float[batch * 10], one = new float[10];
        together.Forward(images.PixelArray, all);
        byte[] shuffled = [.. images.PixelArray];
        shuffled.AsSpan(Pixels).Reverse();
        together.Forward(shuffled, others);
        for (int i = 0; i < batch; i++)
        {
            alone.Forward(images.PixelArray.AsSpan(i * Pixels, Pixels), one);
            Assert.Equal(one, all.AsSpan(i * 10, 10).ToArray(), (a, b) => Math.Abs(a - b) <= 1e-5f);
        }

        Assert.Equal(all[..10], others[..10], (a, b) => Math.Abs(a - b) <= 1e-5f);
    }

    private static InferenceOptions Options(int batch) => new() { Batch = batch, Height = Size, Width = Size };

    private static LoaderOptions Loading(int batch) =>
        LoaderOptions.ForEvaluation(batch, Size) with { CropFraction = 1, Channels = 1, Binarize = true };

    private static (byte[] Images, int[] Labels) LoadAll(ImageDataset dataset)
    {
        const int Chunk = 1000;
        byte[] images = new byte[dataset.Count * Pixels];
        int[] labels = new int[dataset.Count];
        using var loader = new BatchLoader(dataset, Loading(Chunk));
        for (int i = 0; i < dataset.Count; i += Chunk)
        {
            using Batch batch = loader.Next(TestContext.Current.CancellationToken);
            batch.PixelArray.CopyTo(images.AsSpan(i * Pixels));
            batch.LabelArray.CopyTo(labels.AsSpan(i));
        }

        return (images, labels);
    }

    /// <summary>Mini-batches drawn at random.</summary>
    private sealed class BatchSource(byte[] images, int[] labels, int batch)
    {
        private RandomSequence _random = new(1, 77);

        public byte[] Images { get; } = new byte[batch * Pixels];

        public int[] Labels { get; } = new int[batch];

        public void Next()
        {
            for (int i = 0; i < batch; i++)
            {
                int image = (int)_random.NextBelow((uint)labels.Length);
                images.AsSpan(image * Pixels, Pixels).CopyTo(Images.AsSpan(i * Pixels));
                Labels[i] = labels[image];
            }
        }
    }
}
