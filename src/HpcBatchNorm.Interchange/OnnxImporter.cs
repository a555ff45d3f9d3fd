using System.Globalization;
using HpcBatchNorm.Interchange.Onnx;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Interchange;

/// <summary>
/// One reading of an ONNX graph: its nodes in their order, each of which gives its outputs a meaning (<see cref="OnnxMeaning"/>), and the network of the
/// layers that the output needs. What cannot be is noted, and reading goes on, so that all of it is told at once.
/// </summary>
internal sealed partial class OnnxImporter
{
    private const int FirstOperatorSet = 7, LastOperatorSet = 22, UsualSize = 224;

    private readonly string _path;
    private readonly string _folder;
    private readonly ModelProto _model;
    private readonly OnnxImportOptions _options;
    private readonly Dictionary<string, string> _metadata = new(StringComparer.Ordinal);
    private readonly Dictionary<string, OnnxTensor> _constants = new(StringComparer.Ordinal);
    private readonly Dictionary<string, OnnxMeaning> _values = new(StringComparer.Ordinal);
    private readonly Dictionary<string, int> _uses = new(StringComparer.Ordinal);
    private readonly HashSet<string> _names = new(StringComparer.Ordinal);
    private readonly List<OnnxLayer> _layers = [];
    private readonly List<OnnxProblem> _problems = [];
    private readonly List<string> _notes = [];
    private readonly long _operatorSet;
    private readonly Dictionary<OnnxNode, string> _badConstants = [];
    private OnnxNode? _node;

    public OnnxImporter(string path, ModelProto model, OnnxImportOptions options)
    {
        (_path, _model, _options) = (path, model, options);
        _folder = Path.GetDirectoryName(path) ?? "";
        foreach (StringStringEntryProto entry in model.MetadataProps)
        {
            _metadata[entry.Key] = entry.Value;
        }

        foreach (TensorProto tensor in model.Graph.Initializer)
        {
            _constants[tensor.Name] = new OnnxTensor(tensor, _folder);
        }

        _operatorSet = model.OpsetImport.FirstOrDefault(o => o.Domain is "" or "ai.onnx")?.Version ?? 0;
    }

    public ImportedModel Import()
    {
        if (_operatorSet is < FirstOperatorSet or > LastOperatorSet)
        {
            throw new UserErrorException(
                $"'{_path}' is written in operator set {_operatorSet} of ONNX; {FirstOperatorSet} to {LastOperatorSet} are read. Write it again in one of these, or convert it with ONNX's version converter.");
        }

        List<OnnxNode> nodes = [.. _model.Graph.Node.Select(n => new OnnxNode(n, _folder))];
        foreach (OnnxNode node in nodes.Where(n => n is { Operator: "Constant", Domain: "" }))
        {
            try
            {
                OnnxTensor tensor = node.Constant();
                _constants[node.Outputs.Count == 1 ? node.Outputs[0] : throw new UserErrorException("it has other outputs than its value")] = tensor;
            }
            catch (UserErrorException error)
            {
                _badConstants[node] = error.Message; // told if something needs it
            }
        }

        OnnxPatterns.Replace(nodes, _constants);
        string output = FindOutput();
        List<OnnxNode> needed = Needed(nodes, output);
        _values.Add(AddInput(needed, output), NewImages());
        foreach ((string name, OnnxTensor tensor) in _constants)
        {
            _values.TryAdd(name, new OnnxConstant(tensor));
        }

        foreach (OnnxNode node in needed)
        {
            Read(node);
        }

        OnnxMeaning end = _values.GetValueOrDefault(output, OnnxUnknown.Value);
        (OnnxActivation? logits, OnnxOutput kind) = end switch
        {
            OnnxEnd last => (last.Logits, last.Kind),
            OnnxActivation last => (last, OnnxOutput.Logits),
            _ => (null, OnnxOutput.Logits),
        };
        if (logits is null && end is not OnnxUnknown)
        {
            AddProblem($"the output '{output}' is computed from nothing that is a layer");
        }
        else if (logits is not null && (logits.Layer.Shape.Area != 1 || logits.Pad != 0))
        {
            AddProblem($"the output '{output}' is {logits.Layer.Shape} for an image of {_height}x{_width}; expected one value for each class or feature. Name a value that has one position per image as the output");
        }

        if (_problems.Count > 0 || logits is null)
        {
            throw new OnnxImportException(_path, _problems.Count > 0 ? _problems : [new OnnxProblem("", "", $"nothing gives the output '{output}'")]);
        }

        return Result(logits.Layer, kind);
    }

