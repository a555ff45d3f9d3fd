using HpcBatchNorm.Backends;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <summary>
/// Plans inference (Algorithm 2): the layers the main head needs, batch normalization folded into the layer before it where there is one, ReLU computed
/// with the convolution, dropout left out.
/// </summary>
internal sealed class InferencePlanner : PlanBuilder
{
    private readonly BatchNormStatistics _statistics;
    private readonly List<FoldedLayer> _folded = [];
    private Tensor? _probabilities;

    private InferencePlanner(Network network, InferenceOptions options, BackendTraits traits)
        : base(network, options, traits, network.Ancestors(network.Loss)) => _statistics = options.Statistics;

    /// <summary>A layer whose weights and bias hold a batch normalization.</summary>
    public sealed record FoldedLayer(Node Layer, Node BatchNorm, Tensor Weights, Tensor Bias);

    public static (Plan Plan, IReadOnlyList<FoldedLayer> Folded) Plan(Network network, InferenceOptions options, BackendTraits traits)
    {
        var planner = new InferencePlanner(network, options, traits);
        return (planner.Build(), planner._folded);
    }

    protected override bool MayOverwrite(Node node) => OnlyConsumer(node) is not null;

    private Plan Build()
    {
        PlaceInConcats(input =>
            (Traits.BatchNormTakesSlices && IsUnfoldedBatchNorm(input)) || PoolsIntoSlice(input) || (Traits.ConvolutionTakesSlices && IsConvolved(input)));
        foreach (Node node in Nodes)
        {
            if (IsFused(node))
            {
                continue; // computed with one before it
            }

            node.Layer.LowerInference(new Lowering(this, node));
        }

        return Finish(Operations.Count, null, null, _probabilities!);
    }

    /// <summary>The batch normalization that folds into a layer: its only consumer, with one scale per output channel.</summary>
    private Node? Foldable(Node node) =>
        _statistics == BatchNormStatistics.Running && Uses(Fusion.FoldBatchNorm) && OnlyConsumer(node) is { } batchNorm && BatchNormFolding.IsFoldable(batchNorm, Shapes)
            ? batchNorm : null;

    private bool IsUnfoldedBatchNorm(Node node) => BatchNormBehind(node) is { } batchNorm && Foldable(batchNorm.Inputs[0]) != batchNorm;

    /// <summary>True for a convolution, whose value is <paramref name="last"/>'s with what is folded into it, that computes the ReLU behind it too.</summary>
    private bool ConvolvesWithRelu(Node node, Node last) => node.Layer is ConvolutionLayer &&
        (FusableRelu(last, Fusion.ConvolutionRelu) is not null || (Uses(Fusion.ConvolutionRelu) && FusableSum(last, node) is not null));

    /// <summary>True where a convolution's kernel writes the node's value: the convolution itself, or what is computed with it and adds nothing to it.</summary>
    private bool IsConvolved(Node node)
    {
        if (node.Layer is ActivationLayer && FusableRelu(node.Inputs[0], Fusion.ConvolutionRelu) == node)
        {
            node = node.Inputs[0];
        }

        return (node.Layer is BatchNormLayer && Foldable(node.Inputs[0]) == node ? node.Inputs[0] : node).Layer is ConvolutionLayer;
    }

    /// <summary>What a layer says to the planner of inference, carried out.</summary>
    private sealed class Lowering(InferencePlanner planner, Node node) : NodeLowering(planner, node), IInferenceLowering
    {
        public BatchNormStatistics Statistics => planner._statistics;

        public override Tensor AddState(string parameter, TensorLayout layout) => planner.AddState(Node, parameter, layout);

        public (Tensor Weights, Tensor? Bias) AddWeights(bool bias, int outputs)
        {
            Node? batchNorm = planner.Foldable(Node);
            Tensor weights = planner.AddState(Node, "weights", TensorLayout.Opaque, planner.ActivationType);
            DataType biasType = planner.Traits.ConvolutionReluTakesNarrowBias && planner.ConvolvesWithRelu(Node, batchNorm ?? Node) ? planner.ActivationType : DataType.Float32;
            Tensor? biasTensor = bias ? planner.AddState(Node, "bias", TensorLayout.Plain, biasType) : null;
            if (batchNorm is not null)
            {
                biasTensor ??= AddFoldedShift(batchNorm, outputs, biasType);
                planner._folded.Add(new FoldedLayer(Node, batchNorm, weights, biasTensor));
                Fuse(Fusion.FoldBatchNorm, batchNorm);
            }

            return (weights, biasTensor);
        }

        public bool FuseReluWithConvolution() => FuseRelu(Fusion.ConvolutionRelu);

        public Tensor? FuseResidualWithConvolution() => planner.Uses(Fusion.ConvolutionRelu) ? FuseResidual(TensorLayout.Blocked) : null;

        public Tensor NewValueOver(Tensor residual) =>
            planner.Uses(Fusion.InPlace) && !residual.IsSlice && residual.Root.Role == TensorRole.Activation && !planner.IsReadLater(residual, Node, Output.Inputs[0])
                ? Cover(residual.Alias($"{Output.Name}.dst", TensorRole.Activation))
                : NewValue(TensorLayout.Blocked);

        public void PassInput() => planner.SetValue(Node, Input());

        public Tensor NewProbabilities(Shape logits) => planner._probabilities = new Tensor("probabilities", logits, TensorRole.Result);

        /// <summary>The folded shift has no parameter of its own in the network; it stands under the name of batch normalization's.</summary>
        private Tensor AddFoldedShift(Node batchNorm, int channels, DataType type)
        {
            var bias = new Tensor($"{Name}.bias", Shape.Vector(channels), TensorRole.Parameter, TensorLayout.Plain, type);
            planner.State.Add(new StateTensor(bias, planner.Parameter(batchNorm, "shift")));
            return bias;
        }
    }
}
