using CsCheck;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Planning;

public class PlannerTests
{
    private static readonly BackendTraits Blocks = new(16, BatchNormTakesSlices: true);

    [Fact]
    public void TrainingPlan_BnInception_HasNoReorderAndOneConvolutionPerDirection()
    {
        Plan plan = Train("bn-inception", new NetworkOptions(), new TrainingOptions { Batch = 2 });

        Assert.DoesNotContain(plan.Operations, o => o is Copy { Kind: "reorder" });
        // 69 in the network; each of the ten modules computes its 1x1 convolutions of one value together: four in the seven with an average pooling,
        // three in 5b (max pooling before the projection), two in 3c and 4e (no projection, no 1x1).
        Assert.Equal(69 - 7 * 3 - 2 - 2 * 1, plan.Operations.OfType<ConvolutionForward>().Count());
        Assert.Equal(44, plan.Operations.OfType<ConvolutionBackwardWeights>().Count());
        Assert.Equal(43, plan.Operations.OfType<ConvolutionBackwardData>().Count()); // none for the images
        Assert.Equal(69, plan.Operations.OfType<BatchNormBackward>().Count());
        Assert.DoesNotContain(plan.Operations, o => o is ActivationForward); // all ReLUs fused
        // Concatenations need a copy only for the two pass-through poolings, forward and backward.
        Assert.Equal(4, plan.Operations.OfType<Copy>().Count());
    }

    [Fact]
    public void Plans_WherePoolingTakesSlices_CopyNothing()
    {
        BackendTraits traits = Blocks with { PoolingTakesSlices = true };
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
        Plan plan = TrainingSession.PlanFor(traits, network, new TrainingOptions { Batch = 2 });
        Assert.DoesNotContain(plan.Operations, o => o is Copy);
        AssertDataFlow(plan);
        PoolingForward forward = plan.Operations.OfType<PoolingForward>().Single(o => o.Name == "inception_3c/pool");
        PoolingBackward backward = plan.Operations.OfType<PoolingBackward>().Single(o => o.Name == "inception_3c/pool");
        // Behind the 3x3 and the double 3x3 convolutions.
        Assert.Equal((160 + 96, 160 + 96 + 320), (forward.Dst.RootChannelOffset, forward.Dst.Root.Shape.C));
        Assert.Equal((160 + 96, 160 + 96 + 320), (backward.DiffDst.RootChannelOffset, backward.DiffDst.Root.Shape.C));
    }

    [Fact]
    public void TrainingPlan_WhereConvolutionsNormalize_KeepsNoValueThatOneConvolutionReads()
    {
        BackendTraits traits = Blocks with { ConvolutionNormalizes = true };
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
        Plan plan = TrainingSession.PlanFor(traits, network, new TrainingOptions { Batch = 2 });
        AssertDataFlow(plan);

        // Before conv2, and in each of the ten modules before the 3x3 convolution and the two that follow one another.
        Assert.Equal(1 + 10 * 3, plan.Fusions[Fusion.BatchNormConvolution]);
        BatchNormForward[] alone = [.. plan.Operations.OfType<BatchNormForward>().Where(o => o.Dst is null)];
        Assert.Equal(31, alone.Length);
        foreach (BatchNormForward statistics in alone)
        {
            ConvolutionForward forward = plan.Operations.OfType<ConvolutionForward>().Single(c => c.Normalization?.Mean == statistics.Mean);
            ConvolutionBackwardWeights backward = plan.Operations.OfType<ConvolutionBackwardWeights>().Single(c => c.Name == forward.Name);
            Assert.Equal((statistics.Src, forward.Normalization), (forward.Src, backward.Normalization));
            Assert.True(forward.Normalization!.Spec.Relu);
        }

        // Nobody gives up what is measured otherwise: other ranks' images, groups of images, constant statistics; nor what is stored in 16 bits.
        foreach (TrainingOptions other in new TrainingOptions[]
        {
            new() { Batch = 2, GhostBatch = 1 }, new() { Batch = 2, Ranks = 2, SyncBatchNorm = true }, new() { Batch = 2, FrozenStatistics = true }, new() { Batch = 2, Precision = Precision.Bf16 },
            new() { Batch = 2, BatchRenormalize = true }, new() { Batch = 2, ConstantStatistics = true }, new() { Batch = 2, DisabledFusions = [Fusion.BatchNormConvolution] },
        })
        {
            Assert.DoesNotContain(Fusion.BatchNormConvolution, TrainingSession.PlanFor(traits with { BatchNormVariants = true }, network, other).Fusions.Keys);
        }
    }

