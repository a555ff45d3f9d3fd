using System.Globalization;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Interchange;

/// <summary>What an exported network takes.</summary>
public enum OnnxInput
{
    /// <summary><c>pixels</c>: batch x height x width x channels bytes (NHWC), R, G, B; the normalization is part of the model.</summary>
    Pixels,

    /// <summary><c>images</c>: batch x channels x height x width floats (NCHW), (pixel - mean) / deviation by the caller; mean and deviation are in the metadata.</summary>
    Images,
}

/// <summary>How <see cref="OnnxModel"/> writes a network.</summary>
public sealed record OnnxOptions
{
    /// <summary>Image rows; the model takes this size only, and any batch.</summary>
    public required int Height { get; init; }

    /// <summary>Image columns.</summary>
    public required int Width { get; init; }

    /// <summary>What the model takes.</summary>
    public OnnxInput Input { get; init; }

    /// <summary>Fold batch normalization into the layer before it, as <see cref="ForwardSession"/> does; otherwise it is a node of its own.</summary>
    public bool Fold { get; init; }

    /// <inheritdoc cref="PlanOptions.PixelMean"/>
    public IReadOnlyList<float>? PixelMean { get; init; }

    /// <inheritdoc cref="PlanOptions.PixelDeviation"/>
    public IReadOnlyList<float>? PixelDeviation { get; init; }

    /// <summary>Names of the classes in the order of the output; none leaves them out of the metadata.</summary>
    public IReadOnlyList<string> ClassNames { get; init; } = [];
}

/// <summary>
/// Writes the inference form of a network (Algorithm 2: running statistics, no dropout, no auxiliary heads) as ONNX, operator set 17. The output
/// <c>probabilities</c> is batch x classes. Layers keep their names, parameters theirs (<c>inception_3a/3x3/conv.weights</c>).
/// </summary>
public sealed class OnnxModel
{
    private const string Batch = "batch", Pixels = "pixels", Images = "images", Probabilities = "probabilities";

    private readonly Network _network;
    private readonly NetworkState _state;
    private readonly OnnxOptions _options;
    private readonly NetworkShapes _shapes;
    private readonly IReadOnlyList<Node> _nodes;
    private readonly OnnxGraph _graph;
    private readonly Dictionary<Node, OnnxValue> _values = [];
    private readonly HashSet<Node> _folded = [];

    private OnnxModel(Network network, NetworkState state, OnnxOptions options)
    {
        _network = network;
        _state = state;
        _options = options;
        _shapes = network.Infer(1, options.Height, options.Width);
        _nodes = network.Ancestors(network.Loss);
        _graph = new OnnxGraph(network.Name, Probabilities, Pixels, Images);
    }

    /// <summary>Writes a model; the file is complete or not there.</summary>
    /// <returns>Nodes of the graph.</returns>
    /// <exception cref="UserErrorException">The state belongs to another network.</exception>
    /// <exception cref="ArgumentException">The network cannot take images of this size, or mean and deviation have other channels.</exception>
    /// <exception cref="NotSupportedException">ONNX has no form for a layer.</exception>
    public static int Write(string path, Network network, NetworkState state, OnnxOptions options)
    {
        ArgumentNullException.ThrowIfNull(path);
        ArgumentNullException.ThrowIfNull(network);
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(options);
        var model = new OnnxModel(network, state, options);
        model.Build();
        OutputFile.Replace(path, temporary =>
        {
            using var stream = new FileStream(temporary, FileMode.Create, FileAccess.Write);
            model._graph.Write(stream, "hpcbn", typeof(OnnxModel).Assembly.GetName().Version?.ToString(3) ?? "", model.Metadata());
            stream.Flush(flushToDisk: true);
        });
        return model._graph.NodeCount;
    }

    private IEnumerable<(string Key, string Value)> Metadata()
    {
        yield return ("model", _network.Name);
        yield return ("image_size", FormattableString.Invariant($"{_options.Height}x{_options.Width}"));
        yield return ("pixel_mean", Join(Channels(_options.PixelMean)));
        yield return ("pixel_deviation", Join(Channels(_options.PixelDeviation)));
        if (_options.ClassNames.Count > 0)
        {
            yield return (ClassNameList.Key, ClassNameList.Write(_options.ClassNames));
        }

        static string Join(float[] values) => string.Join(',', values.Select(v => v.ToString(CultureInfo.InvariantCulture)));
    }

    private void Build()
    {
        foreach (Node node in _nodes)
        {
            // The node of the layer before a folded batch normalization stands for both.
            _values[node] = _folded.Contains(node) ? _values[node.Inputs[0]] : node.Layer.WriteOnnx(new Writer(this, node));
        }
    }

