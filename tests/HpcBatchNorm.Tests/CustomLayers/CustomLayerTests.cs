using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Cudnn;
using HpcBatchNorm.Tests.Native;
using HpcBatchNorm.Verification;
using OwnLayer;

namespace HpcBatchNorm.Tests.CustomLayers;

/// <summary>Layers of one's own in networks: planned, trained, resumed, averaged and verified like the built-in ones.</summary>
public class CustomLayerTests
{
    private const int Batch = 4, Size = 8, Classes = 3;

    [Theory]
    [InlineData(Precision.Fp32)]
    [InlineData(Precision.Bf16)]
    public void TrainingStep_OnOneDnn_AgreesWithTheReference(Precision precision)
    {
        using Backend backend = OneDnn.Create(), reference = new ReferenceBackend();
        Assert.SkipUnless(backend.Supports(precision, out string reason), reason);
        TrainingOptions options = Options() with { Precision = precision, ClipNorm = 1, AverageDecay = 0.9f };
        foreach (CaseResult result in new[]
        {
            NetworkVerifier.Step(backend, reference, Mixed(), options, ""),
            NetworkVerifier.Step(backend, reference, Mixed(), options with { FrozenStatistics = true }, ""),
            NetworkVerifier.Step(backend, reference, Mixed(), new InferenceOptions { Batch = Batch, Height = Size, Width = Size, Precision = precision }, ""),
            NetworkVerifier.Replay(backend, reference, Mixed(), options, ""),
        })
        {
            Assert.True(result.Passed, result.Describe());
        }
    }

    [Fact]
    public void TrainingStep_InBf16_RunsOnTheReference()
    {
        using Backend reference = new ReferenceBackend(), again = new ReferenceBackend();
        CaseResult result = NetworkVerifier.Step(again, reference, Mixed(), Options() with { Precision = Precision.Bf16 }, "");
        Assert.True(result.Passed, result.Describe());
    }

    [Theory]
    [InlineData("reference")]
    [InlineData("onednn")]
    public void Gradients_InTheNetwork_AgreeWithFiniteDifferences(string name)
    {
        using Backend backend = name == "onednn" ? OneDnn.Create() : new ReferenceBackend();
        using var session = new TrainingSession(backend, Mixed(), Options() with { Mu = 0 });
        (byte[] pixels, int[] labels) = Images(1);
        float[][] initial = Read(session);
        session.Step(pixels, labels, new StepContext(0, 1));
        float[][] after = Read(session);
        foreach (string parameter in new[] { "gate.gate", "norm1.blend", "conv1.weights" })
        {
            int s = session.State.Select((entry, i) => entry.Tensor.Name == parameter ? i : -1).Max();
            int element = Enumerable.Range(0, initial[s].Length).MaxBy(i => Math.Abs(after[s][i] - initial[s][i]));
            float gradient = initial[s][element] - after[s][element]; // a step of rate 1 along it
            const float H = 1.0f / 128;
            double difference = (Loss(H) - Loss(-H)) / (2 * H);
            Assert.True(Math.Abs(difference - gradient) <= 0.02 * Math.Abs(gradient) + 1e-4, $"{parameter}[{element}]: difference {difference}, gradient {gradient}");

            double Loss(float offset)
            {
                Write(session, initial);
                float[] values = [.. initial[s]];
                values[element] += offset;
                session.Write(session.State[s].Tensor, values);
                return session.Step(pixels, labels, new StepContext(0, 0));
            }
        }
    }

    [Theory]
    [InlineData("reference")]
    [InlineData("onednn")]
    public void Training_Resumed_GivesTheSameBits(string name)
    {
        using Backend backend = name == "onednn" ? OneDnn.Create() : new ReferenceBackend();
        TrainingOptions options = Options() with { AverageDecay = 0.9f, ClipNorm = 1 };
        using var whole = new TrainingSession(backend, Mixed(), options);
        Run(whole, 0, 6);
        float[][] kept;
        using (var first = new TrainingSession(backend, Mixed(), options))
        {
            Run(first, 0, 3);
            kept = Read(first);
        }

        using var second = new TrainingSession(backend, Mixed(), options with { Seed = 99 });
        Write(second, kept);
        Run(second, 3, 6);
        Assert.Contains(second.State, s => s.Tensor.Name == "norm1.running_mean.average");
        Assert.Equal(Read(whole), Read(second));
        int blend = whole.State.Select((s, i) => s.Tensor.Name == "norm1.blend" ? i : -1).Max();
        Assert.Contains(Read(whole)[blend], v => v != 0); // it has learned
    }

