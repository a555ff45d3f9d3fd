using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;

namespace HpcBatchNorm.Tests.Planning;

/// <summary>What the planner makes of sums: the end of a residual block as one operation, gradients that share memory, and never another result.</summary>
public sealed class ResidualPlanTests
{
    private static readonly BackendTraits Blocks = new(8, BatchNormTakesSlices: true, BatchNormVariants: true);

    // Each builds on a value of 16 channels and returns one of any number of channels.
    private static readonly Dictionary<string, Func<NetworkBuilder, Node, Node>> Graphs = new(StringComparer.Ordinal)
    {
        ["identity-blocks"] = (b, x) => Block(b, "second", Block(b, "first", x, x), null),
        ["projection"] = (b, x) => Block(b, "block", x, Normalized(b, "shortcut", x, 16, 1)),
        ["projection-last"] = (b, x) =>
        {
            Node main = Normalized(b, "main", Relu(b, "relu", Normalized(b, "first", x, 16, 3)), 16, 3);
            return Relu(b, "end", b.Add("sum", new SumLayer(), main, Normalized(b, "shortcut", x, 16, 1)));
        },
        ["block-into-concat"] = (b, x) => b.Add("concat", new ConcatLayer(), Block(b, "block", x, x), Relu(b, "side/relu", Normalized(b, "side", x, 8, 1))),
        ["residual-read-again"] = (b, x) =>
        {
            Node inner = Normalized(b, "inner", x, 16, 1);
            Node end = Relu(b, "end", b.Add("sum", new SumLayer(), Normalized(b, "main", x, 16, 3), inner));
            return b.Add("again", new SumLayer(), end, inner);
        },
        ["raw-convolution-and-its-norm"] = (b, x) =>
        {
            Node raw = b.Add("raw", new ConvolutionLayer(16, 3, pad: 1), x);
            return Relu(b, "end", b.Add("sum", new SumLayer(), b.Add("norm", new BatchNormLayer(), raw), raw));
        },
        ["dropped-residual"] = (b, x) => Relu(b, "end", b.Add(
            "sum", new SumLayer(), b.Add("drop", new DropoutLayer(0.3f), x), Normalized(b, "main", b.Add("read-too", new ActivationLayer(ActivationKind.Tanh), x), 16, 3))),
        ["pre-activation"] = (b, x) => b.Add("second", new SumLayer(), PreActivated(b, "a", b.Add("first", new SumLayer(), PreActivated(b, "b", x), x)), x),
        ["twice-the-same"] = (b, x) => Relu(b, "end", b.Add("sum", new SumLayer(), x, x)),
        ["three"] = (b, x) => Relu(b, "end", b.Add("sum", new SumLayer(), x, Normalized(b, "p", x, 16, 1), Normalized(b, "q", x, 16, 3))),
        ["nested"] = (b, x) =>
        {
            Node p = b.Add("p", new ActivationLayer(ActivationKind.Sigmoid), Normalized(b, "pn", x, 16, 1)), q = b.Add("q", new DropoutLayer(0.2f), x);
            Node inner = b.Add("inner", new SumLayer(), p, q);
            return b.Add("outer", new SumLayer(), b.Add("t", new ActivationLayer(ActivationKind.Tanh), b.Add("s", new SumLayer(), inner, x)), inner);
        },
        ["sum-of-concats"] = (b, x) =>
        {
            Node first = b.Add("c1", new ConcatLayer(), Relu(b, "r1", Normalized(b, "n1", x, 8, 1)), Relu(b, "r2", Normalized(b, "n2", x, 8, 3)));
            Node second = b.Add("c2", new ConcatLayer(), Relu(b, "r3", Normalized(b, "n3", x, 8, 1)), Relu(b, "r4", Normalized(b, "n4", x, 8, 3)));
            return b.Add("a", new ActivationLayer(ActivationKind.Tanh), b.Add("sum", new SumLayer(), first, second));
        },
    };

    public static TheoryData<string> GraphNames => [.. Graphs.Keys];

    private static string[][] Disabled =>
    [
        [], [Fusion.BatchNormAddRelu], [Fusion.InPlace], [Fusion.BatchNormRelu], [Fusion.ParallelConvolution], [Fusion.ConcatSlice],
        [Fusion.BatchNormAddRelu, Fusion.ParallelConvolution], [Fusion.FoldBatchNorm], [Fusion.ConvolutionRelu],
    ];

