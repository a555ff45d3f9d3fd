using Google.Protobuf;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Interchange.Onnx;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using AttributeType = HpcBatchNorm.Interchange.Onnx.AttributeProto.Types.AttributeType;

namespace HpcBatchNorm.Tests.Interchange;

/// <summary>What other programs write and the common path does not meet: computed as ONNX Runtime computes it, or refused by name; never taken for something else.</summary>
public sealed class OnnxOddGraphTests : IDisposable
{
    private static readonly OnnxImportOptions Usual = new() { PixelMean = [128], PixelDeviation = [128] };
    private readonly string _folder = Directory.CreateTempSubdirectory("hbn-odd").FullName;

    private string ModelPath => Path.Combine(_folder, "model.onnx");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>What to compute of images of 3x9x10, and how many features that gives.</summary>
    private static readonly Dictionary<string, (int OperatorSet, Func<OnnxGraphs, (string Value, int Features)> Make)> Graphs = new(StringComparer.Ordinal)
    {
        ["weights in half precision, converted"] = (13, g => (g.Node("Conv", ["images", g.Node("Cast", [Halves(g, 4, 3, 1, 1)], ("to", 1))]), 360)),
        ["weights in double precision, converted"] = (13, g => (g.Node("MatMul", [g.Node("Flatten", ["images"]), g.Node("Cast", [Doubles(g, 270, 7)], ("to", 1))]), 7)),
        ["weights transposed by a node"] = (13, g => (g.Node("MatMul", [g.Node("Flatten", ["images"]), g.Node("Transpose", [g.Between(-0.1f, 0.1f, 7, 270)], ("perm", new[] { 1, 0 }))]), 7)),
        ["weights transposed by a node that does not say how"] = (13, g => (g.Node("Gemm", [g.Node("Flatten", ["images"]), g.Node("Transpose", [g.Between(-0.1f, 0.1f, 270, 7)])], ("transB", 1)), 7)),
        ["part of a shape"] = (15, g => (View(g, ("end", 1)), 224)),
        ["part of a shape, counted from its end"] = (15, g => (View(g, ("start", -4), ("end", -3)), 224)),
        ["unused constant of text"] = (13, g => (WithText(g), 360)),
        ["batch normalization with a scale for each element"] = (7, g => (g.Node("BatchNormalization", ["images", g.Random(3, 9, 10), g.Random(3, 9, 10), g.Random(3, 9, 10), g.Between(0.5f, 1.5f, 3, 9, 10)], ("spatial", 0)), 270)),
        ["gemm, bias left out by an empty name"] = (13, g => (g.Node("Gemm", [g.Node("Flatten", ["images"]), g.Between(-0.1f, 0.1f, 270, 7), ""], ("beta", 3f)), 7)),
        ["gemm, one bias for all"] = (13, g => (g.Node("Gemm", [g.Node("Flatten", ["images"]), g.Between(-0.1f, 0.1f, 270, 7), g.Floats([1, 1], 0.3f)], ("beta", 2f)), 7)),
        ["shared through identities, one side scaled"] = (13, g => (Identities(g), 224)),
        ["weights of two convolutions, one scaled"] = (13, g => (SharedWeights(g), 224)),
        ["a value added to itself"] = (13, g => (Twice(g, "Add"), 224)),
        ["a value joined with itself"] = (13, g => (Twice(g, "Concat", ("axis", 1)), 448)),
        ["padded twice"] = (13, g => (g.Conv(g.Node("Pad", [g.Node("Pad", ["images", g.Wholes(0, 0, 1, 0, 0, 0, 0, 1)]), g.Wholes(0, 0, 0, 1, 0, 0, 1, 0)]), 4, 3), 360)),
        ["padded beyond the kernel"] = (13, g => (g.Conv(g.Node("Pad", ["images", g.Wholes(0, 0, 3, 3, 0, 0, 3, 3)]), 4, 3, 2), 4 * 14 * 15)),
        ["flattened, normalised, maps again, scaled per channel"] = (13, g => (g.Node("Mul", [g.Node("Reshape", [g.BatchNorm(g.Node("Flatten", [g.Conv("images", 4, 3)]), 224), g.Wholes(-1, 4, 7, 8)]), g.Random(4, 1, 1)]), 224)),
        ["names that no file name could have"] = (13, g => (g.Named("Relu", "a b/../\"quoted\"\n\té.dst:0", [g.Named("Conv", "probabilities", ["images", g.Random(4, 3, 1, 1)])]), 360)),
    };

