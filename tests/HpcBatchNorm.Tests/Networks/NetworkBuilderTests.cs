using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Networks;

public class NetworkBuilderTests
{
    [Fact]
    public void Build_SmallNetwork_HasItsShapesAndParameters()
    {
        var b = new NetworkBuilder("small");
        Node x = b.Input(3);
        x = b.Convolution("conv1", x, 64, kernel: 3, pad: 1);
        x = b.BatchNorm("bn1", x);
        x = b.Relu("relu1", x);
        x = b.MaxPooling("pool1", x, 2);
        x = b.GlobalAveragePooling("pool", x);
        b.Loss(b.FullyConnected("fc", x, outputs: 10));

        Network network = b.Build();

        NetworkShapes shapes = network.Infer(2, 32, 48);
        Assert.Equal(64 * 3 * 9 + 2 * 64 + 64 * 10 + 10, shapes.ParameterCount);
        Assert.Equal(new Shape(2, 64, 16, 24), shapes[network.Nodes.Single(n => n.Name == "pool1")]);
        Assert.Equal(10, network.Classes);
        Assert.Equal("loss", network.Loss.Name);
        Assert.Equal(3, network.InputChannels);
        Assert.All(shapes.Parameters.Where(p => p.Spec.Name == "weights"), p => Assert.Equal(Initializer.He, p.Spec.Initializer));
    }

    /// <summary>Each of these would give NaN, or running statistics that run away, at the first step or later.</summary>
    [Fact]
    public void Build_NumbersThatCannotBe_AreRefusedWithTheLayer()
    {
        (Layer Layer, string Expected)[] wrong =
        [
            (new LrnLayer(Alpha: -1), "alpha is -1"),
            (new LrnLayer(Alpha: float.NaN), "alpha is NaN"),
            (new LrnLayer(Beta: float.PositiveInfinity), "beta Infinity"),
            (new LrnLayer(K: 0), "k 0"),
            (new BatchNormLayer(AveragingFactor: -0.1f), "averaging factor is -0.1"),
            (new BatchNormLayer(AveragingFactor: 1.5f), "averaging factor is 1.5"),
            (new BatchNormLayer(AveragingFactor: float.NaN), "averaging factor is NaN"),
            (new BatchNormLayer(InitialScale: float.NaN), "initial scale NaN"),
        ];
        foreach ((Layer layer, string expected) in wrong)
        {
            var b = new NetworkBuilder("wrong");
            b.Loss(b.FullyConnected("fc", b.GlobalAveragePooling("pool", b.Add("odd", layer, b.Input())), 2));
            string message = Assert.Throws<ArgumentException>(() => b.Build()).Message;
            Assert.Contains("'odd'", message, StringComparison.Ordinal);
            Assert.Contains(expected, message, StringComparison.Ordinal);
        }

        Assert.Throws<ArgumentOutOfRangeException>(() => Initializer.FanIn(-1));
        Assert.Throws<ArgumentOutOfRangeException>(() => Initializer.Gaussian(double.NaN));
        Assert.Throws<ArgumentOutOfRangeException>(() => Initializer.Constant(float.NaN));
    }

    // A padded 2x2 pooling makes floor(s / 2) + 1 of s pixels, each of the others floor(s / 2), which must not be 0.
    [Theory]
    [InlineData(1, 1)]
    [InlineData(2, 2)]
    [InlineData(3, 6)]
    [InlineData(4, 14)]
    public void Build_WithoutMinimum_FindsTheSmallestImage(int poolings, int expected)
    {
        var b = new NetworkBuilder("pooled");
        Node x = b.MaxPooling("pool1", b.Input(1), 2, pad: 1);
        for (int i = 2; i <= poolings; i++)
        {
            x = b.MaxPooling($"pool{i}", x, 2);
        }

        b.Loss(b.FullyConnected("fc", x, 2));
        Network network = b.Build();

        Assert.Equal(expected, network.MinimumImageSize);
        network.Infer(1, expected, expected);
        if (expected > 1)
        {
            AssertSays(() => network.Infer(1, expected - 1, expected), "too small", $"{expected}");
        }
    }

    [Fact]
    public void Build_SeveralHeads_MainIsTheHeaviest()
    {
        var b = new NetworkBuilder("heads");
        Node x = b.Input(1);
        b.Loss(b.FullyConnected("aux/fc", x, 5), weight: 0.3f, name: "aux/loss");
        b.Loss(b.FullyConnected("fc", x, 5));

        Network network = b.Build();

        Assert.Equal(["aux/loss", "loss"], network.Losses.Select(l => l.Name));
        Assert.Equal("loss", network.Loss.Name);
    }