    [Theory]
    [InlineData("resnet-50")]
    [InlineData("resnet-101")]
    public void TrainingPlan_BottleneckNetwork_HasNoSumActivationOrCopy(string name)
    {
        Network network = NetworkCatalog.Create(name, new NetworkOptions());
        Plan plan = TrainingSession.PlanFor(Blocks, network, new TrainingOptions { Batch = 2 });

        Assert.DoesNotContain(plan.Operations, o => o is Sum or Copy or ActivationForward or ActivationBackward);
        int blocks = network.Nodes.Count(n => n.Layer is SumLayer);
        Assert.Equal(blocks, plan.Fusions[Fusion.BatchNormAddRelu]);
        Assert.Equal(blocks, plan.Operations.OfType<BatchNormForward>().Count(o => o.Residual is not null && o.Spec.Relu));

        // All ends but the last have two readers: the next block's first convolution and its shortcut.
        Assert.Equal(blocks - 1, plan.Operations.OfType<BatchNormBackward>().Count(o => o.SecondDiffDst is not null));
        Assert.All(plan.Operations.OfType<BatchNormBackward>().Where(o => o.DiffResidual is not null), o => Assert.Same(o.DiffDst.Root, o.DiffResidual!.Root));
    }

    [Theory]
    [InlineData("resnet-18")]
    [InlineData("resnet-50")]
    public void InferencePlan_ResidualNetwork_IsConvolutionsInPlaceAndPoolings(string name)
    {
        Network network = NetworkCatalog.Create(name, new NetworkOptions());
        Plan plan = ForwardSession.PlanFor(Blocks, network, new InferenceOptions { Batch = 2 });

        Assert.DoesNotContain(plan.Operations, o => o is Sum or Copy or ActivationForward or BatchNormForward);
        ConvolutionForward[] ends = [.. plan.Operations.OfType<ConvolutionForward>().Where(o => o.Residual is not null)];
        Assert.Equal(network.Nodes.Count(n => n.Layer is SumLayer), ends.Length);
        Assert.All(ends, o => Assert.True(o.Relu && o.Dst.Root == o.Residual!.Root));
    }

    [Fact]
    public void TrainingPlan_BasicBlocks_SumOnlyBehindTheirPooling()
    {
        Plan plan = TrainingSession.PlanFor(Blocks, NetworkCatalog.Create("resnet-18", new NetworkOptions()), new TrainingOptions { Batch = 2 });

        // The first block reads the max pooling's output twice; its gradients meet before the pooling's backward pass.
        Assert.Equal("pool1.diff", Assert.Single(plan.Operations.OfType<Sum>()).Name);
        Assert.DoesNotContain(plan.Operations, o => o is Copy or ActivationForward or ActivationBackward);
    }

    [Theory]
    [MemberData(nameof(GraphNames))]
    public void TrainingPlan_EverySum_EveryReadWasWrittenBefore(string graph)
    {
        foreach (string[] disabled in Disabled)
        {
            foreach (bool recompute in new[] { false, true })
            {
                PlannerTests.AssertDataFlow(TrainingSession.PlanFor(Blocks, Build(graph), Options with { DisabledFusions = disabled, RecomputeBatchNorm = recompute }));
            }

            PlannerTests.AssertDataFlow(ForwardSession.PlanFor(Blocks, Build(graph), new InferenceOptions { Batch = 4, Height = 6, Width = 6, DisabledFusions = disabled }));
        }
    }

