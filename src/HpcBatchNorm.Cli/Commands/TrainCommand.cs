using System.CommandLine;
using System.Text.Json;
using HpcBatchNorm.Reporting;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn train</c>.</summary>
internal static class TrainCommand
{
    public static Command Create()
    {
        var recipe = new Option<string>("--recipe") { HelpName = "NAME|FILE", Description = $"Recipe: {string.Join(", ", RecipeCatalog.Names)}, or a YAML file" };
        var config = new Option<string>("--config", "-c") { HelpName = "FILE", Description = "Settings from a YAML file, such as a run's config.yaml" };
        var resume = new Option<string>("--resume")
        {
            HelpName = "auto|PATH",
            Description = "Go on from a checkpoint or a run's folder; auto: the newest good one of --output, or of the newest run with this configuration, if any",
        };
        var verbose = new Option<bool>("--verbose") { Description = "Print every setting at the start, not only those that differ from the defaults" };
        var dryRun = new Option<bool>("--dry-run") { Description = "Print what the run would be (sizes, memory, learning rates) and end; nothing is trained or written" };
        Option<string> progress = TrainingView.CreateOption();
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("train", "Train a network. Without --data: two minutes on generated images") { recipe, config, resume };
        (Setting Setting, Option<string[]> Option)[] settings = [.. TrainingSettings.All.Select(s => (s, SettingOption.Create(s)))];
        foreach ((_, Option<string[]> option) in settings)
        {
            command.Add(option);
        }

        command.Add(dryRun);
        command.Add(verbose);
        command.Add(progress);
        command.Add(result);
        CommandLine.AddExamples(command,
            "hpcbn train                                                    a first run on generated images",
            "hpcbn train --data /data/imagenet --recipe bn-x5               the paper's BN-x5",
            "hpcbn train --data /data/imagenet --recipe bn-x5 --epochs 6    the same in a short run",
            "hpcbn train --model bn-inception --image-size 224 -b 32 --steps 10",
            "hpcbn train --resume runs/20260131-120000-bn-inception-bn-x5   go on where a run stopped",
            "hpcbn train --data D --output run1 --resume auto               for queues that restart jobs",
            "mpirun -np 4 hpcbn train --data D --sync-bn                     four processes train one network");

        command.SetAction(parsed => RankedRun.Run(parsed.InvocationConfiguration.Error, ranks =>
        {
            var request = new TrainingRequest
            {
                Ranks = ranks,
                Recipe = parsed.GetValue(recipe),
                ConfigFile = parsed.GetValue(config),
                Resume = parsed.GetValue(resume),
                Flags = [.. settings.Where(s => parsed.GetResult(s.Option) is not null).Select(s => (s.Setting.Name, SettingOption.Value(parsed, s.Setting, s.Option)))],
            };
            DisplayWriter output = RankedRun.IsSilent(ranks) ? new DisplayWriter(TextWriter.Null) : ResultFile.HumanOutput(parsed, result);
            var view = new TrainingView(output, parsed.GetValue(progress));
            using PreparedRun run = ranks.Together(() => request.Prepare(view.Note));
            view.Settings(run.Settings, parsed.GetValue(verbose));
            if (parsed.GetValue(dryRun))
            {
                IReadOnlyList<(string Name, string Value)> outline = run.Outline(view);
                view.Started(outline, 0, 0);
                view.Note("Nothing was trained or written; the same command without --dry-run does it.");
                ResultFile.Write(parsed, result, json =>
                {
                    json.WriteString("outcome", "dry_run");
                    foreach ((string name, string value) in outline.Where(o => o.Name.Length > 0))
                    {
                        json.WriteString(name.Replace(' ', '_'), value);
                    }
                });
                return ExitCode.Done;
            }

            using var signals = new StopSignals(output);
            TrainingResult outcome = view.Run(observer => run.Run(observer, RunSinks.All, signals.Token));
            view.Finished(outcome);
            if (!RankedRun.IsSilent(ranks))
            {
                ResultFile.Write(parsed, result, json => Write(json, outcome));
            }

            return outcome.Outcome switch
            {
                TrainingOutcome.LossNotFinite => ExitCode.LossNotFinite,
                TrainingOutcome.Interrupted => RankedRun.AgreedExitCode(ranks, signals),
                TrainingOutcome.TimeLimit => ExitCode.TimeLimit,
                _ => ExitCode.Done,
            };
        }));
        return command;
    }

    private static void Write(Utf8JsonWriter json, TrainingResult result)
    {
        json.WriteString("outcome", JsonNamingPolicy.SnakeCaseLower.ConvertName(result.Outcome.ToString()));
        json.WriteNumber("steps", result.Steps);
        json.WriteNumber("images", result.Images);
        json.WriteFinite("seconds", result.Seconds);
        json.WriteFinite("img_per_s", result.ImagesPerSecond);
        json.WriteFinite("data_wait_share", result.DataWaitShare);
        json.WriteFinite("peak_memory_mb", result.PeakMemoryMb);
        json.WriteFinite("train_loss", result.TrainLoss);
        json.WriteFinite("val_loss", result.Validation?.Loss);
        json.WriteFinite("val_top1", result.Validation?.Top1);
        json.WriteFinite("val_top5", result.Validation?.Top5);
        json.WriteFinite("best_top1", result.BestTop1);
        json.WriteString("checkpoint", result.Checkpoint);
        json.WriteString("report", result.Report);
        json.WriteString("run", result.RunDirectory);
        if (result.StopReason is not null)
        {
            json.WriteString("stop_reason", result.StopReason);
        }

        if (result.Divergence is { } divergence)
        {
            json.WriteNumber("diverged_at_step", divergence.Step);
            json.WriteString("diverged_in_layer", divergence.Layer);
            json.WriteString("divergence", divergence.Description);
        }
    }
}
