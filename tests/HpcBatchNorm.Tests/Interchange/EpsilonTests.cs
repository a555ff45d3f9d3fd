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
    /// A pixel of 3, weights 1 and -2: 3 and -6. Means 1 and -2, variances 0.25 and 3.25, so deviations 1 and 2: 2 and -2. Scales 0.5 and 0.25, shifts 0.25 and 1: logits
    /// 1.25 and 0.5, and the first class has 1 / (1 + exp(-0.75)).
    /// </summary>
    private static readonly double First = 1 / (1 + Math.Exp(-0.75));

    public static TheoryData<string, bool> Sessions()
    {
        TheoryData<string, bool> data = [];
        foreach (string backend in Backend.Probe().Where(p => p is { Available: true, Name: "reference" or "onednn" }).Select(p => p.Name))
        {
            data.Add(backend, true);
            data.Add(backend, false);
        }

        return data;
    }

    public void Dispose() => File.Delete(_path);

    [Theory]
    [MemberData(nameof(Sessions))]
    public void Inference_IsTheHandComputation(string name, bool fold)
    {
        (Network network, NetworkState state) = Make();
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
    [InlineData(true)]
    [InlineData(false)]
    public void Export_IsTheHandComputation(bool fold)
    {
        (Network network, NetworkState state) = Make();
        OnnxModel.Write(_path, network, state, new OnnxOptions { Height = 1, Width = 1, Fold = fold, Input = OnnxInput.Images, PixelMean = [0], PixelDeviation = [1] });

        using var session = OnnxFile.Open(_path);
        using var results = session.Run([NamedOnnxValue.CreateFromTensor("images", new DenseTensor<float>(new float[] { 3 }, [1, 1, 1, 1]))]);

        Assert.Equal(First, results[0].AsTensor<float>().First(), 1e-6);
    }

    private static (Network Network, NetworkState State) Make()
    {
        var builder = new NetworkBuilder("epsilon");
        Node node = builder.FullyConnected("fc", builder.Input(1), 2, bias: false);
        builder.Loss(builder.BatchNorm("bn", node, epsilon: Epsilon));
        Network network = builder.Build();
        NetworkState state = NetworkState.Initial(network.Infer(1, 1, 1), 1);
        state.Set("fc.weights", new Shape(2, 1, 1, 1), [1, -2]);
        Shape vector = Shape.Vector(2);
        state.Set("bn.running_mean", vector, [1, -2]);
        state.Set("bn.running_variance", vector, [0.25f, 3.25f]);
        state.Set("bn.scale", vector, [0.5f, 0.25f]);
        state.Set("bn.shift", vector, [0.25f, 1]);
        return (network, state);
    }
}
