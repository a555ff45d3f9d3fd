using HpcBatchNorm.Backends;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Verification;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;

namespace HpcBatchNorm.Tests.Interchange;

/// <summary>Exported networks, run by ONNX Runtime, classify as ours do.</summary>
public sealed class OnnxModelTests : IDisposable
{
    private const int Classes = 12;

    private static readonly float[] Mean = [120, 117, 104], Deviation = [60, 57, 64];

    private readonly string _path = Path.Combine(Path.GetTempPath(), $"hbn-{Guid.NewGuid():N}.onnx");

    public static TheoryData<string, int, bool, OnnxInput> Cases() => new()
    {
        { "bn-inception", 64, true, OnnxInput.Pixels },
        { "bn-inception", 64, false, OnnxInput.Images },
        { "bn-inception", 47, true, OnnxInput.Images },
        { "inception", 64, true, OnnxInput.Pixels },
        { "inception-tiny", 32, true, OnnxInput.Images },
        { "inception-tiny", 33, false, OnnxInput.Pixels },
        { "resnet-18", 64, true, OnnxInput.Pixels },
        { "resnet-50", 64, true, OnnxInput.Images },
        { "resnet-50", 64, false, OnnxInput.Images },
        { "inception-v3", 75, true, OnnxInput.Images },
        { "mnist-mlp", 28, true, OnnxInput.Pixels },
        { "mnist-mlp", 28, false, OnnxInput.Images },
    };

    public void Dispose() => File.Delete(_path);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Write_Network_OnnxRuntimeGivesOurProbabilities(string name, int size, bool fold, OnnxInput input) =>
        Compare(NetworkCatalog.Create(name, new NetworkOptions { Classes = Classes }), size, fold, input);

    public static TheoryData<ActivationKind> Functions() => [.. Enum.GetValues<ActivationKind>()];

