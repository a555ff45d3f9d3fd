using Google.Protobuf;
using HpcBatchNorm.Interchange.Onnx;
using AttributeType = HpcBatchNorm.Interchange.Onnx.AttributeProto.Types.AttributeType;

namespace HpcBatchNorm.Tests.Interchange;

/// <summary>An ONNX model written by hand: input <c>images</c>, output <c>out</c>.</summary>
internal sealed class OnnxGraphs
{
    private readonly Random _random = new(11);
    private int _count;

    public OnnxGraphs(long operatorSet = 17, int channels = 3, int height = 9, int width = 10, bool open = false)
    {
        Model = new ModelProto { IrVersion = 7, ProducerName = "hand", Graph = new GraphProto { Name = "graph" }, OpsetImport = { new OperatorSetIdProto { Version = operatorSet } } };
        Model.Graph.Input.Add(Declare("images", open ? [0, channels, 0, 0] : [0, channels, height, width]));
        Model.Graph.Output.Add(Declare("out", [0, 0]));
    }

    public ModelProto Model { get; }

    public static ValueInfoProto Declare(string name, long[] extents, int type = 1)
    {
        var shape = new TensorShapeProto();
        shape.Dim.AddRange(extents.Select((e, i) => e > 0 ? new TensorShapeProto.Types.Dimension { DimValue = e } : new TensorShapeProto.Types.Dimension { DimParam = $"d{i}" }));
        return new ValueInfoProto { Name = name, Type = new TypeProto { TensorType = new TypeProto.Types.Tensor { ElemType = type, Shape = shape } } };
    }

    /// <summary>Adds a node and returns the name of its output.</summary>
    public string Node(string type, IEnumerable<string> inputs, params (string Name, object Value)[] attributes) => Named(type, $"{type.ToLowerInvariant()}{++_count}", inputs, attributes);

    public string Named(string type, string name, IEnumerable<string> inputs, params (string Name, object Value)[] attributes)
    {
        var node = new NodeProto { OpType = type, Name = name, Input = { inputs }, Output = { name } };
        foreach ((string attribute, object value) in attributes)
        {
            node.Attribute.Add(value switch
            {
                float f => new AttributeProto { Name = attribute, F = f, Type = AttributeType.Float },
                int i => new AttributeProto { Name = attribute, I = i, Type = AttributeType.Int },
                string s => new AttributeProto { Name = attribute, S = ByteString.CopyFromUtf8(s), Type = AttributeType.String },
                int[] ints => new AttributeProto { Name = attribute, Ints = { ints.Select(i => (long)i) }, Type = AttributeType.Ints },
                TensorProto t => new AttributeProto { Name = attribute, T = t, Type = AttributeType.Tensor },
                _ => throw new ArgumentException(attribute),
            });
        }

        Model.Graph.Node.Add(node);
        return name;
    }

    public string Floats(long[] extents, params float[] values)
    {
        string name = $"c{++_count}";
        Model.Graph.Initializer.Add(new TensorProto { Name = name, DataType = 1, Dims = { extents }, FloatData = { values } });
        return name;
    }

    public string Wholes(params long[] values)
    {
        string name = $"c{++_count}";
        Model.Graph.Initializer.Add(new TensorProto { Name = name, DataType = 7, Dims = { values.Length }, Int64Data = { values } });
        return name;
    }

    public string Scalar(long value)
    {
        string name = $"c{++_count}";
        Model.Graph.Initializer.Add(new TensorProto { Name = name, DataType = 7, Int64Data = { value } });
        return name;
    }

    public string Random(params long[] extents) => Between(-0.5f, 0.5f, extents);

    public string Between(float low, float high, params long[] extents)
    {
        float[] values = new float[extents.Aggregate(1L, (a, b) => a * b)];
        foreach (ref float value in values.AsSpan())
        {
            value = low + (high - low) * _random.NextSingle();
        }

        return Floats(extents, values);
    }

    public string Conv(string input, int outputs, int inputs, int kernel = 3, params (string, object)[] attributes) =>
        Node("Conv", [input, Random(outputs, inputs, kernel, kernel)], attributes);

    public string BatchNorm(string input, int channels, params (string, object)[] attributes) => Node(
        "BatchNormalization", [input, Between(0.5f, 1.5f, channels), Random(channels), Random(channels), Between(0.5f, 1.5f, channels)], attributes);

    /// <summary>Five classes of all elements of an image, each with a weight of its own: whatever differs in one of them differs in the probabilities.</summary>
    public void Finish(string value, int features, bool isMatrix = false)
    {
        string flat = isMatrix ? value : Node("Flatten", [value], ("axis", 1));
        string logits = Node("Gemm", [flat, Between(-2f / MathF.Sqrt(features), 2f / MathF.Sqrt(features), 5, features), Random(5)], ("transB", 1));
        Named("Softmax", "out", [logits], ("axis", 1));
    }
}
