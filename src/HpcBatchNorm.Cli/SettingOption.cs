using System.CommandLine;
using System.CommandLine.Parsing;
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
                foreach (string value in result.Tokens.Select(t => t.Value))
                {
                    _ = setting.Set(TrainingSettings.Defaults, value);
                }
            }
            catch (UserErrorException error)
            {
                result.AddError("--" + error.Message);
            }
        });
        return option;
    }

    /// <summary>The flag's text: of several the last, so that a line can be repeated with something added. A bare switch means true.</summary>
    public static string Value(ParseResult parsed, Setting setting, Option<string[]> option)
    {
        string last = (parsed.GetValue(option) ?? []).LastOrDefault("");
        if (setting.Kind != SettingKind.Switch)
        {
            return last;
        }

        // The last of several may be the bare one, which leaves no value behind.
        Token[] tokens = [.. parsed.Tokens];
        int at = Array.FindLastIndex(tokens, t => t.Type == TokenType.Option && (t.Value == option.Name || option.Aliases.Contains(t.Value)));
        return last.Length > 0 && at >= 0 && at + 1 < tokens.Length && tokens[at + 1].Type == TokenType.Argument ? last : "true";
    }

    private static string Default(Setting setting) => setting.Get(TrainingSettings.Defaults) is { Length: > 0 } value ? value : "none";
}
