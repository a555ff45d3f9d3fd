using System.CommandLine;
using System.Globalization;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn import</c>.</summary>
internal static class ImportCommand
{
    public static Command Create()
    {
        var model = new Argument<string>("FILE.onnx") { Description = "The ONNX model" };
        var classes = new Option<string>("--class-names") { HelpName = "FILE", Description = "Names of the classes, one a line, in the order of the output [those in the model, else 0, 1, ...]" };
        var name = new Option<string>("--output-name") { HelpName = "NAME", Description = "The value that is the output, where there are several or the network is to end earlier" };
        Option<string> file = ResultFile.CheckedFirst(new("--output", "-o") { HelpName = "FILE", Description = "The checkpoint to write; the network goes beside it, to a .json file", Required = true });
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("import", "Read an ONNX model as a checkpoint") { model, classes, name, file };
        SettingOptions settings = SettingOptions.AddTo(command, "image-size", "pixel-mean", "pixel-deviation", "crop-fraction", "data");
        command.Add(result);
        CommandLine.AddExamples(command,
            "hpcbn import resnet.onnx -o resnet.safetensors --class-names wnids.txt",
            "hpcbn import resnet.onnx -o resnet.safetensors --pixel-mean 123.675,116.28,103.53 --pixel-deviation 58.395,57.12,57.375",
            "hpcbn eval --checkpoint resnet.safetensors --data /data/imagenet",
            "hpcbn train --model resnet.json --initial-checkpoint resnet.safetensors --data photos");

        command.SetAction(parsed =>
        {
            TextWriter output = ResultFile.HumanOutput(parsed, result);
            ImportResult done;
            try
            {
                done = new ImportRequest
                {
                    Model = parsed.GetRequiredValue(model),
                    ClassNames = parsed.GetValue(classes),
                    OutputName = parsed.GetValue(name),
                    Flags = settings.Given(parsed),
                    Output = parsed.GetRequiredValue(file),
                }.Run();
            }
            catch (OnnxImportException error)
            {
                // A line for each: there may be many.
                parsed.InvocationConfiguration.Error.WriteLine($"error: '{error.Path}' cannot be made a network; what stands in the way:");
                foreach (OnnxProblem problem in error.Problems)
                {
                    parsed.InvocationConfiguration.Error.WriteLine($"  {problem.ToString().ReplaceLineEndings(" ")}");
                }

                return ExitCode.Failed;
            }

            ImportedModel read = done.Model;
            output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{done.Path}: {read.Network.Name} at {read.Height} px, {read.Network.Nodes.Count} layers, {done.Parameters / 1e6:F1} M parameters, {read.Network.Classes} classes; the network is in {done.NetworkFile}"));
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"pixel mean {string.Join(", ", read.PixelMean)}, deviation {string.Join(", ", read.PixelDeviation)}"));
            foreach (string note in read.Notes)
            {
                output.WriteLine($"note: {note}");
            }

            ResultFile.Write(parsed, result, json =>
            {
                json.WriteString("file", done.Path);
                json.WriteString("network_file", done.NetworkFile);
                json.WriteString("model", read.Network.Name);
                json.WriteNumber("image_size", read.Height);
                json.WriteNumber("classes", read.Network.Classes);
                json.WriteNumber("parameters", done.Parameters);
                json.WriteString("output", read.Output.ToString());
                json.WriteStartArray("notes");
                foreach (string note in read.Notes)
                {
                    json.WriteStringValue(note);
                }

                json.WriteEndArray();
            });
            return ExitCode.Done;
        });
        return command;
    }
}
