using System.CommandLine;
using System.Globalization;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn export</c>.</summary>
internal static class ExportCommand
{
    private static readonly string[] SettingNames = ["model", "width", "separable-first-convolution", "activation", "batch-norm", "lrn", "per-activation-norm", "image-size", "seed"];

    public static Command Create()
    {
        var checkpoint = new Option<string>("--checkpoint") { HelpName = "FILE|RUN", Description = "Checkpoint to export, or the folder of a run: its best, else its newest; without one, --model with its initial parameters" };
        var format = new Option<string>("--format") { HelpName = "onnx|safetensors", Description = "The network as an ONNX model; or its weights alone, under the names that PyTorch's programs give them", DefaultValueFactory = _ => "onnx" };
        format.AcceptOnlyFromAmong("onnx", "safetensors");
        var fold = new Option<bool>("--fold") { Description = "Fold batch normalization into the convolutions; without it, it stays a node" };
        var input = new Option<string>("--input") { HelpName = "pixels|images", Description = "Bytes in NHWC order, normalised by the model; or floats in NCHW order, normalised by the caller", DefaultValueFactory = _ => "pixels" };
        input.AcceptOnlyFromAmong("pixels", "images");
        var classes = new Option<int>("--classes") { HelpName = "N", Description = "Classes, without a checkpoint", DefaultValueFactory = _ => 1000 };
        Option<string> file = ResultFile.CheckedFirst(new("--output", "-o") { HelpName = "FILE", Description = "The file to write", Required = true });
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("export", "Write a network for other programs (ONNX, safetensors)") { checkpoint, format, fold, input, classes, file };
        SettingOptions settings = SettingOptions.AddTo(command, SettingNames);
        command.Add(result);
        CommandLine.AddExamples(command,
            "hpcbn export --checkpoint runs/X/checkpoints/step-00000640.safetensors --fold -o bn-inception.onnx",
            "hpcbn export --checkpoint a.safetensors --input images -o a.onnx     for programs that normalise images themselves",
            "hpcbn export --checkpoint a.safetensors --format safetensors -o weights.safetensors     for PyTorch, under torchvision's names",
            "hpcbn export --model bn-inception --fold -o untrained.onnx           to time another program on the same network");

        command.SetAction(parsed =>
        {
            TextWriter output = ResultFile.HumanOutput(parsed, result);
            bool weights = parsed.GetRequiredValue(format) == "safetensors";
            ExportResult done = new ExportRequest
            {
                Checkpoint = parsed.GetValue(checkpoint),
                Flags = settings.Given(parsed),
                Classes = parsed.GetValue(classes),
                Format = weights ? ExportFormat.Safetensors : ExportFormat.Onnx,
                Fold = parsed.GetValue(fold),
                Input = Enum.Parse<OnnxInput>(parsed.GetRequiredValue(input), ignoreCase: true),
                Output = parsed.GetRequiredValue(file),
            }.Run();
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{done.Path}: {done.Model} at {done.ImageSize} px, {done.Parts} {(weights ? "tensors" : "nodes")}, {done.Bytes / 1e6:F1} MB"));
            ResultFile.Write(parsed, result, json =>
            {
                json.WriteString("file", done.Path);
                json.WriteString("model", done.Model);
                json.WriteNumber("image_size", done.ImageSize);
                json.WriteNumber(weights ? "tensors" : "nodes", done.Parts);
                json.WriteNumber("bytes", done.Bytes);
            });
            return ExitCode.Done;
        });
        return command;
    }
}
