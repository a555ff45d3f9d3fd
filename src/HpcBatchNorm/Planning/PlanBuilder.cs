using HpcBatchNorm.Backends;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <summary>
/// What training and inference planning share: who consumes what, which nodes fuse, where outputs lie, and the operations emitted so far.
/// A value's tensor is named after its node, <c>node.dst</c>; a fused pair's after the node whose value it is.
/// </summary>
internal abstract partial class PlanBuilder
{
    private readonly Dictionary<Node, List<Node>> _consumers = [];
    private readonly Dictionary<Node, int> _order = [];
    private readonly Dictionary<Node, Tensor> _values = [];
    private readonly Dictionary<Node, (Node Concat, int Offset)> _placements = [];
    private readonly HashSet<Node> _fused = [];
    private readonly Dictionary<string, int> _fusions = [];
    private readonly Dictionary<(Tensor, TensorLayout), Tensor> _converted = [];
    private readonly PlanOptions _options;

    protected PlanBuilder(Network network, PlanOptions options, BackendTraits traits, IReadOnlyList<Node> nodes)
    {
        options.Validate();
        Fusion.Validate(options.DisabledFusions);
        Network = network;
        _options = options;
        Traits = traits;
        Nodes = nodes;
        ActivationType = options.Precision.ActivationType();
        Shapes = network.Infer(options.Batch, options.Height, options.Width);
        foreach (Node node in nodes)
        {
            _order[node] = _order.Count;
            _consumers[node] = [];
            foreach (Node input in node.Inputs)
            {
                _consumers[input].Add(node);
            }
        }
    }

    public List<Operation> Operations { get; } = [];

    public List<StateTensor> State { get; } = [];

    protected Network Network { get; }

    /// <summary>Element type of activations, their gradients and the weights that are multiplied.</summary>
    protected DataType ActivationType { get; }

    protected BackendTraits Traits { get; }

    /// <summary>What the caller writes, once the input is planned.</summary>
    private Tensor? Pixels { get; set; }

    protected IReadOnlyList<Node> Nodes { get; }

    protected NetworkShapes Shapes { get; }

    protected bool Uses(string fusion) => !_options.DisabledFusions.Contains(fusion);

    protected void Count(string fusion) => _fusions[fusion] = _fusions.GetValueOrDefault(fusion) + 1;

    protected void Emit(Operation operation) => Operations.Add(operation);

    /// <summary>The nodes that read a node's value, in the network's order.</summary>
    protected IReadOnlyList<Node> Consumers(Node node) => _consumers[node];

    /// <summary>The only consumer of a node, or null when there are several or none.</summary>
    protected Node? OnlyConsumer(Node node) => _consumers[node] is [Node only] ? only : null;

    /// <summary>The tensor that holds a node's output.</summary>
    protected Tensor Value(Node node) => _values[node];

    /// <summary>True when a node is computed with one before it.</summary>
    protected bool IsFused(Node node) => _fused.Contains(node);

    protected void SetValue(Node node, Tensor value) => _values[node] = value;

    /// <summary>True when a node's value is written straight into its concatenation.</summary>
    protected bool IsPlaced(Node node) => _placements.ContainsKey(node);

    /// <summary>First channel of a placed node in its concatenation.</summary>
    protected int PlacedOffset(Node node) => _placements[node].Offset;

    /// <summary>The ReLU that fuses with <paramref name="node"/>, when it is the only consumer and the rule is on.</summary>
    protected Node? FusableRelu(Node node, string fusion) =>
        Uses(fusion) && OnlyConsumer(node) is { Layer: ActivationLayer { Function: ActivationKind.Relu } } relu ? relu : null;

    /// <summary>The end of a residual block: <paramref name="Sum"/> adds <paramref name="Residual"/>, and <paramref name="Relu"/> follows.</summary>
    protected sealed record ResidualEnd(Node Sum, Node Relu, Node Residual);

