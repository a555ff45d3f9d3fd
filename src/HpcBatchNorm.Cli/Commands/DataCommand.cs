using System.CommandLine;
using HpcBatchNorm.Data;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn data</c> and <c>hpcbn data check</c>.</summary>
internal static class DataCommand
{
    /// <summary>Images of each split that are decoded when nothing is said: enough to find a broken download, in seconds.</summary>
    private const int DefaultSample = 1000;

    public static Command Create()
    {
        var command = new Command("data", "Check a data set, or time its loading") { CreateCheck(), DataBenchCommand.Create() };
        CommandLine.AddExamples(command, "hpcbn data check /data/imagenet", "hpcbn data bench /data/imagenet -j 1");
        return command;
    }

    private static Command CreateCheck()
    {
        var path = new Argument<string>("PATH") { Description = "Data set" };
        var decode = new Option<bool>("--decode") { Description = "Decode every image" };
        var limit = new Option<int>("--limit") { HelpName = "N", Description = "Images to decode of each split, evenly spread; 0 for none", DefaultValueFactory = _ => DefaultSample };
        var checksums = new Option<bool>("--checksums") { Description = "Compare the official archives with the MD5 sums published for them" };
        var perClass = new Option<bool>("--per-class") { Description = "List the images of each class" };
        Option<int> workers = WorkersOption();
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("check", "Count images and classes, decode images, say what is wrong and what to do") { path, decode, limit, checksums, perClass, workers, result };
        CommandLine.AddExamples(command, "hpcbn data check /data/imagenet", "hpcbn data check /data/imagenet --decode --checksums");
        command.SetAction(parsed =>
        {
            TextWriter output = ResultFile.HumanOutput(parsed, result);
            string folder = parsed.GetRequiredValue(path);
            int images = parsed.GetValue(decode) ? int.MaxValue : parsed.GetValue(limit);
            List<(DatasetSplit Split, DatasetReport Report)> reports = [];
            List<string> problems = [];
            foreach (DatasetSplit split in new[] { DatasetSplit.Train, DatasetSplit.Validation })
            {
                try
                {
                    using ImageDataset dataset = ImageDataset.Open(folder, split);
                    var lines = new ProgressLines(output);
                    var progress = new Decoding(count => lines.Report($"{Name(split)}: decoded", count, Math.Min(images, dataset.Count)));
                    reports.Add((split, DatasetCheck.Run(dataset, images, parsed.GetValue(workers), progress)));
                }
                catch (UserErrorException error)
                {
                    // What is wrong with one split must not keep what is known about the other.
                    problems.Add($"{Name(split)}: {error.Message}");
                    continue;
                }

                DatasetReport report = reports[^1].Report;
                Print(output, Name(split), report, parsed.GetValue(perClass));
                problems.AddRange(report.BadImages.Select(bad => $"{Name(split)}: image '{bad.Name}': {bad.Status}; replace it, or it is passed over in training and left out of accuracies."));
                problems.AddRange(report.Problems.Select(problem => $"{Name(split)}: {problem}"));
            }

            if (parsed.GetValue(checksums))
            {
                var lines = new ProgressLines(output);
                foreach ((string name, string? problem) in ArchiveChecksums.Verify(folder, (file, done, total) => lines.Report($"{file}: MB", done / 1_000_000, total / 1_000_000)))
                {
                    output.WriteLine($"{name}: {(problem is null ? "the published MD5 sum" : "not the published MD5 sum")}");
                    problems.AddRange(problem is null ? [] : [problem]);
                }
            }

            problems.ForEach(problem => output.WriteLine($"problem: {problem}"));
            output.WriteLine(problems.Count == 0 ? "no problems found" : FormattableString.Invariant($"{problems.Count} problem(s)"));
            ResultFile.Write(parsed, result, json =>
            {
                foreach ((DatasetSplit split, DatasetReport report) in reports)
                {
                    json.WriteStartObject(Name(split));
                    json.WriteString("layout", report.Layout);
                    json.WriteNumber("images", report.Images);
                    json.WriteNumber("classes", report.Classes);
                    json.WriteNumber("decoded", report.Decoded);
                    json.WriteNumber("bad", report.BadImages.Count);
                    json.WriteStartArray("notes");
                    foreach (string note in report.Notes)
                    {
                        json.WriteStringValue(note);
                    }

                    json.WriteEndArray();
                    json.WriteStartObject("per_class");
                    foreach ((string name, int count) in report.ClassNames.Zip(report.PerClass))
                    {
                        json.WriteNumber(name, count);
                    }

                    json.WriteEndObject();
                    json.WriteEndObject();
                }

                json.WriteStartArray("problems");
                problems.ForEach(json.WriteStringValue);
                json.WriteEndArray();
            });
            return problems.Count == 0 ? ExitCode.Done : ExitCode.Failed;
        });
        return command;
    }

    internal static Option<int> WorkersOption() => new("--workers", "-j") { HelpName = "N", Description = "Threads", DefaultValueFactory = _ => Environment.ProcessorCount };

    private static void Print(TextWriter output, string name, DatasetReport report, bool perClass)
    {
        string sizes = report.SmallestClass == report.LargestClass
            ? FormattableString.Invariant($"{report.SmallestClass} each")
            : FormattableString.Invariant($"{report.SmallestClass} to {report.LargestClass} each");
        output.WriteLine(FormattableString.Invariant(
            $"{name}: {report.Layout}, {report.Images} images, {report.Classes} classes of {sizes}; {report.Decoded} decoded, {report.BadImages.Count} bad"));
        output.WriteLine(FormattableString.Invariant($"  class 0 is '{report.ClassNames[0]}', class {report.Classes - 1} is '{report.ClassNames[^1]}'"));
        foreach (string note in report.Notes)
        {
            output.WriteLine($"  {note}");
        }

        for (int label = 0; perClass && label < report.Classes; label++)
        {
            output.WriteLine(FormattableString.Invariant($"  {label,5} {report.ClassNames[label]} {report.PerClass[label]}"));
        }
    }

    private static string Name(DatasetSplit split) => split == DatasetSplit.Train ? "train" : "val";

    /// <summary>Progress on the thread that reports, unlike <see cref="Progress{T}"/>.</summary>
    private sealed class Decoding(Action<int> report) : IProgress<int>
    {
        public void Report(int value)
        {
            lock (report)
            {
                report(value);
            }
        }
    }
}
