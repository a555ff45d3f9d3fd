using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Networks;

/// <summary>Residual networks and Inception v3 by published numbers, and the catalogue as a registry.</summary>
public sealed class ResidualNetworkTests
{
    // Parameters and multiply-adds of torchvision's models, printed in its table of weights.
    [Theory]
    [InlineData("resnet-18", false, 224, 11_689_512, 1.814)]
    [InlineData("resnet-34", false, 224, 21_797_672, 3.664)]
    [InlineData("resnet-50", false, 224, 25_557_032, 4.089)]
    [InlineData("resnet-101", false, 224, 44_549_160, 7.801)]
    [InlineData("inception-v3", false, 299, 23_834_568, 5.713)]
    [InlineData("inception-v3", true, 299, 27_161_264, 0)]
    public void Network_HasThePublishedSize(string name, bool auxiliary, int size, long parameters, double giga)
    {
        NetworkShapes shapes = NetworkCatalog.Create(name, new NetworkOptions { AuxiliaryHeads = auxiliary }).Infer(1, size, size);

        Assert.Equal(parameters, shapes.ParameterCount);
        if (giga > 0)
        {
            Assert.Equal(giga, shapes.MultiplyAdds / 1e9, 3);
        }
    }

    [Theory]
    [InlineData("resnet-50", "conv1", 64, 112)]
    [InlineData("resnet-50", "pool1", 64, 56)]
    [InlineData("resnet-50", "layer1/2/relu", 256, 56)]
    [InlineData("resnet-50", "layer2/0/conv1", 128, 56)] // version 1.5: the 3x3 convolution has the stride
    [InlineData("resnet-50", "layer2/0/conv2", 128, 28)]
    [InlineData("resnet-50", "layer2/0/shortcut/conv", 512, 28)]
    [InlineData("resnet-50", "layer4/2/relu", 2048, 7)]
    [InlineData("resnet-18", "layer4/1/conv2", 512, 7)]
    public void ResNet_HasTheShapesOfThePaper(string name, string node, int channels, int extent)
    {
        Network network = NetworkCatalog.Create(name, new NetworkOptions());

        Assert.Equal(new Shape(2, channels, extent, extent), network.Infer(2, 224, 224)[network.Nodes.Single(n => n.Name == node)]);
    }

    [Theory]
    [InlineData("mixed_5b/concat", 256, 35)]
    [InlineData("mixed_5d/concat", 288, 35)]
    [InlineData("mixed_6a/concat", 768, 17)]
    [InlineData("mixed_6e/concat", 768, 17)]
    [InlineData("mixed_7a/concat", 1280, 8)]
    [InlineData("mixed_7c/concat", 2048, 8)]
    [InlineData("aux/conv1/conv", 768, 1)]
    public void InceptionV3_HasTheShapesOfTable1(string node, int channels, int extent)
    {
        Network network = NetworkCatalog.Create("inception-v3", new NetworkOptions { AuxiliaryHeads = true });

        Assert.Equal(new Shape(1, channels, extent, extent), network.Infer(1, 299, 299)[network.Nodes.Single(n => n.Name == node)]);
        Assert.Equal("loss", network.Loss.Name);
        Assert.All(network.Nodes, n => Assert.True(n.Layer is not BatchNormLayer bn || bn.Epsilon == 1e-3f));
    }

    /// <summary>A network's own epsilon is what it has when none is set; one that is set counts everywhere, the usual one in inception-v3 too.</summary>
    [Theory]
    [InlineData("inception-v3", null, 1e-3f)]
    [InlineData("inception-v3", 1e-5f, 1e-5f)]
    [InlineData("resnet-18", null, 1e-5f)]
    [InlineData("resnet-18", 1e-3f, 1e-3f)]
    [InlineData("mnist-mlp", null, 1e-5f)]
    [InlineData("bn-inception", null, 1e-5f)]
    public void Epsilon_IsTheNetworksOwnUnlessSet(string name, float? set, float expected) => Assert.All(
        NetworkCatalog.Create(name, new NetworkOptions { Epsilon = set }).Nodes.Select(n => n.Layer).OfType<BatchNormLayer>(), bn => Assert.Equal(expected, bn.Epsilon));

    [Theory]
    [InlineData("resnet-18", false, 32)]
    [InlineData("resnet-50", false, 32)]
    [InlineData("inception-v3", false, 75)]
    [InlineData("inception-v3", true, 299)]
    public void Network_TakesAnyImageSizeFromItsMinimum(string name, bool auxiliary, int from)
    {
        Network network = NetworkCatalog.Create(name, new NetworkOptions { Classes = 10, AuxiliaryHeads = auxiliary });
        for (int size = from; size <= from + 70; size++)
        {
            Assert.Equal(new Shape(1, 10, 1, 1), network.Infer(1, size, size + 3)[network.Loss]);
        }

        Assert.Throws<ArgumentException>(() => network.Infer(1, from - 1, 400));
    }

    [Fact]
    public void Create_OptionThatMeansNothing_IsRefusedByName()
    {
        UserErrorException width = Assert.Throws<UserErrorException>(() => NetworkCatalog.Create("resnet-50", new NetworkOptions { Width = 576 }));
        Assert.Contains("Width", width.Message, StringComparison.Ordinal);
        Assert.Contains("resnet-50", width.Message, StringComparison.Ordinal);
        Assert.Throws<UserErrorException>(() => NetworkCatalog.Create("resnet-18", new NetworkOptions { AuxiliaryHeads = true }));
        Assert.Throws<UserErrorException>(() => NetworkCatalog.Create("inception-v3", new NetworkOptions { BatchNorm = false }));

        // What asks for nothing special is no error.
        _ = NetworkCatalog.Create("resnet-18", new NetworkOptions { Lrn = false, BatchNorm = true });
    }

    [Fact]
    public void OptionNames_AreThePropertiesOfTheRecord() =>
        Assert.Equal(typeof(NetworkOptions).GetProperties().Where(p => p.CanWrite).Select(p => p.Name).Order(StringComparer.Ordinal), NetworkOptions.Names.Order(StringComparer.Ordinal));

    [Fact]
    public void Register_NetworkOfOnesOwn_IsMadeByName()
    {
        string name = $"own-{Guid.NewGuid():N}";
        NetworkCatalog.Register(name, "a test's", o => NetworkCatalog.Create("mnist-mlp", o), [nameof(NetworkOptions.Classes)]);

        Assert.Contains(NetworkCatalog.All, n => n == (name, "a test's"));
        Assert.Equal(7, NetworkCatalog.Create(name, new NetworkOptions { Classes = 7 }).Infer(1, 28, 28).Parameters[^1].Spec.Shape.C);
        Assert.Throws<UserErrorException>(() => NetworkCatalog.Create(name, new NetworkOptions { HiddenUnits = 3 }));
        Assert.Throws<ArgumentException>(() => NetworkCatalog.Register(name, "again", o => NetworkCatalog.Create("mnist-mlp", o)));
        Assert.Throws<ArgumentException>(() => NetworkCatalog.Register("other", "", o => NetworkCatalog.Create("mnist-mlp", o), ["Depth"]));
    }
}