    /// <summary>
    /// The sum and the ReLU that fuse with <paramref name="node"/>, when nothing else reads the values between and the other summand is computed before
    /// <paramref name="at"/>, the node with which all of it is computed.
    /// </summary>
    protected ResidualEnd? FusableSum(Node node, Node at)
    {
        if (!Uses(Fusion.BatchNormAddRelu) || OnlyConsumer(node) is not { Layer: SumLayer, Inputs.Count: 2 } sum
            || OnlyConsumer(sum) is not { Layer: ActivationLayer { Function: ActivationKind.Relu } } relu)
        {
            return null;
        }

        Node residual = sum.Inputs[0] == node ? sum.Inputs[1] : sum.Inputs[0];
        return _order[residual] < _order[at] ? new ResidualEnd(sum, relu, residual) : null;
    }

    /// <summary>True when a node computed after <paramref name="at"/>, other than <paramref name="except"/>, may read the memory of a value.</summary>
    protected bool IsReadLater(Tensor value, Node at, Node except) =>
        _values.Any(v => v.Value.Root == value.Root && _consumers[v.Key].Exists(c => c != except && _order[c] > _order[at]));

    /// <summary>The batch normalization whose kernel writes this node's value: the node itself, or the one its ReLU (and sum) is fused with.</summary>
    protected Node? BatchNormBehind(Node node)
    {
        if (node.Layer is BatchNormLayer)
        {
            return node;
        }

        Node? input = node.Layer is ActivationLayer ? node.Inputs[0] : null;
        return input?.Layer switch
        {
            BatchNormLayer => FusableRelu(input, Fusion.BatchNormRelu) == node ? input : null,
            SumLayer => input.Inputs.FirstOrDefault(i => i.Layer is BatchNormLayer && FusableSum(i, i)?.Relu == node),
            _ => null,
        };
    }

    /// <summary>True when the only consumer of a node may write its own value over the node's: nothing reads that again.</summary>
    protected abstract bool MayOverwrite(Node node);

    /// <summary>The tensor of an element-wise node: its input's memory when that may be overwritten, else its own.</summary>
    private Tensor InPlaceOrNew(Node node, Tensor src)
    {
        if (!Uses(Fusion.InPlace) || !MayOverwrite(node.Inputs[0]) || IsPlaced(node) || src.IsSlice || src.Role != TensorRole.Activation)
        {
            return NewValue(node, src.Layout);
        }

        Count(Fusion.InPlace);
        Tensor dst = src.Alias($"{node.Name}.dst", TensorRole.Activation);
        SetValue(node, dst);
        return dst;
    }

    /// <summary>
    /// Decides which values are written straight into their concatenation: those of <paramref name="writesSlices"/> producers with no other consumer,
    /// where every channel boundary falls on a block boundary.
    /// </summary>
    protected void PlaceInConcats(Func<Node, bool> writesSlices)
    {
        if (!Uses(Fusion.ConcatSlice))
        {
            return;
        }

        foreach (Node concat in Nodes.Where(n => n.Layer is ConcatLayer))
        {
            int offset = 0;
            foreach (Node input in concat.Inputs)
            {
                int channels = Shapes[input].C;
                if (offset % Traits.ChannelBlock == 0 && channels % Traits.ChannelBlock == 0 && OnlyConsumer(input) == concat && writesSlices(input))
                {
                    _placements[input] = (concat, offset);
                    Count(Fusion.ConcatSlice);
                }

                offset += channels;
            }
        }
    }

    /// <summary>True for a pooling whose kernel writes, and reads the gradient of, some channels of a wider tensor.</summary>
    protected bool PoolsIntoSlice(Node node) => Traits.PoolingTakesSlices && node.Layer is PoolingLayer or GlobalAveragePoolingLayer;

    /// <summary>Makes the tensor of a node's output: a slice of its concatenation when it was placed there.</summary>
    protected Tensor NewValue(Node node, TensorLayout layout)
    {
        Tensor value = _placements.TryGetValue(node, out (Node Concat, int Offset) place)
            ? ConcatValue(place.Concat).Slice($"{node.Name}.dst", place.Offset, Shapes[node].C)
            : new Tensor($"{node.Name}.dst", Shapes[node], TensorRole.Activation, layout, AreLogits(node) ? DataType.Float32 : ActivationType);
        _values[node] = value;
        return value;
    }

