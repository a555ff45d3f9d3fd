using System.CommandLine;
using System.CommandLine.Help;
using System.Text;
using HpcBatchNorm.Cli;

namespace HpcBatchNorm.Site;

/// <summary>A page for every command, made of the parser that the command is parsed with.</summary>
internal static class CliReference
{
    private const string Group = "Command reference";

    /// <summary>The pages, in the order of the command's help.</summary>
    public static IEnumerable<SitePage> Pages() => Of(CommandLine.CreateRoot(UserAssemblies.CreateOption()), "hpcbn", root: true);

    private static IEnumerable<SitePage> Of(Command command, string path, bool root = false)
    {
        var body = new StringBuilder($"<h1 id=\"{path.Replace(' ', '-')}\"><code>{path}</code></h1>\n<p>{Text(command.Description)}</p>\n");
        if (command.Subcommands.Count > 0)
        {
            Table(body, "Commands", "command", command.Subcommands.Select(c => ($"<a href=\"{Address($"{path} {c.Name}")}\">{path} {c.Name}</a>", Text(c.Description))));
        }

        Table(body, "Arguments", "argument", command.Arguments.Select(a => ($"<code>{Text(a.Name)}</code>", Text(a.Description))));
        Table(body, "Options", "option", command.Options.Where(o => o is not (HelpOption or VersionOption)).Select(o => (Names(o), Text(o.Description) + (o.Required ? " Must be given." : ""))));
        if (CommandLine.Examples(command) is { Count: > 0 } examples)
        {
            body.Append($"<h2 id=\"examples\">Examples</h2>\n<pre><code>{string.Join('\n', examples.Select(Text))}</code></pre>\n");
        }

        yield return new SitePage($"cli/{Address(path)}", Group, path, body.ToString());
        foreach (SitePage page in command.Subcommands.SelectMany(c => Of(c, $"{path} {c.Name}")))
        {
            yield return root || page.Title.Count(c => c == ' ') == 1 ? page : page with { Group = "" };
        }
    }

    private static string Address(string path) => $"{path.Replace(' ', '-')}.html";

    private static string Names(Option option)
    {
        string value = option.HelpName is { Length: > 0 } name ? $" {name}" : "";
        return string.Join("<br>", option.Aliases.Prepend(option.Name).Distinct().Select(n => $"<code>{Text(n + value)}</code>"));
    }

    private static void Table(StringBuilder body, string heading, string first, IEnumerable<(string Name, string Text)> rows)
    {
        (string Name, string Text)[] all = [.. rows];
        if (all.Length > 0)
        {
            body.Append($"<h2 id=\"{heading.ToLowerInvariant()}\">{heading}</h2>\n<div class=\"wide\"><table><thead><tr><th>{first}</th><th>does</th></tr></thead><tbody>\n")
                .AppendJoin('\n', all.Select(r => $"<tr><td>{r.Name}</td><td>{r.Text}</td></tr>")).Append("\n</tbody></table></div>\n");
        }
    }

    private static string Text(string? text) => SitePage.Encode(text ?? "");
}
