using System.CommandLine;
using HpcBatchNorm.Data;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn sample</c>.</summary>
internal static class SampleCommand
{
    public static Command Create()
    {
        var defaults = new SampleOptions();
        var folder = new Argument<string>("DST") { Description = "New folder for the data set" };
        var classes = new Option<int>("--classes") { Description = "Classes, 2 to 10", DefaultValueFactory = _ => defaults.Classes };
        var train = new Option<int>("--train") { Description = "Training images of each class", DefaultValueFactory = _ => defaults.TrainPerClass };
        var validation = new Option<int>("--val") { Description = "Validation images of each class", DefaultValueFactory = _ => defaults.ValidationPerClass };
        var size = new Option<int>("--image-size") { Description = "Width and height in pixels", DefaultValueFactory = _ => defaults.ImageSize };
        var seed = new Option<ulong>("--seed") { Description = "Key of everything random", DefaultValueFactory = _ => defaults.Seed };
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("sample", "Draw a small data set in the official ImageNet layout, to try everything without ImageNet")
        {
            folder, classes, train, validation, size, seed, result,
        };
        CommandLine.AddExamples(command, "hpcbn sample drawings", "hpcbn sample drawings --classes 4 --train 50 --val 10");
        command.SetAction(parsed =>
        {
            var options = new SampleOptions
            {
                Classes = parsed.GetValue(classes),
                TrainPerClass = parsed.GetValue(train),
                ValidationPerClass = parsed.GetValue(validation),
                ImageSize = parsed.GetValue(size),
                Seed = parsed.GetValue(seed),
            };
            string path = parsed.GetRequiredValue(folder);
            SampleGenerator.Write(path, options);
            ResultFile.HumanOutput(parsed, result).WriteLine(FormattableString.Invariant(
                $"'{path}': {options.Classes} classes, {options.Classes * options.TrainPerClass} training and {options.Classes * options.ValidationPerClass} validation images of {options.ImageSize} px. Next: hpcbn train --data {path} --recipe quick"));
            ResultFile.Write(parsed, result, json =>
            {
                json.WriteString("path", Path.GetFullPath(path));
                json.WriteNumber("classes", options.Classes);
                json.WriteNumber("train_images", options.Classes * options.TrainPerClass);
                json.WriteNumber("val_images", options.Classes * options.ValidationPerClass);
            });
            return ExitCode.Done;
        });
        return command;
    }
}
