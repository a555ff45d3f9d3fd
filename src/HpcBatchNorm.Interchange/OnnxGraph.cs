using System.Globalization;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interchange;

/// <summary>Types of tensor elements in ONNX files.</summary>
internal enum OnnxType
{
    Float = 1,
    UInt8 = 2,
}

/// <summary>
/// An ONNX model in the making: nodes in the order of execution, constant tensors, inputs and outputs. Knows the file format, not what the nodes compute.
/// Field numbers are those of onnx.proto (IR version 8).
/// </summary>
internal sealed class OnnxGraph(string name, params IEnumerable<string> reserved)
{
    /// <summary>The operator set whose meaning the nodes have.</summary>
    public const int OperatorSet = 17;

    private const int IrVersion = 8;

    private readonly ProtobufMessage _graph = new ProtobufMessage().Text(2, name);
    private readonly List<(ProtobufMessage Header, float[] Values)> _constants = [];

    // Layers may be called anything; what the graph's own names mean must stay.
    private readonly HashSet<string> _names = new(reserved, StringComparer.Ordinal);

    /// <summary>Nodes so far.</summary>
    public int NodeCount { get; private set; }

    /// <summary>Adds a node with one output, which has the node's name, and returns that name.</summary>
    /// <param name="type">The operator, e.g. <c>Conv</c>.</param>
    /// <param name="name">The name; one that is taken, or reserved, gets a number behind it.</param>
    /// <param name="inputs">Names of values and constants.</param>
    /// <param name="attributes">Attributes: <see cref="long"/>, <see cref="float"/> or an array of <see cref="long"/>.</param>
    public string Node(string type, string name, IEnumerable<string> inputs, params IEnumerable<(string Name, object Value)> attributes)
    {
        name = Unique(name);
        var node = new ProtobufMessage();
        foreach (string input in inputs)
        {
            node.Text(1, input);
        }

        node.Text(2, name).Text(3, name).Text(4, type);
        foreach ((string attribute, object value) in attributes)
        {
            node.Message(5, Attribute(attribute, value));
        }

        _graph.Message(1, node);
        NodeCount++;
        return name;
    }

    /// <summary>Adds a constant tensor, whose values are not copied, and returns its name.</summary>
    public string Constant(string name, IReadOnlyList<long> extents, float[] values)
    {
        name = Unique(name);
        var header = new ProtobufMessage();
        foreach (long extent in extents)
        {
            header.Integer(1, extent);
        }

        header.Integer(2, (long)OnnxType.Float).Text(8, name).Length(9, (long)values.Length * sizeof(float));
        _constants.Add((header, values));
        return name;
    }

    /// <summary>Declares an input. An extent is a number, or the name of one that is not known.</summary>
    public void Input(string name, OnnxType type, params IReadOnlyList<object> extents) => _graph.Message(11, Value(name, type, extents));

    /// <summary>Declares an output.</summary>
    public void Output(string name, OnnxType type, params IReadOnlyList<object> extents) => _graph.Message(12, Value(name, type, extents));

    /// <summary>Writes the model.</summary>
    public void Write(Stream stream, string producer, string version, IEnumerable<(string Key, string Value)> metadata)
    {
        var model = new ProtobufMessage();
        model.Integer(1, IrVersion).Text(2, producer).Text(3, version).Message(8, new ProtobufMessage().Text(1, "").Integer(2, OperatorSet));
        foreach ((string key, string value) in metadata)
        {
            model.Message(14, new ProtobufMessage().Text(1, key).Text(2, value));
        }

        // The graph last: its constants go from their arrays to the file, since a message in memory would hold all of them twice.
        long length = _graph.Written.Length;
        List<ProtobufMessage> fields = [];
        foreach ((ProtobufMessage header, float[] values) in _constants)
        {
            long content = header.Written.Length + (long)values.Length * sizeof(float);
            ProtobufMessage field = new ProtobufMessage().Length(5, content);
            fields.Add(field);
            length += field.Written.Length + content;
        }

        model.Length(7, length);
        stream.Write(model.Written);
        stream.Write(_graph.Written);
        foreach ((ProtobufMessage field, (ProtobufMessage header, float[] values)) in fields.Zip(_constants))
        {
            stream.Write(field.Written);
            stream.Write(header.Written);
            stream.Write(MemoryMarshal.AsBytes<float>(values));
        }
    }

    /// <summary>Lets the next node or constant of a reserved name have it.</summary>
    public void Release(string reservedName) => _names.Remove(reservedName);

    private string Unique(string wanted)
    {
        string unique = wanted;
        for (int i = 2; !_names.Add(unique); i++)
        {
            unique = string.Create(CultureInfo.InvariantCulture, $"{wanted}_{i}");
        }

        return unique;
    }

    private static ProtobufMessage Attribute(string name, object value)
    {
        ProtobufMessage attribute = new ProtobufMessage().Text(1, name);
        switch (value)
        {
            case float single:
                return attribute.Single(2, single).Integer(20, 1);
            case long integer:
                return attribute.Integer(3, integer).Integer(20, 2);
            case long[] integers:
                foreach (long integer in integers)
                {
                    attribute.Integer(8, integer);
                }

                return attribute.Integer(20, 7);
            default:
                throw new ArgumentException($"No form for the attribute '{name}' of type {value.GetType().Name}.", nameof(value));
        }
    }

    private static ProtobufMessage Value(string name, OnnxType type, IReadOnlyList<object> extents)
    {
        var shape = new ProtobufMessage();
        foreach (object extent in extents)
        {
            shape.Message(1, extent is string unknown ? new ProtobufMessage().Text(2, unknown) : new ProtobufMessage().Integer(1, (int)extent));
        }

        ProtobufMessage tensor = new ProtobufMessage().Integer(1, (long)type).Message(2, shape);
        return new ProtobufMessage().Text(1, name).Message(2, new ProtobufMessage().Message(1, tensor));
    }
}
