using CsCheck;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Networks;

/// <summary>Networks as JSON: what is written is read as the same network, and what cannot be read says why.</summary>
public class NetworkJsonTests
{
    private const string Small = """
        {
          "format": "hpcbn-network",
          "version": 1,
          "name": "small",
          "minimum_image_size": 4,
          "layers": [
            {"name":"input","type":"input","attributes":{"channels":3}},
            {"name":"conv1","type":"convolution","inputs":["input"],"attributes":{"outputs":8,"kernel":[1,7],"stride":2,"pad":[0,3],"initializer":{"gaussian":0.01}}},
            {"name":"bn1","type":"batch_norm","inputs":["conv1"],"attributes":{"epsilon":0.001}},
            {"name":"relu1","type":"relu","inputs":["bn1"]},
            {"name":"pool1","type":"average_pooling","inputs":["relu1"],"attributes":{"kernel":2,"pad":[0,0,1,1],"include_padding":true}},
            {"name":"fc","type":"fully_connected","inputs":["pool1"],"attributes":{"outputs":5}},
            {"name":"loss","type":"softmax_loss","inputs":["fc"]}
          ]
        }

        """;

    public static TheoryData<string, NetworkOptions> Catalogue()
    {
        NetworkOptions[] options =
        [
            new(), new() { Classes = 10, BatchNorm = false, Lrn = true, Dropout = 0.3f },
            new() { Activation = ActivationKind.Tanh, BatchNorm = true, PerActivationLast = true, AuxiliaryHeads = true, InitialWeightScale = 1.7 },
            new() { Width = 576, SeparableFirstConvolution = true, AverageIncludesPadding = false, Epsilon = 1e-3f, AveragingFactor = 0.01f, InitialDeviation = 0 },
        ];
        TheoryData<string, NetworkOptions> data = [];
        foreach ((string name, _) in NetworkCatalog.All)
        {
            foreach (NetworkOptions option in options.Where(o => Takes(name, o)))
            {
                data.Add(name, option);
            }
        }

        return data;
    }

    /// <summary>Networks refuse options that mean nothing for them.</summary>
    private static bool Takes(string name, NetworkOptions options)
    {
        try
        {
            NetworkCatalog.Create(name, options);
            return true;
        }
        catch (UserErrorException)
        {
            return false;
        }
    }

    [Theory]
    [MemberData(nameof(Catalogue))]
    public void ToJson_NetworkOfTheCatalogue_IsReadAsTheSame(string name, NetworkOptions options)
    {
        Network network = NetworkCatalog.Create(name, options);

        Network read = Network.FromJson(network.ToJson());

        AssertSame(network, read);
        int size = Math.Max(28, network.MinimumImageSize);
        Assert.Equal(network.Infer(1, size, size).ParameterCount, read.Infer(1, size, size).ParameterCount);
        Assert.Equal(options.Classes, read.Classes);
    }

    [Fact]
    public void ToJson_EveryKindOfLayer_IsReadAsTheSame()
    {
        Network network = SampleNetworks.EveryLayer(7);

        AssertSame(network, Network.FromJson(network.ToJson()));
        // All nonlinearities are one layer; each by its name is below.
        static string Kind(string type) => ActivationKinds.Names.Contains(type) ? "nonlinearity" : type;
        Assert.Equal(LayerTypes.BuiltIn.Select(Kind).Distinct().Order(), network.Nodes.Select(n => Kind(n.Layer.Type)).Distinct().Order());
    }