    private ImportedModel Result(OnnxLayer logits, OnnxOutput kind)
    {
        HashSet<OnnxLayer> needed = [logits];
        foreach (OnnxLayer layer in Enumerable.Reverse(_layers).Where(needed.Contains))
        {
            needed.UnionWith(layer.Inputs);
        }

        CheckNumbers([.. _layers.Where(needed.Contains)]);
        if (kind == OnnxOutput.Logits && logits.Layer is ActivationLayer last)
        {
            _notes.Add($"The model ends with {last.Description} and without a softmax; its output is taken for what goes into one, so that probabilities are others than what the model gives.");
        }

        string name = _options.Name ?? Path.GetFileNameWithoutExtension(_path);
        var builder = new NetworkBuilder(string.IsNullOrWhiteSpace(name) ? "imported" : name);
        var state = new NetworkState();
        Dictionary<OnnxLayer, Node> nodes = [];
        Network network;
        try
        {
            foreach (OnnxLayer layer in _layers.Where(needed.Contains))
            {
                nodes[layer] = builder.Add(layer.Name, layer.Layer, [.. layer.Inputs.Select(i => nodes[i])]);
                foreach (ParameterSpec parameter in layer.Layer.Parameters([.. layer.Inputs.Select(i => i.Shape)]))
                {
                    state.Set($"{layer.Name}.{parameter.Name}", parameter.Shape, layer.Parameters[parameter.Name]);
                }
            }

            builder.Loss(nodes[logits], name: UniqueName("loss"));
            network = builder.Build();
            network.Infer(1, _height, _width);
        }
        catch (ArgumentException error)
        {
            throw new OnnxImportException(_path, [new OnnxProblem("", "", error.Message.TrimEnd('.'))]);
        }

        string text = _metadata.GetValueOrDefault(ClassNameList.Key, "");
        IReadOnlyList<string> classes = text.Length > 0 ? ClassNameList.Read(text) : [];
        if (classes.Count > 0 && classes.Count != network.Classes)
        {
            _notes.Add(FormattableString.Invariant($"The file names {classes.Count} classes but its output has {network.Classes} values; the names are left out."));
            classes = [];
        }

        return new ImportedModel
        {
            Network = network,
            State = state,
            Height = _height,
            Width = _width,
            PixelMean = _mean,
            PixelDeviation = _deviation,
            ClassNames = classes,
            Output = kind,
            OperatorSet = (int)_operatorSet,
            Producer = $"{_model.ProducerName} {_model.ProducerVersion}".Trim(),
            Notes = _notes,
        };
    }

    /// <summary>Of a value that is not finite a network makes results that look like any other; a negative variance gives one.</summary>
    private void CheckNumbers(IReadOnlyList<OnnxLayer> layers)
    {
        foreach (OnnxLayer layer in layers)
        {
            foreach ((string parameter, float[] values) in layer.Parameters)
            {
                string? found = FiniteCheck.Describe(values);
                if (found is null && parameter == "running_variance" && values.Any(v => v < 0))
                {
                    found = FormattableString.Invariant($"a variance is never negative, but one of its {values.Length} values is {values.Min()}");
                }

                if (found is not null)
                {
                    _problems.Add(new OnnxProblem(layer.Name, layer.Operator, $"its {parameter.Replace('_', ' ')}, with the factors and offsets behind it: {found}"));
                }
            }
        }

        if (_problems.Count > 0)
        {
            throw new OnnxImportException(_path, _problems);
        }
    }

    private string FindOutput()
    {
        string[] outputs = [.. _model.Graph.Output.Select(o => o.Name)];
        if (_options.Output is string wanted)
        {
            IEnumerable<string> known = _model.Graph.Node.SelectMany(n => n.Output).Concat(outputs);
            return known.Contains(wanted) ? wanted : throw new UserErrorException($"'{_path}' computes no value '{wanted}'{NearestName.Hint(wanted, known)}");
        }

        if (outputs.Length == 0)
        {
            throw new UserErrorException($"'{_path}' says of no value that it is its output; name the one that tells the classes.");
        }

        return outputs.Length == 1
            ? outputs[0]
            : throw new UserErrorException($"'{_path}' has {outputs.Length} outputs ({string.Join(", ", outputs.Take(20))}); name the one that tells the classes.");
    }

    /// <summary>The nodes that an output needs, in their order, and how often each value is read by them.</summary>
    private List<OnnxNode> Needed(List<OnnxNode> nodes, string output)
    {
        // Whatever their order is: where a node stands before what it reads, that is told when it is read.
        ILookup<string, OnnxNode> producers = nodes.SelectMany(n => n.Outputs.Where(o => o.Length > 0).Distinct().Select(o => (Output: o, Node: n))).ToLookup(p => p.Output, p => p.Node, StringComparer.Ordinal);
        HashSet<OnnxNode> needed = [];
        Stack<string> values = new([output]);
        _uses[output] = 1;
        while (values.TryPop(out string? value))
        {
            foreach (OnnxNode node in producers[value].Where(needed.Add))
            {
                foreach (string input in node.Inputs.Where(n => n.Length > 0))
                {
                    values.Push(input);
                    _uses[input] = _uses.GetValueOrDefault(input) + 1;
                }
            }
        }

        return [.. nodes.Where(needed.Contains)];
    }

