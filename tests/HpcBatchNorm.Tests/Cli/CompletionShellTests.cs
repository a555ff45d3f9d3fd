using System.Diagnostics;

namespace HpcBatchNorm.Tests.Cli;

/// <summary>The completion scripts in the shells they are for, where these are installed.</summary>
public sealed class CompletionShellTests
{
    // Each is a program for its shell that reads the script, asks for the completions of two lines as the shell's key would, and prints them.
    private const string Bash = """
        program=$1
        hpcbn() { dotnet "$program" "$@"; }
        eval "$(hpcbn completion bash)"
        for line in 'hpcbn tra' 'hpcbn train --optimizer '; do
            COMP_LINE=$line COMP_POINT=${#line}
            COMP_WORDS=($line) && [[ $line != *' ' ]] || COMP_WORDS+=('')
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _hpcbn && echo "${COMPREPLY[@]}"
        done
        """;

    // Outside its line editor zsh has no compadd: what the function would hand it is printed.
    private const string Zsh = """
        program=$1
        hpcbn() { dotnet "$program" "$@" }
        compdef() { : }
        _files() { echo files }
        compadd() { shift; echo "$@" }
        eval "$(hpcbn completion zsh)"
        for BUFFER in 'hpcbn tra' 'hpcbn train --optimizer '; do
            CURSOR=$#BUFFER
            _hpcbn
        done
        """;

    private const string Fish = """
        set program $argv[1]
        function hpcbn; dotnet $program $argv; end
        hpcbn completion fish | source
        for line in 'hpcbn tra' 'hpcbn train --optimizer '
            complete -C $line | string collect | string split \n | string match -r '^(?:train|adamw|lamb|sgd)$' | string join ' '
        end
        """;

    [Theory]
    [InlineData("bash", Bash)]
    [InlineData("zsh", Zsh)]
    [InlineData("fish", Fish)]
    public async Task Script_InItsShell_Completes(string shell, string program)
    {
        Assert.SkipUnless(Environment.GetEnvironmentVariable("PATH")!.Split(':').Any(p => File.Exists(Path.Combine(p, shell))), $"{shell} is not installed");
        string file = Path.GetTempFileName();
        try
        {
            await File.WriteAllTextAsync(file, program, TestContext.Current.CancellationToken);
            using var process = Process.Start(new ProcessStartInfo(shell, [file, HpcbnProcess.Command[1]]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
            Task<string> errors = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
            string output = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
            Assert.True(output == "train\nadamw lamb sgd\n", $"{shell} offers '{output}'; {await errors}");
        }
        finally
        {
            File.Delete(file);
        }
    }
}
