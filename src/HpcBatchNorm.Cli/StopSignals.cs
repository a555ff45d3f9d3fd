using System.Runtime.InteropServices;

namespace HpcBatchNorm.Cli;

/// <summary>
/// Ctrl-C and SIGTERM: the first asks the run to save and stop, the second ends the process at once, as if nobody listened.
/// </summary>
internal sealed class StopSignals : IDisposable
{
    private readonly CancellationTokenSource _stop = new();
    private readonly PosixSignalRegistration[] _registrations;
    private readonly TextWriter _output;

    public StopSignals(TextWriter output)
    {
        _output = output;
        _registrations = [PosixSignalRegistration.Create(PosixSignal.SIGINT, Handle), PosixSignalRegistration.Create(PosixSignal.SIGTERM, Handle)];
    }

    public CancellationToken Token => _stop.Token;

    /// <summary>128 plus the number of the signal that came first.</summary>
    public int ExitCode { get; private set; } = Cli.ExitCode.Interrupted;

    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations)
        {
            registration.Dispose();
        }

        _stop.Dispose();
    }

    private void Handle(PosixSignalContext context)
    {
        if (_stop.IsCancellationRequested)
        {
            // Not cancelled: the system's default action ends the process.
            return;
        }

        context.Cancel = true;
        ExitCode = context.Signal == PosixSignal.SIGTERM ? Cli.ExitCode.Terminated : Cli.ExitCode.Interrupted;
        _output.WriteLine();
        _output.WriteLine("Saving a checkpoint and stopping; once more to stop at once without saving.");
        _stop.Cancel();
    }
}
