using System.Globalization;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
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
    private const string Batch = "batch";

    private readonly Network _network;
    private readonly NetworkState _state;
    private readonly OnnxOptions _options;
    private readonly NetworkShapes _shapes;
    private readonly IReadOnlyList<Node> _nodes;
    private readonly OnnxGraph _graph;
    private readonly Dictionary<Node, Value> _values = [];

    private OnnxModel(Network network, NetworkState state, OnnxOptions options)
    {
        _network = network;
        _state = state;
        _options = options;
        _shapes = network.Infer(1, options.Height, options.Width);
        _nodes = network.Ancestors(network.Loss.Inputs[0]);
        _graph = new OnnxGraph(network.Name);
    }

    /// <summary>Writes a model; the file is complete or not there.</summary>
    /// <returns>Nodes of the graph.</returns>
    /// <exception cref="UserErrorException">The state belongs to another network.</exception>
    /// <exception cref="ArgumentException">The network cannot take images of this size, or mean and deviation have other channels.</exception>
    /// <exception cref="NotSupportedException">ONNX has no form for a layer.</exception>
    public static int Write(string path, Network network, NetworkState state, OnnxOptions options)
    {
        var model = new OnnxModel(network, state, options);
        model.Build();
        AtomicFile.Replace(path, temporary =>
        {
            using var stream = new FileStream(temporary, FileMode.Create, FileAccess.Write);
            model._graph.Write(stream, "hpcbn", typeof(OnnxModel).Assembly.GetName().Version?.ToString(3) ?? "", model.Metadata());
            stream.Flush(flushToDisk: true);
        });
        return model._graph.NodeCount;
    }

    /// <summary>A value's name, and whether it is a matrix (batch x features, what a fully connected layer gives) rather than maps.</summary>
    private readonly record struct Value(string Name, bool IsMatrix);

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
        foreach (Node node in _nodes.Where(n => !_values.ContainsKey(n)))
        {
            if (node.Layer is InputLayer)
            {
                _values[node] = new Value(AddInput(node), IsMatrix: false);
            }
            else
            {
                _values[node] = Add(node, _values[node.Inputs[0]]);
            }
        }

        Value logits = Matrix(_network.Loss.Inputs[0].Name, _values[_network.Loss.Inputs[0]]);
        string probabilities = _graph.Node("Softmax", "probabilities", [logits.Name], ("axis", 1L));
        _graph.Output(probabilities, OnnxType.Float, Batch, _shapes[_network.Loss].ImageCount);
    }

    private string AddInput(Node node)
    {
        Shape shape = _shapes[node];
        float[] mean = Channels(_options.PixelMean), deviation = Channels(_options.PixelDeviation);
        if (_options.Input == OnnxInput.Images)
        {
            _graph.Input("images", OnnxType.Float, Batch, shape.C, shape.H, shape.W);
            return "images";
        }

        _graph.Input("pixels", OnnxType.UInt8, Batch, shape.H, shape.W, shape.C);
        string planes = _graph.Node("Transpose", $"{node.Name}/planes", ["pixels"], ("perm", new long[] { 0, 3, 1, 2 }));
        string values = _graph.Node("Cast", $"{node.Name}/float", [planes], ("to", (long)OnnxType.Float));
        string centred = _graph.Node("Sub", $"{node.Name}/centred", [values, _graph.Constant($"{node.Name}.mean", [1, shape.C, 1, 1], mean)]);
        float[] inverse = Array.ConvertAll(deviation, d => 1 / d);
        return _graph.Node("Mul", node.Name, [centred, _graph.Constant($"{node.Name}.inverse_deviation", [1, shape.C, 1, 1], inverse)]);
    }

    private Value Add(Node node, Value src)
    {
        string name = node.Name;
        switch (node.Layer)
        {
            case ConvolutionLayer layer:
                return AddConvolution(node, layer, Maps(node, src));
            case FullyConnectedLayer layer:
                return AddFullyConnected(node, layer, src);
            case BatchNormLayer layer:
                return new Value(AddBatchNorm(node, layer, src.Name), src.IsMatrix);
            case ActivationLayer layer:
                return new Value(_graph.Node(layer.Function.ToString(), name, [src.Name]), src.IsMatrix);
            case PoolingLayer layer:
                return new Value(AddPooling(name, layer.Spec(_shapes[node.Inputs[0]]), Maps(node, src).Name), IsMatrix: false);
            case GlobalAveragePoolingLayer:
                return new Value(_graph.Node("GlobalAveragePool", name, [Maps(node, src).Name]), IsMatrix: false);
            case LrnLayer layer:
                return new Value(_graph.Node("LRN", name, [Maps(node, src).Name], ("size", (long)layer.Size), ("alpha", layer.Alpha), ("beta", layer.Beta), ("bias", layer.K)), IsMatrix: false);
            case DropoutLayer:
                return src;
            case ConcatLayer:
                return new Value(_graph.Node("Concat", name, node.Inputs.Select(i => _values[i].Name), ("axis", 1L)), src.IsMatrix);
            case SumLayer:
                return new Value(_graph.Node("Sum", name, node.Inputs.Select(i => _values[i].Name)), src.IsMatrix);
            default:
                throw new NotSupportedException($"ONNX export has no form for the layer '{name}' ({node.Layer.Description}).");
        }
    }

    private Value AddConvolution(Node node, ConvolutionLayer layer, Value src)
    {
        ConvolutionSpec spec = layer.Spec(_shapes[node.Inputs[0]]);
        Shape shape = spec.Weights;
        return WithWeights(node, layer.Bias, shape, [shape.N, shape.C, shape.H, shape.W], parameters => new Value(
            _graph.Node("Conv", node.Name, [src.Name, .. parameters],
                ("kernel_shape", new long[] { spec.KernelH, spec.KernelW }), ("strides", new long[] { spec.StrideH, spec.StrideW }),
                ("pads", new long[] { spec.PadTop, spec.PadLeft, spec.PadBottom, spec.PadRight }),
                ("dilations", new long[] { spec.DilationH, spec.DilationW }), ("group", (long)spec.Groups)),
            IsMatrix: false));
    }

    private Value AddFullyConnected(Node node, FullyConnectedLayer layer, Value src)
    {
        src = Matrix(node.Inputs[0].Name, src);
        Shape shape = layer.Spec(_shapes[node.Inputs[0]]).Weights;
        return WithWeights(node, layer.Bias, shape, [shape.N, shape.ImageCount], parameters =>
            new Value(_graph.Node("Gemm", node.Name, [src.Name, .. parameters], ("transB", 1L)), IsMatrix: true));
    }

    /// <summary>A layer's constants, with the batch normalization behind it where that folds; its node then stands for both.</summary>
    private Value WithWeights(Node node, bool bias, Shape shape, long[] extents, Func<string[], Value> add)
    {
        if (_options.Fold && OnlyConsumer(node) is { } batchNorm && BatchNormFolding.IsFoldable(batchNorm, _shapes))
        {
            (float[] weights, float[] shift) = BatchNormFolding.Fold(node, batchNorm, shape, _state);
            Value value = add([_graph.Constant($"{node.Name}.weights", extents, weights), _graph.Constant($"{node.Name}.bias", [shape.N], shift)]);
            _values[batchNorm] = value;
            return value;
        }

        string constant = _graph.Constant($"{node.Name}.weights", extents, _state.Get($"{node.Name}.weights", shape).ToArray());
        return add(bias ? [constant, Vector(node, "bias", shape.N)] : [constant]);
    }

    private string AddBatchNorm(Node node, BatchNormLayer layer, string src)
    {
        Shape parameters = layer.Spec(_shapes[node.Inputs[0]]).Parameters;
        if (parameters.Area == 1)
        {
            // Scale, shift, mean, variance: ONNX has them in the same order.
            string[] vectors = [.. layer.Parameters([parameters]).Select(p => Vector(node, p.Name, parameters.C))];
            return _graph.Node("BatchNormalization", node.Name, [src, .. vectors], ("epsilon", layer.Epsilon));
        }

        // ONNX normalises per channel only; per activation it is a product and a sum.
        (float[] factors, float[] offsets) = BatchNormFolding.Affine(node, parameters, _state);
        long[] extents = [1, parameters.C, parameters.H, parameters.W];
        string scaled = _graph.Node("Mul", $"{node.Name}/scaled", [src, _graph.Constant($"{node.Name}.factor", extents, factors)]);
        return _graph.Node("Add", node.Name, [scaled, _graph.Constant($"{node.Name}.offset", extents, offsets)]);
    }

    private string AddPooling(string name, PoolingSpec spec, string src)
    {
        // Rounding up is in the padding already, so that the model means the same to readers that round up differently.
        List<(string, object)> attributes =
        [
            ("kernel_shape", new long[] { spec.KernelH, spec.KernelW }), ("strides", new long[] { spec.StrideH, spec.StrideW }),
            ("pads", new long[] { spec.PadTop, spec.PadLeft, spec.PadBottom, spec.PadRight }),
        ];
        if (spec.Kind == PoolingKind.Max)
        {
            return _graph.Node("MaxPool", name, [src], attributes);
        }

        attributes.Add(("count_include_pad", spec.Kind == PoolingKind.AverageIncludePadding ? 1L : 0L));
        return _graph.Node("AveragePool", name, [src], attributes);
    }

    private string Vector(Node node, string parameter, int channels) =>
        _graph.Constant($"{node.Name}.{parameter}", [channels], _state.Get($"{node.Name}.{parameter}", Shape.Vector(channels)).ToArray());

    private Value Matrix(string name, Value value) => value.IsMatrix ? value : new Value(_graph.Node("Flatten", $"{name}/flat", [value.Name], ("axis", 1L)), IsMatrix: true);

    private static Value Maps(Node node, Value value) => !value.IsMatrix
        ? value
        : throw new NotSupportedException($"ONNX export: '{node.Name}' ({node.Layer.Description}) behind a fully connected layer has no form.");

    private Node? OnlyConsumer(Node node)
    {
        Node[] consumers = [.. _nodes.Where(n => n.Inputs.Contains(node))];
        return consumers.Length == 1 ? consumers[0] : null;
    }

    private float[] Channels(IReadOnlyList<float>? values)
    {
        int channels = _network.InputChannels;
        return values is null || values.Count == channels
            ? [.. values ?? Enumerable.Repeat(128f, channels)]
            : throw new ArgumentException($"Pixel mean and deviation have {values.Count} channels; the network's images have {channels}.");
    }
}
