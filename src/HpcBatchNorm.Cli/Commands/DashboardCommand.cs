using System.CommandLine;
using System.Runtime.InteropServices;
using HpcBatchNorm.Reporting;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn dashboard</c>.</summary>
internal static class DashboardCommand
{
    public static Command Create()
    {
        var runs = new Argument<string[]>("RUNS") { Description = $"Runs, or folders of runs; {RunDirectory.Root} unless given", Arity = ArgumentArity.ZeroOrMore };
        var port = new Option<int?>("--port")
        {
            HelpName = "N",
            Description = FormattableString.Invariant($"Port on this machine; 0: any that is free; unless given, the first free one from {Dashboard.DefaultPort} on"),
        };
        port.Validators.Add(parsed =>
        {
            if (parsed.GetValueOrDefault<int?>() is < 0 or > ushort.MaxValue)
            {
                parsed.AddError(FormattableString.Invariant($"--port: expected a number from 0 to {ushort.MaxValue}, found '{parsed.Tokens[0].Value}'"));
            }
        });
        var command = new Command("dashboard", "Show runs in the browser, live while they go on, and compare them") { runs, port };
        CommandLine.AddExamples(command,
            "hpcbn dashboard                              all runs of this folder",
            "hpcbn dashboard runs/A runs/B --port 8080    these two",
            "ssh -L 6160:localhost:6160 HOST              then its dashboard is at http://localhost:6160/ here, too");
        command.SetAction(parsed =>
        {
            string[] roots = parsed.GetValue(runs) is { Length: > 0 } named ? named : [RunDirectory.Root];
            using var dashboard = new Dashboard(roots, parsed.GetValue(port));
            using var stop = new CancellationTokenSource();
            void Stop(PosixSignalContext context)
            {
                context.Cancel = true;
                stop.Cancel();
            }

            using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop), terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
            TextWriter output = parsed.InvocationConfiguration.Output;
            output.WriteLine($"{string.Join(", ", roots)}: {dashboard.Address}   (this machine only; Ctrl-C stops)");
            output.Flush();
            dashboard.Run(stop.Token);
            return ExitCode.Done;
        });
        return command;
    }
}