    [Fact]
    public void TrainingPlan_GradientsFanIn_OncePerExtraConsumer()
    {
        Plan separate = Train("bn-inception", new NetworkOptions(), new TrainingOptions { Batch = 2, DisabledFusions = [Fusion.ParallelConvolution] });
        Plan plan = Train("bn-inception", new NetworkOptions(), new TrainingOptions { Batch = 2 });

        // A module's input has as many consumers as branches: 4, or 3 where there is no 1x1. Every one after the first adds.
        Assert.Equal(8 * 3 + 2 * 2, separate.Operations.OfType<Sum>().Count());
        // With parallel convolutions only the max poolings of 3c, 4e and 5b are consumers of their own.
        Assert.Equal(3, plan.Operations.OfType<Sum>().Count());
    }

    [Theory]
    [InlineData("bn-inception")]
    [InlineData("inception")]
    [InlineData("inception-tiny")]
    [InlineData("mnist-mlp")]
    [InlineData("resnet-18")]
    [InlineData("resnet-50")]
    public void TrainingPlan_EveryReadWasWrittenBefore(string name)
    {
        foreach (string[] disabled in new string[][] { [], [Fusion.BatchNormRelu], [Fusion.ConcatSlice], [Fusion.InPlace], [Fusion.ParallelConvolution], [Fusion.BatchNormAddRelu], [Fusion.BatchNormRelu, Fusion.ConcatSlice, Fusion.InPlace] })
        {
            Plan plan = Train(
                name, new NetworkOptions { AuxiliaryHeads = name == "inception", Dropout = 0.1f },
                new TrainingOptions { Batch = 2, Height = 64, Width = 64, DisabledFusions = disabled, ClipNorm = 1, AverageDecay = 0.9f });
            AssertDataFlow(plan);
        }
    }

    [Theory]
    [InlineData("bn-inception")]
    [InlineData("inception")]
    [InlineData("inception-tiny")]
    [InlineData("mnist-mlp")]
    [InlineData("resnet-18")]
    [InlineData("resnet-50")]
    public void InferencePlan_EveryReadWasWrittenBefore(string name)
    {
        NetworkOptions options = name.StartsWith("resnet", StringComparison.Ordinal) ? new() : new() { PerActivationLast = true, AuxiliaryHeads = true };
        Network network = NetworkCatalog.Create(name, Channels(name, options));
        foreach (string disabled in Fusion.All.Select(f => f.Name))
        {
            AssertDataFlow(ForwardSession.PlanFor(Blocks, network, new InferenceOptions { Batch = 2, Height = 64, Width = 64, DisabledFusions = [disabled] }));
        }
    }

    [Fact]
    public void InferencePlan_BnInception_IsConvolutionsPoolingsAndCopies()
    {
        Plan plan = ForwardSession.PlanFor(Blocks, NetworkCatalog.Create("bn-inception", new NetworkOptions()), new InferenceOptions { Batch = 1 });

        Assert.DoesNotContain(plan.Operations, o => o is BatchNormForward or ActivationForward);
        Assert.All(plan.Operations.OfType<ConvolutionForward>(), c => Assert.True(c.Relu && c.Bias is not null));
        Assert.DoesNotContain(plan.Operations, o => o.Name.Contains("loss/", StringComparison.Ordinal));
    }

    [Fact]
    public void TrainingPlan_WeightDecay_GoesToWeightsOnly()
    {
        Plan plan = Train("inception-tiny", new NetworkOptions(), new TrainingOptions { Batch = 2, Height = 32, Width = 32, WeightDecay = 4e-5f });

        SgdUpdate[] updates = [.. plan.Operations.OfType<SgdUpdate>()];
        Assert.Equal(2, updates.Length);
        Assert.Equal(4e-5f, updates[0].WeightDecay);
        Assert.All(updates[0].Parameters, p => Assert.EndsWith(".weights", p.Name, StringComparison.Ordinal));
        Assert.Equal(0, updates[1].WeightDecay);
        Assert.All(updates[1].Parameters, p => Assert.False(p.Name.EndsWith(".weights", StringComparison.Ordinal)));
    }

