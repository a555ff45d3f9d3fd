using System.CommandLine;
using System.Globalization;
using HpcBatchNorm.Data;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn data bench</c>.</summary>
internal static class DataBenchCommand
{
    public static Command Create()
    {
        var path = new Argument<string>("PATH") { Description = "Data set" };
        var batch = new Option<int>("--batch-size", "-b") { HelpName = "N", Description = "Images per batch", DefaultValueFactory = _ => 32 };
        var size = new Option<int>("--image-size") { HelpName = "N", Description = "Height and width in pixels", DefaultValueFactory = _ => 224 };
        var photometric = new Option<double>("--photometric") { HelpName = "X", Description = "Strength of photometric distortion, 0 to 1", DefaultValueFactory = _ => 1 };
        var seconds = new Option<double>("--seconds") { HelpName = "N", Description = "How long", DefaultValueFactory = _ => 5 };
        Option<int> workers = DataCommand.WorkersOption();
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("bench", "How fast training images can be loaded when nobody else uses the processor, and where the time goes")
        {
            path, batch, size, photometric, seconds, workers, result,
        };
        CommandLine.AddExamples(command, "hpcbn data bench /data/imagenet -j 1", "hpcbn data bench /data/imagenet --photometric 0 --result -");
        command.SetAction(parsed =>
        {
            using ImageDataset dataset = ImageDataset.Open(parsed.GetRequiredValue(path), DatasetSplit.Train);
            LoaderOptions options = LoaderOptions.ForTraining(parsed.GetValue(batch), parsed.GetValue(size), seed: 1) with
            {
                Augmentation = new AugmentationOptions { PhotometricStrength = parsed.GetValue(photometric) },
                Workers = parsed.GetValue(workers),
            };
            LoaderTiming timing = LoaderBenchmark.Run(dataset, options, parsed.GetValue(seconds));
            Print(ResultFile.HumanOutput(parsed, result), dataset, options, timing);
            ResultFile.Write(parsed, result, json =>
            {
                json.WriteString("layout", dataset.Layout);
                json.WriteNumber("images", timing.Images);
                json.WriteFinite("seconds", timing.Seconds);
                json.WriteFinite("img_per_s", timing.ImagesPerSecond);
                json.WriteFinite("img_per_core_s", timing.ImagesPerCoreSecond);
                json.WriteNumber("workers", timing.Workers);
                json.WriteFinite("managed_bytes_per_image", timing.AllocatedBytesPerImage);
                json.WriteStartObject("ms_per_image");
                foreach (LoaderStage stage in Enum.GetValues<LoaderStage>())
                {
                    json.WriteFinite(stage.ToString().ToLowerInvariant(), Milliseconds(timing, stage));
                }

                json.WriteEndObject();
            });
            return ExitCode.Done;
        });
        return command;
    }

    private static void Print(TextWriter output, ImageDataset dataset, LoaderOptions options, LoaderTiming timing)
    {
        CultureInfo invariant = CultureInfo.InvariantCulture;
        output.WriteLine(string.Create(invariant,
            $"{dataset.Source}: {dataset.Layout}, {dataset.Count} images; crops of {options.ImageSize} px, photometric {options.Augmentation!.PhotometricStrength:0.##}, {timing.Workers} {(timing.Workers == 1 ? "worker" : "workers")}"));
        output.WriteLine(string.Create(invariant,
            $"{timing.ImagesPerSecond:0.0} images/s, {timing.ImagesPerCoreSecond:0.0} per core ({timing.Images} images in {timing.Seconds:0.00} s and {timing.ProcessorSeconds:0.00} s of processor time), {timing.AllocatedBytesPerImage:0} managed bytes per image"));
        var table = new TextTable("stage", "ms/image", "share");
        foreach (LoaderStage stage in Enum.GetValues<LoaderStage>())
        {
            table.Add(stage.ToString().ToLowerInvariant(), Milliseconds(timing, stage).ToString("0.000", invariant),
                (timing.Stages[stage] / timing.Stages.Total).ToString("0.0 %", invariant));
        }

        table.Write(output);
    }

    private static double Milliseconds(LoaderTiming timing, LoaderStage stage) => 1000 * timing.Stages[stage] / timing.Images;
}