    public static TheoryData<string> Names() => [.. Graphs.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    public void Read_OddGraph_ComputesWhatOnnxRuntimeComputes(string name)
    {
        (int operatorSet, var make) = Graphs[name];
        var graph = new OnnxGraphs(operatorSet);
        (string value, int features) = make(graph);
        graph.Finish(value, features);
        ImportedModel imported = OnnxImport.Read(Write(graph.Model), Usual);
        byte[] pixels = OnnxRuns.Pixels(imported);
        float[] theirs = OnnxRuns.Theirs(ModelPath, pixels, 3, imported.Height, imported.Width, 128, 128);
        Assert.True(theirs.Max() - theirs.Min() > 0.01, "all classes alike: the comparison would prove nothing");
        OnnxRuns.AssertClose(theirs, OnnxRuns.Ours(imported, pixels));
    }

    /// <summary>Before operator set 14 further outputs were what said that the batch's own statistics are to be used.</summary>
    [Theory]
    [InlineData(7)]
    [InlineData(9)]
    public void Read_BatchNormalizationInItsFormForTraining_IsRefused(int operatorSet)
    {
        var graph = new OnnxGraphs(operatorSet);
        string normalised = graph.BatchNorm("images", 3);
        graph.Model.Graph.Node[^1].Output.AddRange(["mean", "var", "saved_mean", "saved_var"]);
        graph.Finish(normalised, 270);
        Assert.Contains("it has 5 outputs, which is the form for training", Refusal(graph), StringComparison.Ordinal);

        graph.Model.Graph.Node[0].Output.Clear();
        graph.Model.Graph.Node[0].Output.AddRange([normalised, "", "", "", ""]);
        Assert.NotNull(OnnxImport.Read(Write(graph.Model), Usual));
    }

    [Theory]
    [InlineData(0, 4, false)] // would divide each image
    [InlineData(1, 4, false)]
    [InlineData(0, 1, true)]
    [InlineData(8, 8, true)]
    [InlineData(8, 1, false)] // would join eight
    public void Read_ReshapeToSoManyImages_IsTakenWhereImagesStayWhole(int declared, int wanted, bool taken)
    {
        var graph = new OnnxGraphs(13);
        graph.Model.Graph.Input[0] = OnnxGraphs.Declare("images", [declared, 3, 9, 10]);
        string features = graph.Node("GlobalAveragePool", [graph.Conv("images", 8, 3)]);
        graph.Named("Softmax", "out", [graph.Node("Reshape", [features, graph.Wholes(wanted, -1)])], ("axis", 1));
        Write(graph.Model);
        if (taken)
        {
            Assert.Equal(8, OnnxImport.Read(ModelPath, Usual).Network.Classes);
        }
        else
        {
            Assert.Contains($"it makes [{wanted}, -1] of 1x8x1x1", Refusal(graph), StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData("weights", "'c' (Conv): its weights, with the factors and offsets behind it: 1 of its 108 values are not finite numbers, the first, number 0, is NaN.")]
    [InlineData("factor", "'c' (Conv): its weights, with the factors and offsets behind it: ")]
    [InlineData("variance", "(BatchNormalization): its running variance, with the factors and offsets behind it: a variance is never negative, but one of its 4 values is -1.")]
    public void Read_NumbersThatCannotBe_AreRefusedWithTheNode(string which, string expected)
    {
        var graph = new OnnxGraphs(13);
        string value = graph.Named("Conv", "c", ["images", graph.Random(4, 3, 3, 3)]);
        if (which == "weights")
        {
            graph.Model.Graph.Initializer[0].FloatData[0] = float.NaN;
        }

        value = which == "factor" ? graph.Node("Mul", [graph.Node("Mul", [value, graph.Floats([], 1e38f)]), graph.Floats([], 100)]) : value;
        if (which == "variance")
        {
            value = graph.BatchNorm(value, 4);
            graph.Model.Graph.Initializer[^1].FloatData[2] = -1;
        }

        graph.Finish(value, 224);
        Assert.Contains(expected, Refusal(graph), StringComparison.Ordinal);
    }

    /// <summary>Whatever an operator of another domain is called, it is not ONNX's.</summary>
    [Fact]
    public void Read_OperatorOfAnotherDomainWithAKnownName_IsRefused()
    {
        foreach (int custom in (int[])[0, 1])
        {
            var graph = new OnnxGraphs(13);
            graph.Finish(graph.Node("Mul", ["images", graph.Node("Sigmoid", ["images"])]), 270);
            graph.Model.Graph.Node[custom].Domain = "com.example";
            Assert.Contains($"({graph.Model.Graph.Node[custom].OpType}): it is of the operators of 'com.example'", Refusal(graph), StringComparison.Ordinal);
        }
    }

    /// <summary>A problem is told once, not again by all that joins it with something.</summary>
    [Fact]
    public void Read_ConcatOfAnUnknownShapeAndAConstant_TellsTheUnknownOnly()
    {
        var graph = new OnnxGraphs(13);
        string conv = graph.Conv("images", 4, 3);
        string batch = graph.Named("Slice", "slice", [graph.Node("Shape", [conv]), graph.Wholes(0), graph.Wholes(1)]);
        graph.Finish(graph.Node("Reshape", [conv, graph.Node("Concat", [batch, graph.Wholes(-1)], ("axis", 0))]), 224);
        Assert.Equal(["slice"], Assert.Throws<OnnxImportException>(() => OnnxImport.Read(Write(graph.Model))).Problems.Select(p => p.Node));
    }

    [Theory]
    [InlineData("unsorted", "'early' (Relu): nothing before it gives its input 'late'")]
    [InlineData("nowhere", "computes its output 'nowhere'")]
    [InlineData("constant", "The output 'out' of '")]
    [InlineData("none", "says of no value that it is its output")]
    public void Read_GraphWithoutAWayFromInputToOutput_SaysWhatIsMissing(string which, string expected)
    {
        var graph = new OnnxGraphs(13);
        graph.Finish(which == "constant" ? graph.Node("Identity", [graph.Random(1, 3, 9, 10)]) : graph.Named("Relu", "early", [which == "unsorted" ? "late" : "images"]), 270);
        graph.Named("Relu", "late", ["images"]);
        if (which == "nowhere")
        {
            graph.Model.Graph.Output[0].Name = "nowhere";
        }
        else if (which == "none")
        {
            graph.Model.Graph.Output.Clear();
        }

        Assert.Contains(expected, Refusal(graph), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("mean", "The mean of the pixels must be finite; it is NaN.")]
    [InlineData("deviation", "The deviation of the pixels must be finite and above 0; it is 0.")]
    [InlineData("size", "The image size must be 0 (the model's own) or more; it is -5.")]
    public void Read_OptionThatCannotBe_IsRefusedByName(string which, string expected)
    {
        var graph = new OnnxGraphs(13);
        graph.Finish(graph.Conv("images", 4, 3), 224);
        OnnxImportOptions options = which switch
        {
            "mean" => new() { PixelMean = [1, float.NaN, 1] },
            "deviation" => new() { PixelDeviation = [0] },
            _ => new() { ImageSize = -5 },
        };
        Assert.Equal(expected, Assert.Throws<UserErrorException>(() => OnnxImport.Read(Write(graph.Model), options)).Message);
    }

    /// <summary>What is assumed is said, and no more than that.</summary>
    [Fact]
    public void Read_WhatIsAssumed_IsNoted()
    {
        var graph = new OnnxGraphs(13);
        graph.Finish(graph.Node("Cast", [graph.Node("Cast", [graph.Conv("images", 4, 3)], ("to", 10))], ("to", 1)), 224);
        Write(graph.Model);
        const string Narrow = "The model rounds its values to FLOAT16; here they stay in single precision.";
        Assert.Equal([Narrow], OnnxImport.Read(ModelPath, Usual).Notes);
        Assert.Contains(" (pixel - 128) / 128 was assumed.", OnnxImport.Read(ModelPath).Notes[0], StringComparison.Ordinal);
        Assert.Contains(" a deviation of 128 was assumed.", OnnxImport.Read(ModelPath, new OnnxImportOptions { PixelMean = [10] }).Notes[0], StringComparison.Ordinal);
        Assert.Contains(" a mean of 128 was assumed.", OnnxImport.Read(ModelPath, new OnnxImportOptions { PixelDeviation = [10] }).Notes[0], StringComparison.Ordinal);
        graph.Model.Graph.Input[0] = OnnxGraphs.Declare("images", [0, 3, 9, 10], (int)TensorProto.Types.DataType.Float16);
        Assert.Equal([Narrow], OnnxImport.Read(Write(graph.Model), Usual).Notes);

        graph = new OnnxGraphs(13);
        graph.Named("Sigmoid", "out", [graph.Node("GlobalAveragePool", [graph.Conv("images", 4, 3)])]);
        Assert.StartsWith("The model ends with sigmoid and without a softmax;", Assert.Single(OnnxImport.Read(Write(graph.Model), Usual).Notes), StringComparison.Ordinal);
    }

    /// <summary>Sixty sums of a value with itself have more ways through them than can be walked.</summary>
    [Fact]
    public async Task Read_SumsOfSums_TakeNoLongerThanTheyAreMany()
    {
        var graph = new OnnxGraphs(13);
        string value = graph.Node("Relu", ["images"]);
        for (int i = 0; i < 60; i++)
        {
            value = graph.Node("Add", [value, value]);
        }

        graph.Finish(graph.Node("MaxPool", [graph.Node("Pad", [value, graph.Wholes(0, 0, 1, 1, 0, 0, 1, 1)])], ("kernel_shape", new[] { 3, 3 })), 270);
        Write(graph.Model);
        ImportedModel model = await Task.Run(() => OnnxImport.Read(ModelPath, Usual)).WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);
        Assert.Equal(60, model.Network.Nodes.Count(n => n.Layer is SumLayer));
    }

    /// <summary>Layers may be called as the file's own values are, and two may read one value's features.</summary>
    [Theory]
    [InlineData("pixels", OnnxInput.Pixels)]
    [InlineData("images", OnnxInput.Images)]
    [InlineData("probabilities", OnnxInput.Pixels)]
    [InlineData("input/planes", OnnxInput.Pixels)]
    [InlineData("conv", OnnxInput.Pixels)]
    public void Write_LayersWithNamesOfTheFilesOwn_IsStillAModel(string layer, OnnxInput input)
    {
        var builder = new NetworkBuilder("odd");
        Node conv = builder.Convolution(layer, builder.Input(), 4, 3);
        builder.Loss(builder.Sum("sum", builder.FullyConnected("fc", conv, 5), builder.FullyConnected("fc2", conv, 5)));
        Network network = builder.Build();
        OnnxModel.Write(ModelPath, network, NetworkState.Initial(network.Infer(1, 8, 8), seed: 1), new OnnxOptions { Height = 8, Width = 8, Input = input });
        ImportedModel back = OnnxImport.Read(ModelPath);
        byte[] pixels = OnnxRuns.Pixels(back);
        OnnxRuns.AssertClose(OnnxRuns.Theirs(ModelPath, pixels, 3, 8, 8, 128, 128), OnnxRuns.Ours(back, pixels));
    }

    private string Refusal(OnnxGraphs graph) => Assert.ThrowsAny<UserErrorException>(() => OnnxImport.Read(Write(graph.Model), Usual)).Message;

    private string Write(ModelProto model)
    {
        using FileStream file = File.Create(ModelPath);
        model.WriteTo(file);
        return ModelPath;
    }

    private static string Halves(OnnxGraphs g, params long[] extents) =>
        Constant(g, 10, extents, i => BitConverter.GetBytes((Half)Math.Sin(i)));

    private static string Doubles(OnnxGraphs g, params long[] extents) =>
        Constant(g, 11, extents, i => BitConverter.GetBytes(Math.Sin(i) / 10));

    private static string Constant(OnnxGraphs g, int type, long[] extents, Func<int, byte[]> value)
    {
        byte[] bytes = [.. Enumerable.Range(0, (int)extents.Aggregate(1L, (a, b) => a * b)).SelectMany(value)];
        var tensor = new TensorProto { Name = "other", DataType = type, Dims = { extents }, RawData = ByteString.CopyFrom(bytes) };
        g.Model.Graph.Initializer.Add(tensor);
        return tensor.Name;
    }

    private static string View(OnnxGraphs g, params (string, object)[] part)
    {
        string conv = g.Conv("images", 4, 3);
        return g.Node("Reshape", [conv, g.Node("Concat", [g.Node("Shape", [conv], part), g.Wholes(-1)], ("axis", 0))]);
    }

    private static string WithText(OnnxGraphs g)
    {
        g.Node("Constant", []);
        g.Model.Graph.Node[^1].Attribute.Add(new AttributeProto { Name = "value_string", S = ByteString.CopyFromUtf8("a text"), Type = AttributeType.String });
        return g.Conv("images", 4, 3, 1);
    }

    private static string Identities(OnnxGraphs g)
    {
        string conv = g.Node("Identity", [g.Conv("images", 4, 3)]);
        return g.Node("Add", [g.Node("Mul", [g.Node("Identity", [conv]), g.Random(4, 1, 1)]), g.Node("Identity", [conv])]);
    }

    private static string SharedWeights(OnnxGraphs g)
    {
        string weights = g.Random(4, 3, 3, 3);
        return g.Node("Add", [g.Node("Mul", [g.Node("Conv", ["images", weights]), g.Random(4, 1, 1)]), g.Node("Conv", ["images", weights])]);
    }

    private static string Twice(OnnxGraphs g, string type, params (string, object)[] attributes)
    {
        string conv = g.Conv("images", 4, 3);
        return g.Node(type, [conv, conv], attributes);
    }
}
