using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Planning;

/// <summary>Sessions on the reference backend: whole networks against finite differences and against themselves planned otherwise.</summary>
public class SessionTests
{
    private const int Batch = 3;
    private const int Size = 8;

    [Theory]
    [InlineData(true, ActivationKind.Sigmoid)] // smooth: differences of ReLU networks stumble over kinks; the contract tests cover ReLU
    [InlineData(false, ActivationKind.Tanh)]
    [InlineData(true, ActivationKind.Silu)] // the gradient reads src, which must still be there
    [InlineData(false, ActivationKind.Gelu)]
    public void Gradients_OfTheWholeNetwork_AgreeWithFiniteDifferences(bool batchNorm, ActivationKind activation)
    {
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 5, BatchNorm = batchNorm, Activation = activation, Dropout = 0.2f });
        TrainingOptions options = Options() with { LabelSmoothing = 0.1f };
        using var backend = new ReferenceBackend();
        using var session = new TrainingSession(backend, network, options);
        (byte[] pixels, int[] labels) = Images(1);
        float[][] initial = [.. session.State.Select(s => Values(session, s.Tensor))];
        foreach (string name in new[] { "conv1/conv.weights", "inception_3b/projection/conv.weights", "inception_4e/double3x3a/conv.weights", "fc.weights", "fc.bias" })
        {
            CheckGradient(session, initial, pixels, labels, name);
        }

        if (batchNorm)
        {
            CheckGradient(session, initial, pixels, labels, "inception_3c/3x3/bn.scale");
            CheckGradient(session, initial, pixels, labels, "inception_5b/3x3/bn.shift");
        }
    }

    [Theory]
    [InlineData(Fusion.BatchNormRelu)]
    [InlineData(Fusion.BatchNormConvolution)]
    [InlineData(Fusion.ConcatSlice)]
    [InlineData(Fusion.InPlace)]
    [InlineData(Fusion.ParallelConvolution)]
    public void TrainingStep_WithAndWithoutFusion_AreTheSame(string fusion)
    {
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 5 });
        using var backend = new ReferenceBackend();
        using var fused = new TrainingSession(backend, network, Options());
        using var plain = new TrainingSession(backend, network, Options() with { DisabledFusions = [fusion] });
        Assert.NotEqual(fused.Plan.Operations.Count + fused.Plan.Lifetimes.Count, plain.Plan.Operations.Count + plain.Plan.Lifetimes.Count);
        for (int step = 0; step < 3; step++)
        {
            (byte[] pixels, int[] labels) = Images(step);
            Assert.Equal(fused.Step(pixels, labels, new StepContext(step, 0.05f)), plain.Step(pixels, labels, new StepContext(step, 0.05f)), 1e-6f);
        }

        // Only a parallel convolution adds in another order: its gradient sums over all branches' channels at once.
        float bound = fusion == Fusion.ParallelConvolution ? 1e-6f : 0;
        foreach (StateTensor entry in fused.State)
        {
            Tensor same = plain.State.Single(s => s.Tensor.Name == entry.Tensor.Name).Tensor;
            foreach ((float expected, float actual) in Values(plain, same).Zip(Values(fused, entry.Tensor)))
            {
                Assert.Equal(expected, actual, bound);
            }
        }

        Assert.Equal(fused.State.Count, plain.State.Count);
    }

    [Fact]
    public void TrainingStep_WithRecomputedBatchNorm_IsTheSameBitForBit()
    {
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 5 });
        foreach (string[] disabled in new string[][] { [], [Fusion.ConcatSlice], [Fusion.ParallelConvolution], [Fusion.InPlace] })
        {
            using var backend = new ReferenceBackend();
            using var kept = new TrainingSession(backend, network, Options() with { DisabledFusions = disabled });
            using var recomputed = new TrainingSession(backend, network, Options() with { DisabledFusions = disabled, RecomputeBatchNorm = true });
            Assert.True(recomputed.Plan.Operations.OfType<BatchNormForward>().Count() > kept.Plan.Operations.OfType<BatchNormForward>().Count());
            for (int step = 0; step < 3; step++)
            {
                (byte[] pixels, int[] labels) = Images(step);
                Assert.Equal(kept.Step(pixels, labels, new StepContext(step, 0.05f)), recomputed.Step(pixels, labels, new StepContext(step, 0.05f)));
            }

            Assert.All(kept.State.Zip(recomputed.State), pair => Assert.Equal(Values(kept, pair.First.Tensor), Values(recomputed, pair.Second.Tensor)));
        }
    }

    [Fact]
    public void Training_OnOneBatch_LearnsItByHeart()
    {
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 5 });
        using var backend = new ReferenceBackend();
        using var session = new TrainingSession(backend, network, Options());
        (byte[] pixels, int[] labels) = Images(1);
        float first = session.Step(pixels, labels, new StepContext(0, 0.05f));
        float last = 0;
        for (int step = 1; step < 15; step++)
        {
            last = session.Step(pixels, labels, new StepContext(step, 0.05f));
        }

        Assert.InRange(first, 1, 2.5f); // about ln 5
        Assert.InRange(last, 0, 0.1f);
    }

    [Theory]
    [InlineData("inception-tiny", false)]
    [InlineData("inception-tiny", true)]
    [InlineData("mnist-mlp", false)]
    public void Inference_Folded_AgreesWithUnfoldedForAnyBatch(string name, bool perActivation)
    {
        Network network = NetworkCatalog.Create(name, new NetworkOptions { Classes = 5, PerActivationLast = perActivation });
        int channels = ((InputLayer)network.Input.Layer).Channels;
        using var backend = new ReferenceBackend();
        using var training = new TrainingSession(backend, network, Options());
        for (int step = 0; step < 3; step++)
        {
            (byte[] batch, int[] labels) = Images(step, channels);
            training.Step(batch, labels, new StepContext(step, 0.05f));
        }

        NetworkState state = training.ReadNetworkState();
        var options = new InferenceOptions { Batch = Batch, Height = Size, Width = Size };
        using var folded = new ForwardSession(backend, network, options, state, training.Arena);
        using var unfolded = new ForwardSession(backend, network, options with { DisabledFusions = [Fusion.FoldBatchNorm] }, state);
        using var single = new ForwardSession(backend, network, options with { Batch = 1 }, state);
        (byte[] pixels, _) = Images(9, channels);
        float[] a = new float[Batch * 5], b = new float[Batch * 5], c = new float[5];
        folded.Forward(pixels, a);
        unfolded.Forward(pixels, b);
        single.Forward(pixels.AsSpan(0, pixels.Length / Batch), c);
        for (int i = 0; i < a.Length; i++)
        {
            Assert.Equal(b[i], a[i], 1e-5f); // folded weights are rounded to single precision
        }

        // Section 3.1: the output depends on the one input only.
        Assert.Equal(a[..5], c);
    }

    [Fact]
    public void Averages_FollowTheirParameters()
    {
        Network network = NetworkCatalog.Create("mnist-mlp", new NetworkOptions { Classes = 5 });
        using var backend = new ReferenceBackend();
        using var session = new TrainingSession(backend, network, Options() with { AverageDecay = 0.75f });
        float before = session.ReadNetworkState().Get("fc.bias", Shape.Vector(5))[0];
        (byte[] pixels, int[] labels) = Images(1, 1);
        session.Step(pixels, labels, new StepContext(0, 1f));

        float after = session.ReadNetworkState().Get("fc.bias", Shape.Vector(5))[0];
        Assert.NotEqual(before, after);
        Assert.Equal(0.75f * before + 0.25f * after, session.ReadNetworkState(averages: true).Get("fc.bias", Shape.Vector(5))[0], 1e-7f);
    }

    private static TrainingOptions Options() => new() { Batch = Batch, Height = Size, Width = Size, Seed = 3 };

    private static (byte[] Pixels, int[] Labels) Images(int seed, int channels = 3)
    {
        var random = new RandomSequence((ulong)seed, 77);
        byte[] pixels = new byte[Batch * Size * Size * channels];
        for (int i = 0; i < pixels.Length; i++)
        {
            pixels[i] = (byte)random.NextBelow(256);
        }

        return (pixels, [0, 3, 1]);
    }

    /// <summary>Momentum after a first step at learning rate 1 is minus the gradient; the loss is differenced around the initial parameters.</summary>
    private static void CheckGradient(TrainingSession session, float[][] initial, byte[] pixels, int[] labels, string name)
    {
        Restore(session, initial);
        Tensor parameter = session.State.Single(s => s.Tensor.Name == name).Tensor;
        double[] gradient = new double[parameter.Shape.Count];
        session.Step(pixels, labels, new StepContext(0, 1));
        session.Read(session.State.Single(s => s.Tensor.Name == $"{name}.momentum").Tensor, gradient);
        double[] values = new double[parameter.Shape.Count];
        // The elements with the largest gradients, whose differences stand out of the loss's own rounding.
        foreach (int i in Enumerable.Range(0, gradient.Length).OrderByDescending(k => Math.Abs(gradient[k])).Take(2))
        {
            const float H = 1e-5f;
            Restore(session, initial);
            session.Read(parameter, values);
            float original = (float)values[i], plus = original + H, minus = original - H;
            double difference = (Loss(plus) - Loss(minus)) / ((double)plus - minus);
            Assert.True(
                Math.Abs(difference + gradient[i]) <= 1e-4 * Math.Abs(difference) + 1e-7, $"{name}[{i}]: difference {difference}, gradient {-gradient[i]}");

            double Loss(float value)
            {
                Restore(session, initial);
                values[i] = value;
                session.Write(parameter, values);
                values[i] = original;
                session.Step(pixels, labels, new StepContext(0, 0));
                double[] loss = new double[1];
                session.Read(session.Plan.Loss!, loss);
                return loss[0];
            }
        }
    }

    private static void Restore(TrainingSession session, float[][] initial)
    {
        for (int i = 0; i < initial.Length; i++)
        {
            session.Write(session.State[i].Tensor, initial[i]);
        }
    }


    private static float[] Values(TrainingSession session, Tensor tensor)
    {
        float[] values = new float[tensor.Shape.Count];
        session.Read(tensor, values);
        return values;
    }
}
