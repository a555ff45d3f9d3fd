using System.CommandLine;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Cli;

/// <summary>The settings a command takes as flags.</summary>
internal sealed class SettingOptions
{
    /// <summary>What may differ between a checkpoint's training and its evaluation.</summary>
    public static readonly string[] Evaluation =
        ["data", "image-size", "batch-size", "crop-fraction", "on-bad-image", "backend", "precision", "threads", "workers", "conv-algorithm", "bn-algorithm", "library-relu", "no-fuse"];

    private readonly List<(Setting Setting, Option<string[]> Option)> _options = [];

    private SettingOptions()
    {
    }

    /// <summary>Gives a command flags for the settings of these names.</summary>
    public static SettingOptions AddTo(Command command, params IEnumerable<string> names)
    {
        var options = new SettingOptions();
        foreach (Setting setting in names.Select(TrainingSettings.Find))
        {
            Option<string[]> option = SettingOption.Create(setting);
            command.Add(option);
            options._options.Add((setting, option));
        }

        return options;
    }

    /// <summary>Names and values of the flags that were given.</summary>
    public IReadOnlyList<(string Name, string Value)> Given(ParseResult parsed) =>
        [.. _options.Where(o => parsed.GetResult(o.Option) is not null).Select(o => (o.Setting.Name, SettingOption.Value(parsed, o.Setting, o.Option)))];
}
