using System.Diagnostics;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Cli;

/// <summary>
/// The signals by which people and queues end a run: each asks it to save and stop. Queues, <c>timeout</c> and batch scripts send theirs several times, so
/// only a second Ctrl-C ends the process at once. A signal that the process was started to ignore (<c>nohup</c>) stays ignored.
/// </summary>
internal sealed class StopSignals : IDisposable
{
    /// <summary>Two Ctrl-Cs closer together than this are one: a process group gets the same one from its terminal and from a script.</summary>
    private static readonly TimeSpan SamePress = TimeSpan.FromSeconds(0.5);

    // The runtime passes on the numbers of signals that it has no name for.
    private static readonly (PosixSignal Signal, int Number, string Name)[] Handled =
    [
        (PosixSignal.SIGINT, 2, "Ctrl-C"),
        (PosixSignal.SIGTERM, 15, "SIGTERM"),
        (PosixSignal.SIGHUP, 1, "SIGHUP (the terminal has gone)"),
        .. OperatingSystem.IsLinux() ? [((PosixSignal)10, 10, "SIGUSR1"), ((PosixSignal)12, 12, "SIGUSR2"), ((PosixSignal)24, 24, "SIGXCPU (the limit of processor time)")] : Array.Empty<(PosixSignal, int, string)>(),
    ];

    private readonly CancellationTokenSource _stop = new();
    private readonly PosixSignalRegistration[] _registrations;
    private readonly TextWriter _output;
    private readonly ManualResetEventSlim _ended = new();
    private long _interrupted;

    /// <summary>Begins to listen.</summary>
    /// <param name="output">Told what came; a display, whose failures harm nobody.</param>
    public StopSignals(DisplayWriter output)
    {
        _output = output;
        _registrations = [.. Handled.Select(h => PosixSignalRegistration.Create(h.Signal, Handle))];
    }

    public CancellationToken Token => _stop.Token;

    /// <summary>128 plus the number of the signal that came first.</summary>
    public int ExitCode { get; private set; } = Cli.ExitCode.Interrupted;

    public void Dispose()
    {
        _ended.Set();
        foreach (PosixSignalRegistration registration in _registrations)
        {
            registration.Dispose();
        }

        _stop.Dispose();
    }

    private void Handle(PosixSignalContext context)
    {
        (PosixSignal signal, int number, string name) = Handled.First(h => h.Signal == context.Signal);
        if (signal == PosixSignal.SIGINT)
        {
            long before = Interlocked.CompareExchange(ref _interrupted, Stopwatch.GetTimestamp(), 0);
            if (before != 0 && Stopwatch.GetElapsedTime(before) > SamePress)
            {
                // Not cancelled: the system's default action ends the process.
                return;
            }
        }

        context.Cancel = true;
        if (_stop.IsCancellationRequested)
        {
            return;
        }

        ExitCode = Cli.ExitCode.Signal + number;
        try
        {
            _stop.Cancel();
        }
        catch (ObjectDisposedException)
        {
            // The run has ended meanwhile, and its own exit code is the one to give.
            return;
        }

        // Last: saving must not depend on whether anybody can still read this.
        _output.WriteLine();
        _output.WriteLine($"{name}: saving a checkpoint and stopping; Ctrl-C {(signal == PosixSignal.SIGINT ? "once more" : "twice")} to stop at once without saving.");
        if (OperatingSystem.IsWindows() && signal != PosixSignal.SIGINT)
        {
            // A closed window and a shutdown cannot be called off there: the process ends as soon as this returns, or some seconds after it was asked.
            _ended.Wait(TimeSpan.FromMinutes(1));
        }
    }
}
