using System.Globalization;
using System.Text.Json;
using HpcBatchNorm.Cli;
using HpcBatchNorm.Tests.Evaluation;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Cli;

/// <summary><c>hpcbn eval</c> and <c>hpcbn recalibrate</c> in this process: tables, files and JSON tell the same.</summary>
public sealed class EvaluationCommandTests(EvaluationFixture fixture) : IClassFixture<EvaluationFixture>
{
    [Fact]
    public void Eval_WritesTableCsvAndJson()
    {
        string csv = Path.Combine(fixture.Training.Folder, "classes.csv"), result = Path.Combine(fixture.Training.Folder, "result.json");
        string output = Run("eval", "--checkpoint", $"{fixture.First},{fixture.Second}", "--crops", "10", "--real-time", "--csv", csv, "--result", result);

        JsonElement json = JsonDocument.Parse(File.ReadAllText(result)).RootElement;
        Assert.Equal((9, 10, 2, "running"), (json.GetProperty("images").GetInt32(), json.GetProperty("crops").GetInt32(), json.GetProperty("models").GetInt32(), json.GetProperty("statistics").GetString()));
        double top1 = json.GetProperty("top1").GetDouble();
        Assert.Equal(Math.Sqrt(top1 * (1 - top1) / 9), json.GetProperty("top1_standard_error").GetDouble(), 12);
        Assert.Equal(3, json.GetProperty("classes").GetArrayLength());
        Assert.Equal(9 - (int)Math.Round(9 * top1), json.GetProperty("confusions").EnumerateArray().Sum(c => c.GetProperty("images").GetInt32()));

        string[] lines = File.ReadAllLines(csv);
        Assert.Equal(4, lines.Length);
        Assert.Equal(
            json.GetProperty("classes").EnumerateArray().Select(c => c.GetProperty("top1").GetDouble()),
            lines[1..].Select(l => double.Parse(l.Split(',')[^4], CultureInfo.InvariantCulture)), (a, b) => Math.Abs(a - b) < 1e-6);

        Assert.Contains("9/9  Acc@1", output, StringComparison.Ordinal);
        Assert.Contains(string.Create(CultureInfo.InvariantCulture, $" * Acc@1 {100 * top1:0.000} ({100 * (1 - top1):0.000}) ± "), output, StringComparison.Ordinal);
        Assert.Equal(2, json.GetProperty("members").GetArrayLength());
        double second = json.GetProperty("members")[1].GetProperty("top1").GetDouble();
        Assert.Contains(string.Create(CultureInfo.InvariantCulture, $" * member 2 Acc@1 {100 * second:0.000} "), output, StringComparison.Ordinal);
        Assert.Contains("classes, worst first", output, StringComparison.Ordinal);
        Assert.Contains("most often confused", output, StringComparison.Ordinal);
    }

    [Fact]
    public void Export_Checkpoint_WritesItsNetworkAndClasses()
    {
        string path = Path.Combine(fixture.Training.Folder, "model.onnx"), result = Path.Combine(fixture.Training.Folder, "export.json");
        Run("export", "--checkpoint", fixture.First, "--fold", "--output", path, "--result", result);

        JsonElement json = JsonDocument.Parse(File.ReadAllText(result)).RootElement;
        Assert.Equal(("inception-tiny", new FileInfo(path).Length), (json.GetProperty("model").GetString(), json.GetProperty("bytes").GetInt64()));
        using var session = OnnxFile.Open(path);
        Assert.Equal([-1, 3], session.OutputMetadata["probabilities"].Dimensions);
        Assert.Equal(3, JsonDocument.Parse(session.ModelMetadata.CustomMetadataMap["class_names"]).RootElement.GetArrayLength());
    }

