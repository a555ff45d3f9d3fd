using HpcBatchNorm.Interchange.Onnx;
using AttributeType = HpcBatchNorm.Interchange.Onnx.AttributeProto.Types.AttributeType;

namespace HpcBatchNorm.Interchange;

/// <summary>
/// A node of an ONNX graph being read. It knows which of its attributes were asked for: one that nobody asked for means something that was not understood.
/// What does not fit is a <see cref="UserErrorException"/> whose message is a reason.
/// </summary>
internal sealed class OnnxNode
{
    /// <summary>The largest extent, stride, padding or dilation that is read: larger ones are a damaged file, and sums of these cannot overflow.</summary>
    private const int LargestWindow = 16384;

    private readonly Dictionary<string, AttributeProto> _attributes = new(StringComparer.Ordinal);
    private readonly HashSet<string> _read = new(StringComparer.Ordinal);
    private readonly string _folder;

    public OnnxNode(NodeProto proto, string folder)
    {
        Operator = proto.OpType;
        Domain = proto.Domain is "ai.onnx" ? "" : proto.Domain;
        Inputs = [.. proto.Input];
        Outputs = [.. proto.Output];
        Name = proto.Name.Length > 0 ? proto.Name : Outputs.FirstOrDefault(o => o.Length > 0) ?? "";
        _folder = folder;
        foreach (AttributeProto attribute in proto.Attribute)
        {
            _attributes[attribute.Name] = attribute;
        }
    }

    private OnnxNode(OnnxNode last, string type, string input)
    {
        (Operator, Domain, Name, Inputs, Outputs, _folder) = (type, "", last.Name, [input], last.Outputs, last._folder);
    }

    /// <summary>Its own name, or that of its first output where it has none.</summary>
    public string Name { get; }

    public string Operator { get; }

    /// <summary>Empty for the operators of the standard.</summary>
    public string Domain { get; }

    /// <summary>Names of values; empty where an optional one is left out.</summary>
    public IReadOnlyList<string> Inputs { get; }

    public IReadOnlyList<string> Outputs { get; }

    /// <summary>Attributes that nobody asked for.</summary>
    public IEnumerable<string> Unread => _attributes.Keys.Where(a => !_read.Contains(a));

    /// <summary>One node that stands for several, of which this is the last.</summary>
    public OnnxNode StandFor(string type, string input) => new(this, type, input);

    public string Input(int index) => index < Inputs.Count ? Inputs[index] : "";

    public bool Has(string name) => _attributes.ContainsKey(name);

    public long Whole(string name, long otherwise) => Find(name, AttributeType.Int)?.I ?? otherwise;

    public bool Flag(string name, bool otherwise = false) => Whole(name, otherwise ? 1 : 0) != 0;

    public float Real(string name, float otherwise) => Find(name, AttributeType.Float)?.F ?? otherwise;

    public string Text(string name, string otherwise) => Find(name, AttributeType.String)?.S.ToStringUtf8() ?? otherwise;

    public long[]? Wholes(string name) => Find(name, AttributeType.Ints) is { } attribute ? [.. attribute.Ints] : null;

    /// <summary>Rows and columns of something at an image, or four paddings.</summary>
    public int[]? Window(string name, int count, int smallest)
    {
        if (Wholes(name) is not { } values)
        {
            return null;
        }

        if (values.Length != count)
        {
            throw new UserErrorException($"{name} is [{string.Join(", ", values)}]; only two-dimensional images are known here, which need {count} values");
        }

        foreach (long value in values)
        {
            if (value < smallest || value > LargestWindow)
            {
                throw new UserErrorException($"{name} is [{string.Join(", ", values)}]; only values of {smallest} to {LargestWindow} are known here");
            }
        }

        return Array.ConvertAll(values, v => (int)v);
    }

    /// <summary>The value of a node <c>Constant</c>.</summary>
    public OnnxTensor Constant()
    {
        if (_attributes.Count != 1)
        {
            throw new UserErrorException($"it has {_attributes.Count} attributes; expected its value alone");
        }

        AttributeProto only = _attributes.Values.First();
        _read.Add(only.Name);
        TensorProto tensor = only.Name switch
        {
            "value" when only.T is not null => only.T,
            "value_float" => new TensorProto { DataType = (int)TensorProto.Types.DataType.Float, FloatData = { only.F } },
            "value_floats" => new TensorProto { DataType = (int)TensorProto.Types.DataType.Float, Dims = { only.Floats.Count }, FloatData = { only.Floats } },
            "value_int" => new TensorProto { DataType = (int)TensorProto.Types.DataType.Int64, Int64Data = { only.I } },
            "value_ints" => new TensorProto { DataType = (int)TensorProto.Types.DataType.Int64, Dims = { only.Ints.Count }, Int64Data = { only.Ints } },
            _ => throw new UserErrorException($"its value is given as '{only.Name}', of which nothing can be made here"),
        };
        tensor.Name = tensor.Name.Length > 0 ? tensor.Name : Name;
        return new OnnxTensor(tensor, _folder);
    }

    private AttributeProto? Find(string name, AttributeType type)
    {
        _read.Add(name);
        AttributeProto? attribute = _attributes.GetValueOrDefault(name);
        return attribute is null || attribute.Type == type || attribute.Type == AttributeType.Undefined
            ? attribute
            : throw new UserErrorException($"its attribute {name} is of type {attribute.Type.ToString().ToUpperInvariant()}; expected {type.ToString().ToUpperInvariant()}");
    }
}
