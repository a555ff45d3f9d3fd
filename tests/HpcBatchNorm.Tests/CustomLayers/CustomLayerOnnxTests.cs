using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tests.Support;
using Microsoft.ML.OnnxRuntime.Tensors;
using OwnLayer;
using OnnxRuntime = Microsoft.ML.OnnxRuntime;

namespace HpcBatchNorm.Tests.CustomLayers;

/// <summary>Layers of one's own in exported networks.</summary>
public sealed class CustomLayerOnnxTests : IDisposable
{
    private const int Size = 8, Classes = 5;

    private readonly string _path = Path.Combine(Path.GetTempPath(), $"hbn-{Guid.NewGuid():N}.onnx");

    public void Dispose() => File.Delete(_path);

    [Fact]
    public void Write_LayerWithoutOnnxForm_SaysSoAndLeavesNoFile()
    {
        Network network = With(new SwitchableNorm());
        NotSupportedException error = Assert.Throws<NotSupportedException>(
            () => OnnxModel.Write(_path, network, NetworkState.Initial(network.Infer(1, Size, Size), 1), new OnnxOptions { Height = Size, Width = Size }));
        Assert.Equal(
            "The layer 'own' (switchable_norm) is an operation of one's own without an ONNX form. Override ToOnnx, or leave the layer out of what is exported.", error.Message);
        Assert.False(File.Exists(_path));
    }

    [Fact]
    public void Write_LayerWithOnnxForm_OnnxRuntimeGivesOurProbabilities()
    {
        Network network = With(new LeakyRelu(0.3f));
        NetworkState state = NetworkState.Initial(network.Infer(1, Size, Size), 1);
        OnnxModel.Write(_path, network, state, new OnnxOptions { Height = Size, Width = Size, Input = OnnxInput.Pixels });
        byte[] pixels = [.. Enumerable.Range(0, Size * Size * 3).Select(i => (byte)(i * 37))];
        float[] expected = new float[Classes];
        using var backend = new ReferenceBackend();
        using var session = new ForwardSession(backend, network, new InferenceOptions { Batch = 1, Height = Size, Width = Size }, state);
        session.Forward(pixels, expected);

        using var onnx = OnnxFile.Open(_path);
        var tensor = new DenseTensor<byte>(pixels, [1, Size, Size, 3]);
        using var results = onnx.Run([OnnxRuntime.NamedOnnxValue.CreateFromTensor(onnx.InputMetadata.Keys.Single(), tensor)]);
        Assert.All(expected.Zip(results[0].AsEnumerable<float>()), pair => Assert.Equal(pair.First, pair.Second, 1e-5f));
    }

    private static Network With(CustomLayer layer)
    {
        var builder = new NetworkBuilder("own");
        Node node = builder.Add("data", new InputLayer(3));
        node = builder.Add("conv", new ConvolutionLayer(8, 3, pad: 1), node);
        node = builder.Add("own", layer, node);
        node = builder.Add("fc", new FullyConnectedLayer(Classes, Initializer.FanIn(1)), node);
        builder.Add("loss", new SoftmaxLossLayer(), node);
        return builder.Build();
    }
}
