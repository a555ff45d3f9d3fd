using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using HpcBatchNorm.Experiments;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn experiment</c>.</summary>
internal static class ExperimentCommand
{
    private const string All = "all", List = "list", Page = "page", DefaultOutput = "experiments", QuickOutput = "experiments-quick";

    public static Command Create()
    {
        var name = new Argument<string>("NAME") { Description = $"{List}, {All}, {Page} (of the results there are), or an experiment: {string.Join(", ", ExperimentCatalog.All.Select(e => e.Name))}" };
        var data = new Option<string[]>("--data") { HelpName = "PATH", Description = $"Data set, or a folder of some; may be given several times: each experiment takes the first that fits. '{ExperimentDataPath.Sample}': generated images" };
        var seeds = new Option<int>("--seeds") { HelpName = "N", Description = "Seeds of what is repeated [as many as the experiment takes]" };
        var quick = new Option<bool>("--quick") { Description = "Short form, minutes for all: a direction, not the paper's numbers" };
        var folder = new Option<string>("--output") { HelpName = "DIR", Description = $"Folder of results; what is complete there is not computed again [{DefaultOutput}, {QuickOutput} with --quick]" };
        var threads = new Option<int>("--threads") { HelpName = "N", Description = "Compute threads of each run; 0: cores divided by --jobs" };
        var jobs = new Option<int>("--jobs") { HelpName = "N", Description = "Runs side by side; 0: one per core" };
        var backend = new Option<string>("--backend") { HelpName = "NAME", Description = "auto, onednn, cudnn or reference", DefaultValueFactory = _ => "auto" };
        var set = new Option<string[]>("--set")
        {
            HelpName = "NAME=VALUE",
            Description = "A training setting over those of imagenet-variants and ensemble, e.g. epochs=4; may be given several times",
        };
        Option<string> progress = TrainingView.CreateOption(), result = ResultFile.CreateOption();
        var command = new Command("experiment", "The paper's claims as experiments: numbers beside the paper's, figures, one page") { name, data, seeds, quick, folder, threads, jobs, backend, set, progress, result };
        CommandLine.AddExamples(command,
            "hpcbn experiment list                              what there is",
            "hpcbn experiment mnist --data /data/mnist          section 4.1 and Figure 1",
            "hpcbn experiment all --data /data/mnist --quick    everything for which there is data, in minutes");
        command.SetAction(parsed =>
        {
            DisplayWriter output = ResultFile.HumanOutput(parsed, result);
            string wanted = parsed.GetRequiredValue(name);
            if (wanted == List)
            {
                WriteList(output);
                return ExitCode.Done;
            }

            string root = parsed.GetValue(folder) ?? (parsed.GetValue(quick) ? QuickOutput : DefaultOutput);
            if (wanted == Page)
            {
                output.WriteLine($"page {ExperimentPage.Write(root)}");
                return ExitCode.Done;
            }

            string[] paths = parsed.GetValue(data) ?? [];
            using var signals = new StopSignals(output);
            ExperimentContext Context(Experiment experiment, string? path, ExperimentView view) => new()
            {
                DataPath = path,
                Seeds = NotNegative(parsed, seeds),
                Quick = parsed.GetValue(quick),
                Output = Path.Combine(root, experiment.Name),
                Threads = NotNegative(parsed, threads),
                Jobs = NotNegative(parsed, jobs) is > 0 and var n ? n : Environment.ProcessorCount,
                Settings = [.. (parsed.GetValue(set) ?? []).Select(Setting)],
                BackendName = parsed.GetRequiredValue(backend),
                Cancellation = signals.Token,
                Progress = view,
            };
            List<ExperimentRecord> records = [];
            try
            {
                foreach (Experiment experiment in wanted == All ? ExperimentCatalog.All : [ExperimentCatalog.Create(wanted)])
                {
                    string? path;
                    try
                    {
                        path = ExperimentDataPath.Find(experiment.Data, paths, output.WriteLine);
                    }
                    catch (UserErrorException error) when (wanted == All)
                    {
                        output.WriteLine($"{experiment.Name}: left out. {error.Message}");
                        continue;
                    }

                    var view = new ExperimentView(output, parsed.GetValue(progress));
                    records.Add(view.Run(experiment, () => ExperimentRunner.Run(experiment, Context(experiment, path, view), view.Note)));
                }
            }
            catch (OperationCanceledException) when (signals.Token.IsCancellationRequested)
            {
                output.WriteLine($"Stopped. What is complete is in '{root}'; the same command goes on from there.");
                return signals.ExitCode;
            }
            finally
            {
                if (records.Count > 0)
                {
                    output.WriteLine($"page {ExperimentPage.Write(root)}");
                }
            }

            ResultFile.Write(parsed, result, json => Write(json, records));
            return records.TrueForAll(r => r.Result.Passed) ? ExitCode.Done : ExitCode.NotReproduced;
        });
        return command;
    }

    private static int NotNegative(ParseResult parsed, Option<int> option) => parsed.GetValue(option) is >= 0 and var value
        ? value : throw new UserErrorException(FormattableString.Invariant($"{option.Name} is {parsed.GetValue(option)}; it must be 0 or more."));

    private static (string Name, string Value) Setting(string text) => text.Split('=', 2) is [var name, var value] && name.Length > 0
        ? (TrainingSettings.Find(name).Name, value)
        : throw new UserErrorException($"--set: expected NAME=VALUE, found '{text}'.");

    private static void WriteList(TextWriter output)
    {
        foreach (Experiment experiment in ExperimentCatalog.All)
        {
            string data = experiment.Data switch { ExperimentData.Mnist => "MNIST", ExperimentData.ImageNet => "images in ImageNet's layout", _ => "no data" };
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{experiment.Name}: {experiment.Title}"));
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"    {experiment.Claim}"));
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"    {data}; about {Math.Max(1, Math.Round(experiment.Minutes)):0} min on one core"));
        }
    }

    private static void Write(Utf8JsonWriter json, List<ExperimentRecord> records)
    {
        json.WriteBoolean("passed", records.TrueForAll(r => r.Result.Passed));
        json.WriteStartArray("experiments");
        foreach (ExperimentRecord record in records)
        {
            json.WriteStartObject();
            json.WriteString("name", record.Experiment);
            json.WriteBoolean("passed", record.Result.Passed);
            json.WriteStartArray("findings");
            foreach (Finding finding in record.Result.Findings)
            {
                json.WriteStartObject();
                json.WriteString("quantity", finding.Quantity);
                json.WriteString("paper", finding.Paper);
                json.WriteString("ours", finding.Ours);
                json.WriteString("acceptance", finding.Acceptance);
                json.WriteString("verdict", finding.Verdict.Word());
                json.WriteEndObject();
            }

            json.WriteEndArray();
            json.WriteStartArray("not_run");
            foreach (string line in record.Result.NotRun)
            {
                json.WriteStringValue(line);
            }

            json.WriteEndArray();
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }
}
