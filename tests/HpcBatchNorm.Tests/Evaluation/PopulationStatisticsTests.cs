using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Tests.Evaluation;

/// <summary>Algorithm 2's statistics against direct computations.</summary>
public sealed class PopulationStatisticsTests(EvaluationFixture fixture) : IClassFixture<EvaluationFixture>
{
    private const int Batch = 5, Batches = 3, Size = 8;

    private static InferenceOptions Options { get; } = new() { Batch = Batch, Height = Size, Width = Size };

    [Fact]
    public void ToState_OfFullyConnectedLayers_IsAlgorithm2ComputedDirectly()
    {
        const int Hidden = 7;
        Network network = NetworkCatalog.Create("mnist-mlp", new NetworkOptions { Classes = 3, HiddenLayers = 2, HiddenUnits = Hidden });
        NetworkState state = InitialState(network);
        using var backend = new ReferenceBackend();
        using var statistics = new PopulationStatistics(backend, network, Options, state);
        double[] mean1 = new double[Hidden], variance1 = new double[Hidden], mean2 = new double[Hidden], variance2 = new double[Hidden];
        for (int b = 0; b < Batches; b++)
        {
            byte[] pixels = Pixels(b, Size * Size);
            statistics.Add(pixels);

            double[,] x = new double[Batch, Size * Size];
            for (int i = 0; i < pixels.Length; i++)
            {
                x[i / (Size * Size), i % (Size * Size)] = (pixels[i] - 128) / 128.0;
            }

            double[,] hidden = NormaliseAndSigmoid(Multiply(x, state.Get("hidden1/fc.weights", new Shape(Hidden, 1, Size, Size)), Hidden), mean1, variance1);
            NormaliseAndSigmoid(Multiply(hidden, state.Get("hidden2/fc.weights", new Shape(Hidden, Hidden, 1, 1)), Hidden), mean2, variance2);
        }

        NetworkState found = statistics.ToState();

        Assert.Equal(Batches, statistics.Batches);
        AssertClose(mean1, found.Get("hidden1/bn.running_mean", Shape.Vector(Hidden)));
        AssertClose(variance1, found.Get("hidden1/bn.running_variance", Shape.Vector(Hidden)));
        AssertClose(mean2, found.Get("hidden2/bn.running_mean", Shape.Vector(Hidden)));
        AssertClose(variance2, found.Get("hidden2/bn.running_variance", Shape.Vector(Hidden)));
        Assert.True(found.Get("hidden2/fc.weights", new Shape(Hidden, Hidden, 1, 1)).SequenceEqual(state.Get("hidden2/fc.weights", new Shape(Hidden, Hidden, 1, 1))));
    }

