using System.CommandLine;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Cli;

/// <summary>A flag made of a <see cref="Setting"/>: same name, same help, checked by the setting itself so that a wrong value is a usage error.</summary>
internal static class SettingOption
{
    public static Option<string[]> Create(Setting setting)
    {
        var option = new Option<string[]>($"--{setting.Name}", [.. setting.Aliases])
        {
            Description = $"{setting.Help} [{Default(setting)}]",
            HelpName = setting.Kind switch
            {
                SettingKind.Choice => string.Join('|', setting.Choices),
                SettingKind.Number => "N",
                SettingKind.Switch => "true|false",
                _ => "TEXT",
            },
            Arity = setting.Kind == SettingKind.Switch ? ArgumentArity.ZeroOrMore : ArgumentArity.OneOrMore,
            AllowMultipleArgumentsPerToken = false,
        };
        if (setting.Choices.Count > 0)
        {
            option.CompletionSources.Add([.. setting.Choices]);
        }

        option.Validators.Add(result =>
        {
            try
            {
                _ = setting.Set(TrainingSettings.Defaults, Join(setting, result.Tokens.Select(t => t.Value)));
            }
            catch (UserErrorException error)
            {
                result.AddError("--" + error.Message);
            }
        });
        return option;
    }

    /// <summary>The flag's text; a bare switch means true, a repeated flag a list.</summary>
    public static string Value(ParseResult parsed, Setting setting, Option<string[]> option) => Join(setting, parsed.GetValue(option) ?? []);

    private static string Join(Setting setting, IEnumerable<string> values) =>
        string.Join(',', values) is { Length: 0 } && setting.Kind == SettingKind.Switch ? "true" : string.Join(',', values);

    private static string Default(Setting setting) => setting.Get(TrainingSettings.Defaults) is { Length: > 0 } value ? value : "none";
}
