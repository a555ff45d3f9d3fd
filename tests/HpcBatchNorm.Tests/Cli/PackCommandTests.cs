using System.Text.Json;
using HpcBatchNorm.Cli;
using HpcBatchNorm.Data;
using HpcBatchNorm.Tests.Data;

namespace HpcBatchNorm.Tests.Cli;

public sealed class PackCommandTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    [Fact]
    [Trait("Category", "Slow")]
    public async Task Pack_KilledInTheMiddle_ThenRunAgain_GivesTheSameBytes()
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        SampleGenerator.Write(_folder["sample"], new SampleOptions { Classes = 4, TrainPerClass = 250, ValidationPerClass = 5, ImageSize = 128 }, token);
        using (HpcbnProcess process = Start("whole"))
        {
            Assert.True(await process.WaitForExitAsync(token) == ExitCode.Done, process.Output);
        }

        for (int shards = 3; shards < 20; shards += 6)
        {
            using HpcbnProcess process = Start("killed");
            while (!Directory.Exists(_folder["killed"]) || Directory.GetFiles(_folder["killed"], "*.tar").Length < shards)
            {
                await Task.Delay(2, token);
            }

            process.Signal("KILL");
            await process.WaitForExitAsync(token);
            Assert.False(File.Exists(_folder["killed/val.index"]), "It was killed too late to test anything.");
        }

        using (HpcbnProcess process = Start("killed"))
        {
            Assert.True(await process.WaitForExitAsync(token) == ExitCode.Done, process.Output);
        }

        string[] names = [.. Directory.GetFiles(_folder["whole"]).Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal)];
        Assert.Equal(names, Directory.GetFiles(_folder["killed"]).Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal));
        Assert.All(names, name => Assert.True(File.ReadAllBytes(_folder["whole/" + name]).AsSpan().SequenceEqual(File.ReadAllBytes(_folder["killed/" + name])), name));

        HpcbnProcess Start(string name) =>
            HpcbnProcess.Start(_folder.Path, ["pack", "sample", name, "--short-side", "96", "--shard-images", "40", "-j", "1"]);
    }

    [Fact]
    public void Pack_Result_SaysWhatThereIs()
    {
        SampleGenerator.Write(_folder["sample"], SampleFixture.Options, TestContext.Current.CancellationToken);
        var output = new StringWriter();
        var error = new StringWriter();
        int code = CommandLine.Run(["pack", _folder["sample"], _folder["packed"], "--short-side", "32", "--result", "-"], output, error);
        Assert.True(code == ExitCode.Done, error.ToString());
        using JsonDocument json = JsonDocument.Parse(output.ToString());
        Assert.Equal(120, json.RootElement.GetProperty("train_images").GetInt32());
        Assert.Equal(36, json.RootElement.GetProperty("val_images").GetInt32());
        Assert.Equal(2, json.RootElement.GetProperty("shards").GetInt32());
        Assert.Equal(0, json.RootElement.GetProperty("skipped").GetInt32());
    }

    [Fact]
    public void Pack_ImpossibleSetting_IsOneLineAndExitCodeOne()
    {
        var error = new StringWriter();
        Assert.Equal(ExitCode.Failed, CommandLine.Run(["pack", _folder.Path, _folder["x"], "--quality", "101"], new StringWriter(), error));
        Assert.Contains("JPEG quality must be between 1 and 100; it is 101", error.ToString(), StringComparison.Ordinal);
        Assert.Single(error.ToString().TrimEnd().Split('\n'));
    }

    public void Dispose() => _folder.Dispose();
}
