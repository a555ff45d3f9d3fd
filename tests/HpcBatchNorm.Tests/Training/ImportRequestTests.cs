using HpcBatchNorm.Interchange;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>What those meet who bring a model or weights along: nothing is lost, and each message says what to do with what they have.</summary>
public sealed class ImportRequestTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hpcbn-import").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Run_ToAFileThatTheNetworkWouldReplace_IsRefused()
    {
        string model = Model();
        string message = Assert.Throws<UserErrorException>(() => Import(model, "net.json")).Message;
        Assert.Equal($"'{In("net.json")}' is where the network goes, which would take the place of the checkpoint. Name the checkpoint otherwise: '{In("net.safetensors")}'.", message);
        Assert.False(File.Exists(In("net.json")));
        Import(model, "net.safetensors");
        using var checkpoint = Checkpoint.Open(In("net.safetensors"));
        Assert.Equal(3, checkpoint.ReadNetwork().Classes);
    }

    [Fact]
    public void Run_OfAFolder_SaysThatItIsOne() =>
        Assert.Equal($"'{_folder}' is a folder; name the model, a file in it that ends in .onnx.", Assert.Throws<UserErrorException>(() => Import(_folder, "net.safetensors")).Message);

    [Fact]
    public void Checkpoint_OpenedFromWhatWantsAnImport_SaysSo()
    {
        string message = Assert.Throws<UserErrorException>(() => Checkpoint.Open(Model())).Message;
        Assert.EndsWith("is an ONNX model and not a checkpoint; 'hpcbn import' makes a checkpoint of it.", message, StringComparison.Ordinal);

        string weights = In("weights.safetensors");
        SafetensorsFile.Write(weights, [new SafetensorsTensor("fc.weight", "F32", [1])], [], (_, bytes) => bytes.Clear());
        message = Assert.Throws<UserErrorException>(() => Checkpoint.Open(weights)).Message;
        Assert.EndsWith("Where it holds weights under PyTorch's names, 'hpcbn import' makes a checkpoint of it.", message, StringComparison.Ordinal);
    }

    private string Model()
    {
        string model = In("model.onnx");
        new ExportRequest { Flags = [("model", "inception-tiny"), ("image-size", "16")], Classes = 3, Output = model }.Run();
        return model;
    }

    private ImportResult Import(string model, string output) => new ImportRequest { Model = model, Output = In(output) }.Run();

    private string In(string name) => Path.Combine(_folder, name);
}
