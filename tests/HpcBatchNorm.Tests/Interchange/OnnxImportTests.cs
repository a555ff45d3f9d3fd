using Google.Protobuf;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Interchange.Onnx;
using HpcBatchNorm.Layers;

namespace HpcBatchNorm.Tests.Interchange;

/// <summary>Models made by hand, node by node: imported they compute what ONNX Runtime computes, or say why they cannot.</summary>
public sealed class OnnxImportTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hbn-import").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>What to compute of images of 3x9x10, and how many features that gives.</summary>
    private static readonly Dictionary<string, (int OperatorSet, Func<OnnxGraphs, (string Value, int Features)> Make)> Graphs = new(StringComparer.Ordinal)
    {
        ["conv, each side padded another way"] = (17, g => (g.Conv("images", 4, 3, 3, ("pads", new[] { 2, 0, 1, 3 }), ("strides", new[] { 2, 1 })), 4 * 5 * 11)),
        ["conv with bias, dilation and groups"] = (17, g => (g.Node("Conv", [g.Conv("images", 4, 3, 1), g.Random(6, 2, 3, 3), g.Random(6)], ("group", 2), ("dilations", new[] { 2, 3 })), 6 * 5 * 4)),
        ["conv, auto_pad SAME_UPPER"] = (17, g => (g.Conv("images", 4, 3, 4, ("auto_pad", "SAME_UPPER"), ("strides", new[] { 2, 2 })), 4 * 5 * 5)),
        ["conv, auto_pad SAME_LOWER"] = (11, g => (g.Conv("images", 4, 3, 4, ("auto_pad", "SAME_LOWER"), ("strides", new[] { 1, 2 })), 4 * 9 * 5)),
        ["conv, auto_pad VALID"] = (17, g => (g.Conv("images", 4, 3, 4, ("auto_pad", "VALID")), 4 * 6 * 7)),
        ["batch norm, opset 7"] = (7, g => (g.BatchNorm("images", 3, ("epsilon", 1e-3f), ("spatial", 1)), 270)),
        ["batch norm behind conv"] = (17, g => (g.BatchNorm(g.Conv("images", 4, 3), 4, ("momentum", 0.99f)), 4 * 7 * 8)),
        ["batch norm of a matrix"] = (17, g => (g.BatchNorm(g.Node("Flatten", ["images"]), 270), 270)),
        ["relu, sigmoid, tanh"] = (7, g => (g.Node("Tanh", [g.Node("Sigmoid", [g.Node("Relu", ["images"])])]), 270)),
        ["hard swish"] = (14, g => (g.Node("HardSwish", ["images"]), 270)),
        ["hard swish as a product"] = (11, g => (g.Node("Mul", ["images", g.Node("HardSigmoid", ["images"], ("alpha", 1 / 6f), ("beta", 0.5f))]), 270)),
        ["silu as a product"] = (13, g => (g.Node("Mul", [g.Node("Sigmoid", ["images"]), "images"]), 270)),
        ["gelu, opset 20"] = (20, g => (g.Node("Gelu", ["images"]), 270)),
        ["gelu as PyTorch writes it"] = (13, g => (Gelu(g), 270)),
        ["clip that is a relu"] = (11, g => (g.Node("Clip", ["images", g.Floats([], 0)]), 270)),
        ["clip that is a relu, opset 7"] = (7, g => (g.Node("Clip", ["images"], ("min", 0f)), 270)),
        ["leaky relu without a slope"] = (16, g => (g.Node("LeakyRelu", ["images"], ("alpha", 0f)), 270)),
        ["max pool, asymmetric"] = (12, g => (g.Node("MaxPool", ["images"], ("kernel_shape", new[] { 3, 2 }), ("strides", new[] { 2, 3 }), ("pads", new[] { 1, 0, 0, 1 })), 3 * 4 * 4)),
        ["max pool, ceil"] = (12, g => (g.Node("MaxPool", ["images"], ("kernel_shape", new[] { 2, 3 }), ("strides", new[] { 2, 2 }), ("ceil_mode", 1)), 3 * 5 * 5)),
        ["max pool, ceil with padding"] = (12, g => (g.Node("MaxPool", ["images"], ("kernel_shape", new[] { 2, 3 }), ("strides", new[] { 2, 2 }), ("pads", new[] { 1, 1, 1, 1 }), ("ceil_mode", 1)), 3 * 5 * 6)),
        ["max pool, SAME_UPPER"] = (12, g => (g.Node("MaxPool", ["images"], ("kernel_shape", new[] { 3, 3 }), ("strides", new[] { 2, 2 }), ("auto_pad", "SAME_UPPER")), 3 * 5 * 5)),
        ["average pool, padding not counted"] = (11, g => (g.Node("AveragePool", ["images"], ("kernel_shape", new[] { 3, 3 }), ("pads", new[] { 1, 1, 1, 1 })), 270)),
        ["average pool, padding counted"] = (11, g => (g.Node("AveragePool", ["images"], ("kernel_shape", new[] { 3, 2 }), ("pads", new[] { 2, 1, 1, 0 }), ("count_include_pad", 1)), 3 * 10 * 10)),
        ["average pool, ceil, padding not counted"] = (11, g => (g.Node("AveragePool", ["images"], ("kernel_shape", new[] { 3, 3 }), ("strides", new[] { 2, 2 }), ("pads", new[] { 1, 1, 0, 1 }), ("ceil_mode", 1)), 3 * 5 * 6)),
        ["average pool, ceil that changes nothing, padding counted"] = (19, g => (g.Node("AveragePool", ["images"], ("kernel_shape", new[] { 3, 2 }), ("strides", new[] { 2, 2 }), ("pads", new[] { 1, 1, 1, 1 }), ("ceil_mode", 1), ("count_include_pad", 1)), 3 * 5 * 6)),
        ["global average pool"] = (7, g => (g.Node("GlobalAveragePool", [g.Conv("images", 8, 3)]), 8)),
        ["mean over rows and columns"] = (13, g => (g.Node("ReduceMean", [g.Conv("images", 8, 3)], ("axes", new[] { -1, 2 }), ("keepdims", 1)), 8)),
        ["lrn"] = (13, g => (g.Node("LRN", [g.Conv("images", 8, 3)], ("size", 5), ("alpha", 0.3f), ("beta", 0.6f), ("bias", 1.5f)), 8 * 7 * 8)),
        ["concat of branches"] = (13, g => (g.Node("Concat", [g.Conv("images", 4, 3, 1), "images", g.Conv("images", 2, 3, 1)], ("axis", -3)), 9 * 90)),
        ["sum of branches"] = (13, g => (g.Node("Sum", [g.Conv("images", 3, 3, 1), "images", g.Node("Add", [g.Conv("images", 3, 3, 1), "images"])]), 270)),
        ["dropout, opset 7"] = (7, g => (g.Node("Dropout", ["images"], ("ratio", 0.4f)), 270)),
        ["dropout, opset 13"] = (13, g => (g.Node("Dropout", [g.Conv("images", 3, 3, 1), g.Floats([], 0.3f)]), 270)),
        ["pad into conv"] = (11, g => (g.Conv(g.Node("Pad", ["images", g.Wholes(0, 0, 1, 2, 0, 0, 3, 0), g.Floats([], 0)]), 4, 3, 3, ("pads", new[] { 0, 0, 0, 1 })), 4 * 11 * 11)),
        ["pad into max pool behind relu, opset 7"] = (7, g => (g.Node("MaxPool", [g.Node("Pad", [g.Node("Relu", ["images"])], ("pads", new[] { 0, 0, 0, 0, 0, 0, 1, 1 }))], ("kernel_shape", new[] { 3, 3 }), ("strides", new[] { 2, 2 })), 3 * 4 * 5)),
        ["pad into average pool"] = (11, g => (g.Node("AveragePool", [g.Node("Pad", ["images", g.Wholes(0, 0, 1, 1, 0, 0, 1, 1)])], ("kernel_shape", new[] { 3, 3 })), 270)),
        ["scale and shift behind conv"] = (7, g => (g.Node("Add", [g.Node("Mul", [g.Conv("images", 4, 3), g.Random(4, 1, 1)]), g.Random(1, 4, 1, 1)]), 4 * 7 * 8)),
        ["scale and shift behind batch norm"] = (7, g => (g.Node("Sub", [g.Random(3, 1, 1), g.Node("Div", [g.BatchNorm("images", 3), g.Between(1, 2, 3, 1, 1)])]), 270)),
        ["scale and shift behind relu"] = (7, g => (g.Node("Add", [g.Node("Mul", [g.Node("Relu", ["images"]), g.Random(1, 3, 1, 1)]), g.Random(1, 3, 1, 1)]), 270)),
        ["scale of what another layer reads too"] = (7, g => (Shared(g), 4 * 56)),
        ["factor and offset of each element"] = (7, g => (g.Node("Add", [g.Node("Mul", [g.Node("Relu", ["images"]), g.Random(1, 3, 9, 10)]), g.Random(3, 9, 10)]), 270)),
        ["images normalised by the graph"] = (13, g => (g.Conv(g.Node("Div", [g.Node("Sub", ["images", g.Between(-1, 1, 1, 3, 1, 1)]), g.Between(1, 2, 3, 1, 1)]), 4, 3, 3, ("pads", new[] { 1, 1, 1, 1 })), 4 * 90)),
        ["matmul and add"] = (13, g => (g.Node("Add", [g.Node("MatMul", [g.Node("Flatten", ["images"]), g.Between(-0.1f, 0.1f, 270, 7)]), g.Random(7)]), 7)),
        ["gemm with factors, not transposed"] = (11, g => (g.Node("Gemm", [g.Node("Flatten", ["images"]), g.Between(-0.1f, 0.1f, 270, 7), g.Random(1, 7)], ("alpha", 0.5f), ("beta", 2f)), 7)),
        ["reshape to a matrix"] = (13, g => (g.Node("Relu", [g.Node("Reshape", [g.Conv("images", 4, 3), g.Wholes(0, -1)])]), 4 * 7 * 8)),
        ["reshape by a computed shape"] = (13, g => (ViewAsPyTorch(g), 4 * 7 * 8)),
        ["identity and constant"] = (13, g => (g.Node("Mul", [g.Node("Identity", [g.Conv("images", 4, 3)]), g.Node("Constant", [], ("value", new TensorProto { DataType = 1, FloatData = { 0.5f } }))]), 4 * 7 * 8)),
        ["squeeze"] = (13, g => (g.Node("Squeeze", [g.Node("GlobalAveragePool", [g.Conv("images", 8, 3)]), g.Wholes(2, 3)]), 8)),
    };

    public static TheoryData<string> Names() => [.. Graphs.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    public void Read_Graph_ComputesWhatOnnxRuntimeComputes(string name)
    {
        (int operatorSet, var make) = Graphs[name];
        var graph = new OnnxGraphs(operatorSet);
        (string value, int features) = make(graph);
        graph.Finish(value, features, isMatrix: name.Contains("matrix", StringComparison.Ordinal) || name is "matmul and add" or "gemm with factors, not transposed" or "squeeze" or "reshape by a computed shape");
        Compare(graph.Model);
    }

    [Theory]
    [InlineData("1x1 maps", OnnxOutput.Probabilities)]
    [InlineData("logits", OnnxOutput.Logits)]
    [InlineData("log softmax", OnnxOutput.LogProbabilities)]
    public void Read_EndOfTheGraph_IsTold(string end, OnnxOutput expected)
    {
        var graph = new OnnxGraphs(end == "1x1 maps" ? 11 : 13);
        string maps = graph.Node("GlobalAveragePool", [graph.Conv("images", 6, 3)]);
        if (end == "1x1 maps")
        {
            graph.Named("Softmax", "out", [maps], ("axis", 1));
        }
        else
        {
            graph.Named(end == "logits" ? "Flatten" : "LogSoftmax", "out", [end == "logits" ? maps : graph.Node("Flatten", [maps])]);
        }

        ImportedModel model = OnnxImport.Read(Write(graph.Model));
        Assert.Equal(expected, model.Output);
        Assert.Equal(6, model.Network.Classes);
        float[] theirs = OnnxRuns.Theirs(_folder + "/model.onnx", OnnxRuns.Pixels(model), 3, 9, 10, 128, 128);
        float[] ours = OnnxRuns.Ours(model, OnnxRuns.Pixels(model));
        float[] powers = expected == OnnxOutput.Probabilities ? theirs : Array.ConvertAll(theirs, MathF.Exp);
        OnnxRuns.AssertClose([.. powers.Select((p, i) => expected == OnnxOutput.Logits ? p / powers.Skip(i / 6 * 6).Take(6).Sum() : p)], ours);
    }

    [Fact]
    public void Read_ScaleBehindConvolution_BecomesItsBias()
    {
        var graph = new OnnxGraphs();
        graph.Finish(graph.Node("Add", [graph.Named("Conv", "c", ["images", graph.Random(4, 3, 3, 3)]), graph.Random(4, 1, 1)]), 4 * 7 * 8);
        ImportedModel model = Compare(graph.Model);
        Assert.True(Assert.IsType<ConvolutionLayer>(model.Network.Nodes.Single(n => n.Name == "c").Layer).Bias);
        Assert.DoesNotContain(model.Network.Nodes, n => n.Layer is BatchNormLayer);
    }

    [Fact]
    public void Read_ManyUnknownNodes_ListsAllOfThemAtOnce()
    {
        var graph = new OnnxGraphs(13);
        string x = graph.Named("LeakyRelu", "leaky", [graph.Conv("images", 4, 3)]);
        x = graph.Named("Clip", "six", [x, graph.Floats([], 0), graph.Floats([], 6)]);
        x = graph.Named("Erf", "erf", [graph.Conv(x, 4, 4, 1)]);
        x = graph.Named("AveragePool", "counted", [graph.Conv("images", 4, 3)], ("kernel_shape", new[] { 3, 3 }), ("strides", new[] { 3, 3 }), ("ceil_mode", 1), ("count_include_pad", 1));
        x = graph.Named("ConvTranspose", "up", [x, graph.Random(4, 4, 2, 2)]);
        x = graph.Named("MaxPool", "dilated", [x], ("kernel_shape", new[] { 2, 2 }), ("dilations", new[] { 2, 2 }));
        graph.Named("Resize", "unneeded", [x]);
        graph.Finish(graph.Node("Sum", [x, "erf"]), 4);
        var error = Assert.Throws<OnnxImportException>(() => OnnxImport.Read(Write(graph.Model)));
        Assert.Equal(["leaky", "six", "erf", "counted", "up", "dilated"], error.Problems.Select(p => p.Node));
        Assert.Contains("'six' (Clip): there is no layer that cuts to [0, 6] (ReLU6)", error.Message, StringComparison.Ordinal);
        Assert.Contains("ceil_mode", error.Problems[3].Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Read_ExternalData_TakesItFromTheFileBeside()
    {
        var graph = new OnnxGraphs();
        graph.Finish(graph.Conv("images", 4, 3), 4 * 7 * 8);
        TensorProto weights = graph.Model.Graph.Initializer[0];
        byte[] bytes = new byte[16 + weights.FloatData.Count * 4];
        Buffer.BlockCopy(weights.FloatData.ToArray(), 0, bytes, 16, bytes.Length - 16);
        File.WriteAllBytes(Path.Combine(_folder, "model.data"), bytes);
        weights.FloatData.Clear();
        weights.DataLocation = TensorProto.Types.DataLocation.External;
        weights.ExternalData.Add(new StringStringEntryProto { Key = "location", Value = "model.data" });
        weights.ExternalData.Add(new StringStringEntryProto { Key = "offset", Value = "16" });
        weights.ExternalData.Add(new StringStringEntryProto { Key = "length", Value = $"{bytes.Length - 16}" });
        Compare(graph.Model);

        File.WriteAllBytes(Path.Combine(_folder, "model.data"), bytes[..^1]);
        Assert.Contains("cut short", Assert.Throws<OnnxImportException>(() => OnnxImport.Read(_folder + "/model.onnx")).Message, StringComparison.Ordinal);
        weights.ExternalData[0].Value = "../model.data";
        Assert.Contains("not in the folder", Assert.Throws<OnnxImportException>(() => OnnxImport.Read(Write(graph.Model))).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(6)]
    [InlineData(23)]
    public void Read_OtherOperatorSet_SaysWhichAreRead(int operatorSet)
    {
        var graph = new OnnxGraphs(operatorSet);
        graph.Finish("images", 270);
        Assert.Contains($"operator set {operatorSet}", Assert.Throws<UserErrorException>(() => OnnxImport.Read(Write(graph.Model))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Read_OpenImageSize_TakesTheOneThatIsNamed()
    {
        var graph = new OnnxGraphs(open: true);
        graph.Finish(graph.Conv("images", 4, 3), 4 * 36);
        ImportedModel model = OnnxImport.Read(Write(graph.Model), new OnnxImportOptions { ImageSize = 8 });
        Assert.Equal((8, 8), (model.Height, model.Width));
        Assert.Contains("for images of 224x224", Assert.Throws<OnnxImportException>(() => OnnxImport.Read(_folder + "/model.onnx")).Message, StringComparison.Ordinal);
    }

    /// <summary>Bytes changed, cut and repeated: a network, or one error that a person can read; never anything else.</summary>
    [Fact]
    public void Read_2000MutatedFiles_NeverFailsOtherwise()
    {
        var graph = new OnnxGraphs(13);
        string x = graph.BatchNorm(graph.Conv("images", 4, 3, 3, ("pads", new[] { 1, 1, 1, 1 })), 4);
        x = graph.Node("MaxPool", [graph.Node("Relu", [x])], ("kernel_shape", new[] { 3, 3 }), ("strides", new[] { 2, 2 }), ("ceil_mode", 1));
        x = graph.Node("Concat", [graph.Node("LRN", [x], ("size", 3)), graph.Conv(x, 2, 4, 1, ("auto_pad", "SAME_UPPER"))], ("axis", 1));
        x = graph.Node("Dropout", [graph.Node("AveragePool", [x], ("kernel_shape", new[] { 2, 2 }))]);
        graph.Finish(graph.Node("Reshape", [x, graph.Wholes(0, -1)]), 6 * 3 * 4, isMatrix: true);
        byte[] good = graph.Model.ToByteArray();
        Assert.NotNull(OnnxImport.Read(Write(graph.Model)));
        var random = new Random(1234);
        int read = 0, refused = 0;
        string path = Path.Combine(_folder, "mutated.onnx");
        for (int i = 0; i < 2000; i++)
        {
            List<byte> bytes = [.. good];
            for (int change = random.Next(1, 5); change > 0; change--)
            {
                int at = random.Next(bytes.Count);
                switch (random.Next(4))
                {
                    case 0: bytes[at] = (byte)random.Next(256); break;
                    case 1: bytes[at] ^= (byte)(1 << random.Next(8)); break;
                    case 2: bytes.RemoveRange(at, Math.Min(random.Next(1, 9), bytes.Count - at - 1)); break;
                    default: bytes.InsertRange(at, bytes.GetRange(at, Math.Min(random.Next(1, 9), bytes.Count - at))); break;
                }
            }

            File.WriteAllBytes(path, [.. bytes]);
            try
            {
                OnnxImport.Read(path);
                read++;
            }
            catch (UserErrorException)
            {
                refused++;
            }
        }

        Assert.True(read > 100 && refused > 100, $"{read} read, {refused} refused: the changes prove little");
    }

    private static string Gelu(OnnxGraphs g)
    {
        string erf = g.Node("Erf", [g.Node("Div", ["images", g.Floats([], MathF.Sqrt(2))])]);
        return g.Node("Mul", [g.Node("Mul", ["images", g.Node("Add", [erf, g.Floats([], 1)])]), g.Floats([], 0.5f)]);
    }

    private static string Shared(OnnxGraphs g)
    {
        string conv = g.Conv("images", 4, 3);
        return g.Node("Add", [g.Node("Mul", [conv, g.Random(4, 1, 1)]), conv]);
    }

    private static string ViewAsPyTorch(OnnxGraphs g)
    {
        string conv = g.Conv("images", 4, 3);
        string batch = g.Node("Unsqueeze", [g.Node("Gather", [g.Node("Shape", [conv]), g.Scalar(0)], ("axis", 0)), g.Wholes(0)]);
        return g.Node("Reshape", [conv, g.Node("Concat", [batch, g.Wholes(-1)], ("axis", 0))]);
    }

    private string Write(ModelProto model)
    {
        string path = Path.Combine(_folder, "model.onnx");
        using FileStream file = File.Create(path);
        model.WriteTo(file);
        return path;
    }

    private ImportedModel Compare(ModelProto model)
    {
        string path = Write(model);
        ImportedModel imported = OnnxImport.Read(path, new OnnxImportOptions { PixelMean = [128], PixelDeviation = [128] });
        byte[] pixels = OnnxRuns.Pixels(imported);
        float[] theirs = OnnxRuns.Theirs(path, pixels, 3, imported.Height, imported.Width, 128, 128);
        Assert.True(theirs.Max() - theirs.Min() > 0.01, "all classes alike: the comparison would prove nothing");
        OnnxRuns.AssertClose(theirs, OnnxRuns.Ours(imported, pixels));
        return imported;
    }
}
