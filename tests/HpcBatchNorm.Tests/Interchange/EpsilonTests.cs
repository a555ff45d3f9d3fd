using HpcBatchNorm.Backends;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Support;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;

namespace HpcBatchNorm.Tests.Interchange;

/// <summary>
/// An epsilon so large that taking another one would show, through folding, without it and through a file of ONNX: one fully connected layer, batch normalization,
/// softmax, against numbers worked out by hand.
/// </summary>
public sealed class EpsilonTests : IDisposable
{
    private const float Epsilon = 0.75f;

    private readonly string _path = Path.Combine(Path.GetTempPath(), $"hbn-{Guid.NewGuid():N}.onnx");

    /// <summary>
    /// A pixel of 3, weights 1 and -2: 3 and -6. A bias is added and is in the means, so that it changes nothing. Means 1 and -2, variances 0.25 and 3.25, so deviations 1 and 2: 2 and -2. Scales 0.5 and 0.25, shifts 0.25 and 1: logits
    /// 1.25 and 0.5, and the first class has 1 / (1 + exp(-0.75)).
    /// </summary>
    private static readonly double First = 1 / (1 + Math.Exp(-0.75));

    public static TheoryData<string, bool, bool> Sessions()
    {
        TheoryData<string, bool, bool> data = [];
        foreach (string backend in Backend.Probe().Where(p => p is { Available: true, Name: "reference" or "onednn" }).Select(p => p.Name))
        {
            data.Add(backend, true, false);
            data.Add(backend, true, true);
            data.Add(backend, false, true);
        }

        return data;
    }

    public void Dispose() => File.Delete(_path);

    [Theory]
    [MemberData(nameof(Sessions))]
    public void Inference_IsTheHandComputation(string name, bool fold, bool bias)
    {
        (Network network, NetworkState state) = Make(bias);
        using Backend backend = Backend.Create(name);
        using var session = new ForwardSession(backend, network, new InferenceOptions
        {
            Batch = 1,
            Height = 1,
            Width = 1,
            PixelMean = [0],
            PixelDeviation = [1],
            DisabledFusions = fold ? [] : [Fusion.FoldBatchNorm],
        }, state);
        float[] probabilities = new float[2];

        session.Forward([3], probabilities);

        Assert.Equal(First, probabilities[0], 1e-6);
        Assert.Equal(fold, !session.Plan.Operations.OfType<BatchNormForward>().Any());
    }

    [Theory]
    [InlineData(true, false)]
    [InlineData(true, true)]
    [InlineData(false, true)]
    public void Export_IsTheHandComputation(bool fold, bool bias)
    {
        (Network network, NetworkState state) = Make(bias);
        OnnxModel.Write(_path, network, state, new OnnxOptions { Height = 1, Width = 1, Fold = fold, Input = OnnxInput.Images, PixelMean = [0], PixelDeviation = [1] });

        using var session = OnnxFile.Open(_path);
        using var results = session.Run([NamedOnnxValue.CreateFromTensor("images", new DenseTensor<float>(new float[] { 3 }, [1, 1, 1, 1]))]);

        Assert.Equal(First, results[0].AsTensor<float>().First(), 1e-6);
    }

    /// <summary>
    /// Two pixels 2 and 4, a convolution with weight 1, means 1 and 5 of the two places, variances 0.25 and 3.25: 1 and -0.5. Weights 1 and 1 of the first class, none of
    /// the second: logits 0.5 and 0. One factor per channel cannot be that.
    /// </summary>
    [Theory]
    [MemberData(nameof(Sessions))]
    public void Inference_PerActivation_IsTheHandComputation(string name, bool fold, bool bias)
    {
        var builder = new NetworkBuilder("places");
        Node node = builder.Convolution("conv", builder.Input(1), 1, 1, bias: bias);
        node = builder.FullyConnected("fc", builder.BatchNorm("bn", node, epsilon: Epsilon, perActivation: true), 2, bias: false);
        builder.Loss(node);
        Network network = builder.Build();
        NetworkState state = NetworkState.Initial(network.Infer(1, 1, 2), 1);
        Shape places = new(1, 1, 1, 2);
        state.Set("conv.weights", new Shape(1, 1, 1, 1), [1]);
        if (bias)
        {
            state.Set("conv.bias", Shape.Vector(1), [-3]);
        }

        state.Set("bn.running_mean", places, bias ? [-2, 2] : [1, 5]);
        state.Set("bn.running_variance", places, [0.25f, 3.25f]);
        state.Set("fc.weights", new Shape(2, 1, 1, 2), [1, 1, 0, 0]);
        using Backend backend = Backend.Create(name);
        using var session = new ForwardSession(backend, network, new InferenceOptions
        {
            Batch = 1,
            Height = 1,
            Width = 2,
            PixelMean = [0],
            PixelDeviation = [1],
            DisabledFusions = fold ? [] : [Fusion.FoldBatchNorm],
        }, state);
        float[] probabilities = new float[2];

        session.Forward([2, 4], probabilities);

        Assert.Equal(1 / (1 + Math.Exp(-0.5)), probabilities[0], 1e-6);
    }

    private static (Network Network, NetworkState State) Make(bool bias)
    {
        var builder = new NetworkBuilder("epsilon");
        Node node = builder.FullyConnected("fc", builder.Input(1), 2, bias);
        builder.Loss(builder.BatchNorm("bn", node, epsilon: Epsilon));
        Network network = builder.Build();
        NetworkState state = NetworkState.Initial(network.Infer(1, 1, 1), 1);
        state.Set("fc.weights", new Shape(2, 1, 1, 1), [1, -2]);
        Shape vector = Shape.Vector(2);
        if (bias)
        {
            state.Set("fc.bias", vector, [0.5f, -4]);
        }

        state.Set("bn.running_mean", vector, bias ? [1.5f, -6] : [1, -2]);
        state.Set("bn.running_variance", vector, [0.25f, 3.25f]);
        state.Set("bn.scale", vector, [0.5f, 0.25f]);
        state.Set("bn.shift", vector, [0.25f, 1]);
        return (network, state);
    }
}
