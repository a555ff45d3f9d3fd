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

    private InferencePlanner(Network network, InferenceOptions options, BackendTraits traits)
        : base(network, options, traits, network.Ancestors(network.Loss.Inputs[0])) => _statistics = options.Statistics;

    /// <summary>A layer whose weights and bias hold a batch normalization.</summary>
    public sealed record FoldedLayer(Node Layer, Node BatchNorm, Tensor Weights, Tensor Bias);

    public static (Plan Plan, IReadOnlyList<FoldedLayer> Folded) Plan(Network network, InferenceOptions options, BackendTraits traits)
    {
        var planner = new InferencePlanner(network, options, traits);
        return (planner.Build(), planner._folded);
    }

    private Plan Build()
    {
        PlaceInConcats(input => Traits.BatchNormTakesSlices && IsUnfoldedBatchNorm(input));
        Tensor? pixels = null;
        foreach (Node node in Nodes)
        {
            if (HasValue(node) && node.Layer is not ConcatLayer)
            {
                continue; // computed with the layer before it
            }

            if (node.Layer is InputLayer)
            {
                pixels = EmitInput(node);
            }
            else
            {
                EmitNode(node);
            }
        }

        Tensor logits = Value(Network.Loss.Inputs[0]);
        var probabilities = new Tensor("probabilities", logits.Shape, TensorRole.Result);
        Emit(new Softmax(Network.Loss.Name, AsLogits(logits), probabilities));
        return Finish(Operations.Count, pixels!, null, null, probabilities);
    }

    private void EmitNode(Node node)
    {
        Tensor src = node.Inputs.Count > 0 ? Value(node.Inputs[0]) : throw new InvalidOperationException($"'{node.Name}' has no input.");
        switch (node.Layer)
        {
            case ConvolutionLayer layer:
                EmitConvolution(node, layer, src);
                break;
            case FullyConnectedLayer layer:
                EmitFullyConnected(node, layer, InLayout(src, TensorLayout.Plain));
                break;
            case BatchNormLayer layer:
                Node? relu = FusableRelu(node, Fusion.BatchNormRelu);
                Tensor dst = NewValue(relu ?? node, src.Layout);
                SetValue(node, dst);
                if (relu is not null)
                {
                    Count(Fusion.BatchNormRelu);
                }

                BatchNormSpec spec = layer.Spec(src.Shape, relu is not null);
                // The new batch's weight is 1: what is left of a pass are its own statistics.
                Emit(new BatchNormForward(
                    node.Name, spec, _statistics, src, AddState(node, "scale", src.Layout), AddState(node, "shift", src.Layout), null, dst,
                    BatchStatistic(node, "mean", spec, src.Layout), BatchStatistic(node, "variance", spec, src.Layout),
                    AddState(node, "running_mean", src.Layout), AddState(node, "running_variance", src.Layout), AveragingFactor: 1));
                break;
            case ActivationLayer layer:
                Emit(new ActivationForward(node.Name, layer.Function, src, InPlaceOrNew(node, src, overwritable: OnlyConsumer(node.Inputs[0]) is not null)));
                break;
            case PoolingLayer layer:
                src = InLayout(src, TensorLayout.Blocked);
                Emit(new PoolingForward(node.Name, layer.Spec(src.Shape), src, NewValue(node, TensorLayout.Blocked), null));
                break;
            case GlobalAveragePoolingLayer:
                src = InLayout(src, TensorLayout.Blocked);
                Emit(new PoolingForward(node.Name, PoolingSpec.GlobalAverage(src.Shape), src, NewValue(node, TensorLayout.Blocked), null));
                break;
            case LrnLayer layer:
                src = InLayout(src, TensorLayout.Blocked);
                Emit(new LrnForward(node.Name, layer.Spec(src.Shape), src, NewValue(node, TensorLayout.Blocked), null));
                break;
            case DropoutLayer:
                SetValue(node, src);
                break;
            case ConcatLayer:
                EmitConcat(node);
                break;
            case SumLayer:
                Tensor[] srcs = [.. node.Inputs.Select(i => InLayout(Value(i), src.Layout))];
                Emit(new Sum(node.Name, srcs, NewValue(node, src.Layout)));
                break;
            case CustomLayer layer:
                CustomForwardTensors tensors = CustomTensors(node, layer);
                Tensor[] State(IEnumerable<NamedShape> shapes) => [.. shapes.Select(s => AddState(node, s.Name, TensorLayout.Plain))];
                EmitCustom(node, new CustomForward(
                    node.Name, tensors.Spec, _statistics, tensors.Srcs, State(tensors.Spec.Parameters), State(tensors.Spec.RunningStatistics), tensors.Dst,
                    tensors.Saved, Training: false, Population: true));
                break;
            default:
                throw new NotSupportedException($"The planner has no inference for the layer '{node.Name}' ({node.Layer.Description}).");
        }
    }

    private void EmitConvolution(Node node, ConvolutionLayer layer, Tensor src)
    {
        src = src.Shape == Shapes[Network.Input] ? src : InLayout(src, TensorLayout.Blocked);
        Node last = node;
        Node? batchNorm = Foldable(node);
        Tensor weights = AddState(node, "weights", TensorLayout.Opaque, ActivationType);
        Tensor? bias = BiasOf(node, layer.Bias, batchNorm, layer.OutputChannels);
        if (batchNorm is not null)
        {
            last = batchNorm;
            Count(Fusion.FoldBatchNorm);
            _folded.Add(new FoldedLayer(node, batchNorm, weights, bias!));
        }

        Node? relu = FusableRelu(last, Fusion.ConvolutionRelu);
        Node output = relu ?? last;
        Tensor dst = NewValue(output, TensorLayout.Blocked);
        ConvolutionSpec spec = layer.Spec(src.Shape) with { Bias = bias is not null };
        Emit(new ConvolutionForward(node.Name, spec, src, weights, bias, dst, relu is not null));
        SetValue(node, dst);
        SetValue(last, dst);
        if (relu is not null)
        {
            Count(Fusion.ConvolutionRelu);
        }
    }

    private void EmitFullyConnected(Node node, FullyConnectedLayer layer, Tensor src)
    {
        Node? batchNorm = Foldable(node);
        Tensor weights = AddState(node, "weights", TensorLayout.Opaque, ActivationType);
        Tensor? bias = BiasOf(node, layer.Bias, batchNorm, layer.Outputs);
        Tensor dst = NewValue(batchNorm ?? node, TensorLayout.Plain);
        if (batchNorm is not null)
        {
            Count(Fusion.FoldBatchNorm);
            _folded.Add(new FoldedLayer(node, batchNorm, weights, bias!));
            SetValue(node, dst);
        }

        Emit(new InnerProductForward(node.Name, layer.Spec(src.Shape) with { Bias = bias is not null }, src, weights, bias, dst));
    }

    private Tensor? BiasOf(Node node, bool hasBias, Node? batchNorm, int channels)
    {
        if (hasBias)
        {
            return AddState(node, "bias", TensorLayout.Plain);
        }

        if (batchNorm is null)
        {
            return null;
        }

        // The folded shift has no parameter of its own in the network; it stands under the name of batch normalization's.
        NetworkParameter shift = Shapes.Parameters.Single(p => p.Node == batchNorm && p.Spec.Name == "shift");
        var bias = new Tensor($"{node.Name}.bias", Shape.Vector(channels), TensorRole.Parameter);
        State.Add(new StateTensor(bias, shift));
        return bias;
    }

    /// <summary>The batch normalization that folds into a layer: its only consumer, with one scale per output channel.</summary>
    private Node? Foldable(Node node) =>
        _statistics == BatchNormStatistics.Running && Uses(Fusion.FoldBatchNorm) && OnlyConsumer(node) is { } batchNorm && BatchNormFolding.IsFoldable(batchNorm, Shapes)
            ? batchNorm : null;

    private Tensor? BatchStatistic(Node node, string name, BatchNormSpec spec, TensorLayout layout) =>
        _statistics == BatchNormStatistics.Batch ? new Tensor($"{node.Name}.{name}", spec.Parameters, TensorRole.BatchStatistic, layout) : null;

    private bool IsUnfoldedBatchNorm(Node node) => BatchNormBehind(node) is { } batchNorm && Foldable(batchNorm.Inputs[0]) != batchNorm;
}
