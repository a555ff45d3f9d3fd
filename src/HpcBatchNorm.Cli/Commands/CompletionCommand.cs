using System.CommandLine;
using System.CommandLine.Completions;
using System.Globalization;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn completion</c>: a script that has a shell complete commands, options and their values as the command itself knows them.</summary>
internal static class CompletionCommand
{
    private const string Request = "[suggest:";

    private const string Bash = """
        # Completion of hpcbn for bash. In ~/.bashrc: eval "$(hpcbn completion bash)"
        _hpcbn() {
            local line="${COMP_LINE:0:COMP_POINT}" word="${COMP_WORDS[COMP_CWORD]}" IFS=$'\n'
            line="${line#* }"
            COMPREPLY=($(compgen -W "$(hpcbn "[suggest:${#line}]" "$line" 2>/dev/null)" -- "$word"))
        }
        complete -o default -F _hpcbn hpcbn
        """;

    private const string Zsh = """
        #compdef hpcbn
        # Completion of hpcbn for zsh. In ~/.zshrc, after compinit: eval "$(hpcbn completion zsh)"
        _hpcbn() {
            local line="${${BUFFER[1,CURSOR]}#* }"
            local -a found
            found=(${(f)"$(hpcbn "[suggest:${#line}]" "$line" 2>/dev/null)"})
            if (( $#found )); then compadd -- $found; else _files; fi
        }
        compdef _hpcbn hpcbn
        """;

    private const string Fish = """
        # Completion of hpcbn for fish. In ~/.config/fish/config.fish: hpcbn completion fish | source
        function __hpcbn_complete
            set -l line (string replace -r '^\S+\s?' '' -- (commandline -cp))
            hpcbn "[suggest:"(string length -- "$line")"]" "$line" 2>/dev/null
        end
        complete -c hpcbn -a '(__hpcbn_complete)'
        """;

    public static Command Create()
    {
        var shell = new Argument<string>("shell") { Description = "bash, zsh or fish" };
        shell.AcceptOnlyFromAmong("bash", "zsh", "fish");
        var command = new Command("completion", "Print a script that completes commands, options and values in a shell") { shell };
        CommandLine.AddExamples(command,
            "eval \"$(hpcbn completion bash)\"          in ~/.bashrc",
            "eval \"$(hpcbn completion zsh)\"           in ~/.zshrc, after compinit",
            "hpcbn completion fish | source             in ~/.config/fish/config.fish");
        command.SetAction(parsed => parsed.InvocationConfiguration.Output.WriteLine(parsed.GetValue(shell) switch { "zsh" => Zsh, "fish" => Fish, _ => Bash }));
        return command;
    }

    /// <summary>Answers what those scripts ask: two arguments, <c>[suggest:N]</c> and a command line without the command's name, of which N characters stand before the cursor.</summary>
    /// <returns>False for anything else.</returns>
    public static bool TryAnswer(RootCommand root, IReadOnlyList<string> args, TextWriter output)
    {
        if (args.Count != 2 || !args[0].StartsWith(Request, StringComparison.Ordinal) || !args[0].EndsWith(']')
            || !int.TryParse(args[0].AsSpan(Request.Length, args[0].Length - Request.Length - 1), NumberStyles.None, CultureInfo.InvariantCulture, out int position))
        {
            return false;
        }

        string line = args[1][..Math.Min(position, args[1].Length)];
        foreach (CompletionItem item in root.Parse(line).GetCompletions(line.Length).DistinctBy(i => i.Label).Where(i => i.Label is not ("/?" or "/h"))) // Windows' ways to ask for help
        {
            output.WriteLine(item.Label);
        }

        return true;
    }
}
