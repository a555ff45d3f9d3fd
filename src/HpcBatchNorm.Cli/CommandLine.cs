using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;
using HpcBatchNorm.Cli.Commands;

namespace HpcBatchNorm.Cli;

/// <summary>The command: parses, runs, and turns everything that can go wrong into one line and an exit code.</summary>
internal static class CommandLine
{
    public static int Run(IReadOnlyList<string> args, TextWriter standardOutput, TextWriter standardError)
    {
        DisplayWriter output = new(standardOutput), error = new(standardError);
        Option<string[]> assemblies = UserAssemblies.CreateOption();
        RootCommand root = CreateRoot(assemblies);
        if (CompletionCommand.TryAnswer(root, args, output))
        {
            return ExitCode.Done;
        }

        ParseResult parsed = root.Parse(args.Count == 0 ? ["--help"] : args);
        if (parsed.Errors.Count > 0)
        {
            error.WriteLine($"error: {FirstError(parsed).TrimEnd('.')}; see 'hpcbn {CommandPath(parsed)}--help'");
            return ExitCode.Usage;
        }

        try
        {
            UserAssemblies.Load(parsed.GetValue(assemblies) ?? []);

            // Signals belong to the training command, which saves before it stops; exceptions are ours to word.
            int code = parsed.Invoke(new InvocationConfiguration
            {
                Output = output,
                Error = error,
                EnableDefaultExceptionHandler = false,
                ProcessTerminationTimeout = null,
            });
            return output.Failure is { } failure ? Unwritten(failure, code, parsed.CommandResult.Command.Name, error) : code;
        }
        catch (Exception exception) when (IsExpected(exception))
        {
            error.WriteLine($"error: {exception.Message.ReplaceLineEndings(" ")}");
            return ExitCode.Failed;
        }
        catch (Exception exception)
        {
            error.WriteLine($"error: {exception.GetType().Name}: {exception.Message.ReplaceLineEndings(" ")} (this is a bug; HBN_TRACE=1 shows where)");
            if (Environment.GetEnvironmentVariable("HBN_TRACE") == "1")
            {
                error.WriteLine(exception);
            }

            return ExitCode.Failed;
        }
    }

    /// <summary>What these commands make is in files; what they print while they work is for looking at. Of the others the output is all there is.</summary>
    private static int Unwritten(Exception failure, int code, string command, TextWriter error)
    {
        bool display = command is "train" or "experiment";
        error.WriteLine($"{(display ? "note" : "error")}: standard output could not be written: {failure.Message.ReplaceLineEndings(" ")}{(display ? " The run itself is not affected." : "")}");
        return display || code != ExitCode.Done ? code : ExitCode.Failed;
    }

    /// <summary>All commands, and what stands in the help of them all.</summary>
    internal static RootCommand CreateRoot(Option<string[]> assemblies)
    {
        var root = new RootCommand("BN-Inception (Ioffe and Szegedy, 2015) on ImageNet: training, evaluation and verification of batch-normalized networks.")
        {
            TrainCommand.Create(),
            EvalCommand.Create(),
            RecalibrateCommand.Create(),
            VerifyCommand.Create(),
            BenchCommand.Create(),
            ExperimentCommand.Create(),
            ExportCommand.Create(),
            ImportCommand.Create(),
            InspectCommand.Create(),
            DashboardCommand.Create(),
            DataCommand.Create(),
            PackCommand.Create(),
            SampleCommand.Create(),
            InfoCommand.Create(),
            CompletionCommand.Create(),
        };
        root.Options.Add(assemblies);
        AddExamples(root,
            "hpcbn train                                        a first run of two minutes on generated images",
            "hpcbn train --data /data/imagenet --recipe bn-x5   the paper's BN-x5 on ImageNet's own archives",
            "hpcbn eval --checkpoint runs/X/checkpoints/step-00000640.safetensors --data /data/imagenet");
        return root;
    }

    /// <summary>Appends examples to a command's help.</summary>
    public static void AddExamples(Command command, params string[] examples)
    {
        HelpOption? help = command.Options.OfType<HelpOption>().FirstOrDefault();
        if (help is null)
        {
            help = new HelpOption();
            command.Options.Add(help);
        }

        help.Action = new HelpWithExamples((SynchronousCommandLineAction)help.Action!, examples);
    }

    /// <summary>The examples of a command's help.</summary>
    internal static IReadOnlyList<string> Examples(Command command) =>
        command.Options.OfType<HelpOption>().Select(h => h.Action).OfType<HelpWithExamples>().FirstOrDefault()?.Examples ?? [];

    private static bool IsExpected(Exception exception) =>
        exception is UserErrorException or ArgumentException or NotSupportedException or IOException or UnauthorizedAccessException
            or OutOfMemoryException or DllNotFoundException;

    private static string CommandPath(ParseResult parsed)
    {
        string path = "";
        for (CommandResult? at = parsed.CommandResult; at is not null && at.Command is not RootCommand; at = at.Parent as CommandResult)
        {
            path = $"{at.Command.Name} {path}";
        }

        return path;
    }

    private static string FirstError(ParseResult parsed)
    {
        Command command = parsed.CommandResult.Command;
        string? unknown = parsed.UnmatchedTokens.Count > 0 ? parsed.UnmatchedTokens[0] : null;
        if (unknown is null)
        {
            return command.Subcommands.Count > 0
                ? $"a command is missing, one of {string.Join(", ", command.Subcommands.Select(c => c.Name))}"
                : parsed.Errors[0].Message.ReplaceLineEndings(" ");
        }

        string name = unknown.Split('=')[0];
        IEnumerable<string> known = name.StartsWith('-')
            ? command.Options.SelectMany(o => o.Aliases.Prepend(o.Name))
            : command.Subcommands.Select(c => c.Name);
        string kind = name.StartsWith('-') ? "option" : command.Subcommands.Count > 0 ? "command" : "argument";
        return $"unknown {kind} '{name}'{NearestName.Hint(name, known)}";
    }

    private sealed class HelpWithExamples(SynchronousCommandLineAction help, string[] examples) : SynchronousCommandLineAction
    {
        public IReadOnlyList<string> Examples { get; } = examples;

        /// <summary>Who asks for help need not give what the command requires.</summary>
        public override bool ClearsParseErrors => true;

        public override int Invoke(ParseResult parseResult)
        {
            int code = help.Invoke(parseResult);
            TextWriter output = parseResult.InvocationConfiguration.Output;
            output.WriteLine("Examples:");
            foreach (string example in Examples)
            {
                output.WriteLine($"  {example}");
            }

            output.WriteLine();
            return code;
        }
    }
}
