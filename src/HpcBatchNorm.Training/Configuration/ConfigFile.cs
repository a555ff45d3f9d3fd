using System.Text;
using HpcBatchNorm.Interop;
using YamlDotNet.Core;
using YamlDotNet.Core.Events;

namespace HpcBatchNorm.Training;

/// <summary>One <c>name: value</c> line of a configuration file, and where it stands.</summary>
internal readonly record struct ConfigEntry(string Name, string Value, string Where);

/// <summary>
/// Reads and writes configuration: a flat YAML mapping of setting names to values. YAML's own parser is used event by event,
/// without reflection, so that ahead-of-time compilation keeps it whole.
/// </summary>
internal static class ConfigFile
{
    public static IReadOnlyList<ConfigEntry> Read(string path)
    {
        try
        {
            using var reader = new StreamReader(RegularFile.OpenRead(path));
            return Parse(reader, path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"The configuration '{path}' cannot be read: {error.Message}", error);
        }
    }

    public static IReadOnlyList<ConfigEntry> Parse(TextReader reader, string source)
    {
        try
        {
            return ParseMapping(new Parser(reader), source);
        }
        catch (YamlException error)
        {
            throw new UserErrorException(FormattableString.Invariant($"{source}:{error.Start.Line}: not valid YAML: {error.Message.ReplaceLineEndings(" ")}"), error);
        }
        catch (Exception error) when (error is InvalidOperationException or ArgumentException or OverflowException)
        {
            // YamlDotNet's own words for some endings in the middle of something and for characters that do not exist.
            throw new UserErrorException($"{source}: not valid YAML: {error.Message.ReplaceLineEndings(" ")}", error);
        }
    }

    /// <summary>
    /// The configuration as YAML, one setting a line, which <see cref="Read"/> reads back to the same values. The output folder is left out:
    /// running a configuration again makes a new run.
    /// </summary>
    public static string Write(RunConfig config, IEnumerable<string> head)
    {
        var text = new StringBuilder();
        foreach (string line in head)
        {
            text.Append("# ").Append(line).Append('\n');
        }

        foreach (IGrouping<SettingGroup, Setting> group in TrainingSettings.All.Where(s => s.InFiles).GroupBy(s => s.Group))
        {
            text.Append("\n# ").Append(group.Key.ToString().ToLowerInvariant()).Append('\n');
            foreach (Setting setting in group)
            {
                text.Append(setting.Name).Append(": ").Append(Quote(setting.Get(config))).Append('\n');
            }
        }

        return text.ToString();
    }

    private static List<ConfigEntry> ParseMapping(Parser parser, string source)
    {
        var entries = new List<ConfigEntry>();
        var names = new HashSet<string>(StringComparer.Ordinal);
        parser.Consume<StreamStart>();
        if (!parser.TryConsume<DocumentStart>(out _))
        {
            return entries;
        }

        if (!parser.TryConsume<MappingStart>(out _))
        {
            // A file of comments only holds one empty scalar.
            return parser.Accept<Scalar>(out Scalar? only) && only.Value.Length == 0
                ? entries
                : throw new UserErrorException(FormattableString.Invariant($"{source}:{parser.Current!.Start.Line}: expected 'name: value' lines."));
        }

        while (!parser.TryConsume<MappingEnd>(out _))
        {
            Scalar key = parser.Consume<Scalar>();
            string where = FormattableString.Invariant($"{source}:{key.Start.Line}");
            if (!names.Add(key.Value))
            {
                throw new UserErrorException($"{where}: '{UserErrorException.Excerpt(key.Value)}' is set twice.");
            }

            entries.Add(new ConfigEntry(key.Value, ParseValue(parser, key.Value, where), where));
        }

        return entries;
    }

    private static string ParseValue(Parser parser, string name, string where)
    {
        if (parser.TryConsume<Scalar>(out Scalar? value))
        {
            return value.Value is "~" or "null" && value.Style == ScalarStyle.Plain ? "" : value.Value;
        }

        if (parser.TryConsume<SequenceStart>(out _))
        {
            var items = new List<string>();
            while (!parser.TryConsume<SequenceEnd>(out _))
            {
                items.Add(parser.Consume<Scalar>().Value);
            }

            return string.Join(',', items);
        }

        throw new UserErrorException($"{where}: '{UserErrorException.Excerpt(name)}' must be a single value; sections are not used here.");
    }

    private static string Quote(string value) =>
        value.Length > 0 && value.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '.' or '/' or '_' or '+') && !value.StartsWith('-')
            ? value
            : "\"" + value.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal) + "\"";
}
