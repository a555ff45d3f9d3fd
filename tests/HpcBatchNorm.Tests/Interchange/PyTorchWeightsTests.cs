using Google.Protobuf;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Interchange;

/// <summary>Weights under PyTorch's names: read as those programs mean them, written bit for bit, refused with everything that differs.</summary>
public sealed class PyTorchWeightsTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hbn-pytorch").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>The whole way: a file of theirs, imported by its defaults, evaluated with the preprocessing that the checkpoint remembers.</summary>
    [Theory]
    [InlineData("bn-inception", 64)]
    [InlineData("resnet-18", 64)]
    [InlineData("resnet-50", 32)]
    [InlineData("inception-v3", 107)]
    public void Import_FileOfTheirs_ComputesWhatTheirModelComputes(string name, int size)
    {
        var theirs = PyTorchModels.Create(name, size);
        File.WriteAllBytes(In("model.onnx"), theirs.Graph.Model.ToByteArray());
        PyTorchModels.Write(In("theirs.safetensors"), theirs.Tensors, new KeyValuePair<string, string>("format", "pt"));

        ImportResult result = Import("theirs.safetensors", name, ("image-size", $"{size}"), ("auxiliary-heads", "false"));

        using var checkpoint = Checkpoint.Open(result.Path);
        Network network = checkpoint.ReadNetwork();
        RunConfig config = EvaluationSetup.Configure(checkpoint, []);
        ImportedModel model = new()
        {
            Network = network,
            State = checkpoint.ReadNetworkState(network, config.ImageSize),
            Height = config.ImageSize,
            Width = config.ImageSize,
            PixelMean = config.Optimizer.PixelMean!,
            PixelDeviation = config.Optimizer.PixelDeviation!,
            ClassNames = checkpoint.Info.ClassNames,
            Output = OnnxOutput.Logits,
            OperatorSet = 0,
            Producer = "",
            Notes = result.Notes,
        };
        byte[] pixels = OnnxRuns.Pixels(model);
        float[] expected = OnnxRuns.Theirs(In("model.onnx"), pixels, 3, size, size, 0, 1);
        Assert.True(expected.Max() - expected.Min() > 0.01 && expected.Zip(expected.Skip(PyTorchModels.Classes)).Any(p => Math.Abs(p.First - p.Second) > 1e-3), "all alike: the comparison would prove nothing");
        OnnxRuns.AssertClose(expected, OnnxRuns.Ours(model, pixels, Backend.Probe().Any(p => p is { Name: "onednn", Available: true }) ? "onednn" : "reference"), 1e-4f);
        Assert.Equal(PyTorchModels.Classes, network.Classes);
        Assert.Equal(name == "inception-v3", result.Notes.Any(n => n.Contains("auxiliary", StringComparison.Ordinal)));
    }

    public static TheoryData<string> Networks() => [.. PyTorchWeights.Networks];

    [Theory]
    [MemberData(nameof(Networks))]
    public void WriteAndRead_Network_GivesTheSameBits(string name)
    {
        Network network = NetworkCatalog.Create(name, new NetworkOptions { Classes = 12, AuxiliaryHeads = name == "inception-v3" });
        NetworkShapes shapes = network.Infer(1, 299, 299);
        NetworkState state = Random(shapes);
        string[] classNames = [.. Enumerable.Range(0, 12).Select(i => $"class, {i}")];

        int tensors = PyTorchWeights.Write(In("ours.safetensors"), network, state, new PyTorchOptions { ImageSize = 299, PixelMean = [1.5f, 2, 3], PixelDeviation = [4, 5, 6.25f], ClassNames = classNames, Settings = "a: b\n" });

        using var file = PyTorchWeights.Open(In("ours.safetensors"));
        Assert.Equal((name, 12, 299, "a: b\n", name == "inception-v3"), (file.Network, file.Classes, file.ImageSize, file.Settings, file.HasAuxiliaryHeads));
        Assert.Equal([1.5f, 2, 3], file.PixelMean);
        Assert.Equal([4, 5, 6.25f], file.PixelDeviation);
        Assert.Equal(classNames, file.ClassNames);
        Assert.Equal(shapes.Parameters.Count + (name == "bn-inception" ? 69 : 0), tensors);
        NetworkState again = file.Read(network);
        Assert.All(shapes.Parameters, p => Assert.True(state.Get(p.Name, p.Spec.Shape).SequenceEqual(again.Get(p.Name, p.Spec.Shape)), $"{p.Name} differs"));
    }

    [Fact]
    public void Write_BnInception_HasTheirChannelsAndBiases()
    {
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions { Classes = 12 });
        NetworkState state = Random(network.Infer(1, 224, 224));
        PyTorchWeights.Write(In("ours.safetensors"), network, state, new PyTorchOptions { ImageSize = 224, PixelMean = [128, 117, 104], PixelDeviation = [1] });

        using var file = SafetensorsFile.Open(In("ours.safetensors"));
        float[] weights = new float[64 * 3 * 49], bias = new float[64];
        file.Read("conv1_7x7_s2.weight", weights);
        file.Read("conv1_7x7_s2.bias", bias);
        ReadOnlySpan<float> ours = state.Get("conv1/conv.weights", new(64, 3, 7, 7));
        Assert.True(ours[..49].SequenceEqual(weights.AsSpan(98, 49)) && ours[49..98].SequenceEqual(weights.AsSpan(49, 49)) && ours[98..147].SequenceEqual(weights.AsSpan(0, 49)));
        Assert.All(bias, b => Assert.Equal(0, b));
        Assert.Equal(("BGR", "[0, 255]", "[104, 117, 128]", "pt"), (file.Metadata["input_space"], file.Metadata["input_range"], file.Metadata["mean"], file.Metadata["format"]));
        Assert.Equal("F32 [12, 1024]", file["last_linear.weight"].ToString());
    }

    /// <summary>DataParallel's prefix, half precision, doubles, and vectors of two extents, as the first files of bn-inception have.</summary>
    [Fact]
    public void Read_OtherTypesAndPrefix_AreTaken()
    {
        var theirs = PyTorchModels.Create("resnet-18", 32);
        string[] types = ["F16", "BF16", "F64"];
        PyTorchModels.Write(In("a.safetensors"), [.. theirs.Tensors.Select((t, i) => ($"module.{t.Name}", t.Type == "I64" ? "I64" : types[i % 3], t.Extents is [long n] && i % 2 == 0 ? [1, n] : t.Extents, t.Values))]);

        using var file = PyTorchWeights.Open(In("a.safetensors"), "resnet-18");
        NetworkState state = file.Read(NetworkCatalog.Create("resnet-18", new NetworkOptions { Classes = file.Classes }));

        float[] half = [.. theirs.Tensors[0].Values.Select(v => (float)(Half)v)];
        Assert.True(state.Get("conv1.weights", new(64, 3, 7, 7)).SequenceEqual(half));
        Assert.True(state.Get("bn1.shift", new(1, 64, 1, 1)).SequenceEqual(theirs.Tensors[2].Values));
        Assert.True(state.Get("bn1.scale", new(1, 64, 1, 1)).SequenceEqual([.. theirs.Tensors[1].Values.Select(v => BitConverter.UInt32BitsToSingle(BitConverter.SingleToUInt32Bits(v) & 0xFFFF0000))]));
    }

    [Fact]
    public void Read_AuxiliaryHead_IsThereWhereTheFileHasIt()
    {
        var theirs = PyTorchModels.Create("inception-v3", 107);
        PyTorchModels.Write(In("a.safetensors"), theirs.Tensors);

        Import("a.safetensors", "inception-v3");

        using var checkpoint = Checkpoint.Open(In("out.safetensors"));
        Network network = checkpoint.ReadNetwork();
        Assert.Equal(2, network.Losses.Count);
        float[] expected = theirs.Tensors.Single(t => t.Name == "AuxLogits.fc.weight").Values;
        Assert.True(checkpoint.ReadNetworkState(network, 299).Get("aux/fc.weights", new(PyTorchModels.Classes, 768, 1, 1)).SequenceEqual(expected));
    }

    [Fact]
    public void Read_ManyDifferences_ListsAllOfThemAtOnce()
    {
        List<(string Name, string Type, long[] Extents, float[] Values)> tensors = PyTorchModels.Create("resnet-18", 32).Tensors;
        Replace("conv1.weight", "F32", [64, 3, 3, 3], new float[64 * 27]);
        Replace("bn1.running_var", "I64", [64], new float[64]);
        Replace("layer1.0.bn1.bias", "F32", [64], [float.NaN, .. new float[63]]);
        Replace("layer1.0.bn1.running_var", "F32", [64], [0, -1, .. new float[62]]);
        tensors.RemoveAll(t => t.Name is "layer2.0.downsample.0.weight" or "fc.bias" or "bn1.num_batches_tracked");
        tensors.Add(("layer5.0.conv1.weight", "F32", [1], [0]));
        PyTorchModels.Write(In("a.safetensors"), tensors);

        var error = Assert.Throws<PyTorchWeightsException>(() => Import("a.safetensors", "resnet-18"));

        Assert.Equal(
            [
                "conv1.weight: expected [64, 3, 7, 7], found F32 [64, 3, 3, 3]",
                "bn1.running_var: expected floating-point numbers [64], found I64 [64]",
                "layer1.0.bn1.bias: expected finite numbers, found 1 of its 64 values are not finite numbers, the first, number 0, is NaN",
                "layer1.0.bn1.running_var: expected no negative variance, found -1 as its value number 1",
                "layer2.0.downsample.0.weight: expected [128, 64, 1, 1], found nothing",
                "fc.bias: expected [7], found nothing",
                "layer5.0.conv1.weight: expected nothing, found F32 [1]",
            ], error.Problems.Select(p => p.ToString()));
        Assert.False(File.Exists(In("out.safetensors")));

        void Replace(string name, string type, long[] extents, float[] values) => tensors[tensors.FindIndex(t => t.Name == name)] = (name, type, extents, values);
    }

    [Theory]
    [InlineData("weights.pth", null, "only PyTorch can read")]
    [InlineData("model.safetensors.index.json", null, "one safetensors file")]
    [InlineData("small.safetensors", null, "does not say which network")]
    [InlineData("small.safetensors", "vgg-16", "resnet-18, resnet-34")]
    [InlineData("small.safetensors", "resnet-18", "fc.weight: expected [classes, features], found nothing")]
    [InlineData("model.onnx", "resnet-18", "brings its own network")]
    [InlineData("size.safetensors", "resnet-18", "says that its 'image_size' is '100000'; expected a number of pixels, 1 to 8192.")]
    [InlineData("deviation.safetensors", "resnet-18", "says that its 'pixel_deviation' is '0'; expected one number above 0 or three, separated by commas.")]
    public void Import_WhatCannotBe_SaysWhatToDo(string file, string? network, string expected)
    {
        PyTorchModels.Write(In("small.safetensors"), [("a", "F32", [1], [0])]);
        SafetensorsFile.Write(In("size.safetensors"), [new SafetensorsTensor("a", "F32", [1])], [new("image_size", "100000")], (_, bytes) => bytes.Clear());
        SafetensorsFile.Write(In("deviation.safetensors"), [new SafetensorsTensor("a", "F32", [1])], [new("pixel_deviation", "0")], (_, bytes) => bytes.Clear());
        Assert.Contains(expected, Assert.ThrowsAny<UserErrorException>(() => Import(file, network)).Message, StringComparison.Ordinal);
    }

    /// <summary>Checkpoint to weights to checkpoint, without a word about the network: its options and its images come along.</summary>
    [Fact]
    public void ExportAndImport_Checkpoint_KeepsOptionsAndPreprocessing()
    {
        NetworkOptions options = new() { Classes = 5, Width = 576, Epsilon = 1e-3f, AverageIncludesPadding = false };
        Network network = NetworkCatalog.Create("bn-inception", options);
        NetworkState state = Random(network.Infer(1, 224, 224));
        PyTorchWeights.Write(In("a.safetensors"), network, state, new PyTorchOptions { ImageSize = 224, PixelMean = [100, 110, 120], PixelDeviation = [50, 60, 70] });
        Import("a.safetensors", "bn-inception", ("width", "576"), ("epsilon", "0.001"), ("average-includes-padding", "false"), ("unpadded-pools", "false"), ("image-size", "96"));
        File.Move(In("out.safetensors"), In("first.safetensors"));

        new ExportRequest { Checkpoint = In("first.safetensors"), Format = ExportFormat.Safetensors, Output = In("b.safetensors") }.Run();
        Import("b.safetensors", null);

        using Checkpoint first = Checkpoint.Open(In("first.safetensors")), second = Checkpoint.Open(In("out.safetensors"));
        Assert.Equal(network.ToJson(), first.Info.Network);
        Assert.Equal(first.Info.Network, second.Info.Network);
        Assert.Equal(first.Info.Config, second.Info.Config);
        Assert.Equal(first.Info.ClassNames, second.Info.ClassNames);
        Assert.Contains("pixel-mean: \"100,110,120\"", second.Info.Config, StringComparison.Ordinal);
        NetworkState again = second.ReadNetworkState(network, 96);
        Assert.All(network.Infer(1, 96, 96).Parameters, p => Assert.True(state.Get(p.Name, p.Spec.Shape).SequenceEqual(again.Get(p.Name, p.Spec.Shape)), $"{p.Name} differs"));
        Assert.Contains("needs no import", Assert.Throws<UserErrorException>(() => Import("first.safetensors", null)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Write_LayerWithoutAPlace_NamesIt()
    {
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions { Classes = 5, AuxiliaryHeads = true });
        var error = Assert.Throws<UserErrorException>(() =>
            PyTorchWeights.Write(In("a.safetensors"), network, Random(network.Infer(1, 224, 224)), new PyTorchOptions { ImageSize = 224, PixelMean = [128], PixelDeviation = [128] }));
        Assert.Contains("'inception_4a_head/1x1/conv'", error.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(In("a.safetensors")));
    }

    private ImportResult Import(string file, string? network, params (string, string)[] flags) =>
        new ImportRequest { Model = In(file), Network = network, Output = In("out.safetensors"), Flags = flags }.Run();

    private string In(string name) => Path.Combine(_folder, name);

    /// <summary>Values that no two tensors share, running statistics too.</summary>
    private static NetworkState Random(NetworkShapes shapes)
    {
        var random = new Random(9);
        var state = new NetworkState();
        foreach (NetworkParameter parameter in shapes.Parameters)
        {
            float[] values = new float[parameter.Spec.Shape.Count];
            float least = parameter.Name.EndsWith(".running_variance", StringComparison.Ordinal) ? 0 : -0.5f;
            foreach (ref float value in values.AsSpan())
            {
                value = random.NextSingle() + least;
            }

            state.Set(parameter.Name, parameter.Spec.Shape, values);
        }

        return state;
    }
}
