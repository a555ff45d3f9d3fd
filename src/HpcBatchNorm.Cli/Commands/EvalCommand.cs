using System.CommandLine;
using System.Globalization;
using HpcBatchNorm.Evaluation;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn eval</c>.</summary>
internal static class EvalCommand
{
    private static readonly string[] SettingNames =
        ["data", "image-size", "batch-size", "crop-fraction", "on-bad-image", "backend", "precision", "threads", "workers", "conv-algorithm", "bn-algorithm", "no-fuse"];

    public static Command Create()
    {
        var checkpoint = new Option<string[]>("--checkpoint", "--resume")
        {
            HelpName = "FILE[,FILE...]",
            Description = "Checkpoint; several form an ensemble whose class probabilities are averaged",
            Required = true,
            AllowMultipleArgumentsPerToken = true,
        };
        var crops = new Option<int>("--crops") { HelpName = "1|10|144", Description = "Views per image: centre crop, the classic ten, GoogLeNet's 144", DefaultValueFactory = _ => 1 };
        crops.Validators.Add(r =>
        {
            if (r.Tokens is [{ Value: not ("1" or "10" or "144") }, ..])
            {
                r.AddError($"--crops: expected 1, 10 or 144, found '{r.Tokens[0].Value}'.");
            }
        });
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("eval", "Evaluate checkpoints on all validation images") { checkpoint, crops };
        command.Aliases.Add("validate");
        (Setting Setting, Option<string[]> Option)[] settings = [.. SettingNames.Select(TrainingSettings.Find).Select(s => (s, SettingOption.Create(s)))];
        foreach ((_, Option<string[]> option) in settings)
        {
            command.Add(option);
        }

        command.Add(result);
        CommandLine.AddExamples(command,
            "hpcbn eval --checkpoint runs/X/checkpoints/step-00000640.safetensors",
            "hpcbn eval --checkpoint a.safetensors,b.safetensors --data /data/imagenet --result -");

        command.SetAction(parsed =>
        {
            TextWriter output = ResultFile.HumanOutput(parsed, result);
            var request = new EvaluationRequest
            {
                Checkpoints = [.. parsed.GetRequiredValue(checkpoint).SelectMany(c => c.Split(',', StringSplitOptions.RemoveEmptyEntries))],
                Crops = parsed.GetValue(crops),
                Flags = [.. settings.Where(s => parsed.GetResult(s.Option) is not null).Select(s => (s.Setting.Name, SettingOption.Value(parsed, s.Setting, s.Option)))],
            };
            EvaluationResult found = request.Run(output.WriteLine);
            output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $" * Acc@1 {100 * found.Top1:0.000} ({100 * (1 - found.Top1):0.000})  Acc@5 {100 * found.Top5:0.000} ({100 * (1 - found.Top5):0.000})  loss {found.Loss:0.0000}  {found.Images} images, {found.ImagesPerSecond:0.0} img/s"));
            ResultFile.Write(parsed, result, json =>
            {
                json.WriteNumber("images", found.Images);
                json.WriteNumber("top1", found.Top1);
                json.WriteNumber("top5", found.Top5);
                json.WriteFinite("loss", found.Loss);
                json.WriteNumber("crops", request.Crops);
                json.WriteNumber("models", request.Checkpoints.Count);
                json.WriteFinite("seconds", found.Seconds);
                json.WriteFinite("img_per_s", found.ImagesPerSecond);
            });
            return ExitCode.Done;
        });
        return command;
    }
}
