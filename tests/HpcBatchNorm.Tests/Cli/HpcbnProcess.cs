using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace HpcBatchNorm.Tests.Cli;

/// <summary>The command as a process of its own: signals, kills, locales and exit codes are only real there.</summary>
internal sealed class HpcbnProcess : IDisposable
{
    private readonly Process _process;
    private readonly StringBuilder _output = new();

    private HpcbnProcess(Process process)
    {
        _process = process;
        process.OutputDataReceived += Append;
        process.ErrorDataReceived += Append;
        process.Start();
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    /// <summary>What starts the command.</summary>
    public static string[] Command { get; } = ["dotnet", Path.Combine(AppContext.BaseDirectory, "hpcbn.dll")];

    /// <summary>Standard output and standard error so far.</summary>
    public string Output
    {
        get
        {
            lock (_output)
            {
                return _output.ToString();
            }
        }
    }

    public static HpcbnProcess Start(string workingDirectory, IReadOnlyList<string> args, params (string Name, string Value)[] environment) =>
        Start(workingDirectory, "exec \"$@\"", args, environment);

    /// <summary>Starts a line of a shell's in which <c>"$@"</c> is the command, or what <paramref name="args"/> say where they begin with a shell of their own.</summary>
    public static HpcbnProcess Start(string workingDirectory, string shell, IReadOnlyList<string> args, params (string Name, string Value)[] environment)
    {
        var start = new ProcessStartInfo("/bin/sh", ["-c", shell, "sh", .. args is ["sh", ..] ? [] : Command, .. args])
        {
            WorkingDirectory = workingDirectory,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach ((string name, string value) in environment)
        {
            start.Environment[name] = value;
        }

        return new HpcbnProcess(new Process { StartInfo = start });
    }

    /// <summary>Waits until the output holds a text; fails when the process ends before.</summary>
    public async Task WaitForAsync(string text, CancellationToken cancellationToken)
    {
        while (!Output.Contains(text, StringComparison.Ordinal))
        {
            Assert.False(_process.HasExited && !Output.Contains(text, StringComparison.Ordinal), $"ended before '{text}':\n{Output}");
            await Task.Delay(20, cancellationToken);
        }
    }

    /// <summary>Waits until the process has ended; fails, with what it printed, when it has not within ten minutes (a test must not wait for ever).</summary>
    public async Task<int> WaitForExitAsync(CancellationToken cancellationToken)
    {
        using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(TimeSpan.FromMinutes(10));
        try
        {
            await _process.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            Assert.Fail($"has not ended after ten minutes:\n{Output}");
        }

        return _process.ExitCode;
    }

    /// <summary>Sends a signal by name: <c>INT</c>, <c>TERM</c>, <c>KILL</c>.</summary>
    public void Signal(string name) => SignalTimes(name, 1);

    /// <summary>Sends a signal again and again within a few milliseconds, as process groups and scripts that forward signals do.</summary>
    public void SignalTimes(string name, int times)
    {
        Assert.SkipWhen(
            name == "INT" && IgnoresInterrupts(),
            "these tests were started with SIGINT ignored, as shells do for what they put into the background, and their children inherit that");
        Run(string.Join("; sleep 0.01; ", Enumerable.Repeat($"kill -s {name} {_process.Id}", times)));
    }

    private static void Run(string line)
    {
        using Process shell = Process.Start("/bin/sh", ["-c", line]);
        shell.WaitForExit();
    }

    /// <summary>Skips the calling test where these tests were started with SIGHUP ignored, by nohup or the like: their children inherit that.</summary>
    public static void SkipWhereHangUpsAreIgnored()
    {
        const int HangUp = 1;
        Assert.SkipWhen(Ignores(Environment.ProcessId, HangUp), "these tests were started with SIGHUP ignored, as nohup does, and their children inherit that");
    }

    private bool IgnoresInterrupts()
    {
        const int Interrupt = 2;
        return Ignores(_process.Id, Interrupt);
    }

    private static bool Ignores(int process, int signal)
    {
        string mask = File.ReadLines($"/proc/{process}/status").Single(line => line.StartsWith("SigIgn:", StringComparison.Ordinal))["SigIgn:".Length..];
        return (ulong.Parse(mask, NumberStyles.HexNumber | NumberStyles.AllowLeadingWhite, CultureInfo.InvariantCulture) >> (signal - 1) & 1) != 0;
    }

    public void Dispose()
    {
        if (!_process.HasExited)
        {
            _process.Kill(entireProcessTree: true);
        }

        _process.Dispose();
    }

    private void Append(object sender, DataReceivedEventArgs line)
    {
        lock (_output)
        {
            _output.AppendLine(line.Data);
        }
    }
}