    /// <summary>The same through the training plan: with a learning rate of 0 and an averaging factor of 1 each step leaves its batch's statistics.</summary>
    [Theory]
    [InlineData("reference", false, 1e-6)]
    [InlineData("reference", true, 1e-6)]
    [InlineData("onednn", false, 2e-4)]
    public void ToState_OfConvolutions_IsTheMeanOverTrainingSteps(string name, bool perActivation, double tolerance)
    {
        Assert.SkipUnless(Backend.Probe().Any(p => p.Name == name && p.Available), $"needs the backend {name}, which is not on this machine");
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 3, AveragingFactor = 1, PerActivationLast = perActivation });
        using var reference = new ReferenceBackend();
        using var training = new TrainingSession(reference, network, new TrainingOptions { Batch = Batch, Height = Size, Width = Size, Seed = 4 });
        NetworkState state = training.ReadNetworkState();
        using Backend backend = Backend.Create(name);
        using var statistics = new PopulationStatistics(backend, network, Options, state);
        NetworkParameter[] running = [.. training.State.Where(s => s.Tensor.Role == TensorRole.RunningStatistic).Select(s => s.Source)];
        double[][] expected = [.. running.Select(p => new double[p.Spec.Shape.Count])];
        for (int b = 0; b < Batches; b++)
        {
            byte[] pixels = Pixels(b, Size * Size * 3);
            statistics.Add(pixels);
            training.Step(pixels, [0, 1, 2, 1, 0], new StepContext(b, LearningRate: 0));
            for (int i = 0; i < running.Length; i++)
            {
                double[] values = new double[expected[i].Length];
                training.Read(training.State.Single(s => s.Source == running[i] && s.Tensor.Role == TensorRole.RunningStatistic).Tensor, values);
                for (int k = 0; k < values.Length; k++)
                {
                    expected[i][k] += values[k] / Batches;
                }
            }
        }

        NetworkState found = statistics.ToState();
        for (int i = 0; i < running.Length; i++)
        {
            AssertClose(expected[i], found.Get(running[i].Name, running[i].Spec.Shape), tolerance);
        }
    }

    [Fact]
    public void Network_WithoutBatchNorm_HasNone()
    {
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 3, BatchNorm = false });
        using var backend = new ReferenceBackend();

        Assert.Contains("no batch normalization", Assert.Throws<UserErrorException>(
            () => new PopulationStatistics(backend, network, Options, InitialState(network))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Batch_OfOneValue_IsRefused()
    {
        Network network = NetworkCatalog.Create("mnist-mlp", new NetworkOptions { Classes = 3 });
        using var backend = new ReferenceBackend();

        Assert.Throws<ArgumentException>(() => new PopulationStatistics(backend, network, Options with { Batch = 1 }, InitialState(network)));
    }

    [Fact]
    public void Recalibrate_WritesACheckpointWithThoseStatisticsAndLeavesAllElse()
    {
        var request = new RecalibrationRequest { Checkpoint = fixture.First, Batches = 3 };
        RecalibrationResult done = request.Run(_ => { }, stop: TestContext.Current.CancellationToken);

        Assert.Equal((3, 12L), (done.Batches, done.Images));
        Assert.Equal(Path.ChangeExtension(fixture.First, null) + "-population.safetensors", done.Checkpoint);
        Dictionary<string, float[]> before = TrainingFixture.Tensors(fixture.First), after = TrainingFixture.Tensors(done.Checkpoint);
        Assert.Equal(before.Keys, after.Keys);
        Assert.All(before, tensor =>
        {
            // The run keeps averages: it is their statistics that evaluation uses.
            bool isStatistic = tensor.Key.EndsWith("running_mean.average", StringComparison.Ordinal) || tensor.Key.EndsWith("running_variance.average", StringComparison.Ordinal);
            Assert.True(isStatistic != tensor.Value.AsSpan().SequenceEqual(after[tensor.Key]), tensor.Key);
        });

        // Directly: the run's own mini-batches through a network of its averages.
        using Checkpoint checkpoint = Checkpoint.Open(fixture.First), recalibrated = Checkpoint.Open(done.Checkpoint);
        Assert.Equal(checkpoint.Info.Config, recalibrated.Info.Config);
        RunConfig config = new TrainingConfigBuilder().AddYaml(checkpoint.Info.Config, "").Config;
        using ImageDataset train = ImageDataset.Open(fixture.Training.Data, DatasetSplit.Train, cacheDirectory: null);
        EnsembleMember member = checkpoint.ReadMember(train, Size), same = recalibrated.ReadMember(train, Size);
        using Backend backend = Backend.Create(config.Backend);
        using var statistics = new PopulationStatistics(backend, member.Network, Options with { Batch = config.BatchSize }, member.State);
        using var loader = new BatchLoader(train, TrainingSetup.Loading(config, member.Network));
        for (int b = 0; b < 3; b++)
        {
            using Batch batch = loader.Next(TestContext.Current.CancellationToken);
            statistics.Add(batch.PixelArray);
        }

        NetworkState expected = statistics.ToState();
        Assert.All(member.Network.Infer(1, Size, Size).Parameters, p =>
            Assert.True(expected.Get(p.Name, p.Spec.Shape).SequenceEqual(same.State.Get(p.Name, p.Spec.Shape)), p.Name));

        // And the figures are those that eval gives.
        Assert.Equal(Evaluate(fixture.First), done.Before! with { Seconds = 0 });
        Assert.Equal(Evaluate(done.Checkpoint), done.After! with { Seconds = 0 });
        Assert.NotEqual(done.Before!.Loss, done.After!.Loss);
    }

    [Fact]
    public void Recalibrate_OntoItself_IsRefused() => Assert.Contains("kept as it is", Assert.Throws<UserErrorException>(
        () => new RecalibrationRequest { Checkpoint = fixture.First, Output = fixture.First }.Run(_ => { }, stop: TestContext.Current.CancellationToken)).Message, StringComparison.Ordinal);

    private static EvaluationResult Evaluate(string checkpoint) =>
        new EvaluationRequest { Checkpoints = [checkpoint] }.Run(_ => { }, stop: TestContext.Current.CancellationToken) with { Seconds = 0 };

    private static NetworkState InitialState(Network network)
    {
        using var backend = new ReferenceBackend();
        using var session = new TrainingSession(backend, network, new TrainingOptions { Batch = Batch, Height = Size, Width = Size, Seed = 4 });
        return session.ReadNetworkState();
    }

    private static byte[] Pixels(int batch, int bytes)
    {
        var random = new RandomSequence((ulong)batch, 77);
        byte[] pixels = new byte[Batch * bytes];
        for (int i = 0; i < pixels.Length; i++)
        {
            pixels[i] = (byte)random.NextBelow(256);
        }

        return pixels;
    }

    private static double[,] Multiply(double[,] x, ReadOnlySpan<float> weights, int outputs)
    {
        int inputs = x.GetLength(1);
        double[,] y = new double[Batch, outputs];
        for (int n = 0; n < Batch; n++)
        {
            for (int o = 0; o < outputs; o++)
            {
                for (int i = 0; i < inputs; i++)
                {
                    y[n, o] += x[n, i] * weights[o * inputs + i];
                }
            }
        }

        return y;
    }

    /// <summary>Adds this batch's share to E[x] and Var[x], and returns the layer's output with scale 1 and shift 0.</summary>
    private static double[,] NormaliseAndSigmoid(double[,] x, double[] mean, double[] variance)
    {
        double[,] y = new double[Batch, x.GetLength(1)];
        for (int c = 0; c < y.GetLength(1); c++)
        {
            double[] column = [.. Enumerable.Range(0, Batch).Select(n => x[n, c])];
            double mu = column.Average(), biased = column.Average(v => (v - mu) * (v - mu));
            mean[c] += mu / Batches;
            variance[c] += biased * Batch / (Batch - 1) / Batches;
            for (int n = 0; n < Batch; n++)
            {
                y[n, c] = 1 / (1 + Math.Exp(-(x[n, c] - mu) / Math.Sqrt(biased + 1e-5f)));
            }
        }

        return y;
    }

    private static void AssertClose(double[] expected, ReadOnlySpan<float> actual, double tolerance = 1e-6)
    {
        for (int i = 0; i < expected.Length; i++)
        {
            Assert.True(Math.Abs(expected[i] - actual[i]) <= tolerance * Math.Max(1, Math.Abs(expected[i])), $"[{i}] expected {expected[i]}, found {actual[i]}");
        }
    }
}