    [Theory]
    [MemberData(nameof(GraphNames))]
    public void Training_EverySum_LearnsTheSameWhateverIsFused(string graph)
    {
        Network network = Build(graph);
        TrainingOptions[] modes =
        [
            Options, Options with { GhostBatch = 2 }, Options with { FrozenStatistics = true }, Options with { ConstantStatistics = true },
            Options with { BatchRenormalize = true, Renormalization = new BatchRenormalization(1.5f, 0.5f, 0, 0, 0) }, Options with { RecomputeBatchNorm = true },
            Options with { Accumulate = 2 },
        ];
        foreach (TrainingOptions mode in modes)
        {
            (float Loss, float[] State) expected = Trained(network, mode with { DisabledFusions = [.. Fusion.All.Select(f => f.Name)], RecomputeBatchNorm = false });
            foreach (string[] disabled in Disabled)
            {
                (float loss, float[] state) = Trained(network, mode with { DisabledFusions = disabled });
                string what = $"{graph} without [{string.Join(", ", disabled)}]";
                Assert.True(Math.Abs(loss - expected.Loss) <= 1e-5f * Math.Abs(expected.Loss), $"{what}: loss {loss}, expected {expected.Loss}");
                for (int i = 0; i < state.Length; i++)
                {
                    Assert.True(Math.Abs(state[i] - expected.State[i]) <= 1e-5f * (1 + Math.Abs(expected.State[i])), $"{what}: value {i} is {state[i]}, expected {expected.State[i]}");
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(GraphNames))]
    public void Inference_EverySum_AnswersTheSameWhateverIsFused(string graph)
    {
        Network network = Build(graph);
        using var reference = new ReferenceBackend();
        NetworkState state = NetworkState.Initial(network.Infer(4, 6, 6), 3);
        foreach (BatchNormStatistics statistics in Enum.GetValues<BatchNormStatistics>())
        {
            var options = new InferenceOptions { Batch = 4, Height = 6, Width = 6, Statistics = statistics };
            float[] expected = Answer(options with { DisabledFusions = [.. Fusion.All.Select(f => f.Name)] });
            foreach (string[] disabled in Disabled)
            {
                float[] actual = Answer(options with { DisabledFusions = disabled });
                Assert.All(actual.Zip(expected), p => Assert.Equal(p.Second, p.First, 1e-6f));
            }
        }

        float[] Answer(InferenceOptions options)
        {
            using var session = new ForwardSession(reference, network, options, state);
            float[] probabilities = new float[4 * 5];
            session.Forward(Pixels(1), probabilities);
            return probabilities;
        }
    }

    private static TrainingOptions Options => new() { Batch = 4, Height = 6, Width = 6 };

    private static Network Build(string graph)
    {
        var builder = new NetworkBuilder(graph);
        Node node = builder.Add("input", new InputLayer(3));
        node = Relu(builder, "stem/relu", Normalized(builder, "stem", node, 16, 3));
        node = Graphs[graph](builder, node);
        node = builder.Add("tail", new ConvolutionLayer(16, 3, pad: 1), node);
        node = builder.Add("fc", new FullyConnectedLayer(5, Initializer.FanIn(1)), builder.Add("pool", new GlobalAveragePoolingLayer(), node));
        builder.Add("loss", new SoftmaxLossLayer(), node);
        return builder.Build(minimumImageSize: 4);
    }

    /// <summary>Two convolutions with their batch normalizations, the shortcut (the input itself when null), sum and ReLU.</summary>
    private static Node Block(NetworkBuilder builder, string name, Node input, Node? shortcut)
    {
        Node first = Relu(builder, $"{name}/relu1", Normalized(builder, $"{name}/1", input, 16, 3));
        return Relu(builder, $"{name}/relu", builder.Add($"{name}/sum", new SumLayer(), Normalized(builder, $"{name}/2", first, 16, 3), shortcut ?? input));
    }

    private static Node PreActivated(NetworkBuilder builder, string name, Node input) => builder.Add(
        $"{name}/conv", new ConvolutionLayer(16, 3, pad: 1), Relu(builder, $"{name}/relu", builder.Add($"{name}/bn", new BatchNormLayer(), input)));

    private static Node Normalized(NetworkBuilder builder, string name, Node input, int channels, int kernel) => builder.Add(
        $"{name}/bn", new BatchNormLayer(), builder.Add($"{name}/conv", new ConvolutionLayer(channels, kernel, pad: kernel / 2), input));

    private static Node Relu(NetworkBuilder builder, string name, Node input) => builder.Add(name, new ActivationLayer(ActivationKind.Relu), input);

    private static (float Loss, float[] State) Trained(Network network, TrainingOptions options)
    {
        using var backend = new ReferenceBackend();
        using var session = new TrainingSession(backend, network, options);
        float loss = 0;
        int images = options.ImagesPerStep;
        for (int step = 0; step < 2; step++)
        {
            loss = session.Step(Pixels(options.Accumulate), [.. Enumerable.Range(0, images).Select(i => i % 5)], new StepContext(step, 0.05f));
        }

        List<float> state = [];
        foreach (StateTensor entry in session.State.OrderBy(s => s.Tensor.Name, StringComparer.Ordinal))
        {
            float[] values = new float[entry.Tensor.Shape.Count];
            session.Read(entry.Tensor, values);
            state.AddRange(values);
        }

        return (loss, [.. state]);
    }

    private static byte[] Pixels(int times)
    {
        byte[] pixels = new byte[times * 4 * 6 * 6 * 3];
        new Random(2).NextBytes(pixels);
        return pixels;
    }
}
