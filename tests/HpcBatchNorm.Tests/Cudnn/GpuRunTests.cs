using System.Diagnostics;
using System.Text.Json;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Cudnn;

/// <summary>The scripts that run on a GPU machine, with stand-ins for what they start: what they leave behind when something takes too long or fails.</summary>
public sealed class GpuRunTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hbn-gpu-run").FullName;

    [Fact]
    public async Task Run_LeavesATableAndOneArchive()
    {
        Script("hpcbn", "echo \"cudnn      available\"; echo \"last line of $1\"");
        (int exit, string output) = await RunAsync("results", ["verify", "loader"]);

        Assert.True(exit == 0, output);
        Assert.Equal(["table.txt", "verify-loader.tar.gz"], Results());
        string table = File.ReadAllText(Path.Combine(_folder, "results", "table.txt"));
        Assert.Equal(6, table.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.Contains("last line of verify", table, StringComparison.Ordinal);
        Assert.Contains("no data set: set HBN_DATA", table, StringComparison.Ordinal);
        (_, string archive) = await ProcessAsync("tar", ["tzf", Path.Combine(_folder, "results", "verify-loader.tar.gz")]);
        Assert.Contains("verify-loader/verify-bf16.log", archive, StringComparison.Ordinal);
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task Run_WhoseTimeIsUp_KeepsItsRowsAndNamesTheRest()
    {
        // The call has 22 - 15 seconds; the first verification never ends by itself, and less than 5 are left for the others.
        Script("hpcbn", "echo \"cudnn      available\"; [ \"$1\" = info ] || exec sleep 300");
        (int exit, string output) = await RunAsync("results", ["verify"], ("HBN_SECONDS", "22"));

        Assert.True(exit == 1, output);
        string[] rows = File.ReadAllLines(Path.Combine(_folder, "results", "table.txt"));
        Assert.Equal(5, rows.Length);
        Assert.Contains("rc 124", rows[1], StringComparison.Ordinal);
        Assert.All(rows[2..], r => Assert.Contains("the call's time is up; another call: run.sh RESULTS verify", r, StringComparison.Ordinal));
        Assert.Equal(["table.txt", "verify.tar.gz"], Results());
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task PyTorch_OneMeasurementThatNeverEnds_LosesNoOther()
    {
        // A module named torch, imported by the process of each measurement and by no other: it answers, or sleeps, or fails.
        File.WriteAllText(Path.Combine(_folder, "torch.py"), """
            import json, sys, time
            mode = sys.argv[sys.argv.index("--mode") + 1]
            if mode == "reduce-overhead":
                time.sleep(300)
            if mode == "max-autotune":
                sys.exit("no such mode")
            print(json.dumps({"mode": mode, "batch": int(sys.argv[sys.argv.index("--batch") + 1]), "step_ms": 1}), flush=True)
            sys.exit(0)
            """);
        (int exit, string output) = await ProcessAsync("python3",
            [RepoPaths.InRepo("bench", "peers", "bn_inception_pytorch.py"), "--batch", "32", "256", "--limit", "4"], ("PYTHONPATH", _folder));

        Assert.True(exit == 1, output);
        JsonElement[] lines = [.. output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => JsonDocument.Parse(l).RootElement)];
        Assert.Equal(["eager 32", "eager 256", "reduce-overhead 32", "reduce-overhead 256", "max-autotune 32", "max-autotune 256"],
            lines.Select(l => $"{l.GetProperty("mode").GetString()} {l.GetProperty("batch").GetInt32()}"));
        Assert.All(lines[..2], l => Assert.Equal(1, l.GetProperty("step_ms").GetInt32()));
        Assert.All(lines[2..4], l => Assert.Contains("no result within", l.GetProperty("error").GetString(), StringComparison.Ordinal));
        Assert.All(lines[4..], l => Assert.Contains("no such mode", l.GetProperty("error").GetString(), StringComparison.Ordinal));
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>A program of the bundle, as a line of shell.</summary>
    private void Script(string name, string text)
    {
        string bin = Directory.CreateDirectory(Path.Combine(_folder, "bin")).FullName, file = Path.Combine(bin, name);
        File.WriteAllText(file, $"#!/bin/sh\n{text}\n");
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(file, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
    }

    private string[] Results() => [.. Directory.GetFiles(Path.Combine(_folder, "results")).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal)];

    private Task<(int Exit, string Output)> RunAsync(string results, string[] parts, params (string Name, string Value)[] environment)
    {
        File.Copy(RepoPaths.InRepo("build", "gpu-run.sh"), Path.Combine(_folder, "run.sh"), overwrite: true);
        return ProcessAsync("bash", [Path.Combine(_folder, "run.sh"), Path.Combine(_folder, results), .. parts], environment);
    }

    private static async Task<(int Exit, string Output)> ProcessAsync(string program, string[] arguments, params (string Name, string Value)[] environment)
    {
        ProcessStartInfo start = new(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment.Remove("HBN_DATA");
        foreach ((string name, string value) in environment)
        {
            start.Environment[name] = value;
        }

        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        string output = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        string error = await errors;
        return (process.ExitCode, process.ExitCode > 1 ? output + error : output);
    }
}