    private OnnxValue AddImages(Node node)
    {
        Shape shape = _shapes[node];
        float[] mean = Channels(_options.PixelMean), deviation = Channels(_options.PixelDeviation);
        if (_options.Input == OnnxInput.Images)
        {
            _graph.Input(Images, OnnxType.Float, Batch, shape.C, shape.H, shape.W);
            return new OnnxValue(Images, IsMatrix: false);
        }

        _graph.Input(Pixels, OnnxType.UInt8, Batch, shape.H, shape.W, shape.C);
        string planes = _graph.Node("Transpose", $"{node.Name}/planes", [Pixels], ("perm", new long[] { 0, 3, 1, 2 }));
        string values = _graph.Node("Cast", $"{node.Name}/float", [planes], ("to", (long)OnnxType.Float));
        string centred = _graph.Node("Sub", $"{node.Name}/centred", [values, _graph.Constant($"{node.Name}.mean", [1, shape.C, 1, 1], mean)]);
        float[] inverse = Array.ConvertAll(deviation, d => 1 / d);
        string name = _graph.Node("Mul", node.Name, [centred, _graph.Constant($"{node.Name}.inverse_deviation", [1, shape.C, 1, 1], inverse)]);
        return new OnnxValue(name, IsMatrix: false);
    }

    private Node? OnlyConsumer(Node node)
    {
        Node[] consumers = [.. _nodes.Where(n => n.Inputs.Contains(node))];
        return consumers.Length == 1 ? consumers[0] : null;
    }

    private float[] Channels(IReadOnlyList<float>? values)
    {
        int channels = _network.InputChannels;
        return values is null || values.Count == 1
            ? [.. Enumerable.Repeat(values is null ? 128f : values[0], channels)]
            : values.Count == channels ? [.. values]
            : throw new ArgumentException($"Pixel mean and deviation have {values.Count} channels; the network's images have {channels}.");
    }

    /// <summary>What a layer says to write itself, carried out for one node.</summary>
    private sealed class Writer(OnnxModel model, Node node) : OnnxWriter
    {
        public override string Name => node.Name;

        public override int InputCount => node.Inputs.Count;

        public override OnnxValue Input(int index = 0) => model._values[node.Inputs[index]];

        public override Shape InputShape(int index = 0) => model._shapes[node.Inputs[index]];

        public override string Maps(int index = 0) => !Input(index).IsMatrix
            ? Input(index).Name
            : throw new NotSupportedException($"ONNX export: '{Name}' ({node.Layer.Description}) behind a fully connected layer has no form.");

        public override string Matrix(int index = 0) => Input(index).IsMatrix
            ? Input(index).Name
            : model._graph.Node("Flatten", $"{node.Inputs[index].Name}/flat", [Input(index).Name], ("axis", 1L));

        public override float[] Parameter(string parameter, Shape shape) => model._state.Get($"{Name}.{parameter}", shape).ToArray();

        public override string Constant(string name, IReadOnlyList<long> extents, float[] values) => model._graph.Constant($"{Name}.{name}", extents, values);

        public override string Node(string type, IEnumerable<string> inputs, params IEnumerable<(string Name, object Value)> attributes) =>
            model._graph.Node(type, Name, inputs, attributes);

        public override string Inner(string name, string type, IEnumerable<string> inputs, params IEnumerable<(string Name, object Value)> attributes) =>
            model._graph.Node(type, $"{Name}/{name}", inputs, attributes);

        internal override OnnxValue Images() => model.AddImages(node);

        internal override IReadOnlyList<string> Weights(bool bias, Shape shape, IReadOnlyList<long> extents)
        {
            if (model._options.Fold && model.OnlyConsumer(node) is { } batchNorm && BatchNormFolding.IsFoldable(batchNorm, model._shapes))
            {
                (float[] weights, float[] shift) = BatchNormFolding.Fold(node, batchNorm, shape, model._state);
                model._folded.Add(batchNorm);
                return [Constant("weights", extents, weights), Constant("bias", [shape.N], shift)];
            }

            string constant = Constant("weights", extents, Parameter("weights", shape));
            return bias ? [constant, Constant("bias", [shape.N], Parameter("bias", Shape.Vector(shape.N)))] : [constant];
        }

        internal override OnnxValue Probabilities(
            string type, IEnumerable<string> inputs, int classes, params IEnumerable<(string Name, object Value)> attributes)
        {
            model._graph.Release(OnnxModel.Probabilities);
            string probabilities = model._graph.Node(type, OnnxModel.Probabilities, inputs, attributes);
            model._graph.Output(probabilities, OnnxType.Float, Batch, classes);
            return new OnnxValue(probabilities, IsMatrix: true);
        }
    }
}
