using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

public sealed class ExportRequestTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hpcbn-export").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Run_InitialParameters_DependOnTheSeed()
    {
        byte[] one = Export("1"), again = Export("1"), two = Export("2");

        Assert.Equal(one, again);
        Assert.Equal(one.Length, two.Length);
        Assert.NotEqual(one, two);
    }

    [Fact]
    public void Run_WithOneMeanForAllChannels_WritesItForEach()
    {
        byte[] one = Export("1", ("pixel-mean", "100"), ("pixel-deviation", "50")), three = Export("1", ("pixel-mean", "100,100,100"), ("pixel-deviation", "50,50,50"));

        Assert.Equal(one, three);
        Assert.NotEqual(one, Export("1"));
    }

    private byte[] Export(string seed, params (string Name, string Value)[] more)
    {
        string file = Path.Combine(_folder, "network.onnx");
        new ExportRequest { Flags = [("model", "inception-tiny"), ("image-size", "16"), ("seed", seed), .. more], Classes = 3, Output = file }.Run();
        return File.ReadAllBytes(file);
    }
}
