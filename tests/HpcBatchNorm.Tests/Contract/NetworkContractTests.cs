using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Data;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tests.Native;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Verification;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Tests.Contract;

/// <summary>Whole networks on onednn: every buffer of a step against the reference, losses of ten steps, and the promises of a session.</summary>
public sealed class NetworkContractTests
{
    /// <summary>Losses after a few steps agree to this, relative: rounding of 1e-7 per operation, grown over the updates.</summary>
    private const double LossAgreement = 1e-4;

    public static TheoryData<string, int, NetworkOptions, BackendOptions> Networks => new()
    {
        { "inception-tiny", 32, new NetworkOptions { Dropout = 0.1f, PerActivationLast = true }, new BackendOptions() },
        { "inception-tiny", 33, new NetworkOptions { Activation = ActivationKind.Sigmoid }, new BackendOptions { ConvolutionAlgorithm = ConvolutionAlgorithm.Direct } },
        { "inception-tiny", 32, new NetworkOptions(), new BackendOptions { BatchNormAlgorithm = BatchNormAlgorithm.Library } },
        { "mnist-mlp", 28, new NetworkOptions(), new BackendOptions() },
        { "bn-inception", 64, new NetworkOptions(), new BackendOptions() },
        { "bn-inception", 48, new NetworkOptions { Width = 576, SeparableFirstConvolution = true }, new BackendOptions { ConvolutionAlgorithm = ConvolutionAlgorithm.Direct } },
        { "inception", 64, new NetworkOptions { AuxiliaryHeads = true }, new BackendOptions() },
        { "resnet-18", 33, new NetworkOptions(), new BackendOptions() },
    };

    [Theory]
    [MemberData(nameof(Networks))]
    [Trait("Category", "Slow")]
    public void TrainingStep_EveryBuffer_AgreesWithTheReference(string name, int size, NetworkOptions network, BackendOptions options) =>
        CheckStep(name, size, network, options);

    // Of layers that the smaller networks have too, and a minute each.
    [Theory]
    [InlineData("resnet-50", 64, 0.1f)]
    [InlineData("inception-v3", 75, 0f)]
    [Trait("Category", "Nightly")]
    public void TrainingStep_OfALargeNetwork_AgreesWithTheReference(string name, int size, float dropout) =>
        CheckStep(name, size, new NetworkOptions { Dropout = dropout }, new BackendOptions());

    [Fact]
    [Trait("Category", "Slow")]
    public void Inference_OfResNet50_EveryBuffer_AgreesWithTheReference()
    {
        using Backend backend = OneDnn.Create();
        using var reference = new ReferenceBackend();
        Network network = NetworkCatalog.Create("resnet-50", new NetworkOptions { Classes = 20 });

        CaseResult result = NetworkVerifier.Step(
            backend, reference, network, new InferenceOptions { Batch = 2, Height = 64, Width = 64 }, "--network resnet-50 --image-size 64");

        Assert.True(result.Passed, result.Describe());
    }

    [Theory]
    [InlineData(ConvolutionAlgorithm.Auto)]
    [InlineData(ConvolutionAlgorithm.Direct)]
    public void Step_NetworkOfEveryLayer_AgreesWithTheReference(ConvolutionAlgorithm algorithm)
    {
        using Backend backend = OneDnn.Create(new BackendOptions { ConvolutionAlgorithm = algorithm });
        using var reference = new ReferenceBackend();
        Network network = SampleNetworks.EveryLayer(7);
        foreach (PlanOptions options in new PlanOptions[] { new TrainingOptions { Batch = 3, Height = 21, Width = 26 }, new InferenceOptions { Batch = 2, Height = 21, Width = 26 } })
        {
            CaseResult result = NetworkVerifier.Step(backend, reference, network, options, "every-layer");

            Assert.True(result.Passed, result.Describe());
        }
    }