    private void Read(OnnxNode node)
    {
        _node = node;
        OnnxMeaning meaning = OnnxUnknown.Value;
        if (node is { Operator: "Constant", Domain: "" })
        {
            if (_badConstants.TryGetValue(node, out string? reason))
            {
                AddProblem(reason);
                _values.TryAdd(node.Outputs.Count > 0 ? node.Outputs[0] : "", OnnxUnknown.Value);
            }

            return;
        }

        Try(node, () =>
        {
            if (node.Domain.Length > 0)
            {
                throw new UserErrorException($"it is of the operators of '{node.Domain}', which are not ONNX's own");
            }

            meaning = Convert(node);
            if (node.Unread.FirstOrDefault() is string attribute)
            {
                meaning = OnnxUnknown.Value;
                throw new UserErrorException($"its attribute {attribute} is not known here");
            }
        });
        string first = node.Outputs.Count > 0 ? node.Outputs[0] : "";
        if (!_values.TryAdd(first, meaning))
        {
            AddProblem($"the value '{first}' is given twice");
        }

        // Masks, indices, statistics: whoever reads them is told.
        foreach (string other in node.Outputs.Skip(1).Where(o => o.Length > 0 && _uses.ContainsKey(o)))
        {
            AddProblem($"something reads its further output '{other}', which no layer gives");
            _values.TryAdd(other, OnnxUnknown.Value);
        }
    }

    private void Try(OnnxNode node, Action action)
    {
        _node = node;
        try
        {
            action();
        }
        catch (Exception error) when (error is UserErrorException or ArgumentException)
        {
            AddProblem(error.Message.TrimEnd('.'));
        }
    }

    private void AddProblem(string reason) => _problems.Add(new OnnxProblem(_node?.Name ?? "", _node?.Operator ?? "", reason));

    /// <summary>What an input stands for. Read once only, it may be changed by what reads it.</summary>
    private OnnxMeaning Get(string name)
    {
        OnnxMeaning value = _values.GetValueOrDefault(name)
            ?? throw new UserErrorException(name.Length == 0 ? "it lacks an input" : $"nothing before it gives its input '{name}'");
        return value is OnnxActivation { Sole: true } activation && _uses.GetValueOrDefault(name) > 1 ? activation with { Sole = false } : value;
    }

    /// <summary>The constant of an input; null where the input is left out.</summary>
    private OnnxTensor? Constant(OnnxNode node, int index) => node.Input(index) is not { Length: > 0 } name ? null : Get(name) is OnnxConstant constant
        ? constant.Tensor
        : throw new UserErrorException($"its input '{name}' is computed; only constants are known there");

    private OnnxTensor RequiredConstant(OnnxNode node, int index, string what) =>
        Constant(node, index) ?? throw new UserErrorException($"it has no {what}");

    /// <summary>Adds a layer, whose inputs and parameters must fit.</summary>
    private OnnxActivation Add(Layer layer, IReadOnlyList<OnnxActivation> inputs, bool isMatrix, params IReadOnlyList<(string Name, float[] Values)> parameters)
    {
        OnnxLayer[] sources = [.. inputs.Select(i => i.Layer)];
        Shape[] shapes = [.. sources.Select(s => s.Shape)];
        Shape shape = layer.Infer(_node!.Name, shapes);
        if ((long)shape.H * shape.W > 1 << 26 || shape.Count > int.MaxValue / 8)
        {
            throw new UserErrorException($"its output is {shape} for one image, which is more than can be computed");
        }

        var made = new OnnxLayer(UniqueName(_node.Name), _node.Operator, layer, sources, shape);
        foreach ((string name, float[] values) in parameters)
        {
            made.Parameters[name] = values;
        }

        foreach (ParameterSpec spec in layer.Parameters(shapes))
        {
            if (!made.Parameters.TryGetValue(spec.Name, out float[]? values) || values.Length != spec.Shape.Count)
            {
                throw new UserErrorException(
                    $"its {spec.Name} are {values?.Length ?? 0} values; expected {spec.Shape.Count} ({spec.Shape}) for images of {_height}x{_width}. If the model is for images of another size, name that");
            }
        }

        _layers.Add(made);
        return new OnnxActivation(made, isMatrix);
    }

    private string UniqueName(string wanted)
    {
        string name = wanted.Trim().TrimStart('/');
        name = name.Length > 0 ? name : "layer";
        string unique = name;
        for (int i = 2; !_names.Add(unique); i++)
        {
            unique = string.Create(CultureInfo.InvariantCulture, $"{name}_{i}");
        }

        return unique;
    }
}
