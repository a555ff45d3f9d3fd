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
        var model = new Argument<string>("FILE") { Description = "An ONNX model, or weights in a .safetensors file under the names that PyTorch's programs give them" };
        var network = new Option<string>("--network") { HelpName = "NAME", Description = $"Of weights, the network they are of: {string.Join(", ", PyTorchWeights.Networks)} [what the file says]" };
        var classes = new Option<string>("--class-names") { HelpName = "FILE", Description = "Names of the classes, one a line, in the order of the output [those in the model, else 0, 1, ...]" };
        var name = new Option<string>("--output-name") { HelpName = "NAME", Description = "Of an ONNX model, the value that is the output, where there are several or the network is to end earlier" };
        var bgr = new Option<bool>("--bgr") { Description = "The ONNX model takes B, G, R, as Caffe's and CNTK's do; its first convolution is changed to take R, G, B" };
        Option<string> file = ResultFile.CheckedFirst(new("--output", "-o") { HelpName = "FILE", Description = "The checkpoint to write; the network of an ONNX model goes beside it, to a .json file", Required = true });
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("import", "Read another program's model or weights as a checkpoint") { model, network, classes, name, bgr, file };
        SettingOptions settings = SettingOptions.AddTo(command, "image-size", "pixel-mean", "pixel-deviation", "crop-fraction", "data", "auxiliary-heads", "unpadded-pools", "width", "average-includes-padding", "epsilon");
        command.Add(result);
        CommandLine.AddExamples(command,
            "hpcbn import resnet.onnx -o resnet.safetensors --class-names wnids.txt",
            "hpcbn import resnet.onnx -o resnet.safetensors --pixel-mean 123.675,116.28,103.53 --pixel-deviation 58.395,57.12,57.375",
            "hpcbn import model.safetensors --network resnet-50 -o resnet.safetensors --class-names wnids.txt",
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
                    Network = parsed.GetValue(network),
                    ClassNames = parsed.GetValue(classes),
                    OutputName = parsed.GetValue(name),
                    Bgr = parsed.GetValue(bgr),
                    Flags = settings.Given(parsed),
                    Output = parsed.GetRequiredValue(file),
                }.Run();
            }
            catch (OnnxImportException error)
            {
                return Refuse(parsed, $"'{error.Path}' cannot be made a network; what stands in the way:", error.Problems);
            }
            catch (PyTorchWeightsException error)
            {
                return Refuse(parsed, $"'{error.Path}' does not hold the weights of {error.Network}; what differs:", error.Problems);
            }

            output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{done.Path}: {done.Network.Name} at {done.ImageSize} px, {done.Network.Nodes.Count} layers, {done.Parameters / 1e6:F1} M parameters, {done.Network.Classes} classes{(done.NetworkFile is null ? "" : $"; the network is in {done.NetworkFile}")}"));
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"pixel mean {string.Join(", ", done.PixelMean)}, deviation {string.Join(", ", done.PixelDeviation)}"));
            foreach (string note in done.Notes)
            {
                output.WriteLine($"note: {note}");
            }

            ResultFile.Write(parsed, result, json =>
            {
                json.WriteString("file", done.Path);
                if (done.NetworkFile is { } networkFile)
                {
                    json.WriteString("network_file", networkFile);
                }

                json.WriteString("model", done.Network.Name);
                json.WriteNumber("image_size", done.ImageSize);
                json.WriteNumber("classes", done.Network.Classes);
                json.WriteNumber("parameters", done.Parameters);
                json.WriteString("output", done.Values.ToString());
                json.WriteStartArray("notes");
                foreach (string note in done.Notes)
                {
                    json.WriteStringValue(note);
                }

                json.WriteEndArray();
            });
            return ExitCode.Done;
        });
        return command;
    }

    /// <summary>A line for each thing that stands in the way: there may be many.</summary>
    private static int Refuse(ParseResult parsed, string what, IEnumerable<object> problems)
    {
        parsed.InvocationConfiguration.Error.WriteLine($"error: {what}");
        foreach (object problem in problems)
        {
            parsed.InvocationConfiguration.Error.WriteLine($"  {problem.ToString()!.ReplaceLineEndings(" ")}");
        }

        return ExitCode.Failed;
    }
}
