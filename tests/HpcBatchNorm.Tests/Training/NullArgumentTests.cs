using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Serving;

namespace HpcBatchNorm.Tests.Training;

/// <summary>The doors of the library: what is missing is named, and nothing else is thrown for it.</summary>
public class NullArgumentTests
{
    private static readonly Network Network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 2 });
    private static readonly NetworkState State = NetworkState.Initial(Network.Infer(1, 16, 16), seed: 1);
    private static readonly InferenceOptions Inference = new() { Height = 16, Width = 16 };
    private static readonly PreprocessingOptions Preprocessing = new() { Size = 16 };
    private static readonly ClassifierOptions Options = new() { Backend = "reference" };
    private static readonly OnnxOptions Onnx = new() { Height = 16, Width = 16 };
    private static readonly PyTorchOptions Weights = new() { ImageSize = 224, PixelMean = [128], PixelDeviation = [128] };

    private static readonly (string Door, string Argument, Action Call)[] Doors =
    [
        ("Classifier.Open", "checkpoint", () => Classifier.Open(null!)),
        ("Classifier.Open", "network", () => Classifier.Open(null!, State, Inference, Preprocessing, ["a", "b"], Options)),
        ("Classifier.Open", "state", () => Classifier.Open(Network, null!, Inference, Preprocessing, ["a", "b"], Options)),
        ("Classifier.Open", "inference", () => Classifier.Open(Network, State, null!, Preprocessing, ["a", "b"], Options)),
        ("Classifier.Open", "preprocessing", () => Classifier.Open(Network, State, Inference, null!, ["a", "b"], Options)),
        ("Classifier.Open", "classNames", () => Classifier.Open(Network, State, Inference, Preprocessing, null!, Options)),
        ("Checkpoint.Open", "path", () => Checkpoint.Open(null!)),
        ("Checkpoint.OpenNewest", "run", () => Checkpoint.OpenNewest(null!)),
        ("OnnxImport.Read", "path", () => OnnxImport.Read(null!)),
        ("OnnxModel.Write", "path", () => OnnxModel.Write(null!, Network, State, Onnx)),
        ("OnnxModel.Write", "network", () => OnnxModel.Write("never", null!, State, Onnx)),
        ("OnnxModel.Write", "state", () => OnnxModel.Write("never", Network, null!, Onnx)),
        ("OnnxModel.Write", "options", () => OnnxModel.Write("never", Network, State, null!)),
        ("PyTorchWeights.Open", "path", () => PyTorchWeights.Open(null!)),
        ("PyTorchWeights.Write", "path", () => PyTorchWeights.Write(null!, Network, State, Weights)),
        ("PyTorchWeights.Write", "network", () => PyTorchWeights.Write("never", null!, State, Weights)),
        ("PyTorchWeights.Write", "state", () => PyTorchWeights.Write("never", Network, null!, Weights)),
        ("PyTorchWeights.Write", "options", () => PyTorchWeights.Write("never", Network, State, null!)),
        ("SafetensorsFile.Open", "path", () => SafetensorsFile.Open(null!)),
        ("Network.FromJson", "json", () => Network.FromJson(null!)),
        ("Network.ReadJson", "stream", () => Network.ReadJson(null!)),
        ("NetworkCatalog.Create", "name", () => NetworkCatalog.Create(null!, new NetworkOptions())),
        ("NetworkCatalog.Create", "options", () => NetworkCatalog.Create("inception-tiny", null!)),
        ("NetworkState.Set", "name", () => new NetworkState().Set(null!, Shape.Vector(1), [1])),
        ("NetworkState.Get", "name", () => _ = State.Get(null!, Shape.Vector(1))),
        ("Backend.Create", "name", () => Backend.Create(null!)),
    ];

    public static TheoryData<string, string> Names() => [.. Doors.Select(d => (d.Door, d.Argument))];

    [Theory]
    [MemberData(nameof(Names))]
    public void Null_IsNamed(string door, string argument) =>
        Assert.Equal(argument, Assert.Throws<ArgumentNullException>(Doors.Single(d => d.Door == door && d.Argument == argument).Call).ParamName);
}