    [Fact]
    public void TrainingPlan_SingleImageWithOnePosition_IsRefused()
    {
        ArgumentException error = Assert.Throws<ArgumentException>(
            () => AssertDataFlow(Train("bn-inception", new NetworkOptions(), new TrainingOptions { Batch = 1, Height = 32, Width = 32 })));
        Assert.Contains("training needs at least 2", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ArenaPlanner_NeverOverlapsWhatLivesTogether()
    {
        Gen<ArenaPlanner.Block> block = Gen.Select(Gen.Long[0, 5000], Gen.Int[0, 50], Gen.Int[0, 10], (b, f, l) => new ArenaPlanner.Block(b, f, f + l));
        block.Array[1, 80].Sample(blocks =>
        {
            (long[] offsets, long bytes) = ArenaPlanner.Place(blocks);
            for (int i = 0; i < blocks.Length; i++)
            {
                Assert.Equal(0, offsets[i] % 64);
                Assert.True(offsets[i] + blocks[i].Bytes <= bytes);
                for (int j = 0; j < i; j++)
                {
                    bool together = blocks[i].First <= blocks[j].Last && blocks[j].First <= blocks[i].Last;
                    bool overlap = offsets[i] < offsets[j] + blocks[j].Bytes && offsets[j] < offsets[i] + blocks[i].Bytes;
                    Assert.False(together && overlap, $"blocks {blocks[i]} at {offsets[i]} and {blocks[j]} at {offsets[j]} overlap");
                }
            }
        });
    }

    private static Plan Train(string name, NetworkOptions options, TrainingOptions training) =>
        TrainingSession.PlanFor(Blocks, NetworkCatalog.Create(name, Channels(name, options)), training);

    private static NetworkOptions Channels(string name, NetworkOptions options) => name == "mnist-mlp" ? options with { Classes = 10 } : options;

    /// <summary>
    /// Replays a plan on names: every tensor read must hold what its own last writer put there, so an in-place operation or a slice that came too early
    /// shows as a foreign value.
    /// </summary>
    internal static void AssertDataFlow(Plan plan)
    {
        foreach (Operation operation in plan.Operations)
        {
            operation.Validate();
        }

        // Contents by root tensor and channel: the name of the tensor whose value stands there.
        Dictionary<Tensor, string?[]> contents = new(ReferenceEqualityComparer.Instance);
        ILookup<Tensor, string> sliceNames = plan.Operations.SelectMany(o => o.Writes).Where(t => t.IsSlice).ToLookup(t => t.Root, t => t.Name);
        foreach (Operation operation in plan.Operations)
        {
            foreach (Tensor tensor in operation.Reads)
            {
                if (tensor.Root.Role is TensorRole.Parameter or TensorRole.Momentum or TensorRole.RunningStatistic or TensorRole.Average or TensorRole.Input or TensorRole.Label)
                {
                    continue;
                }

                string?[] channels = Contents(tensor);
                for (int c = tensor.RootChannelOffset; c < tensor.RootChannelOffset + tensor.Shape.C; c++)
                {
                    Assert.True(channels[c] is not null, $"{operation.Kind} {operation.Name} reads {tensor} channel {c}, which nothing wrote");
                    bool own = Holds(channels[c]!, tensor);
                    Assert.True(own, $"{operation.Kind} {operation.Name} reads {tensor} channel {c}, which holds {channels[c]}");
                }
            }

            foreach (Tensor tensor in operation.Writes)
            {
                string?[] channels = Contents(tensor);
                Array.Fill(channels, ValueName(tensor), tensor.RootChannelOffset, tensor.Shape.C);
            }
        }

        // A relabelled view is the same value in another layout.
        static string ValueName(Tensor tensor) => tensor.Parent is { } parent && parent.Layout != tensor.Layout ? parent.Name : tensor.Name;

        string?[] Contents(Tensor tensor)
        {
            if (!contents.TryGetValue(tensor.Root, out string?[]? channels))
            {
                contents[tensor.Root] = channels = new string?[tensor.Root.Shape.C];
            }

            return channels;
        }

        // A view may be read through its parent (a concatenation through its slices) and a parent through its view.
        bool Holds(string written, Tensor read)
        {
            for (Tensor? t = read; t is not null; t = t.Parent)
            {
                if (written == t.Name)
                {
                    return true;
                }
            }

            return sliceNames[read.Root].Contains(written);
        }
    }
}