    /// <summary>
    /// True for what only losses read, when a fully connected layer makes it: it stays in single precision. Other layers write what they read; a
    /// loss behind one reads a copy.
    /// </summary>
    private bool AreLogits(Node node) => node.Layer is FullyConnectedLayer && _consumers[node].TrueForAll(c => c.Layer is SoftmaxLossLayer);

    /// <summary>Logits as a loss or softmax reads them: plain and in single precision.</summary>
    private Tensor AsLogits(Tensor tensor)
    {
        if (!tensor.DataType.IsNarrow())
        {
            return InLayout(tensor, TensorLayout.Plain);
        }

        var converted = new Tensor($"{tensor.Name} (float32)", tensor.Shape, tensor.Role);
        Emit(new Copy(tensor.Name, tensor, converted));
        return converted;
    }

    /// <summary>The tensor in the wanted layout: itself, a relabelled view where both lie alike in memory, or a reordered copy.</summary>
    protected Tensor InLayout(Tensor tensor, TensorLayout layout)
    {
        if (tensor.Layout == layout)
        {
            return tensor;
        }

        if (!_converted.TryGetValue((tensor, layout), out Tensor? converted))
        {
            if (LiesAlike(tensor))
            {
                converted = tensor.Relabel(layout);
            }
            else
            {
                converted = new Tensor($"{tensor.Name} ({layout.ToString().ToLowerInvariant()})", tensor.Shape, tensor.Role, layout, tensor.DataType);
                Emit(new Copy(tensor.Name, tensor, converted));
            }

            _converted[(tensor, layout)] = converted;
        }

        return converted;
    }

    /// <summary>True when blocked and plain are the same bytes: one position per image and whole blocks.</summary>
    protected bool LiesAlike(Tensor tensor) => !tensor.IsSlice && tensor.Shape.Area == 1 && tensor.Shape.C % Traits.ChannelBlock == 0;

    /// <summary>A persistent tensor for a layer's parameter, by its name within the layer.</summary>
    protected Tensor AddState(Node node, string name, TensorLayout layout, DataType type = DataType.Float32)
    {
        NetworkParameter parameter = Parameter(node, name);
        TensorRole role = parameter.Spec.Kind == ParameterKind.RunningStatistic ? TensorRole.RunningStatistic : TensorRole.Parameter;
        var tensor = new Tensor(parameter.Name, parameter.Spec.Shape, role, layout, type);
        State.Add(new StateTensor(tensor, parameter));
        return tensor;
    }

    /// <summary>A layer's parameter, by its name within the layer.</summary>
    protected NetworkParameter Parameter(Node node, string name) => Shapes.Parameters.Single(p => p.Node == node && p.Spec.Name == name);

    private ImagePreparation PrepareImages(Node node)
    {
        Shape shape = Shapes[node];
        Pixels = new Tensor("pixels", shape, TensorRole.Input, TensorLayout.Plain, DataType.UInt8);
        bool convolved = Consumers(node).All(c => c.Layer is ConvolutionLayer { Groups: 1 });
        return new ImagePreparation(Pixels, Channels(_options.PixelMean, shape.C, v => v), Channels(_options.PixelDeviation, shape.C, v => 1 / v), convolved);

        static float[] Channels(IReadOnlyList<float>? values, int channels, Func<float, float> map)
        {
            if (values is not null && values.Count != 1 && values.Count != channels)
            {
                throw new ArgumentException($"Pixel mean and deviation have {values.Count} channels; the network's images have {channels}.");
            }

            return [.. Enumerable.Range(0, channels).Select(c => map(values is null ? 128f : values[values.Count == 1 ? 0 : c]))];
        }
    }

    protected Plan Finish(int updateStart, Tensor? labels, Tensor? loss, Tensor probabilities, Tensor? lossScale = null) =>
        new(Network, Shapes, _options, Traits, Operations, State, _fusions, updateStart, Pixels!, labels, loss, probabilities, lossScale);

    private Tensor ConcatValue(Node concat) => _values.TryGetValue(concat, out Tensor? value) ? value : NewValue(concat, TensorLayout.Blocked);
}
