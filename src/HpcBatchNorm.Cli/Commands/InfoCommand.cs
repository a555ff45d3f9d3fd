using System.CommandLine;
using System.Runtime.InteropServices;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn info</c>.</summary>
internal static class InfoCommand
{
    public static Command Create()
    {
        var command = new Command("info", "What was found on this machine: versions, processor, backends, and why one cannot be used");
        command.SetAction(parsed =>
        {
            TextWriter output = parsed.InvocationConfiguration.Output;
            output.WriteLine($"hpcbn      {typeof(Trainer).Assembly.GetName().Version?.ToString(3)}");
            output.WriteLine($"runtime    {RuntimeInformation.FrameworkDescription} on {RuntimeInformation.OSDescription} ({RuntimeInformation.RuntimeIdentifier})");
            output.WriteLine(FormattableString.Invariant($"processor  {MachineProcessor.Name()}, {Environment.ProcessorCount} cores"));
            foreach (BackendProbe probe in Backend.Probe())
            {
                output.WriteLine($"{probe.Name,-10} {(probe.Available ? "available" : "not available")}");
                if (probe is { Name: "onednn", Available: true })
                {
                    // Not only what is installed, but what oneDNN and our own kernels use of the processor, and the team that a run would get.
                    using Backend backend = Backend.Create(probe.Name);
                    output.WriteLine($"           {backend.Description}: {backend.ThreadsReason}");
                    backend.Supports(Precision.Bf16, out string note);
                    output.WriteLine($"           bf16: {(note.Length > 0 ? note : "the processor multiplies it, in half the memory and faster than fp32.")}");
                }

                foreach (string line in probe.Report.Split('\n', StringSplitOptions.RemoveEmptyEntries))
                {
                    output.WriteLine($"           {line.TrimEnd()}");
                }
            }

            (bool several, string report) = Communicator.Probe();
            output.WriteLine($"{"mpi",-10} {(several ? "available" : "not available: training runs in one process")}");
            foreach (string line in report.Split('\n', StringSplitOptions.RemoveEmptyEntries))
            {
                output.WriteLine($"           {line.TrimEnd()}");
            }

            return ExitCode.Done;
        });
        return command;
    }
}
