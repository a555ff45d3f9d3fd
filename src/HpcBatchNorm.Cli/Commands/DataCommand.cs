using System.CommandLine;
using HpcBatchNorm.Data;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn data</c> and <c>hpcbn data check</c>.</summary>
internal static class DataCommand
{
    public static Command Create()
    {
        var command = new Command("data", "Check a data set, or time its loading") { CreateCheck(), DataBenchCommand.Create() };
        CommandLine.AddExamples(command, "hpcbn data check /data/imagenet", "hpcbn data bench /data/imagenet -j 1");
        return command;
    }

    private static Command CreateCheck()
    {
        var path = new Argument<string>("PATH") { Description = "Data set" };
        var limit = new Option<int>("--limit") { HelpName = "N", Description = "Most images to decode of each split; 0 for none", DefaultValueFactory = _ => int.MaxValue };
        Option<int> workers = WorkersOption();
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("check", "Count images and classes, decode every image, name the bad ones") { path, limit, workers, result };
        CommandLine.AddExamples(command, "hpcbn data check /data/imagenet", "hpcbn data check /data/imagenet --limit 1000");
        command.SetAction(parsed =>
        {
            TextWriter output = ResultFile.HumanOutput(parsed, result);
            List<(DatasetSplit Split, DatasetReport Report)> reports = [];
            foreach (DatasetSplit split in new[] { DatasetSplit.Train, DatasetSplit.Validation })
            {
                using ImageDataset dataset = ImageDataset.Open(parsed.GetRequiredValue(path), split);
                DatasetReport report = DatasetCheck.Run(dataset, parsed.GetValue(limit), parsed.GetValue(workers));
                reports.Add((split, report));
                output.WriteLine(FormattableString.Invariant(
                    $"{Name(split)}: {report.Layout}, {report.Images} images, {report.Classes} classes of {report.SmallestClass} to {report.LargestClass}; {report.Decoded} decoded, {report.BadImages.Count} bad"));
                foreach (string note in report.Notes.Concat(report.BadImages.Select(b => $"bad image {b.Name}: {b.Status}")))
                {
                    output.WriteLine($"  {note}");
                }
            }

            ResultFile.Write(parsed, result, json =>
            {
                foreach ((DatasetSplit split, DatasetReport report) in reports)
                {
                    json.WriteStartObject(Name(split));
                    json.WriteNumber("images", report.Images);
                    json.WriteNumber("classes", report.Classes);
                    json.WriteNumber("decoded", report.Decoded);
                    json.WriteNumber("bad", report.BadImages.Count);
                    json.WriteEndObject();
                }
            });
            return reports.All(r => r.Report.BadImages.Count == 0) ? ExitCode.Done : ExitCode.Failed;
        });
        return command;
    }

    internal static Option<int> WorkersOption() => new("--workers", "-j") { HelpName = "N", Description = "Threads", DefaultValueFactory = _ => Environment.ProcessorCount };

    private static string Name(DatasetSplit split) => split == DatasetSplit.Train ? "train" : "val";
}
