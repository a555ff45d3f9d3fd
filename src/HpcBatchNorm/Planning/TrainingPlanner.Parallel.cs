using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <content>
/// <see cref="Fusion.ParallelConvolution"/>: the 1x1 convolutions that read one value become a single wider one. Each batch normalization behind them
/// reads its channels of the wide output, and writes their gradient to the same channels of the wide gradient, so the value's gradient comes out of one
/// convolution instead of being summed over branches. A 1x1 convolution commutes with an average pooling before it (both are linear, one acts within
/// positions, the other within channels), so the projection of a pooling branch takes part and its pooling follows.
/// </content>
internal sealed partial class TrainingPlanner
{
    private readonly Dictionary<Node, ParallelConvolution> _parallel = [];

    /// <summary>One of the convolutions, the average pooling before it if there is one, and its channels of the wide output.</summary>
    private sealed record ParallelBranch(Node Convolution, Node? Pool, int Offset, int Channels);

    /// <summary>Convolutions computed together.</summary>
    private sealed class ParallelConvolution(Node input, ParallelBranch[] branches)
    {
        public Node Input => input;

        public ParallelBranch[] Branches => branches;

        /// <summary>Comes before all others in the network, so its backward pass comes after theirs.</summary>
        public Node First => branches[0].Convolution;

        public int Channels => branches[^1].Offset + branches[^1].Channels;

        /// <summary>What the branches' names have in common, up to the last slash.</summary>
        public string Name
        {
            get
            {
                string first = First.Name;
                int common = branches.Min(b => first.AsSpan().CommonPrefixLength(b.Convolution.Name));
                return $"{first[..(first.AsSpan(0, common).LastIndexOf('/') + 1)]}parallel_1x1";
            }
        }

        /// <summary>Gradient of the wide output; its channels are written by the branches.</summary>
        public Tensor? DiffDst { get; set; }

        public Tensor DiffDstOf(ParallelBranch branch) =>
            DiffDst!.Slice($"{branch.Convolution.Name}.diff{(branch.Pool is null ? "" : " before pooling")}", branch.Offset, branch.Channels);
    }

    private void FindParallelConvolutions()
    {
        if (!Uses(Fusion.ParallelConvolution) || !Traits.BatchNormTakesSlices)
        {
            return;
        }

        foreach (Node input in Nodes.Where(n => n != Network.Input))
        {
            List<ParallelBranch> branches = [];
            int offset = 0;
            foreach (Node consumer in Consumers(input))
            {
                bool pooled = consumer.Layer is PoolingLayer pooling && IsAverageWithinMap(pooling.Spec(Shapes[input]));
                if ((pooled ? OnlyConsumer(consumer) : consumer) is { Layer: ConvolutionLayer layer } convolution && CanJoin(convolution, layer)
                    && (branches.Count == 0 || RuleOf(convolution) == RuleOf(branches[0].Convolution)))
                {
                    branches.Add(new ParallelBranch(convolution, pooled ? consumer : null, offset, layer.OutputChannels));
                    offset += layer.OutputChannels;
                }
            }

            // Without a convolution of the value itself there is nothing that the pooled ones could join.
            if (branches.Count < 2 || branches[0].Pool is not null)
            {
                continue;
            }

            var parallel = new ParallelConvolution(input, [.. branches]);
            Count(Fusion.ParallelConvolution);
            foreach (ParallelBranch branch in branches)
            {
                _parallel[branch.Convolution] = parallel;
                if (branch.Pool is not null)
                {
                    _parallel[branch.Pool] = parallel;
                }
            }
        }
    }

    /// <summary>Plain 1x1 convolutions in front of a batch normalization of maps, whose kernel takes whole blocks of channels.</summary>
    private bool CanJoin(Node node, ConvolutionLayer layer) =>
        _options.Algorithm != OptimizerAlgorithm.Lamb // its norms are those of each layer's weights alone
        && layer.IsPointwise && !layer.Bias && layer.OutputChannels % Traits.ChannelBlock == 0
        && OnlyConsumer(node) is { Layer: BatchNormLayer { PerActivation: false } };

    /// <summary>Weights that lie together are updated together, so what is said of them must be the same.</summary>
    private ParameterRule RuleOf(Node convolution) => _rules.Of(Parameter(convolution, "weights"));

    private static bool IsAverageWithinMap(PoolingSpec spec) => spec.Kind != PoolingKind.Max && spec.Dst == spec.Src;

    private void EmitParallel(ParallelConvolution parallel)
    {
        Tensor src = InLayout(Value(parallel.Input), TensorLayout.Blocked);
        string name = parallel.Name;
        ConvolutionSpec spec = ((ConvolutionLayer)parallel.First.Layer).Spec(src.Shape) with { OutputChannels = parallel.Channels };
        var weights = new Tensor($"{name}.weights", spec.Weights, TensorRole.Parameter, TensorLayout.Opaque);
        Tensor diffWeights = Learn(weights, Parameter(parallel.First, "weights")), multiplied = Multiplied(weights);
        var dst = new Tensor($"{name}.dst", spec.Dst, TensorRole.Activation, TensorLayout.Blocked, ActivationType);

        // The output is not needed for its own gradient, and each batch normalization has read its channels when it writes theirs.
        parallel.DiffDst = Uses(Fusion.InPlace)
            ? dst.Alias($"{name}.diff", TensorRole.Gradient)
            : new Tensor($"{name}.diff", dst.Shape, TensorRole.Gradient, dst.Layout, ActivationType);
        Emit(new ConvolutionForward(name, spec, src, multiplied, null, dst));
        foreach (ParallelBranch branch in parallel.Branches)
        {
            NetworkParameter parameter = Parameter(branch.Convolution, "weights");
            State.Add(new StateTensor(weights.Rows(parameter.Name, branch.Offset, branch.Channels), parameter));
            EmitBranch(parallel, branch, dst);
        }

        _backward[parallel.First] = () =>
        {
            Tensor diffDst = parallel.DiffDst;
            if (Learns(parallel.First))
            {
                Emit(new ConvolutionBackwardWeights(name, spec, ForBackward(parallel.Input, src), diffDst, diffWeights, null));
            }

            Contribute(parallel.Input, TensorLayout.Blocked, diffSrc => new ConvolutionBackwardData(name, spec, diffDst, multiplied, diffSrc));
        };
    }

    /// <summary>Makes a branch's value: its channels of the wide output, or those pooled.</summary>
    private void EmitBranch(ParallelConvolution parallel, ParallelBranch branch, Tensor wide)
    {
        Node node = branch.Convolution;
        if (branch.Pool is null)
        {
            SetValue(node, wide.Slice($"{node.Name}.dst", branch.Offset, branch.Channels));
            return;
        }

        Tensor src = wide.Slice($"{node.Name}.dst before pooling", branch.Offset, branch.Channels);
        PoolingSpec spec = ((PoolingLayer)branch.Pool.Layer).Spec(src.Shape);
        Emit(new PoolingForward(branch.Pool.Name, spec, src, NewValue(node, TensorLayout.Blocked), null));
        _backward[node] = () => Emit(new PoolingBackward(branch.Pool.Name, spec, Gradient(node), null, parallel.DiffDstOf(branch)));
    }

    /// <summary>Where the gradient of a value belongs that is some channels of a wide output; null for other values.</summary>
    private Tensor? PlaceInParallel(Node node) =>
        _parallel.TryGetValue(node, out ParallelConvolution? parallel)
        && parallel.Branches.FirstOrDefault(b => b.Convolution == node) is { Pool: null } branch
            ? parallel.DiffDstOf(branch)
            : null;
}