    [Theory]
    [MemberData(nameof(Functions))]
    public void Write_EveryNonlinearity_OnnxRuntimeGivesOurProbabilities(ActivationKind function) =>
        Compare(NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes, Activation = function }), 32, fold: true, OnnxInput.Images);

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Write_EveryVariant_OnnxRuntimeGivesOurProbabilities(bool fold) => Compare(
        NetworkCatalog.Create("bn-inception", new NetworkOptions
        {
            Classes = Classes,
            SeparableFirstConvolution = true,
            PerActivationLast = true,
            AuxiliaryHeads = true,
            Activation = ActivationKind.Tanh,
            AverageIncludesPadding = false,
            Dropout = 0.3f,
        }),
        64, fold, OnnxInput.Pixels);

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Write_NetworkOfEveryLayer_OnnxRuntimeGivesOurProbabilities(bool fold) => Compare(SampleNetworks.EveryLayer(Classes), 25, fold, OnnxInput.Pixels);

    [Fact]
    public void Write_ParametersOfAnotherNetwork_FailsAndLeavesNoFile()
    {
        Network tiny = NetworkCatalog.Create("inception-tiny", new NetworkOptions()), mlp = NetworkCatalog.Create("mnist-mlp", new NetworkOptions());
        var error = Assert.Throws<UserErrorException>(
            () => OnnxModel.Write(_path, tiny, NetworkState.Initial(mlp.Infer(1, 32, 32), 1), new OnnxOptions { Height = 32, Width = 32 }));
        Assert.Contains("conv1/conv.weights", error.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(_path));
    }

    private void Compare(Network network, int size, bool fold, OnnxInput input)
    {
        const int Batch = 3;
        float[] mean = Mean[..network.InputChannels], deviation = Deviation[..network.InputChannels];
        NetworkState state = Trained(network, size);
        OnnxModel.Write(_path, network, state, new OnnxOptions
        {
            Height = size,
            Width = size,
            Fold = fold,
            Input = input,
            PixelMean = mean,
            PixelDeviation = deviation,
        });

        byte[] pixels = new byte[Batch * size * size * network.InputChannels];
        new Random(3).NextBytes(pixels);
        using Backend backend = Backend.Create(Backend.Probe().Any(p => p is { Name: "onednn", Available: true }) ? "onednn" : "reference");
        using var ours = new ForwardSession(
            backend, network, new InferenceOptions { Batch = Batch, Height = size, Width = size, PixelMean = mean, PixelDeviation = deviation }, state);
        float[] expected = new float[Batch * Classes];
        ours.Forward(pixels, expected);

        // The same numbers whatever the batch: together, and the first image alone.
        using var options = new SessionOptions { IntraOpNumThreads = 2 };
        using var theirs = OnnxFile.Open(_path, options);
        AssertClose(expected, Run(theirs, network, pixels, Batch, size, input, mean, deviation));
        AssertClose(expected[..Classes], Run(theirs, network, pixels[..(pixels.Length / Batch)], 1, size, input, mean, deviation));
        Assert.True(expected[..Classes].Max() - expected[..Classes].Min() > 0.01, "all classes alike: the comparison would prove nothing");
        Assert.NotEqual(expected[..Classes], expected[Classes..(2 * Classes)]);
        Assert.Equal(network.Name, theirs.ModelMetadata.CustomMetadataMap["model"]);
    }

    /// <summary>Relative, as losses are compared: a probability's relative error is its logit's absolute error.</summary>
    private static void AssertClose(float[] expected, float[] actual)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (int i = 0; i < expected.Length; i++)
        {
            Assert.InRange(actual[i] / expected[i], 1 - Tolerances.LossReplay(Precision.Fp32), 1 + Tolerances.LossReplay(Precision.Fp32));
        }
    }

    private static float[] Run(
        InferenceSession session, Network network, byte[] pixels, int batch, int size, OnnxInput input, float[] mean, float[] deviation)
    {
        int channels = network.InputChannels, area = size * size;
        NamedOnnxValue value;
        if (input == OnnxInput.Pixels)
        {
            value = NamedOnnxValue.CreateFromTensor("pixels", new DenseTensor<byte>(pixels, [batch, size, size, channels]));
        }
        else
        {
            float[] images = new float[pixels.Length];
            for (int i = 0; i < pixels.Length; i++)
            {
                (int image, int position, int channel) = (i / (area * channels), i / channels % area, i % channels);
                images[(image * channels + channel) * area + position] = (pixels[i] - mean[channel]) / deviation[channel];
            }

            value = NamedOnnxValue.CreateFromTensor("images", new DenseTensor<float>(images, [batch, channels, size, size]));
        }

        using var results = session.Run([value]);
        return [.. results.Single(r => r.Name == "probabilities").AsEnumerable<float>()];
    }

    /// <summary>Initial weights; biases, scales, shifts and statistics as after some training, so that none of them can be left out unnoticed.</summary>
    internal static NetworkState Trained(Network network, int size)
    {
        NetworkShapes shapes = network.Infer(1, size, size);
        NetworkState state = NetworkState.Initial(shapes, seed: 5);
        var random = new Random(7);

        // Training keeps residual sums from growing block by block; here half the scale does.
        HashSet<Node> summed = [.. network.Nodes.Where(n => n.Layer is SumLayer).SelectMany(n => n.Inputs)];
        foreach (NetworkParameter parameter in shapes.Parameters.Where(p => p.Spec.Name != "weights"))
        {
            float[] values = new float[parameter.Spec.Shape.Count];
            foreach (ref float value in values.AsSpan())
            {
                value = parameter.Spec.Name switch
                {
                    "running_variance" => 0.5f + random.NextSingle(),
                    "scale" => (summed.Contains(parameter.Node) ? 0.5f : 1) * (0.8f + 0.4f * random.NextSingle()),
                    _ => 0.4f * random.NextSingle() - 0.2f,
                };
            }

            state.Set(parameter.Name, parameter.Spec.Shape, values);
        }

        return state;
    }
}