    [Fact]
    public void TrainingStep_AllocatesNothing()
    {
        using Backend backend = OneDnn.Create();
        using var session = new TrainingSession(backend, Mixed(), Options());
        (byte[] pixels, int[] labels) = Images(1);
        for (int step = 0; step < 5; step++)
        {
            session.Step(pixels, labels, new StepContext(step, 0.01f));
        }

        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int step = 5; step < 15; step++)
        {
            session.Step(pixels, labels, new StepContext(step, 0.01f));
        }

        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    }

    [Fact]
    public void Accumulation_OfMicroBatches_UsesTheirMeanGradient()
    {
        // The gate alone has no batch statistics before it: the mean of the gradients of two equal micro-batches is the gradient of one.
        Network network = Gated();
        using var backend = new ReferenceBackend();
        using var one = new TrainingSession(backend, network, Options());
        using var two = new TrainingSession(backend, network, Options() with { Accumulate = 2 });
        (byte[] pixels, int[] labels) = Images(1);
        one.Step(pixels, labels, new StepContext(0, 0.1f));
        two.Step([.. pixels, .. pixels], [.. labels, .. labels], new StepContext(0, 0.1f));
        Assert.Equal(Read(one).SelectMany(v => v), Read(two).SelectMany(v => v), (a, b) => Math.Abs(a - b) < 1e-6f);
    }

    [Fact]
    public void Kind_DecidesWeightDecay()
    {
        Plan plan = TrainingSession.PlanFor(new ReferenceBackend().Traits, Mixed(), Options());
        SgdUpdate[] updates = [.. plan.Operations.OfType<SgdUpdate>()];
        Assert.Contains("gate.gate", updates.Single(u => u.WeightDecay > 0).Parameters.Select(p => p.Name));
        Assert.Contains("norm1.blend", updates.Single(u => u.WeightDecay == 0).Parameters.Select(p => p.Name));
        Assert.DoesNotContain("norm1.running_mean", updates.SelectMany(u => u.Parameters).Select(p => p.Name));
    }

    [Fact]
    public void RunningStatistics_FollowTrainingAndServeInference()
    {
        using var backend = new ReferenceBackend();
        using var session = new TrainingSession(backend, Mixed(), Options());
        Run(session, 0, 3);
        NetworkState state = session.ReadNetworkState();
        Assert.NotEqual(0, state.Get("norm1.running_mean", Shape.Vector(16))[0]);

        var options = new InferenceOptions { Batch = Batch, Height = Size, Width = Size };
        using var all = new ForwardSession(backend, Mixed(), options, state);
        using var single = new ForwardSession(backend, Mixed(), options with { Batch = 1 }, state);
        (byte[] pixels, _) = Images(7);
        float[] together = new float[Batch * Classes], alone = new float[Classes];
        all.Forward(pixels, together);
        single.Forward(pixels.AsSpan(0, pixels.Length / Batch), alone);
        Assert.Equal(together[..Classes], alone);

        // Collecting population statistics: what is left of a pass are its own, whatever the averaging factor.
        using var population = new ForwardSession(backend, Mixed(), options with { Statistics = BatchNormStatistics.Batch }, state);
        float[] own = new float[Batch * 16 * Size * Size], batch = new float[16], running = new float[16];
        population.Forward(pixels, "norm1", own);
        CustomForward norm = population.Plan.Operations.OfType<CustomForward>().First();
        population.Read(norm.Saved[0], batch);
        population.Read(norm.RunningStatistics[0], running);
        Assert.All(batch, v => Assert.NotEqual(0, v));
        Assert.Equal(batch, running);
    }

    [Theory]
    [InlineData("reference")]
    [InlineData("onednn")]
    public void CodeThatThrows_IsReportedWithItsLayer(string name)
    {
        using Backend backend = name == "onednn" ? OneDnn.Create() : new ReferenceBackend();
        (byte[] pixels, int[] labels) = Images(1);
        using var forward = new TrainingSession(backend, Plain(new FaultyNorm(Fault.Throws)), Options());
        float[][] before = Read(forward);
        InvalidOperationException error = Assert.Throws<InvalidOperationException>(() => forward.Step(pixels, labels, new StepContext(0, 0.1f)));
        Assert.Equal("The layer 'own' failed: Forward of FaultyNorm threw DivideByZeroException: on purpose", error.Message);
        Assert.IsType<DivideByZeroException>(error.InnerException);
        Assert.Equal(Read(forward).Zip(forward.State).Where(p => p.Second.Tensor.Role == TensorRole.Parameter).Select(p => p.First),
            before.Zip(forward.State).Where(p => p.Second.Tensor.Role == TensorRole.Parameter).Select(p => p.First));

        using var backward = new TrainingSession(backend, Plain(new FaultyNorm(Fault.ThrowsInBackward)), Options());
        error = Assert.Throws<InvalidOperationException>(() => backward.Step(pixels, labels, new StepContext(0, 0.1f)));
        Assert.StartsWith("The layer 'own' failed: Backward of FaultyNorm threw", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("reference")]
    [InlineData("onednn")]
    public void OutputThatIsNotFinite_IsFoundInItsLayer(string name)
    {
        using Backend backend = name == "onednn" ? OneDnn.Create() : new ReferenceBackend();
        using var session = new TrainingSession(backend, Plain(new FaultyNorm(Fault.NotFinite)), Options());
        (byte[] pixels, int[] labels) = Images(1);
        Assert.False(float.IsFinite(session.Step(pixels, labels, new StepContext(0, 0.1f))));
        NotFiniteOutput found = session.FindNotFinite()!;
        Assert.Equal(("own", "custom forward", "own.dst"), (found.Layer, found.Operation, found.Tensor.Name));
    }

    [Theory]
    [InlineData(Fault.UnsetDst, "dst")]
    [InlineData(Fault.UnsetSaved, "saved")]
    [InlineData(Fault.AddedDiffSrc, "diffSrc")]
    [InlineData(Fault.MissingParameterGradient, "diffParameter")]
    [InlineData(Fault.StateInField, "")]
    public void Verification_OfANetwork_FindsBrokenRules(Fault fault, string role)
    {
        using Backend backend = OneDnn.Create(), reference = new ReferenceBackend();
        CaseResult result = NetworkVerifier.Step(backend, reference, Plain(new FaultyNorm(fault)), Options(), "");
        Assert.False(result.Passed);
        Assert.True(role.Length == 0 || result.Tensors.Any(t => t.Failed > 0 && t.Role == role && t.Operation.Contains("'own'", StringComparison.Ordinal)), result.Describe());
    }

    [Fact]
    public void Gpu_RefusesWhenPlanning()
    {
        using Backend backend = Backend.CreateForPlanning("cudnn");
        foreach (Func<Plan> plan in new Func<Plan>[]
        {
            () => TrainingSession.PlanFor(backend.Traits, Mixed(), Options()),
            () => ForwardSession.PlanFor(backend.Traits, Mixed(), new InferenceOptions { Batch = 1, Height = Size, Width = Size }),
        })
        {
            UserErrorException error = Assert.Throws<UserErrorException>(plan);
            Assert.Equal(
                "The layer 'norm1' (switchable_norm) is an operation of one's own: managed code, which runs on the processor's memory only, not on this backend. " +
                "Use the backend onednn or reference, or put the layer together from built-in ones.", error.Message);
        }

        // A plan made for another backend.
        Plan other = TrainingSession.PlanFor(new ReferenceBackend().Traits with { ChannelBlock = 8 }, Mixed(), Options());
        NotSupportedException refused = Assert.Throws<NotSupportedException>(() => new PreparedPlan(backend, other));
        Assert.Contains("'norm1'", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ShapesThatDoNotFit_NameTheLayer()
    {
        var builder = new NetworkBuilder("own");
        Node input = builder.Add("data", new InputLayer(3));
        Node conv = builder.Add("conv", new ConvolutionLayer(8, 3), input);
        Node gate = builder.Add("gate", new GatedSum(), input, conv);
        Node fc = builder.Add("fc", new FullyConnectedLayer(Classes, Initializer.FanIn(1)), gate);
        builder.Add("loss", new SoftmaxLossLayer(), fc);
        ArgumentException error = Assert.Throws<ArgumentException>(() => builder.Build().Infer(Batch, Size, Size));
        Assert.Contains("'gate' takes two inputs", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void TensorsOfOneName_AreRefused()
    {
        ArgumentException error = Assert.Throws<ArgumentException>(() => new TwoNames().Spec("own", [new Shape(1, 1, 1, 1)]));
        Assert.Contains("'own' (TwoNames) has two tensors named 'mean'", error.Message, StringComparison.Ordinal);
    }

    /// <summary>Two normalizations of our own (in one place the same object twice), one behind a blocked, one behind a plain value, and a layer of two inputs.</summary>
    private static Network Mixed()
    {
        var builder = new NetworkBuilder("own");
        var norm = new SwitchableNorm();
        Node node = builder.Add("data", new InputLayer(3));
        node = builder.Add("conv1", new ConvolutionLayer(16, 3, Initializer.FanIn(2), pad: 1), node);
        node = builder.Add("norm1", norm, node);
        Node relu = builder.Add("relu1", new ActivationLayer(ActivationKind.Relu), node);
        Node branch = builder.Add("conv2", new ConvolutionLayer(16, 1, Initializer.FanIn(2)), relu);
        branch = builder.Add("bn2", new BatchNormLayer(), branch);
        Node gate = builder.Add("gate", new GatedSum(), relu, branch);
        Node norm3 = builder.Add("norm3", norm, gate);
        Node concat = builder.Add("concat", new ConcatLayer(), norm3, gate);
        Node pool = builder.Add("pool", new GlobalAveragePoolingLayer(), concat);
        Node fc = builder.Add("fc", new FullyConnectedLayer(Classes, Initializer.FanIn(1)), pool);
        builder.Add("loss", new SoftmaxLossLayer(), fc);
        return builder.Build();
    }

    private static Network Gated()
    {
        var builder = new NetworkBuilder("own");
        Node input = builder.Add("data", new InputLayer(3));
        Node a = builder.Add("a", new ConvolutionLayer(8, 3, Initializer.FanIn(2)), input), b = builder.Add("b", new ConvolutionLayer(8, 3, Initializer.FanIn(2)), input);
        Node gate = builder.Add("gate", new GatedSum(), a, b);
        Node fc = builder.Add("fc", new FullyConnectedLayer(Classes, Initializer.FanIn(1)), gate);
        builder.Add("loss", new SoftmaxLossLayer(), fc);
        return builder.Build();
    }

    private static Network Plain(CustomLayer layer)
    {
        var builder = new NetworkBuilder("own");
        Node node = builder.Add("data", new InputLayer(3));
        node = builder.Add("conv", new ConvolutionLayer(8, 3, Initializer.FanIn(2), pad: 1), node);
        node = builder.Add("own", layer, node);
        node = builder.Add("fc", new FullyConnectedLayer(Classes, Initializer.FanIn(1)), node);
        builder.Add("loss", new SoftmaxLossLayer(), node);
        return builder.Build();
    }

    private static TrainingOptions Options() => new() { Batch = Batch, Height = Size, Width = Size, Seed = 3, WeightDecay = 1e-4f };

    private static (byte[] Pixels, int[] Labels) Images(int seed)
    {
        var random = new RandomSequence((ulong)seed, 77);
        byte[] pixels = new byte[Batch * Size * Size * 3];
        for (int i = 0; i < pixels.Length; i++)
        {
            pixels[i] = (byte)random.NextBelow(256);
        }

        return (pixels, [0, 2, 1, 0]);
    }

    private static void Run(TrainingSession session, int from, int to)
    {
        for (int step = from; step < to; step++)
        {
            (byte[] pixels, int[] labels) = Images(step);
            session.Step(pixels, labels, new StepContext(step, 0.05f));
        }
    }

    private static float[][] Read(TrainingSession session) => [.. session.State.Select(s =>
    {
        float[] values = new float[s.Tensor.Shape.Count];
        session.Read(s.Tensor, values);
        return values;
    })];

    private static void Write(TrainingSession session, float[][] values)
    {
        for (int i = 0; i < values.Length; i++)
        {
            session.Write(session.State[i].Tensor, values[i]);
        }
    }

    private sealed record TwoNames : CustomLayer
    {
        public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => inputs[0];

        public override IReadOnlyList<ParameterSpec> Parameters(IReadOnlyList<Shape> inputs) =>
            [new ParameterSpec("mean", Shape.Vector(1), ParameterKind.ScaleShiftBias, Initializer.Constant(0))];

        public override IReadOnlyList<NamedShape> Saved(IReadOnlyList<Shape> inputs) => [new NamedShape("mean", Shape.Vector(1))];

        public override void Forward(in ForwardContext context) => context.Src().CopyTo(context.Dst);

        public override void Backward(in BackwardContext context) => context.DiffDst.CopyTo(context.DiffSrc());
    }
}

/// <summary>A GPU's refusal costs nothing on the device.</summary>
[Collection(StubDevice.Collection)]
public class CustomLayerGpuTests
{
    [Fact]
    public void Refusal_AllocatesNothing()
    {
        using Backend backend = StubDevice.Create();
        long before = StubDevice.Allocated;
        var builder = new NetworkBuilder("own");
        Node node = builder.Add("own", new LeakyRelu(), builder.Add("data", new InputLayer(3)));
        builder.Add("loss", new SoftmaxLossLayer(), builder.Add("fc", new FullyConnectedLayer(2, Initializer.FanIn(1)), node));
        Network network = builder.Build();
        Assert.Throws<UserErrorException>(() => new TrainingSession(backend, network, new TrainingOptions { Batch = 1, Height = 8, Width = 8 }));
        Assert.Equal(before, StubDevice.Allocated);
    }
}
