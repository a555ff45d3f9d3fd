using HpcBatchNorm.Cli;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tests.Training;
using OwnLayer;

namespace HpcBatchNorm.Tests.Cli;

/// <summary>The command with an assembly of the user's: the own-layer sample's. It runs as a process, for what an assembly registers stays registered.</summary>
public sealed class UserAssemblyTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    private static readonly string Assembly = Path.Combine(AppContext.BaseDirectory, "OwnLayer.dll");

    [Fact]
    public async Task TrainEvalInspect_WorkOnALayerOfTheUsers()
    {
        string file = Write(), run = fixture.NewFolder();
        string[] train = ["train", "--model", file, "--data", fixture.Data, "--backend", TrainingFixture.Backend, "--image-size", "16", "-b", "4", "--output", run];
        string output = await RunAsync([.. train, "--steps", "3", "--assembly", Assembly]);
        string checkpoint = Directory.GetFiles(Path.Combine(run, "checkpoints"), "*.safetensors").Order().Last();
        Assert.Contains($"hpcbn eval --checkpoint {checkpoint} --assembly {Assembly}", output, StringComparison.Ordinal);

        // It goes on and is evaluated; the variable stands for the flag.
        await RunAsync(["train", "--resume", run, "--steps", "4"], ("HBN_ASSEMBLIES", Assembly));
        Assert.Contains("Acc@1", await RunAsync(["eval", "--checkpoint", checkpoint, "--assembly", Assembly]), StringComparison.Ordinal);
        Assert.Contains("switchable_norm", await RunAsync(["inspect", "--assembly", Assembly, "--checkpoint", checkpoint, "--json"]), StringComparison.Ordinal);
    }

    [Fact]
    public async Task WithoutTheAssembly_TheTypeIsNamed()
    {
        string error = await FailAsync(["inspect", "--model", Write()]);
        Assert.Contains("'norm' has the type 'switchable_norm', which is not known", error, StringComparison.Ordinal);
        Assert.Contains("giving hpcbn the assembly", error, StringComparison.Ordinal);
    }

    [Fact]
    public void AssemblyThatIsMissingBrokenOrBringsNothing_IsOneClearLine()
    {
        string broken = Path.Combine(fixture.Folder, "broken.dll");
        File.WriteAllText(broken, "MZ");
        foreach ((string file, string expected) in new[]
        {
            ("absent.dll", "There is no assembly"), (broken, "is no .NET assembly"), (typeof(Network).Assembly.Location, "brings nothing: no public class in it implements HpcBatchNorm.IExtension"),
        })
        {
            using StringWriter output = new(), error = new();
            Assert.Equal(ExitCode.Failed, CommandLine.Run(["inspect", "--model", "resnet-18", "--assembly", file], output, error));
            Assert.Contains(expected, error.ToString(), StringComparison.Ordinal);
            Assert.Contains(Path.GetFileName(file), error.ToString(), StringComparison.Ordinal);
        }
    }

    private string Write()
    {
        SwitchableNorm.Register();
        var b = new NetworkBuilder("with-own-layer");
        Node x = b.Convolution("conv", b.Input(channels: 3), 8, kernel: 3, pad: 1);
        x = b.Relu("relu", b.Add("norm", new SwitchableNorm(), x));
        b.Loss(b.FullyConnected("fc", b.GlobalAveragePooling("pool", x), 3));
        string path = Path.Combine(fixture.Folder, $"{Guid.NewGuid():N}.json");
        File.WriteAllText(path, b.Build().ToJson());
        return path;
    }

    private async Task<string> RunAsync(string[] args, params (string, string)[] environment)
    {
        (int code, string output) = await StartAsync(args, environment);
        Assert.True(code == ExitCode.Done, output);
        return output;
    }

    private async Task<string> FailAsync(string[] args)
    {
        (int code, string output) = await StartAsync(args);
        Assert.Equal(ExitCode.Failed, code);
        return output;
    }

    private async Task<(int Code, string Output)> StartAsync(string[] args, params (string, string)[] environment)
    {
        using HpcbnProcess process = HpcbnProcess.Start(fixture.Folder, args, environment);
        return (await process.WaitForExitAsync(TestContext.Current.CancellationToken), process.Output);
    }
}
