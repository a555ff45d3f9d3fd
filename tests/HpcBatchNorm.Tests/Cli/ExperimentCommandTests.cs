using System.Text.Json;
using HpcBatchNorm.Cli;

namespace HpcBatchNorm.Tests.Cli;

public sealed class ExperimentCommandTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hpcbn-experiments").FullName;
    private readonly StringWriter _output = new(), _error = new();

    public void Dispose()
    {
        _output.Dispose();
        _error.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public void ExperimentWithoutData_Runs_AndSaysWhatItFound()
    {
        string result = Path.Combine(_folder, "result.json");

        Assert.Equal(0, Run("scale-invariance", "--backend", "reference", "--output", _folder, "--result", result));

        Assert.Contains("scale-invariance: 10 shown", _output.ToString(), StringComparison.Ordinal);
        Assert.Contains("scale-invariance", File.ReadAllText(Path.Combine(_folder, "index.html")), StringComparison.Ordinal);
        using JsonDocument json = JsonDocument.Parse(File.ReadAllText(result));
        Assert.True(json.RootElement.GetProperty("passed").GetBoolean());
        Assert.Equal(10, json.RootElement.GetProperty("experiments")[0].GetProperty("findings").GetArrayLength());
        Assert.Equal("shown", json.RootElement.GetProperty("experiments")[0].GetProperty("findings")[0].GetProperty("verdict").GetString());
    }

    [Fact]
    public void List_NamesEveryExperimentWithItsClaim()
    {
        Assert.Equal(0, Run("list"));
        Assert.Contains("mnist: ", _output.ToString(), StringComparison.Ordinal);
        Assert.Contains("Section 4.1", _output.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("There is no experiment 'mnits', did you mean 'mnist'?", "mnits")]
    [InlineData("as the data", "mnist")]
    [InlineData("does not exist", "mnist", "--data", "nowhere")]
    [InlineData("--jobs is -1", "scale-invariance", "--jobs", "-1")]
    public void Mistakes_AreOneLine(string expected, params string[] args)
    {
        Assert.Equal(1, Run([.. args, "--output", _folder]));
        Assert.Contains(expected, Assert.Single(_error.ToString().TrimEnd().Split('\n')), StringComparison.Ordinal);
    }

    private int Run(params string[] args) => CommandLine.Run(["experiment", .. args], _output, _error);
}
