using System.Text.Json;
using HpcBatchNorm.Cli;
using HpcBatchNorm.Tests.Training;

namespace HpcBatchNorm.Tests.Cli;

public sealed class ProcessTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    private const int Steps = 160;

    [Theory]
    [Trait("Category", "Slow")]
    [InlineData("INT", ExitCode.Interrupted)]
    [InlineData("TERM", ExitCode.Terminated)]
    [InlineData("HUP", 129)]
    [InlineData("USR1", 138)]
    [InlineData("USR2", 140)]
    [InlineData("XCPU", 152)]
    public async Task Signal_SavesACheckpointAndPrintsHowToGoOn(string signal, int expectedCode)
    {
        if (signal == "HUP")
        {
            HpcbnProcess.SkipWhereHangUpsAreIgnored();
        }

        CancellationToken token = TestContext.Current.CancellationToken;
        string output = fixture.NewFolder();
        using HpcbnProcess process = HpcbnProcess.Start(fixture.Folder, Train(output, steps: 20_000));
        await process.WaitForAsync("step 2/6", token);

        process.Signal(signal);

        Assert.Equal(expectedCode, await process.WaitForExitAsync(token));
        Assert.Contains("hpcbn train --resume", process.Output, StringComparison.Ordinal);
        Assert.NotEmpty(Directory.GetFiles(Path.Combine(output, "checkpoints"), "*.safetensors"));
    }

    [Theory]
    [Trait("Category", "Slow")]
    [InlineData("TERM", ExitCode.Terminated)]
    [InlineData("INT", ExitCode.Interrupted)]
    public async Task SameSignalSeveralTimesAtOnce_IsOne(string signal, int expectedCode)
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        string output = fixture.NewFolder();
        using HpcbnProcess process = HpcbnProcess.Start(fixture.Folder, Train(output, steps: 20_000));
        await process.WaitForAsync("step 2/6", token);

        process.SignalTimes(signal, 4);

        Assert.Equal(expectedCode, await process.WaitForExitAsync(token));
        AssertEnded(output, "interrupted");
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task HangUp_UnderNohup_IsIgnored()
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        string output = fixture.NewFolder();
        using HpcbnProcess process = HpcbnProcess.Start(fixture.Folder, "trap '' HUP; exec \"$@\"", Train(output, steps: 60));
        await process.WaitForAsync("step 2/6", token);

        process.SignalTimes("HUP", 2);

        Assert.Equal(ExitCode.Done, await process.WaitForExitAsync(token));
        AssertEnded(output, "completed");
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task TerminalClosed_SavesACheckpoint()
    {
        Assert.SkipUnless(File.Exists("/usr/bin/script"), "needs script (bsdutils), which makes a terminal");
        HpcbnProcess.SkipWhereHangUpsAreIgnored();
        CancellationToken token = TestContext.Current.CancellationToken;
        string output = fixture.NewFolder(), metrics = Path.Combine(output, "metrics.jsonl");
        using HpcbnProcess terminal = HpcbnProcess.Start(fixture.Folder, "exec script -qfc \"exec $*\" /dev/null </dev/null", Train(output, steps: 3000));
        await UntilAsync(() => File.Exists(metrics) && File.ReadAllText(metrics).Contains("\"step\":4,", StringComparison.Ordinal), token);

        // The program that holds the other end of the terminal is gone from one moment to the next.
        terminal.Signal("KILL");
        await terminal.WaitForExitAsync(token);
        await UntilAsync(() => File.ReadAllText(metrics).Contains("\"type\":\"end\"", StringComparison.Ordinal), token);

        AssertEnded(output, "interrupted");
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task StandardOutputThatIsFull_EndsNothing()
    {
        Assert.SkipUnless(File.Exists("/dev/full"), "needs /dev/full");
        CancellationToken token = TestContext.Current.CancellationToken;
        string whole = fixture.NewFolder(), stopped = fixture.NewFolder();
        using (HpcbnProcess process = HpcbnProcess.Start(fixture.Folder, "exec \"$@\" >/dev/full", Train(whole, steps: 4)))
        {
            Assert.Equal(ExitCode.Done, await process.WaitForExitAsync(token));
            Assert.Contains("note: standard output could not be written", process.Output, StringComparison.Ordinal);
        }

        AssertEnded(whole, "completed");
        using HpcbnProcess second = HpcbnProcess.Start(fixture.Folder, "exec \"$@\" >/dev/full 2>&1", [.. Train(stopped, steps: 20_000), "--progress", "always"]);
        await UntilAsync(() => Directory.Exists(Path.Combine(stopped, "checkpoints")) && Directory.GetFiles(Path.Combine(stopped, "checkpoints"), "*.safetensors").Length > 0, token);
        second.Signal("TERM");
        Assert.Equal(ExitCode.Terminated, await second.WaitForExitAsync(token));
        AssertEnded(stopped, "interrupted");
    }

    [Theory]
    [Trait("Category", "Slow")]
    [InlineData("INT", 2, ExitCode.Interrupted)]
    public async Task SecondInterrupt_EndsAtOnceWithoutSaving(string signal, int number, int expectedCode)
    {
        // The reference takes its time over a step of the whole network: the first signal still waits for its end when the second comes.
        CancellationToken token = TestContext.Current.CancellationToken;
        string output = fixture.NewFolder();
        using HpcbnProcess process = HpcbnProcess.Start(fixture.Folder,
        [
            "train", "--backend", "reference", "--data", fixture.Data, "--model", "bn-inception", "--image-size", "96", "-b", "24", "--steps", "5", "--output", output,
        ]);
        await process.WaitForAsync("run   ", token);
        await Task.Delay(3000, token); // the first step has begun: a signal before it would be answered at once
        process.Signal(signal);
        await process.WaitForAsync("once more to stop at once", token);
        await Task.Delay(700, token); // what comes at once is the same key press
        process.Signal(signal);

        // A shell sees 128 + number whether the process chose that code or the signal ended it.
        Assert.Equal(128 + number, expectedCode);
        Assert.Equal(expectedCode, await process.WaitForExitAsync(token));
        Assert.Empty(Directory.GetFiles(Path.Combine(output, "checkpoints")));
        Assert.DoesNotContain("Stopped.", process.Output, StringComparison.Ordinal);
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task Kill_AtAnyMoment_ThenResumeAuto_GivesTheSameBits()
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        string whole = fixture.NewFolder(), killed = fixture.NewFolder();
        using (HpcbnProcess process = HpcbnProcess.Start(fixture.Folder, Train(whole, Steps)))
        {
            Assert.True(await process.WaitForExitAsync(token) == ExitCode.Done, process.Output);
        }

        // Killed three times at different points, each time after the run got further than the last.
        foreach (int seen in new[] { 2, 50, 100 })
        {
            using HpcbnProcess process = HpcbnProcess.Start(fixture.Folder, [.. Train(killed, Steps), "--resume", "auto"]);
            await process.WaitForAsync($"step-{seen:00000000}.safetensors", token);
            await Task.Delay(37, token);
            process.Signal("KILL");
            await process.WaitForExitAsync(token);
        }

        using (HpcbnProcess process = HpcbnProcess.Start(fixture.Folder, [.. Train(killed, Steps), "--resume", "auto"]))
        {
            Assert.True(await process.WaitForExitAsync(token) == ExitCode.Done, process.Output);
        }

        string last = $"checkpoints/step-{Steps:00000000}.safetensors";
        Dictionary<string, float[]> expected = TrainingFixture.Tensors(Path.Combine(whole, last)), actual = TrainingFixture.Tensors(Path.Combine(killed, last));
        Assert.All(expected, tensor => Assert.True(tensor.Value.AsSpan().SequenceEqual(actual[tensor.Key]), $"'{tensor.Key}' differs"));

        // And the whole file, metadata included.
        Assert.True(File.ReadAllBytes(Path.Combine(whole, last)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(killed, last))), "the files differ outside their tensors");
    }

    /// <summary>The kernel sends a signal first, which ends a process that does not expect it without a word.</summary>
    [Fact]
    [Trait("Category", "Slow")]
    public async Task FileSizeLimit_IsAnErrorLikeAFullDisk()
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        string output = fixture.NewFolder();
        using HpcbnProcess process = HpcbnProcess.Start(fixture.Folder, "ulimit -f 4000; exec \"$@\"", Train(output, steps: 4), ("DOTNET_EnableWriteXorExecute", "0"));

        Assert.Equal(ExitCode.Failed, await process.WaitForExitAsync(token));
        await Task.Delay(100, token);
        Assert.Contains("cannot be written: File too large", process.Output, StringComparison.OrdinalIgnoreCase);
        Assert.Empty(Directory.GetFiles(Path.Combine(output, "checkpoints")));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task GermanLocale_NumbersStayInvariant()
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        string output = fixture.NewFolder();
        using HpcbnProcess process = HpcbnProcess.Start(fixture.Folder, Train(output, steps: 2),
            ("LANG", "de_DE.UTF-8"), ("LC_ALL", "de_DE.UTF-8"), ("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "0"));

        int code = await process.WaitForExitAsync(token);
        Assert.SkipWhen(process.Output.Contains("valid ICU package", StringComparison.Ordinal), "needs libicu, without which .NET knows no German; it is not on this machine");
        Assert.True(code == ExitCode.Done, process.Output);
        Assert.Contains("learning-rate: 0.02\n", await File.ReadAllTextAsync(Path.Combine(output, "config.yaml"), token), StringComparison.Ordinal);
        string[] summary = await File.ReadAllLinesAsync(Path.Combine(output, "summary.csv"), token);
        Assert.Equal(10, summary[^1].Split(',').Length);
        Assert.All(File.ReadLines(Path.Combine(output, "metrics.jsonl")), line => JsonDocument.Parse(line));
    }

    private static async Task UntilAsync(Func<bool> isTrue, CancellationToken token)
    {
        while (!isTrue())
        {
            await Task.Delay(20, token);
        }
    }

    private static void AssertEnded(string output, string outcome)
    {
        Assert.NotEmpty(Directory.GetFiles(Path.Combine(output, "checkpoints"), "*.safetensors"));
        using JsonDocument last = JsonDocument.Parse(File.ReadLines(Path.Combine(output, "metrics.jsonl")).Last());
        Assert.Equal(("end", outcome), (last.RootElement.GetProperty("type").GetString(), last.RootElement.GetProperty("outcome").GetString()));
        string step = $"step-{last.RootElement.GetProperty("step").GetInt64():00000000}.safetensors";
        Assert.True(File.Exists(Path.Combine(output, "checkpoints", step)), $"the state of the end, {step}, is not there");
    }

    private string[] Train(string output, int steps) =>
    [
        "train", .. fixture.Flags(output).SelectMany(f => new[] { $"--{f.Name}", f.Value }),
        "--recipe", "quick", "--steps", $"{steps}", "--checkpoint-every", "1", "--eval-every", "0",
    ];
}
