using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Networks;

public class NetworkCatalogTests
{
    // Figure 5 of the paper, counted by hand; see docs/decisions/006 for both readings of it.
    [Theory]
    [InlineData("bn-inception", 608, true, 11_278_528)]
    [InlineData("bn-inception", 576, true, 11_188_288)]
    [InlineData("bn-inception", 608, false, 11_285_224)]
    [InlineData("bn-inception", 576, false, 11_194_984)]
    [InlineData("inception", 608, true, 11_268_512)]
    [InlineData("inception", 576, true, 11_178_336)]
    public void Inception_HasThePublishedNumberOfParameters(string name, int width, bool separable, long parameters)
    {
        Network network = NetworkCatalog.Create(name, new NetworkOptions { Width = width, SeparableFirstConvolution = separable });

        Assert.Equal(parameters, network.Infer(1, 224, 224).ParameterCount);
    }

    [Fact]
    public void InceptionWithConvolutionBiases_MatchesTheCountOfPublicPorts()
    {
        NetworkShapes shapes = NetworkCatalog.Create("bn-inception", new NetworkOptions()).Infer(1, 224, 224);
        long channels = shapes.Parameters.Where(p => p.Spec.Name == "scale").Sum(p => p.Spec.Shape.Count);

        // Public ports keep a bias in every convolution: one more value per normalised channel.
        Assert.Equal(11_295_240, shapes.ParameterCount + channels);
    }

    [Theory]
    [InlineData(608, true, 1.949)]
    [InlineData(608, false, 2.033)]
    [InlineData(576, true, 1.935)]
    [InlineData(576, false, 2.019)]
    public void Inception_HasThePublishedNumberOfMultiplyAdds(int width, bool separable, double giga)
    {
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions { Width = width, SeparableFirstConvolution = separable });

        Assert.Equal(giga, network.Infer(1, 224, 224).MultiplyAdds / 1e9, 3);
    }

    [Fact]
    public void InceptionTiny_HasTheDesignedSize()
    {
        NetworkShapes shapes = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10 }).Infer(1, 32, 32);

        Assert.Equal(329_114, shapes.ParameterCount);
        Assert.Equal(74.4, shapes.MultiplyAdds / 1e6, 1);
    }

    [Fact]
    public void MnistMlp_HasThePaperShape()
    {
        NetworkShapes shapes = NetworkCatalog.Create("mnist-mlp", new NetworkOptions { Classes = 10 }).Infer(60, 28, 28);

        // 784*100 + 2*100*100 + 100*10 + 10 weights and the classifier's bias, 3 * 2 * 100 scales and shifts.
        Assert.Equal(784 * 100 + 2 * 100 * 100 + 100 * 10 + 10 + 600, shapes.ParameterCount);
    }

    [Theory]
    [InlineData("inception_3a/concat", 256, 28)]
    [InlineData("inception_3b/concat", 320, 28)]
    [InlineData("inception_3c/concat", 576, 14)]
    [InlineData("inception_4a/concat", 576, 14)]
    [InlineData("inception_4d/concat", 608, 14)]
    [InlineData("inception_4e/concat", 1056, 7)]
    [InlineData("inception_5a/concat", 1024, 7)]
    [InlineData("inception_5b/concat", 1024, 7)]
    public void Inception_ModulesHaveTheShapesOfFigure5(string node, int channels, int extent)
    {
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
        NetworkShapes shapes = network.Infer(2, 224, 224);

        Assert.Equal(new Shape(2, channels, extent, extent), shapes[network.Nodes.Single(n => n.Name == node)]);
    }

    [Theory]
    [InlineData("bn-inception", 32, 448)]
    [InlineData("inception", 32, 256)]
    [InlineData("inception-tiny", 8, 65)]
    public void ConvolutionalNetworks_TakeAnyImageSizeFromTheirMinimum(string name, int from, int to)
    {
        Network network = NetworkCatalog.Create(name, new NetworkOptions { Classes = 10 });
        for (int size = from; size <= to; size++)
        {
            NetworkShapes shapes = network.Infer(1, size, size + 3);
            Assert.Equal(new Shape(1, 10, 1, 1), shapes[network.Loss]);
        }
    }

    [Fact]
    public void Infer_ImageTooSmall_SaysWhatWouldDo()
    {
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());

        ArgumentException error = Assert.Throws<ArgumentException>(() => network.Infer(1, 31, 64));
        Assert.Contains("31x64", error.Message, StringComparison.Ordinal);
        Assert.Contains("32 or more", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Create_UnknownName_ListsTheKnownOnes()
    {
        UserErrorException error = Assert.Throws<UserErrorException>(() => NetworkCatalog.Create("resnet", new NetworkOptions()));
        Assert.Contains("bn-inception", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Variants_DifferAsThePaperSays()
    {
        Network baseline = NetworkCatalog.Create("inception", new NetworkOptions { AuxiliaryHeads = true });
        Assert.Equal(2, baseline.Nodes.Count(n => n.Layer is LrnLayer));
        Assert.Equal(3, baseline.Losses.Count);
        Assert.Equal("loss", baseline.Loss.Name);
        Assert.Contains(baseline.Nodes, n => n.Layer is DropoutLayer { Ratio: 0.4f });
        Assert.DoesNotContain(baseline.Nodes, n => n.Layer is BatchNormLayer);

        Network normalized = NetworkCatalog.Create("bn-inception", new NetworkOptions { Activation = ActivationKind.Sigmoid });
        Assert.Equal(69, normalized.Nodes.Count(n => n.Layer is BatchNormLayer));
        Assert.DoesNotContain(normalized.Nodes, n => n.Layer is LrnLayer or DropoutLayer or ActivationLayer { Function: ActivationKind.Relu });
    }

    [Fact]
    public void Initializer_IsAFunctionOfSeedAndNameAlone()
    {
        var shape = new Shape(64, 32, 3, 3);
        float[] a = new float[shape.Count], b = new float[shape.Count], c = new float[shape.Count];
        Initializer.FanIn(2).Fill(shape, a, 7, "x");
        Initializer.FanIn(2).Fill(shape, b, 7, "x");
        Initializer.FanIn(2).Fill(shape, c, 7, "y");

        Assert.Equal(a, b);
        Assert.NotEqual(a, c);
        Assert.Equal(0, a.Average(), 2);
        Assert.Equal(Math.Sqrt(2.0 / (32 * 9)), Math.Sqrt(a.Average(v => (double)v * v)), 3);
    }

    /// <summary>Larger initial weights: the same draws, times the factor, in every convolution and no other place (section 4.2.3).</summary>
    [Fact]
    public void InitialWeightScale_MultipliesEveryConvolutionsWeights()
    {
        Network plain = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10 }), larger = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10, InitialWeightScale = 1.5 });
        NetworkShapes shapes = plain.Infer(1, 32, 32);
        NetworkState a = NetworkState.Initial(shapes, 3), b = NetworkState.Initial(larger.Infer(1, 32, 32), 3);

        Assert.All(shapes.Parameters, p =>
        {
            double factor = p.Node.Layer is ConvolutionLayer ? 1.5 : 1;
            Assert.All(a.Get(p.Name, p.Spec.Shape).ToArray().Zip(b.Get(p.Name, p.Spec.Shape).ToArray()), w => Assert.Equal(factor * w.First, w.Second, 1e-6));
        });
    }
}
