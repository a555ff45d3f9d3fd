using HpcBatchNorm.Backends;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Interchange;

/// <summary>What is exported and imported again is the same network with the same parameters.</summary>
public sealed class OnnxRoundTripTests : IDisposable
{
    private static readonly float[] Mean = [120, 117, 104], Deviation = [60, 57, 64];

    private readonly string _path = Path.Combine(Path.GetTempPath(), $"hbn-{Guid.NewGuid():N}.onnx");

    public void Dispose() => File.Delete(_path);

    public static TheoryData<string, OnnxInput> Networks()
    {
        var data = new TheoryData<string, OnnxInput>();
        foreach ((int i, string name) in NetworkCatalog.All.Select(n => n.Name).Index())
        {
            data.Add(name, i % 2 == 0 ? OnnxInput.Pixels : OnnxInput.Images);
        }

        return data;
    }

    [Theory]
    [MemberData(nameof(Networks))]
    public void ExportAndImport_Network_HasTheSameParametersBitForBit(string name, OnnxInput input)
    {
        Network network = NetworkCatalog.Create(name, new NetworkOptions { Classes = 12 });
        int size = name == "mnist-mlp" ? 28 : Math.Max(32, network.MinimumImageSize);
        (NetworkState state, ImportedModel model) = RoundTrip(network, size, input, fold: false);

        // The inference form has no heads that only help training.
        NetworkShapes shapes = network.Infer(1, size, size);
        HashSet<Node> needed = [.. network.Ancestors(network.Loss)];
        NetworkParameter[] expected = [.. shapes.Parameters.Where(p => needed.Contains(p.Node))];
        NetworkParameter[] actual = [.. model.Network.Infer(1, size, size).Parameters];
        Assert.Equal(expected.Select(p => (p.Name, p.Spec.Shape, p.Spec.Kind)), actual.Select(p => (p.Name, p.Spec.Shape, p.Spec.Kind)));
        foreach (NetworkParameter parameter in actual)
        {
            Assert.True(
                state.Get(parameter.Name, parameter.Spec.Shape).SequenceEqual(model.State.Get(parameter.Name, parameter.Spec.Shape)), $"{parameter.Name} differs");
        }

        foreach (Node node in needed.Where(n => n.Layer is not (DropoutLayer or SoftmaxLossLayer or InputLayer or ConvolutionLayer or FullyConnectedLayer or PoolingLayer)))
        {
            Assert.Equal(node.Layer is BatchNormLayer batchNorm ? batchNorm with { InitialScale = 1 } : node.Layer, model.Network.Nodes.Single(n => n.Name == node.Name).Layer);
        }

        Assert.Equal(Mean[..network.InputChannels], model.PixelMean);
        Assert.Equal(Deviation[..network.InputChannels], model.PixelDeviation);
        AssertSameOutputs(network, state, model, size);
        Assert.Empty(model.Notes);
    }

    public static TheoryData<ActivationKind> Functions() => [.. Enum.GetValues<ActivationKind>()];

    [Theory]
    [MemberData(nameof(Functions))]
    public void ExportAndImport_EveryNonlinearity_IsTheSameLayer(ActivationKind function)
    {
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 12, Activation = function });
        (NetworkState state, ImportedModel model) = RoundTrip(network, 16, OnnxInput.Images, fold: true);
        Assert.Equal(
            network.Nodes.Count(n => n.Layer is ActivationLayer { Function: var f } && f == function), model.Network.Nodes.Count(n => n.Layer is ActivationLayer { Function: var f } && f == function));
        AssertSameOutputs(network, state, model, 16);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void ExportAndImport_NetworkOfEveryLayer_GivesTheSameOutputs(bool fold)
    {
        Network network = SampleNetworks.EveryLayer(12);
        (NetworkState state, ImportedModel model) = RoundTrip(network, 25, OnnxInput.Pixels, fold);
        AssertSameOutputs(network, state, model, 25);
    }

    private (NetworkState State, ImportedModel Model) RoundTrip(Network network, int size, OnnxInput input, bool fold)
    {
        NetworkState state = OnnxModelTests.Trained(network, size);
        OnnxModel.Write(_path, network, state, new OnnxOptions
        {
            Height = size,
            Width = size,
            Input = input,
            Fold = fold,
            PixelMean = Mean[..network.InputChannels],
            PixelDeviation = Deviation[..network.InputChannels],
            ClassNames = [.. Enumerable.Range(0, network.Classes).Select(i => $"class, {i}")],
        });
        ImportedModel model = OnnxImport.Read(_path);
        Assert.Equal((size, size, OnnxOutput.Probabilities), (model.Height, model.Width, model.Output));
        Assert.Equal("class, 3", model.ClassNames[3]);
        return (state, model);
    }

    private static void AssertSameOutputs(Network network, NetworkState state, ImportedModel model, int size)
    {
        string backend = Backend.Probe().Any(p => p is { Name: "onednn", Available: true }) ? "onednn" : "reference";
        byte[] pixels = OnnxRuns.Pixels(model);
        float[] expected = OnnxRuns.Ours(
            model with { Network = network, State = state, PixelMean = Mean[..network.InputChannels], PixelDeviation = Deviation[..network.InputChannels] }, pixels, backend);
        OnnxRuns.AssertClose(expected, OnnxRuns.Ours(model, pixels, backend));
    }
}
