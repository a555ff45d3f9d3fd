using System.IO.Compression;
using HpcBatchNorm.Data;

namespace HpcBatchNorm.Tests.Data;

/// <summary>Browsers and download tools unpack .gz files on the way; some leave the name as it was.</summary>
public sealed class GunzippedFileTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("ILSVRC2012_devkit_t12.tar.gz")]
    [InlineData("ILSVRC2012_devkit_t12.tar")]
    public void DevelopmentKit_Unpacked_IsTheSame(string name)
    {
        string sample = _folder["sample"];
        SampleGenerator.Write(sample, new SampleOptions { Classes = 3, TrainPerClass = 2, ValidationPerClass = 2, ImageSize = 16 }, TestContext.Current.CancellationToken);
        string kit = Path.Combine(sample, DevelopmentKit.FileName);
        int[] expected = DevelopmentKit.Read(kit).ValidationLabels;
        Unpack(kit, Path.Combine(sample, name));

        using ImageDataset validation = ImageDataset.Open(sample, DatasetSplit.Validation);

        Assert.Equal(expected, Enumerable.Range(0, validation.Count).Select(validation.Label));
    }

    [Fact]
    public void Digits_UnpackedUnderTheirOldName_AreTheSame()
    {
        string folder = _folder["digits"];
        Directory.CreateDirectory(folder);
        byte[] images = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, .. Enumerable.Range(1, 8).Select(i => (byte)i)], labels = [0, 0, 8, 1, 0, 0, 0, 2, 7, 3];
        foreach (string part in new[] { "train", "t10k" })
        {
            File.WriteAllBytes(Path.Combine(folder, $"{part}-images-idx3-ubyte.gz"), images);
            File.WriteAllBytes(Path.Combine(folder, $"{part}-labels-idx1-ubyte.gz"), labels);
        }

        using ImageDataset train = ImageDataset.Open(folder, DatasetSplit.Train);

        Assert.Equal([7, 3], Enumerable.Range(0, train.Count).Select(train.Label));
    }

    private static void Unpack(string gzipped, string target)
    {
        using var content = new MemoryStream();
        using (var gzip = new GZipStream(File.OpenRead(gzipped), CompressionMode.Decompress))
        {
            gzip.CopyTo(content);
        }

        File.Delete(gzipped);
        File.WriteAllBytes(target, content.ToArray());
    }
}
