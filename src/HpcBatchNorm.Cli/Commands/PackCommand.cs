using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using HpcBatchNorm.Data;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn pack</c>.</summary>
internal static class PackCommand
{
    public static Command Create()
    {
        var defaults = new PackOptions();
        var source = new Argument<string>("SRC") { Description = "Data set, in any layout" };
        var destination = new Argument<string>("DST") { Description = "Folder for the packed set; one that was begun is completed" };
        var shortSide = new Option<int>("--short-side") { HelpName = "N", Description = "Pixels that the short side of larger images is reduced to; 0 to keep every image's bytes", DefaultValueFactory = _ => defaults.ShortSide };
        var quality = new Option<int>("--quality") { HelpName = "1-100", Description = "JPEG quality of reduced images", DefaultValueFactory = _ => defaults.Quality };
        var shardImages = new Option<int>("--shard-images") { HelpName = "N", Description = "Images of a file", DefaultValueFactory = _ => defaults.ShardImages };
        var shuffle = new Option<bool>("--shuffle") { HelpName = "true|false", Description = "Put training images in random order", DefaultValueFactory = _ => defaults.Shuffle };
        var seed = new Option<ulong>("--seed") { HelpName = "N", Description = "Key of that order", DefaultValueFactory = _ => defaults.Seed };
        var onBadImage = new Option<BadImagePolicy>("--on-bad-image") { HelpName = "skip|fail", Description = "What an unreadable image does", DefaultValueFactory = _ => defaults.OnBadImage };
        var workers = new Option<int>("--workers", "-j") { HelpName = "N", Description = "Threads", DefaultValueFactory = _ => Environment.ProcessorCount };
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("pack", "Write a data set as a few large files of reduced images in random order, which load faster")
        {
            source, destination, shortSide, quality, shardImages, shuffle, seed, onBadImage, workers, result,
        };
        CommandLine.AddExamples(command, "hpcbn pack /data/imagenet /data/packed", "hpcbn pack /data/imagenet /data/packed256 --short-side 256 -j 16");
        command.SetAction(parsed =>
        {
            TextWriter output = ResultFile.HumanOutput(parsed, result);
            var options = new PackOptions
            {
                ShortSide = parsed.GetValue(shortSide),
                Quality = parsed.GetValue(quality),
                ShardImages = parsed.GetValue(shardImages),
                Shuffle = parsed.GetValue(shuffle),
                Seed = parsed.GetValue(seed),
                OnBadImage = parsed.GetValue(onBadImage),
                Workers = parsed.GetValue(workers),
            };
            string folder = parsed.GetRequiredValue(destination);
            long start = Stopwatch.GetTimestamp();
            PackResult packed = Packer.Run(parsed.GetRequiredValue(source), folder, options, new PackLines(output));
            double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
            output.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"'{folder}': {packed.TrainImages} training and {packed.ValidationImages} validation images in {packed.Shards} files of {packed.Bytes / 1e6:0.0} MB together, {packed.KeptShards} of them kept, {seconds:0.0} s"));
            foreach (string note in packed.Notes)
            {
                output.WriteLine($"  {note}");
            }

            foreach (string name in packed.Skipped)
            {
                output.WriteLine($"  left out, unreadable: {name}");
            }

            ResultFile.Write(parsed, result, json =>
            {
                json.WriteString("path", Path.GetFullPath(folder));
                json.WriteNumber("train_images", packed.TrainImages);
                json.WriteNumber("val_images", packed.ValidationImages);
                json.WriteNumber("shards", packed.Shards);
                json.WriteNumber("kept_shards", packed.KeptShards);
                json.WriteNumber("bytes", packed.Bytes);
                json.WriteNumber("skipped", packed.Skipped.Count);
                json.WriteFinite("seconds", seconds);
            });
            return ExitCode.Done;
        });
        return command;
    }

    private sealed class PackLines(TextWriter output) : IProgress<PackProgress>
    {
        private readonly ProgressLines _lines = new(output);

        public void Report(PackProgress value) =>
            _lines.Report(value.Split == DatasetSplit.Train ? "training images" : "validation images", value.Done, value.Total);
    }
}