    /// <summary>What is imported is evaluated, trained further and exported as any checkpoint.</summary>
    [Fact]
    public void Import_ExportedCheckpoint_EvaluatesAsItDidAndTrains()
    {
        string folder = Directory.CreateDirectory(Path.Combine(fixture.Training.Folder, "import")).FullName;
        string onnx = Path.Combine(folder, "model.onnx"), imported = Path.Combine(folder, "imported.safetensors"), network = Path.Combine(folder, "imported.json");
        Run("export", "--checkpoint", fixture.First, "-o", onnx);
        string output = Run("import", onnx, "-o", imported, "--data", fixture.Training.Data);
        Assert.Contains($"the network is in {network}", output, StringComparison.Ordinal);

        string before = Path.Combine(folder, "before.json"), after = Path.Combine(folder, "after.json"), run = Path.Combine(folder, "run");
        Run("eval", "--checkpoint", fixture.First, "--crop-fraction", "0.875", "--result", before);
        Run("eval", "--checkpoint", imported, "--result", after);
        double Loss(string file) => JsonDocument.Parse(File.ReadAllText(file)).RootElement.GetProperty("loss").GetDouble();
        Assert.Equal(Loss(before), Loss(after), 1e-6);

        string trained = fixture.Train(("model", network), ("initial-checkpoint", imported), ("learning-rate", "0"), ("averaging-factor", "0"));
        Assert.True(File.Exists(trained));
        Run("export", "--checkpoint", imported, "-o", Path.Combine(folder, "again.onnx"));
        Assert.True(new FileInfo(Path.Combine(folder, "again.onnx")).Length > 0);
    }

    [Fact]
    public void Import_NamesOfOtherClasses_SaysHowManyThereAre()
    {
        string folder = Directory.CreateDirectory(Path.Combine(fixture.Training.Folder, "import-names")).FullName;
        string onnx = Path.Combine(folder, "model.onnx"), names = Path.Combine(folder, "names.txt");
        Run("export", "--checkpoint", fixture.First, "-o", onnx);
        File.WriteAllLines(names, ["a", "b"]);
        using StringWriter output = new(), error = new();
        Assert.Equal(1, CommandLine.Run(["import", onnx, "-o", Path.Combine(folder, "x.safetensors"), "--class-names", names], output, error));
        Assert.Contains("names 2 classes", error.ToString(), StringComparison.Ordinal);
        Assert.False(File.Exists(Path.Combine(folder, "x.safetensors")));
        Assert.Equal(1, CommandLine.Run(["import", onnx, "-o", onnx], output, error));
        Assert.Contains("is the file that is imported", error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Recalibrate_WritesACheckpointThatEvaluatesToWhatItPrinted()
    {
        string path = Path.Combine(fixture.Training.Folder, "population.safetensors"), result = Path.Combine(fixture.Training.Folder, "recalibrated.json");
        string output = Run("recalibrate", "--checkpoint", fixture.First, "--batches", "4", "--output", path, "--result", result);

        Assert.Contains(" * before  Acc@1", output, StringComparison.Ordinal);
        Assert.Contains($"checkpoint {path}", output, StringComparison.Ordinal);
        JsonElement json = JsonDocument.Parse(File.ReadAllText(result)).RootElement;
        Assert.Equal((4, 16), (json.GetProperty("batches").GetInt32(), json.GetProperty("images").GetInt32()));

        string evaluated = Path.Combine(fixture.Training.Folder, "evaluated.json");
        Run("eval", "--checkpoint", path, "--result", evaluated);
        Assert.Equal(json.GetProperty("after").GetProperty("loss").GetDouble(), JsonDocument.Parse(File.ReadAllText(evaluated)).RootElement.GetProperty("loss").GetDouble());
        Assert.NotEqual(json.GetProperty("after").GetProperty("loss").GetDouble(), json.GetProperty("before").GetProperty("loss").GetDouble());
    }

    private static string Run(params string[] args)
    {
        using StringWriter output = new(), error = new();
        int code = CommandLine.Run(args, output, error);
        Assert.True(code == ExitCode.Done, error.ToString());
        return output.ToString();
    }
}
