using System.Text.Json;
using HpcBatchNorm.Cli;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Tests.Training;

namespace HpcBatchNorm.Tests.Cli;

/// <summary>The command on a network that is only described in a file.</summary>
public sealed class NetworkFileTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    [Fact]
    public void TrainResumeEvalRecalibrateExportInspect_WorkOnANetworkOfAFile()
    {
        string file = Write(3), output = fixture.NewFolder(), json = Path.Combine(fixture.Folder, "result.json"), onnx = Path.Combine(fixture.Folder, "own.onnx");
        Run("train", "--model", file, "--data", fixture.Data, "--backend", TrainingFixture.Backend, "--image-size", "16", "-b", "4", "--steps", "5", "--output", output, "--result", json);
        string checkpoint = Result(json).GetProperty("checkpoint").GetString()!;

        // The same command, as a queue repeats it; then without the file, which the checkpoint does not need.
        Run("train", "--model", file, "--data", fixture.Data, "--backend", TrainingFixture.Backend, "--image-size", "16", "-b", "4", "--steps", "6", "--output", output, "--resume", "auto");
        File.Delete(file);
        Run("train", "--resume", output, "--steps", "8", "--result", json);
        Assert.Equal(8, Result(json).GetProperty("steps").GetInt32());
        checkpoint = Result(json).GetProperty("checkpoint").GetString()!;
        double loss = Result(json).GetProperty("val_loss").GetDouble();

        Run("eval", "--checkpoint", checkpoint, "--result", json);
        Assert.Equal(loss, Result(json).GetProperty("loss").GetDouble());
        Run("recalibrate", "--checkpoint", checkpoint, "--batches", "3", "--result", json);
        Assert.NotEqual(loss, Result(json).GetProperty("after").GetProperty("loss").GetDouble());
        Run("export", "--checkpoint", checkpoint, "--fold", "--output", onnx);
        using var session = OnnxFile.Open(onnx);
        Assert.Equal([-1, 3], session.OutputMetadata["probabilities"].Dimensions);
        Assert.Contains("lines of JSON", Run("inspect", "--checkpoint", checkpoint), StringComparison.Ordinal);
        Assert.Equal(OwnDataTests.OwnNetwork().ToJson(), Run("inspect", "--checkpoint", checkpoint, "--json"));
    }

    [Fact]
    public void InspectExportVerifyBench_TakeANetworkFile()
    {
        string file = Write(7), onnx = Path.Combine(fixture.Folder, "initial.onnx");
        Assert.Contains("wide/bn", Run("inspect", "--model", file, "--image-size", "16"), StringComparison.Ordinal);
        Assert.Contains("wide", Run("inspect", "--model", file, "--image-size", "16", "-b", "2", "--plan", "--backend", "reference"), StringComparison.Ordinal);
        Run("export", "--model", file, "--image-size", "16", "--output", onnx);
        Assert.True(File.Exists(onnx));
        Assert.Contains("loss-replay", Run("verify", "--network", file, "--backend", TrainingFixture.Backend, "--image-size", "16"), StringComparison.Ordinal);
        Assert.Contains("img/s", Run("bench", "--network", file, "--backend", TrainingFixture.Backend, "--image-size", "16", "-b", "2", "--steps", "1"), StringComparison.Ordinal);
    }

    [Fact]
    public void NetworkFile_OfOtherClassesMissingOrBroken_IsOneClearLine()
    {
        string output = fixture.NewFolder();
        Assert.Contains("own tells 7 classes apart", Fail("train", "--model", Write(7), "--data", fixture.Data, "--image-size", "16", "-b", "4", "--steps", "1", "--output", output), StringComparison.Ordinal);
        Assert.Contains("absent.json' cannot be read", Fail("inspect", "--model", "absent.json"), StringComparison.Ordinal);
        string broken = Path.Combine(fixture.Folder, "broken.json");
        File.WriteAllText(broken, "{");
        Assert.Contains("broken.json': ", Fail("verify", "--network", broken), StringComparison.Ordinal);
    }

    private string Write(int classes)
    {
        string path = Path.Combine(fixture.Folder, $"{Guid.NewGuid():N}.json");
        File.WriteAllText(path, OwnDataTests.OwnNetwork(classes).ToJson());
        return path;
    }

    private static JsonElement Result(string path) => JsonDocument.Parse(File.ReadAllText(path)).RootElement;

    private static string Run(params string[] args)
    {
        using StringWriter output = new(), error = new();
        int code = CommandLine.Run(args, output, error);
        Assert.True(code == ExitCode.Done, $"{error}{output}");
        return output.ToString();
    }

    private static string Fail(params string[] args)
    {
        using StringWriter output = new(), error = new();
        Assert.NotEqual(ExitCode.Done, CommandLine.Run(args, output, error));
        return error.ToString();
    }
}