    [Fact]
    public void Training_WithRecomputedBatchNorm_IsTheSameBitForBit()
    {
        using Backend backend = OneDnn.Create();
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10 });
        var options = new TrainingOptions { Batch = 4, Height = 32, Width = 32 };
        using var kept = new TrainingSession(backend, network, options);
        using var recomputed = new TrainingSession(backend, network, options with { RecomputeBatchNorm = true });
        Assert.True(recomputed.Prepared.ArenaBytes < kept.Prepared.ArenaBytes);
        var random = new Random(3);
        byte[] pixels = new byte[4 * 32 * 32 * 3];
        for (int step = 0; step < 4; step++)
        {
            random.NextBytes(pixels);
            var context = new StepContext(step, LearningRate: 0.05f);
            Assert.Equal(kept.Step(pixels, [1, 4, 2, 7], context), recomputed.Step(pixels, [1, 4, 2, 7], context));
        }
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void TenSteps_OnRealBatches_GiveTheLossesOfTheReference()
    {
        // Smooth everywhere but in its poolings, so rounding stays rounding.
        Assert.All(Replay(ActivationKind.Sigmoid).Agreement, error => Assert.InRange(error, 0, 1e-6));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void TenSteps_OnRealBatchesWithRelu_DriftNoFurtherThanRoundingTheWeights()
    {
        // ReLU's kinks turn one rounding into another path. How far is a property of the network: the reference shows it, too, when its initial
        // weights move by one unit in the last place.
        (double[] agreement, double[] sensitivity) = Replay(ActivationKind.Relu);
        Assert.InRange(agreement[..3].Max(), 0, LossAgreement);
        Assert.InRange(agreement.Max(), 0, 4 * sensitivity.Max());
        Assert.InRange(sensitivity.Max(), 0, 1e-2);
    }

    [Fact]
    public void TrainingStep_InSteadyState_AllocatesNothing()
    {
        using Backend backend = OneDnn.Create();
        using var session = new TrainingSession(
            backend, NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10, Dropout = 0.1f }),
            new TrainingOptions { Batch = 4, Height = 32, Width = 32, ClipNorm = 1, AverageDecay = 0.9f });
        byte[] pixels = new byte[4 * 32 * 32 * 3];
        int[] labels = new int[4];
        int step = 0;
        void Step() => session.Step(pixels, labels, new StepContext(step++, 0.01f));
        Step();
        Step();

        Assert.Equal(0, ManagedAllocation.Measure(10, Step));
    }

    [Theory]
    [InlineData(Fusion.BatchNormRelu)]
    [InlineData(Fusion.ConcatSlice)]
    [InlineData(Fusion.InPlace)]
    public void TrainingSteps_WithAndWithoutFusion_Agree(string fusion)
    {
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10 });
        var options = new TrainingOptions { Batch = 4, Height = 32, Width = 32 };
        using Backend backend = OneDnn.Create();
        using var fused = new TrainingSession(backend, network, options);
        using var plain = new TrainingSession(backend, network, options with { DisabledFusions = [fusion] });
        byte[] pixels = new byte[4 * 32 * 32 * 3];
        new Random(1).NextBytes(pixels);
        for (int step = 0; step < 5; step++)
        {
            float expected = plain.Step(pixels, [1, 2, 3, 4], new StepContext(step, 0.01f));
            float actual = fused.Step(pixels, [1, 2, 3, 4], new StepContext(step, 0.01f));
            Assert.True(Math.Abs(actual - expected) <= LossAgreement * expected, $"step {step}: loss {actual} fused, {expected} not");
        }
    }

    [Theory]
    [InlineData(ConvolutionAlgorithm.Auto)]
    [InlineData(ConvolutionAlgorithm.Winograd)]
    [InlineData(ConvolutionAlgorithm.Direct)]
    public void TrainingSteps_NormalizedWhileReading_AreTheSameBitForBit(ConvolutionAlgorithm algorithm)
    {
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10 });
        var options = new TrainingOptions { Batch = 4, Height = 32, Width = 32 };
        using Backend backend = OneDnn.Create(new BackendOptions { ConvolutionAlgorithm = algorithm });
        using var fused = new TrainingSession(backend, network, options);
        using var plain = new TrainingSession(backend, network, options with { DisabledFusions = [Fusion.BatchNormConvolution] });
        Assert.NotEqual(0, fused.Plan.Fusions[Fusion.BatchNormConvolution]);
        byte[] pixels = new byte[4 * 32 * 32 * 3];
        new Random(1).NextBytes(pixels);
        for (int step = 0; step < 3; step++)
        {
            Assert.Equal(plain.Step(pixels, [1, 2, 3, 4], new StepContext(step, 0.01f)), fused.Step(pixels, [1, 2, 3, 4], new StepContext(step, 0.01f)));
        }

        float[] expected = [], actual = [];
        foreach ((StateTensor first, StateTensor second) in plain.State.Zip(fused.State))
        {
            Array.Resize(ref expected, (int)first.Tensor.Shape.Count);
            Array.Resize(ref actual, expected.Length);
            plain.Read(first.Tensor, expected.AsSpan());
            fused.Read(second.Tensor, actual.AsSpan());
            Assert.Equal(expected, actual);
        }
    }

    [Theory]
    [InlineData("inception-tiny")]
    [InlineData("mnist-mlp")]
    public void Inference_Folded_AgreesWithTheReference(string name)
    {
        Network network = NetworkCatalog.Create(name, new NetworkOptions { Classes = 10 });
        int channels = ((InputLayer)network.Input.Layer).Channels;
        var options = new InferenceOptions { Batch = 4, Height = 32, Width = 32 };
        byte[] pixels = new byte[4 * 32 * 32 * channels];
        new Random(1).NextBytes(pixels);
        using Backend backend = OneDnn.Create();
        using var reference = new ReferenceBackend();
        using var training = new TrainingSession(backend, network, new TrainingOptions { Batch = 4, Height = 32, Width = 32 });
        for (int step = 0; step < 5; step++)
        {
            training.Step(pixels, [1, 2, 3, 4], new StepContext(step, 0.01f));
        }

        NetworkState state = training.ReadNetworkState();
        using var fast = new ForwardSession(backend, network, options, state, training.Arena);
        using var exact = new ForwardSession(reference, network, options, state);
        float[] actual = new float[40], expected = new float[40];
        fast.Forward(pixels, actual);
        exact.Forward(pixels, expected);
        for (int i = 0; i < actual.Length; i++)
        {
            Assert.Equal(expected[i], actual[i], 2e-5f); // rounding of 1e-7 per layer and Winograd's 1e-6, on probabilities below 1
        }
    }

    /// <summary>
    /// Ten steps of inception-tiny on real images: the relative difference of onednn's losses from the reference's, and that of the reference's from
    /// itself with half its initial weights one unit in the last place larger.
    /// </summary>
    private static (double[] Agreement, double[] Sensitivity) Replay(ActivationKind activation)
    {
        const int Images = 8, Size = 32;
        using ImageDataset dataset = ImageDataset.Open(RepoPaths.SharedDataOrSkip("tiny-ilsvrc2012"), DatasetSplit.Train, null);
        using var loader = new BatchLoader(dataset, LoaderOptions.ForTraining(Images, Size, seed: 5));
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = dataset.ClassCount, Activation = activation });
        using Backend backend = OneDnn.Create();
        using var reference = new ReferenceBackend();
        Plan plan = TrainingSession.PlanFor(backend.Traits, network, new TrainingOptions { Batch = Images, Height = Size, Width = Size, WeightDecay = 4e-5f });
        using var fast = new TrainingSession(backend, plan);
        using var exact = new TrainingSession(reference, plan);
        using var moved = new TrainingSession(reference, plan);
        foreach (StateTensor entry in moved.State)
        {
            float[] values = new float[entry.Tensor.Shape.Count];
            moved.Read(entry.Tensor, values);
            for (int i = 0; i < values.Length; i += 2)
            {
                values[i] = MathF.BitIncrement(values[i]);
            }

            moved.Write(entry.Tensor, values);
        }

        double[] agreement = new double[10], sensitivity = new double[10];
        for (int step = 0; step < 10; step++)
        {
            Batch batch = loader.Next(TestContext.Current.CancellationToken);
            var context = new StepContext(step, LearningRate: 0.0015f); // the paper's for Inception
            double expected = exact.Step(batch.PixelArray, batch.LabelArray, context);
            agreement[step] = Math.Abs(fast.Step(batch.PixelArray, batch.LabelArray, context) - expected) / expected;
            sensitivity[step] = Math.Abs(moved.Step(batch.PixelArray, batch.LabelArray, context) - expected) / expected;
        }

        return (agreement, sensitivity);
    }

    private static void CheckStep(string name, int size, NetworkOptions network, BackendOptions options)
    {
        using Backend backend = OneDnn.Create(options);
        using var reference = new ReferenceBackend();
        var training = new TrainingOptions { Batch = 2, Height = size, Width = size, WeightDecay = 1e-4f, LabelSmoothing = 0.1f, AverageDecay = 0.9f };

        CaseResult result = NetworkVerifier.Step(
            backend, reference, NetworkCatalog.Create(name, network with { Classes = 20 }), training, $"--network {name} --image-size {size}");

        Assert.True(result.Passed, result.Describe());
    }
}
