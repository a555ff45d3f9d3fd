using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Native;
using HpcBatchNorm.Verification;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Tests.Planning;

/// <summary>Gradient accumulation and frozen batch normalization, against what they should equal by definition; on the reference and on onednn.</summary>
public sealed class TrainingFeatureTests
{
    private const int Batch = 2;
    private const int Size = 8;
    private const int Classes = 5;

    [Theory]
    [InlineData("reference", 1e-9)] // state is kept in single precision, but 1e-9 of a weight is far below its rounding: most elements are equal
    [InlineData("onednn", 1e-5)]
    public void Accumulate_WithoutBatchNorm_EqualsOneLargeBatch(string name, double tolerance)
    {
        using Backend backend = Create(name);

        // Smooth: other kernels for other batches round otherwise, and what lies at ReLU's kink falls to the other side.
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes, BatchNorm = false, Lrn = false, Activation = ActivationKind.Tanh });
        TrainingOptions options = Options() with { WeightDecay = 1e-3f, ClipNorm = 0.5f, AverageDecay = 0.5f, LabelSmoothing = 0.1f };
        using var accumulated = new TrainingSession(backend, network, options with { Accumulate = 4 });
        using var large = new TrainingSession(backend, network, options with { Batch = 4 * Batch });
        for (int step = 0; step < 3; step++)
        {
            (byte[] pixels, int[] labels) = Images(step, 4 * Batch);
            var context = new StepContext(step, 0.05f);
            Assert.Equal(large.Step(pixels, labels, context), accumulated.Step(pixels, labels, context), 1e-5f);
        }

        AssertClose(large, accumulated, relative: tolerance + 2.0 / (1 << 23));
    }

    [Theory]
    [InlineData("reference")]
    [InlineData("onednn")]
    public void Accumulate_WithBatchNorm_IsTheMeanGradientOfItsMicroBatches(string name)
    {
        const int Count = 3;
        using Backend backend = Create(name);
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes, Activation = ActivationKind.Sigmoid });
        using var accumulated = new TrainingSession(backend, network, Options() with { Accumulate = Count });
        using var single = new TrainingSession(backend, network, Options());
        float[][] initial = [.. single.State.Select(s => Values(single, s.Tensor))];
        (byte[] pixels, int[] labels) = Images(1, Count * Batch);
        double loss = 0;
        double[][] mean = [.. initial.Select(v => new double[v.Length])];
        for (int k = 0; k < Count; k++)
        {
            // From the same parameters each time; the momentum after a first step at rate 1 is minus the gradient. Running statistics go on.
            for (int i = 0; i < initial.Length; i++)
            {
                if (single.State[i].Tensor.Role != TensorRole.RunningStatistic)
                {
                    single.Write(single.State[i].Tensor, initial[i]);
                }
            }

            loss += single.Step(pixels.AsSpan(k * pixels.Length / Count, pixels.Length / Count), labels.AsSpan(k * Batch, Batch), new StepContext(0, 1)) / (double)Count;
            for (int i = 0; i < initial.Length; i++)
            {
                float[] gradient = Values(single, single.State[i].Tensor);
                for (int e = 0; e < gradient.Length; e++)
                {
                    mean[i][e] += gradient[e] / (double)Count;
                }
            }
        }

        Assert.Equal(loss, accumulated.Step(pixels, labels, new StepContext(0, 1)), 1e-6);
        for (int i = 0; i < initial.Length; i++)
        {
            Tensor tensor = accumulated.State[i].Tensor;
            float[] actual = Values(accumulated, tensor);
            if (tensor.Role == TensorRole.Momentum)
            {
                double scale = mean[i].Max(Math.Abs);
                Assert.All(actual, (v, e) => Assert.Equal(mean[i][e], v, (1e-5 * scale) + 1e-9));
            }
            else if (tensor.Role == TensorRole.RunningStatistic)
            {
                Assert.Equal(Values(single, single.State[i].Tensor), actual); // updated once per micro-batch, as if they were batches
            }
        }
    }

    [Fact]
    public void Accumulate_Dropout_DropsOthersInEveryMicroBatch()
    {
        using var backend = new ReferenceBackend();
        Network network = NetworkCatalog.Create("mnist-mlp", new NetworkOptions { Classes = Classes, BatchNorm = false, Dropout = 0.5f });
        using var accumulated = new TrainingSession(backend, network, Options() with { Accumulate = 2 });
        using var single = new TrainingSession(backend, network, Options());
        (byte[] half, int[] labels) = Images(1, Batch, 1);

        // Both halves are the same images; their losses differ because steps 2s and 2s + 1 of the counter drop other units.
        float mean = accumulated.Step([.. half, .. half], [.. labels, .. labels], new StepContext(3, 0));
        float first = single.Step(half, labels, new StepContext(6, 0)), second = single.Step(half, labels, new StepContext(7, 0));
        Assert.NotEqual(first, second);
        Assert.Equal((first + second) / 2, mean, 1e-6f);
    }

    [Fact]
    public void Accumulate_Plan_TakesNoMoreThanTheSumsAndReusesTheGradients()
    {
        using var backend = new ReferenceBackend();
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes });
        using var plain = new PreparedPlan(backend, TrainingSession.PlanFor(backend.Traits, network, Options()));
        using var accumulated = new PreparedPlan(backend, TrainingSession.PlanFor(backend.Traits, network, Options() with { Accumulate = 4 }));
        long parameters = 8 * plain.Plan.Shapes.ParameterCount;

        Assert.InRange(accumulated.StateBytes - plain.StateBytes, parameters, parameters * 1.1);
        Assert.True(accumulated.ArenaBytes < plain.ArenaBytes, $"{accumulated.ArenaBytes} and {plain.ArenaBytes} bytes");
        Assert.Equal(plain.Plan.State.Select(s => s.Tensor.Name), accumulated.Plan.State.Select(s => s.Tensor.Name)); // a checkpoint is the same
        Assert.All(accumulated.Plan.Operations.Skip(accumulated.Plan.UpdateStart), o => Assert.True(o is SgdUpdate, o.Kind));
    }

    [Fact]
    public void Accumulate_Steps_AllocateNothing()
    {
        using Backend backend = OneDnn.Create();
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes });
        using var session = new TrainingSession(backend, network, Options() with { Accumulate = 3, ClipNorm = 1 });
        (byte[] pixels, int[] labels) = Images(1, 3 * Batch);
        int step = 0;
        void Step() => session.Step(pixels, labels, new StepContext(step++, 0.01f));
        for (int i = 0; i < 4; i++)
        {
            Step();
        }

        Assert.Equal(0, ManagedAllocation.Measure(4, Step));
    }

    [Fact]
    public void Accumulate_UnequalMicroBatches_AreRefused()
    {
        using var backend = new ReferenceBackend();
        using var session = new TrainingSession(backend, NetworkCatalog.Create("mnist-mlp", new NetworkOptions { Classes = Classes }), Options() with { Accumulate = 3 });
        (byte[] pixels, int[] labels) = Images(1, 2 * Batch, 1);

        Assert.Contains("3 micro-batches", Assert.Throws<ArgumentException>(() => session.Step(pixels, labels, default)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("reference")]
    [InlineData("onednn")]
    public void ConstantStatistics_SameForwardPass_AnotherGradient(string name)
    {
        using Backend backend = Create(name);
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes });
        using TrainingSession full = new(backend, network, Options()), constant = new(backend, network, Options() with { ConstantStatistics = true });
        (byte[] pixels, int[] labels) = Images(1, Batch);

        Assert.Equal(full.Step(pixels, labels, new StepContext(0, 0.05f)), constant.Step(pixels, labels, new StepContext(0, 0.05f)));
        Assert.NotEqual(full.Step(pixels, labels, new StepContext(1, 0.05f)), constant.Step(pixels, labels, new StepContext(1, 0.05f)));
        Assert.All(constant.Plan.Operations.OfType<BatchNormBackward>(), o => Assert.Equal(BatchNormStatistics.Running, o.Statistics));
        Assert.All(constant.Plan.Operations.OfType<BatchNormForward>(), o => Assert.Equal(BatchNormStatistics.Batch, o.Statistics));
    }

    [Fact]
    public void ConstantStatistics_Step_IsThatOfTheReference()
    {
        using Backend backend = Create("onednn"), reference = Create("reference");
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes });
        CaseResult result = NetworkVerifier.Step(backend, reference, network, Options() with { ConstantStatistics = true }, "--network inception-tiny");
        Assert.True(result.Passed, result.Describe());
    }

    [Theory]
    [InlineData("reference")]
    [InlineData("onednn")]
    public void Forward_OfOneLayer_GivesWhatTheNextReads(string name)
    {
        using Backend backend = Create(name);
        Network network = NetworkCatalog.Create("mnist-mlp", new NetworkOptions { Classes = 10, BatchNorm = false, HiddenUnits = 16 });
        var options = new InferenceOptions { Batch = 2, Height = 28, Width = 28 };
        NetworkState state = NetworkState.Initial(network.Infer(2, 28, 28), 1);
        using var session = new ForwardSession(backend, network, options, state);
        byte[] pixels = [.. Enumerable.Range(0, 2 * 28 * 28).Select(i => (byte)(i * 37))];
        float[] hidden = new float[2 * 16], logits = new float[2 * 10], probabilities = new float[2 * 10];

        session.Forward(pixels, "hidden3/fc", hidden);
        session.Forward(pixels, "fc", logits);
        session.Forward(pixels, probabilities);

        double[] odds = [.. logits[..10].Select(l => Math.Exp(l))];
        Assert.Equal(odds.Select(o => o / odds.Sum()), probabilities[..10].Select(p => (double)p), (a, b) => Math.Abs(a - b) < 1e-5);
        ReadOnlySpan<float> weights = state.Get("fc.weights", Shape.Matrix(10, 16));
        double first = 0;
        for (int i = 0; i < 16; i++)
        {
            first += weights[i] / (1 + Math.Exp(-hidden[i]));
        }

        Assert.Equal(first, logits[0], 1e-5);
        Assert.Throws<ArgumentException>(() => session.Forward(pixels, "hidden4/fc", hidden));
    }

    [Theory]
    [InlineData("reference", false)]
    [InlineData("reference", true)]
    [InlineData("onednn", true)]
    public void Frozen_Steps_LeaveStatisticsAloneAndEachImageToItself(string name, bool scaleAndShift)
    {
        using Backend backend = Create(name);
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes });
        TrainingSession session = new(backend, network, Options() with { Mu = 0 });
        (byte[] pixels, int[] labels) = Images(1, Batch);
        session.Step(pixels, labels, new StepContext(0, 0.05f));
        Dictionary<string, float[]> before = session.State.ToDictionary(s => s.Tensor.Name, s => Values(session, s.Tensor));

        using TrainingSession frozen = session.Continue(session.Options with { FrozenStatistics = true, FrozenScaleAndShift = scaleAndShift });
        Assert.All(frozen.State, s => Assert.Equal(before[s.Tensor.Name], Values(frozen, s.Tensor)));
        frozen.Step(pixels, labels, new StepContext(1, 0.05f));

        foreach (StateTensor entry in frozen.State.Where(s => s.Tensor.Role != TensorRole.Momentum))
        {
            bool fixedOnes = entry.Tensor.Role == TensorRole.RunningStatistic || (scaleAndShift && entry.Source.Node.Layer is BatchNormLayer);
            Assert.Equal(fixedOnes, before[entry.Tensor.Name].SequenceEqual(Values(frozen, entry.Tensor)));
        }

        // Nothing but the loss's mean joins the images: probabilities of the first do not change with the second.
        float[] probabilities = new float[Batch * Classes], others = new float[Batch * Classes];
        frozen.Step(pixels, labels, new StepContext(2, 0));
        frozen.ReadProbabilities(probabilities);
        byte[] swapped = [.. pixels[..(pixels.Length / Batch)], .. Images(7, Batch).Pixels[..(pixels.Length / Batch)]];
        frozen.Step(swapped, labels, new StepContext(2, 0));
        frozen.ReadProbabilities(others);
        Assert.Equal(probabilities[..Classes], others[..Classes]);
        Assert.NotEqual(probabilities, others);
    }

    [Theory]
    [InlineData("reference", false, false)]
    [InlineData("reference", true, true)]
    [InlineData("onednn", false, true)]
    [InlineData("onednn", true, false)]
    public void Ghost_Steps_EqualAccumulatedMicroBatches(string name, bool renormalize, bool recompute)
    {
        // A ghost batch sees the statistics that a micro-batch of its images would, and updates the running ones as it would.
        using Backend backend = Create(name);
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes, Activation = ActivationKind.Sigmoid });
        TrainingOptions options = Options() with { BatchRenormalize = renormalize, Renormalization = new BatchRenormalization(2, 1, 0, 0, 0), RecomputeBatchNorm = recompute };
        using var ghost = new TrainingSession(backend, network, options with { Batch = 3 * Batch, GhostBatch = Batch });
        using var accumulated = new TrainingSession(backend, network, options with { Accumulate = 3 });
        for (int step = 0; step < 2; step++)
        {
            (byte[] pixels, int[] labels) = Images(step, 3 * Batch);
            var context = new StepContext(step, 0.05f);
            Assert.Equal(accumulated.Step(pixels, labels, context), ghost.Step(pixels, labels, context), 1e-5f);
        }

        // Statistics of few values amplify rounding, of single precision more than of double.
        AssertClose(accumulated, ghost, relative: name == "reference" ? 1e-4 : 1e-3);
    }

    [Theory]
    [InlineData("reference")]
    [InlineData("onednn")]
    public void Renormalized_BeforeItsStart_IsBatchNormalizationBitForBit(string name)
    {
        using Backend backend = Create(name);
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes });
        using var plain = new TrainingSession(backend, network, Options());
        using var renormalized = new TrainingSession(backend, network, Options() with { BatchRenormalize = true, Renormalization = new BatchRenormalization(3, 5, 3, 5, 4) });
        for (int step = 0; step < 4; step++)
        {
            (byte[] pixels, int[] labels) = Images(step, Batch);
            float expected = plain.Step(pixels, labels, new StepContext(step, 0.05f)), actual = renormalized.Step(pixels, labels, new StepContext(step, 0.05f));
            Assert.Equal(expected, actual);
        }

        Assert.All(plain.State.Zip(renormalized.State), s => Assert.Equal(Values(plain, s.First.Tensor), Values(renormalized, s.Second.Tensor)));

        // From its start on it is something else.
        (byte[] images, int[] classes) = Images(9, Batch);
        Assert.NotEqual(plain.Step(images, classes, new StepContext(5, 0)), renormalized.Step(images, classes, new StepContext(5, 0)));
    }

    /// <summary>What the gradient reads is the output of batch normalization: kept, or computed again where that is wanted.</summary>
    [Theory]
    [InlineData("reference", ActivationKind.Gelu)]
    [InlineData("onednn", ActivationKind.Silu)]
    [InlineData("onednn", ActivationKind.HardSwish)]
    public void ActivationThatReadsSrc_Recomputed_GivesTheSameBits(string name, ActivationKind activation)
    {
        using Backend backend = Create(name);
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes, Activation = activation });
        using var kept = new TrainingSession(backend, network, Options());
        using var recomputed = new TrainingSession(backend, network, Options() with { RecomputeBatchNorm = true });
        for (int step = 0; step < 2; step++)
        {
            (byte[] pixels, int[] labels) = Images(step, Batch);
            Assert.Equal(kept.Step(pixels, labels, new StepContext(step, 0.05f)), recomputed.Step(pixels, labels, new StepContext(step, 0.05f)));
        }

        Assert.All(kept.State.Zip(recomputed.State), s => Assert.Equal(Values(kept, s.First.Tensor), Values(recomputed, s.Second.Tensor)));
        Assert.True(recomputed.Plan.Operations.Count > kept.Plan.Operations.Count);
    }

    private static Backend Create(string name) => name == "onednn" ? OneDnn.Create() : Backend.Create(name);

    private static TrainingOptions Options() => new() { Batch = Batch, Height = Size, Width = Size, Seed = 3 };

    private static (byte[] Pixels, int[] Labels) Images(int seed, int count, int channels = 3)
    {
        var random = new RandomSequence((ulong)seed, 77);
        byte[] pixels = new byte[count * Size * Size * channels];
        for (int i = 0; i < pixels.Length; i++)
        {
            pixels[i] = (byte)random.NextBelow(256);
        }

        return (pixels, [.. Enumerable.Range(0, count).Select(i => i * 3 % Classes)]);
    }

    private static float[] Values(TrainingSession session, Tensor tensor)
    {
        float[] values = new float[tensor.Shape.Count];
        session.Read(tensor, values);
        return values;
    }

    private static void AssertClose(TrainingSession expected, TrainingSession actual, double relative)
    {
        for (int i = 0; i < expected.State.Count; i++)
        {
            float[] e = Values(expected, expected.State[i].Tensor), a = Values(actual, actual.State[i].Tensor);
            double scale = Math.Max(1e-6, e.Max(Math.Abs));
            for (int k = 0; k < e.Length; k++)
            {
                Assert.True(Math.Abs(e[k] - a[k]) <= relative * scale, $"{expected.State[i].Tensor.Name}[{k}]: {e[k]} and {a[k]}, scale {scale}");
            }
        }
    }
}
