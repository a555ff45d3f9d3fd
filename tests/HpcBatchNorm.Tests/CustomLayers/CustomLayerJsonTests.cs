using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using OwnLayer;

namespace HpcBatchNorm.Tests.CustomLayers;

/// <summary>Layers of one's own in network files.</summary>
public class CustomLayerJsonTests
{
    [Fact]
    public void RegisteredLayer_IsWrittenAndReadAgain()
    {
        SwitchableNorm.Register();
        SwitchableNorm.Register(); // once more does no harm
        string json = With(new SwitchableNorm(Epsilon: 1e-3f)).ToJson();
        Network read = Network.FromJson(json);
        Assert.Equal(new SwitchableNorm(Epsilon: 1e-3f), read.Nodes.Single(n => n.Name == "own").Layer);
        Assert.Equal(json, read.ToJson());
    }

    [Fact]
    public void LayerThatIsNotRegistered_SaysSo()
    {
        NotSupportedException error = Assert.Throws<NotSupportedException>(() => With(new LeakyRelu()).ToJson());
        Assert.Contains("'LeakyRelu'", error.Message, StringComparison.Ordinal);
        Assert.Contains("LayerTypes.Register", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void LayerThatDoesNotWriteItsAttributes_SaysSo()
    {
        LayerTypes.Register("FaultyNorm", static _ => new FaultyNorm());
        NotSupportedException error = Assert.Throws<NotSupportedException>(() => With(new FaultyNorm()).ToJson());
        Assert.Contains("Override WriteAttributes", error.Message, StringComparison.Ordinal);
    }

    private static Network With(CustomLayer layer)
    {
        var b = new NetworkBuilder("own");
        Node x = b.Add("own", layer, b.Convolution("conv", b.Input(), 8, kernel: 3));
        b.Loss(b.FullyConnected("fc", x, 2));
        return b.Build();
    }
}
