using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn recalibrate</c>.</summary>
internal static class RecalibrateCommand
{
    public static Command Create()
    {
        var checkpoint = new Option<string>("--checkpoint") { HelpName = "FILE|RUN", Description = "Checkpoint, or the folder of a run: its best, else its newest; it is not changed", Required = true };
        var batches = new Option<int>("--batches") { HelpName = "N", Description = "Training mini-batches to average over", DefaultValueFactory = _ => 200 };
        batches.Validators.Add(r =>
        {
            if (r.Tokens is [{ } token, ..] && !(int.TryParse(token.Value, NumberStyles.None, CultureInfo.InvariantCulture, out int value) && value > 0))
            {
                r.AddError($"--batches: expected a whole number of at least 1, found '{token.Value}'.");
            }
        });
        Option<string> file = ResultFile.CheckedFirst(new("--output") { HelpName = "FILE", Description = "The new checkpoint [beside the old one, NAME-population.safetensors]" });
        var noEvaluation = new Option<bool>("--no-eval") { Description = "Do not measure the accuracy before and after" };
        Option<bool> realTime = EvaluationDisplay.CreateOption();
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("recalibrate", "Replace running statistics by population statistics (Algorithm 2)") { checkpoint, batches, file, noEvaluation };
        SettingOptions settings = SettingOptions.AddTo(command, [.. SettingOptions.Evaluation, "seed"]);
        command.Add(realTime);
        command.Add(result);
        CommandLine.AddExamples(command,
            "hpcbn recalibrate --checkpoint runs/X/checkpoints/step-00000640.safetensors",
            "hpcbn recalibrate --checkpoint a.safetensors --data /data/imagenet --batches 1000 --output b.safetensors");

        command.SetAction(parsed =>
        {
            TextWriter output = ResultFile.HumanOutput(parsed, result);
            var display = new EvaluationDisplay(output, parsed.GetValue(realTime));
            var request = new RecalibrationRequest
            {
                Checkpoint = parsed.GetRequiredValue(checkpoint),
                Batches = parsed.GetValue(batches),
                Output = parsed.GetValue(file) ?? "",
                Evaluate = !parsed.GetValue(noEvaluation),
                Flags = settings.Given(parsed),
            };
            RecalibrationResult done = request.Run(display.Note, batch => ShowBatches(display, batch, request.Batches), display.Progress);
            display.Note(string.Create(CultureInfo.InvariantCulture, $"{done.Batches} batches, {done.Images} images in {done.Seconds:0.0} s"));
            foreach ((string title, EvaluationResult? found) in new[] { ("before  ", done.Before), ("after   ", done.After) })
            {
                if (found is not null)
                {
                    display.Accuracy(found, title);
                }
            }

            output.WriteLine($"checkpoint {done.Checkpoint}");
            ResultFile.Write(parsed, result, json =>
            {
                json.WriteString("checkpoint", done.Checkpoint);
                json.WriteNumber("batches", done.Batches);
                json.WriteNumber("images", done.Images);
                json.WriteFinite("seconds", done.Seconds);
                WriteAccuracy(json, "before", done.Before);
                WriteAccuracy(json, "after", done.After);
            });
            return ExitCode.Done;
        });
        return command;
    }

    private static void ShowBatches(EvaluationDisplay display, int batch, int batches)
    {
        if (display.IsDue)
        {
            display.Show(string.Create(CultureInfo.InvariantCulture, $"statistics: batch {batch}/{batches}"));
        }
    }

    private static void WriteAccuracy(Utf8JsonWriter json, string name, EvaluationResult? found)
    {
        if (found is null)
        {
            json.WriteNull(name);
            return;
        }

        json.WriteStartObject(name);
        EvaluationDisplay.Write(json, found);
        json.WriteEndObject();
    }
}
