using HpcBatchNorm.Tests.Support;
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

    /// <summary>The line a person reads has the file, what is wrong and what to do; what was there stays, and nothing half-written is left.</summary>
    [Fact]
    public void Run_OnAFullDisk_NamesTheFileAndTheRemedy()
    {
        using SmallDisk disk = SmallDisk.MountOrSkip(megabytes: 1);
        string whole = Path.Combine(disk.Path, "whole.onnx"), empty = Path.Combine(disk.Path, "empty.onnx");
        File.WriteAllText(whole, "as it was");
        File.WriteAllText(empty, "");
        disk.Fill();
        disk.Free();
        using (var filler = new FileStream(Path.Combine(disk.Path, "most"), FileMode.Create))
        {
            filler.Write(new byte[(1 << 20) - (64 << 10)]);
        }

        Assert.All([whole, empty], file =>
        {
            var request = new ExportRequest { Flags = [("model", "inception-tiny"), ("image-size", "16")], Classes = 3, Output = file };
            string message = Assert.Throws<IOException>(() => _ = request.Run()).Message;
            Assert.StartsWith($"No space left on device: '{file}' does not fit on the disk of '{disk.Path}', which has ", message, StringComparison.Ordinal);
            Assert.EndsWith("Make room there, or write to another disk.", message, StringComparison.Ordinal);
        });
        Assert.Equal("as it was", File.ReadAllText(whole));
        Assert.Equal(["empty.onnx", "most", "whole.onnx"], Directory.EnumerateFiles(disk.Path).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        Assert.Equal(0, new FileInfo(empty).Length);
    }

    private byte[] Export(string seed, params (string Name, string Value)[] more)
    {
        string file = Path.Combine(_folder, "network.onnx");
        new ExportRequest { Flags = [("model", "inception-tiny"), ("image-size", "16"), ("seed", seed), .. more], Classes = 3, Output = file }.Run();
        return File.ReadAllBytes(file);
    }
}