    [Fact]
    public void Add_NameTwice_NamesBothLayers()
    {
        NetworkBuilder b = Begin(out Node x);
        b.Relu("relu1", x);

        AssertSays(() => b.Convolution("relu1", x, 8, 3), "'net'", "'relu1'", "relu", "convolution 3x3, 8", "another name");
    }

    [Fact]
    public void Add_WithoutName_Says() => AssertSays(() => Begin(out Node x).Relu(" ", x), "without a name");

    [Fact]
    public void Add_NodeOfAnotherBuilder_Says()
    {
        Begin(out Node foreign);
        NetworkBuilder b = Begin(out Node _);

        AssertSays(() => b.Relu("relu1", foreign), "'relu1'", "'input'", "another builder");
    }

    [Fact]
    public void Add_WrongNumberOfInputs_SaysHowMany()
    {
        NetworkBuilder b = Begin(out Node x);

        AssertSays(() => b.Sum("sum1", x), "'sum1'", "2 or more inputs", "got 1");
        AssertSays(() => b.Add("relu1", new ActivationLayer(ActivationKind.Relu), x, x), "'relu1'", "takes 1 input,", "got 2");
        AssertSays(() => b.Add("second", new InputLayer(3)), "'second'", "its input, 'input', already");
    }

    [Fact]
    public void Add_ReadsALoss_NamesItsLogits()
    {
        NetworkBuilder b = Begin(out Node x);
        Node loss = b.Loss(b.FullyConnected("fc", x, 2));

        AssertSays(() => b.Relu("relu1", loss), "'relu1'", "'loss'", "'fc'");
    }

    [Fact]
    public void Build_NoInputOrNoLoss_Says()
    {
        AssertSays(() => new NetworkBuilder("net").Build(), "no input");
        AssertSays(() => Begin(out Node _).Build(), "no loss");
        AssertSays(() => new NetworkBuilder("").Build(), "needs a name");
    }

    [Fact]
    public void Build_LayerNobodyReads_NamesIt()
    {
        NetworkBuilder b = Begin(out Node x);
        b.Relu("forgotten", x);
        b.Loss(b.FullyConnected("fc", x, 2));

        AssertSays(() => b.Build(), "'forgotten'", "relu", "leave it out");
    }

    [Fact]
    public void Build_ShapesThatNeverFit_NamesTheLayerAndWhatItReads()
    {
        NetworkBuilder b = Begin(out Node x);
        Node sum = b.Sum("sum1", b.Convolution("conv1", x, 8, 3), b.Convolution("conv2", x, 16, 3));
        b.Loss(b.FullyConnected("fc", sum, 2));

        AssertSays(() => b.Build(), "'sum1'", "'conv1' 1x8x254x254", "'conv2' 1x16x254x254");
        AssertSays(() => b.Build(64), "64x64", "'sum1'", "'conv1' 1x8x62x62");
    }

    [Fact]
    public void Build_ImageTooSmall_NamesTheLayer()
    {
        NetworkBuilder b = Begin(out Node x);
        b.Loss(b.FullyConnected("fc", b.Convolution("conv1", x, 8, kernel: 7), 2));

        AssertSays(() => b.Build(5), "5x5", "'conv1'", "7 rows");
        Assert.Equal(7, b.Build().MinimumImageSize);
    }

    [Fact]
    public void Build_LogitsThatAreMaps_SaysWhatToPutBeforeTheLoss()
    {
        NetworkBuilder b = Begin(out Node x);
        b.Loss(b.Convolution("conv1", x, 8, kernel: 1));

        // One pixel is no map, so a smallest size is found; any other size says it.
        Network network = b.Build();
        AssertSays(() => network.Infer(1, 4, 4), "'loss'", "global average pooling");
    }

    [Fact]
    public void Build_HeadsOfDifferentClasses_NamesBoth()
    {
        NetworkBuilder b = Begin(out Node x);
        b.Loss(b.FullyConnected("fc", x, 10));
        b.Loss(b.FullyConnected("aux/fc", x, 9), 0.3f, "aux/loss");

        AssertSays(() => b.Build(), "'aux/loss'", "9 classes", "'loss' 10");
    }

    private static NetworkBuilder Begin(out Node input)
    {
        var b = new NetworkBuilder("net");
        input = b.Input(3);
        return b;
    }

    private static void AssertSays(Action action, params string[] words)
    {
        string message = Assert.ThrowsAny<ArgumentException>(action).Message;
        Assert.All(words, w => Assert.Contains(w, message, StringComparison.Ordinal));
    }
}
