using System.CommandLine;
using System.Globalization;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn eval</c>.</summary>
internal static class EvalCommand
{
    public static Command Create()
    {
        var checkpoint = new Option<string[]>("--checkpoint", "--resume")
        {
            HelpName = "FILE|RUN[,...]",
            Description = "Checkpoint, or the folder of a run: its best, else its newest; several form an ensemble whose class probabilities are averaged",
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
        var statistics = new Option<string>("--statistics")
        {
            HelpName = "running|batch",
            Description = "Normalise by running (or population) statistics, or, to see the difference, by each batch's own",
            DefaultValueFactory = _ => "running",
        };
        statistics.AcceptOnlyFromAmong("running", "batch");
        Option<string> csv = ResultFile.CheckedFirst(new("--csv") { HelpName = "FILE", Description = "Write the accuracy of every class as comma-separated values" });
        var classMap = new Option<string>("--class-map")
        {
            HelpName = "by-name|FILE",
            Description = "For images of other classes than the network's: by-name where they are some of its classes, or a file of lines 'class of the data, tab, class of the network'",
            DefaultValueFactory = _ => "",
        };
        Option<bool> realTime = EvaluationDisplay.CreateOption();
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("eval", "Evaluate checkpoints on all validation images") { checkpoint, crops, statistics };
        command.Aliases.Add("validate");
        SettingOptions settings = SettingOptions.AddTo(command, SettingOptions.Evaluation);
        command.Add(csv);
        command.Add(classMap);
        command.Add(realTime);
        command.Add(result);
        CommandLine.AddExamples(command,
            "hpcbn eval --checkpoint runs/X                                          the run's best checkpoint",
            "hpcbn eval --checkpoint runs/X/checkpoints/step-00000640.safetensors",
            "hpcbn eval --checkpoint a.safetensors,b.safetensors --crops 144 --data /data/imagenet --csv classes.csv --result -");

        command.SetAction(parsed =>
        {
            TextWriter output = ResultFile.HumanOutput(parsed, result);
            var display = new EvaluationDisplay(output, parsed.GetValue(realTime));
            var request = new EvaluationRequest
            {
                Checkpoints = [.. parsed.GetRequiredValue(checkpoint).SelectMany(c => Path.Exists(c) ? [c] : c.Split(',', StringSplitOptions.RemoveEmptyEntries))],
                Crops = parsed.GetValue(crops),
                Statistics = parsed.GetValue(statistics) == "batch" ? BatchNormStatistics.Batch : BatchNormStatistics.Running,
                ClassMapping = parsed.GetValue(classMap)!,
                Flags = settings.Given(parsed),
            };
            EvaluationResult found = request.Run(display.Note, display.Progress);
            display.Accuracy(found);
            display.Classes(found);
            if (parsed.GetValue(csv) is string path)
            {
                using var text = new StringWriter(CultureInfo.InvariantCulture);
                ClassTable.Write(text, found);
                OutputFile.WriteText(path, text.ToString());
            }

            ResultFile.Write(parsed, result, json =>
            {
                EvaluationDisplay.Write(json, found);
                json.WriteNumber("crops", request.Crops);
                json.WriteNumber("models", request.Checkpoints.Count);
                json.WriteString("statistics", parsed.GetValue(statistics));
                json.WriteStartArray("members");
                foreach (EvaluationResult member in found.Members)
                {
                    json.WriteStartObject();
                    EvaluationDisplay.Write(json, member);
                    json.WriteEndObject();
                }

                json.WriteEndArray();
                EvaluationDisplay.WriteClasses(json, found);
            });
            return ExitCode.Done;
        });
        return command;
    }
}
