using System.Text.Json;
using HpcBatchNorm.Cli;
using HpcBatchNorm.Tests.Training;

namespace HpcBatchNorm.Tests.Cli;

public sealed class ProcessTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    private const int Steps = 12;

    [Theory]
    [Trait("Category", "Slow")]
    [InlineData("INT", ExitCode.Interrupted)]
    [InlineData("TERM", ExitCode.Terminated)]
    public async Task Signal_SavesACheckpointAndPrintsHowToGoOn(string signal, int expectedCode)
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        string output = fixture.NewFolder();
        using HpcbnProcess process = HpcbnProcess.Start(fixture.Folder, Train(output, steps: 100_000));
        await process.WaitForAsync("step 2/6", token);

        process.Signal(signal);

        Assert.Equal(expectedCode, await process.WaitForExitAsync(token));
        Assert.Contains("hpcbn train --resume", process.Output, StringComparison.Ordinal);
        Assert.NotEmpty(Directory.GetFiles(Path.Combine(output, "checkpoints"), "*.safetensors"));
    }

    [Theory]
    [Trait("Category", "Slow")]
    [InlineData("INT", 2, ExitCode.Interrupted)]
    [InlineData("TERM", 15, ExitCode.Terminated)]
    public async Task SecondSignal_EndsAtOnceWithoutSaving(string signal, int number, int expectedCode)
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
        foreach (int seen in new[] { 2, 5, 8 })
        {
            using HpcbnProcess process = HpcbnProcess.Start(fixture.Folder, [.. Train(killed, Steps), "--resume", "auto"]);
            await process.WaitForAsync($"step-{seen:00000000}.safetensors", token);
            await Task.Delay(37 * seen, token);
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

    private string[] Train(string output, int steps) =>
    [
        "train", .. fixture.Flags(output).SelectMany(f => new[] { $"--{f.Name}", f.Value }),
        "--recipe", "quick", "--steps", $"{steps}", "--checkpoint-every", "1", "--eval-every", "0",
    ];
}
