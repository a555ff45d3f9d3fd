using System.CommandLine;
using System.Text.Json;

namespace HpcBatchNorm.Cli;

/// <summary>
/// <c>--result FILE|-</c>: one JSON object about what a command did. With <c>-</c> it is the only thing on standard output;
/// what people read goes to standard error.
/// </summary>
internal static class ResultFile
{
    public const string StandardOutput = "-";

    public static Option<string> CreateOption() =>
        CheckedFirst(new Option<string>("--result") { HelpName = "FILE|-", Description = "Write the result as one JSON object to a file, or to standard output" });

    /// <summary>Makes a file that cannot be written an error of the command line: said before the work, not after it.</summary>
    public static Option<string> CheckedFirst(Option<string> option)
    {
        option.Validators.Add(r =>
        {
            if (r.Tokens is not [.., { Value: not StandardOutput } token])
            {
                return;
            }

            try
            {
                OutputFile.Check(token.Value);
            }
            catch (UserErrorException error)
            {
                r.AddError($"{option.Name}: {error.Message}");
            }
        });
        return option;
    }

    /// <summary>Where text for people goes.</summary>
    public static DisplayWriter HumanOutput(ParseResult parsed, Option<string> option) =>
        (DisplayWriter)(parsed.GetValue(option) == StandardOutput ? parsed.InvocationConfiguration.Error : parsed.InvocationConfiguration.Output);

    /// <summary>Writes the object; does nothing when no result was asked for.</summary>
    public static void Write(ParseResult parsed, Option<string> option, Action<Utf8JsonWriter> fields)
    {
        string? target = parsed.GetValue(option);
        if (target is null)
        {
            return;
        }

        using var stream = new MemoryStream();
        using (var json = new Utf8JsonWriter(stream))
        {
            json.WriteStartObject();
            fields(json);
            json.WriteEndObject();
        }

        string text = System.Text.Encoding.UTF8.GetString(stream.ToArray());
        if (target == StandardOutput)
        {
            // A result is no display: what cannot be written is an error.
            DisplayWriter.Unwrap(parsed.InvocationConfiguration.Output).WriteLine(text);
        }
        else
        {
            OutputFile.WriteText(target, text + "\n");
        }
    }

    /// <summary>A number, or null where JSON has no number for it.</summary>
    public static void WriteFinite(this Utf8JsonWriter json, string name, double? value)
    {
        if (value is double number && double.IsFinite(number))
        {
            json.WriteNumber(name, number);
        }
        else
        {
            json.WriteNull(name);
        }
    }
}