    [Fact]
    public void ToJson_EveryNonlinearity_IsReadAsTheSame()
    {
        foreach (ActivationKind function in Enum.GetValues<ActivationKind>())
        {
            var b = new NetworkBuilder(function.Name());
            b.Loss(b.FullyConnected("fc", b.Activation("act", b.FullyConnected("fc0", b.Input(1), 3), function), 2));
            Network network = b.Build();

            AssertSame(network, Network.FromJson(network.ToJson()));
            Assert.Contains($"\"{function.Name()}\"", network.ToJson(), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void ToJson_AnyGraph_IsReadAsTheSame()
    {
        Gen<(int, int, int)[]> steps = Gen.Select(Gen.Int[0, 13], Gen.Int[0, 1000], Gen.Int[0, 1000], (k, p, n) => (k, p, n)).Array[0, 16];
        steps.Sample(s =>
        {
            Network network = SampleNetworks.Random(s);
            string json = network.ToJson();
            Network read = Network.FromJson(json);
            AssertSame(network, read);
            Assert.Equal(json, read.ToJson());
        });
    }

    [Fact]
    public void ToJson_OnlySaysWhatIsNotUsual() => Assert.Equal(Small, Network.FromJson(Small).ToJson());

    [Fact]
    public void FromJson_HandWritten_TakesTheLayerBeforeAndFindsTheSmallestImage()
    {
        Network network = Network.FromJson("""
            {
              "format": "hpcbn-network", "version": 1, "name": "short",
              // Inputs are the layer before, where nothing is said.
              "layers": [
                { "name": "images", "type": "input", "attributes": { "channels": 1 } },
                { "name": "conv", "type": "convolution", "attributes": { "outputs": 4, "kernel": 5 } },
                { "name": "fc", "type": "fully_connected", "attributes": { "outputs": 3 } },
                { "name": "loss", "type": "softmax_loss" },
              ],
            }
            """);

        Assert.Equal(["conv"], network.Nodes.Single(n => n.Name == "fc").Inputs.Select(n => n.Name));
        Assert.Equal(5, network.MinimumImageSize);
        Assert.Equal(3, network.Classes);
    }

    [Fact]
    public void WriteJson_ReadJson_GoThroughAStream()
    {
        Network network = NetworkCatalog.Create("mnist-mlp", new NetworkOptions { Classes = 10 });
        using var stream = new MemoryStream();
        network.WriteJson(stream);
        stream.Position = 0;

        AssertSame(network, Network.ReadJson(stream));
    }

    [Theory]
    [InlineData("\"type\":\"relu\"", "\"type\":\"rellu\"", "'relu1'", "'rellu'", "did you mean 'relu'?")]
    [InlineData("\"epsilon\"", "\"epsilonn\"", "'bn1' (batch_norm)", "'epsilonn'", "did you mean 'epsilon'?")]
    [InlineData("\"outputs\":8", "\"output\":8", "'conv1' (convolution)", "lacks the attribute 'outputs'", "write 'outputs'")]
    [InlineData("\"outputs\":8", "\"outputs\":8.5", "'conv1'", "'outputs' is 8.5", "a whole number")]
    [InlineData("[1,7]", "[1,7,7]", "'conv1'", "'kernel' is [1,7,7]", "[rows, columns]")]
    [InlineData("{\"gaussian\":0.01}", "{\"gauss\":0.01}", "'conv1'", "'initializer' is {\"gauss\":0.01}", "\"gaussian\"")]
    [InlineData("{\"gaussian\":0.01}", "{\"gaussian\":-1}", "'conv1'", "'initializer' is {\"gaussian\":-1}", "not negative")]
    [InlineData("{\"gaussian\":0.01}", "{\"fan_in\":-2}", "'conv1'", "'initializer' is {\"fan_in\":-2}", "not negative")]
    [InlineData("{\"gaussian\":0.01}", "{\"constant\":1e39}", "'conv1'", "'initializer' is {\"constant\":1e39}", "finite")]
    [InlineData("true", "\"yes\"", "'pool1'", "'include_padding' is \"yes\"", "true or false")]
    [InlineData("\"inputs\":[\"bn1\"]", "\"inputs\":[\"bn2\"]", "layer 'relu1'", "'bn2'", "did you mean")]
    [InlineData("\"inputs\":[\"bn1\"]", "\"inputs\":[\"fc\"]", "layer 'relu1'", "'fc'", "Layers stand after what they read")]
    [InlineData("\"inputs\":[\"bn1\"]", "\"input\":[\"bn1\"]", "layer 'relu1'", "\"input\"", "did you mean 'inputs'?")]
    [InlineData("\"inputs\":[\"bn1\"]", "\"inputs\":[]", "'relu1'", "takes 1 input,", "got 0")]
    [InlineData("\"name\":\"relu1\"", "\"name\":\"bn1\"", "'bn1'", "already", "another name")]
    [InlineData("\"version\": 1", "\"version\": 2", "version 2", "reads version 1", "")]
    [InlineData("hpcbn-network", "other", "'other'", "expected 'hpcbn-network'", "")]
    [InlineData("\"minimum_image_size\": 4", "\"minimum_image_size\": 0", "'small'", "\"minimum_image_size\" is 0", "")]
    [InlineData("\"minimum_image_size\"", "\"minimum_size\"", "\"minimum_size\"", "Known: format, version", "")]
    [InlineData("\"name\": \"small\"", "\"name\": \"small\", \"name\": \"again\"", "not JSON as it should be", "name", "")]
    [InlineData("[\n", "[,\n", "not JSON as it should be", "LineNumber: 5", "")]
    public void FromJson_Mistake_NamesWhereWhatAndTheNearestWord(string right, string wrong, string where, string what, string hint)
    {
        Assert.Contains(right, Small, StringComparison.Ordinal);

        string message = Assert.Throws<UserErrorException>(() => Network.FromJson(Small.Replace(right, wrong, StringComparison.Ordinal))).Message;

        Assert.Contains(where, message, StringComparison.Ordinal);
        Assert.Contains(what, message, StringComparison.Ordinal);
        Assert.Contains(hint, message, StringComparison.Ordinal);
    }

    [Fact]
    public void Register_TypeMadeElsewhere_GoesThroughAFile()
    {
        LayerTypes.Register("test_halved", HalvedLayer.Make);
        var b = new NetworkBuilder("halved");
        Node x = b.Add("half", new HalvedLayer(3), b.Input(1));
        b.Loss(b.FullyConnected("fc", x, 2));
        Network network = b.Build();

        AssertSame(network, Network.FromJson(network.ToJson()));
        LayerTypes.Register("test_halved", HalvedLayer.Make);
        Assert.Contains("'relu'", Assert.Throws<ArgumentException>(() => LayerTypes.Register("relu", HalvedLayer.Make)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ToJson_TypeThatNobodyRegistered_SaysHowTo()
    {
        var b = new NetworkBuilder("unknown");
        Node x = b.Add("half", new HalvedLayer(3) { Word = "test_unknown" }, b.Input(1));
        b.Loss(b.FullyConnected("fc", x, 2));
        Network network = b.Build();

        string message = Assert.Throws<NotSupportedException>(network.ToJson).Message;
        Assert.Contains("'half'", message, StringComparison.Ordinal);
        Assert.Contains("LayerTypes.Register", message, StringComparison.Ordinal);
    }

    private static void AssertSame(Network expected, Network actual)
    {
        Assert.Equal(expected.Name, actual.Name);
        Assert.Equal(expected.MinimumImageSize, actual.MinimumImageSize);
        Assert.Equal(expected.Classes, actual.Classes);
        Assert.Equal(expected.Nodes.Select(n => n.Name), actual.Nodes.Select(n => n.Name));
        Assert.Equal(expected.Nodes.Select(n => n.Layer), actual.Nodes.Select(n => n.Layer));
        Assert.Equal(expected.Nodes.Select(n => string.Join(' ', n.Inputs.Select(i => i.Name))), actual.Nodes.Select(n => string.Join(' ', n.Inputs.Select(i => i.Name))));
    }

    private sealed record HalvedLayer(int Times) : Layer
    {
        public string Word { get; init; } = "test_halved";

        public override string Type => Word;

        public override string Description => "halved";

        public static HalvedLayer Make(LayerReader reader) => new HalvedLayer(reader.Whole("times"));

        public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => inputs[0];

        protected internal override void WriteAttributes(LayerWriter writer) => writer.Write("times", Times);

        internal override void LowerTraining(ITrainingLowering lowering) => throw new NotSupportedException();

        internal override void LowerInference(IInferenceLowering lowering) => throw new NotSupportedException();

        internal override OnnxValue WriteOnnx(OnnxWriter writer) => throw new NotSupportedException();
    }
}
