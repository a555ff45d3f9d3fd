using System.Buffers.Binary;
using System.Formats.Tar;
using System.IO.Compression;
using System.Text;
using HpcBatchNorm.Backends.Cudnn;
using HpcBatchNorm.Data;
using HpcBatchNorm.Tests.Data;
using HpcBatchNorm.Training;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Fuzzing;

/// <summary>Small files that took all the memory, all the time, or the program with them, each made anew here.</summary>
public sealed class BombTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    [Fact]
    public void MatFile_WithoutFieldsOrOfWildDimensions_IsRefusedBeforeMemoryIsTaken()
    {
        // A struct array of 2^26 elements without a field; with names of no length; with fewer values than elements.
        foreach ((int elements, int nameBytes, byte[] names) in new[] { (1 << 26, 32, Array.Empty<byte>()), (4, 0, new byte[32]), (1 << 26, 32, new byte[32]), (-1, 32, new byte[32]) })
        {
            byte[] file = Struct(elements, nameBytes, names);
            AssertBounded(file.Length, () => Assert.Throws<InvalidDataException>(() => MatFile.ReadStructArray(file, "synsets")));
        }
    }

    [Fact]
    public void MatFile_ElementsThatOverlap_AreRefused()
    {
        // A small element that claims 60,000 bytes but advances by eight: many of them would make any amount of the same bytes.
        byte[] file = Struct(1, 32, new byte[32]);
        byte[] small = [14, 0, 0x60, 0xEA, .. new byte[60_004]];
        byte[] whole = [.. file, .. small];
        BinaryPrimitives.WriteInt32LittleEndian(whole.AsSpan(128 + 4), whole.Length - 136);
        Assert.Throws<InvalidDataException>(() => MatFile.ReadStructArray(whole, "synsets"));
    }

    [Fact]
    public void DevelopmentKit_MetaWithoutWhatItNeeds_IsALine()
    {
        object[] good = [(double[])[1], "n00000001", "tench", (double[])[0]];
        string[] fields = ["ILSVRC2012_ID", "WNID", "words", "num_children"];
        foreach ((int field, object value) in new (int, object)[] { (0, (double[])[]), (0, (double[])[1.5]), (0, (double[])[1e300]), (0, (double[])[double.NaN]), (1, (double[])[1]), (1, ""), (1, "a/b"), (1, "a\nb"), (3, "none") })
        {
            object[] row = [.. good];
            row[field] = value;
            AssertKitIsRefused(MatFile.WriteStructArray("synsets", fields, [row]));
        }

        AssertKitIsRefused(MatFile.WriteStructArray("synsets", fields[..3], [good[..3]]));
    }

    [Fact]
    public void DevelopmentKit_OfZeros_IsRefusedBeforeMemoryIsTaken()
    {
        byte[] bomb = Gzip(Tar(("kit/data/meta.mat", new byte[200 << 20])));
        string path = _folder.Write("kit.tar.gz", bomb);
        AssertBounded(bomb.Length, () => Assert.Throws<UserErrorException>(() => DevelopmentKit.Read(path)));

        // A compressed variable of a hundred megabytes in a kit of a hundred kilobytes.
        var packed = new MemoryStream();
        using (var zlib = new ZLibStream(packed, CompressionLevel.Fastest, leaveOpen: true))
        {
            zlib.Write(new byte[100 << 20]);
        }

        byte[] tag = new byte[8];
        (tag[0], _) = (15, 0);
        BinaryPrimitives.WriteInt32LittleEndian(tag.AsSpan(4), (int)packed.Length);
        byte[] kit = Gzip(Tar(("kit/data/meta.mat", [.. MatHeader(), .. tag, .. packed.ToArray()]), ("kit/data/ILSVRC2012_validation_ground_truth.txt", "1\n"u8.ToArray())));
        path = _folder.Write("kit2.tar.gz", kit);
        AssertBounded(kit.Length, () => Assert.Contains("more than 16 MB", Assert.Throws<UserErrorException>(() => DevelopmentKit.Read(path)).Message, StringComparison.Ordinal));
    }

    /// <summary>Found by an hour of mutations: zlib then answers with another error than for damaged data.</summary>
    [Fact]
    public void DevelopmentKit_WhoseVariableAsksForADictionary_IsDamaged()
    {
        byte[] variable = [15, 0, 0, 0, 8, 0, 0, 0, 0x78, 0x20, 0, 0, 0, 1, 0, 0];
        string path = _folder.Write("kit.tar.gz", Gzip(Tar(
            ("kit/data/meta.mat", [.. MatHeader(), .. variable]), ("kit/data/ILSVRC2012_validation_ground_truth.txt", "1\n"u8.ToArray()))));
        Assert.Contains("damaged: its compressed part cannot be unpacked", Assert.Throws<UserErrorException>(() => DevelopmentKit.Read(path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void IdxFiles_OfZeros_AreRefusedBeforeMemoryIsTaken()
    {
        byte[] header = new byte[16];
        BinaryPrimitives.WriteInt32BigEndian(header, 0x0803);
        _folder.Write("train-labels-idx1-ubyte", IdxFilesTests.Idx(0x0801, [1], new byte[1]));
        // What the header says is there; more than it says; images so small that their names are the bulk.
        foreach ((int count, int height, int width, int bytes) in new[] { (400, 1000, 1000, 400 << 20), (1, 28, 28, 400 << 20), (50 << 20, 1, 1, 50 << 20) })
        {
            BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(4), count);
            BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(8), height);
            BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(12), width);
            byte[] file = GzipZeros(header, bytes);
            _folder.Write("train-images-idx3-ubyte.gz", file);
            AssertBounded(file.Length, () => Assert.Throws<UserErrorException>(() => IdxFiles.Read(_folder.Path, DatasetSplit.Train)));
        }
    }

    [Theory]
    [InlineData("null")]
    [InlineData("{}")]
    [InlineData("[1]")]
    [InlineData("\"classes\": null", "classes")]
    [InlineData("\"classes\": [\"a\", null]", "classes")]
    [InlineData("\"classes\": [\"a\", \"a\"]", "classes")]
    [InlineData("\"descriptions\": []", "descriptions")]
    [InlineData("\"source\": null", "source")]
    [InlineData("\"skipped\": null", "skipped")]
    [InlineData("\"train\": null", "train")]
    [InlineData("\"train\": [null]", "train")]
    [InlineData("\"train\": [{\"images\": 1, \"bytes\": 1}]", "train")]
    [InlineData("\"train\": [{\"file\": \"../x.tar\", \"images\": 1, \"bytes\": 1}]", "train")]
    [InlineData("\"train\": [{\"file\": \"x.tar\", \"images\": -1, \"bytes\": 1}]", "train")]
    [InlineData("\"train\": [{\"file\": \"x.tar\", \"images\": 2147483647, \"bytes\": 1}, {\"file\": \"y.tar\", \"images\": 2147483647, \"bytes\": 1}]", "train")]
    public void PackJson_ThatIsNone_IsALine(string text, string? replaced = null)
    {
        if (replaced is not null)
        {
            string[] lines =
            [
                "\"version\": 1", "\"validation\": []", "\"short_side\": 1", "\"quality\": 1", "\"shard_images\": 1", "\"shuffled\": true", "\"seed\": 1", "\"source\": \"1\"", "\"classes\": [\"a\", \"b\"]",
                "\"descriptions\": [\"\", \"\"]", "\"train\": []", "\"skipped\": []", "\"complete\": true",
            ];
            text = $"{{{string.Join(", ", lines.Select(line => line.StartsWith($"\"{replaced}\"", StringComparison.Ordinal) ? text : line))}}}";
        }

        _folder.Write(PackManifest.FileName, Encoding.UTF8.GetBytes(text));
        UserErrorException error = Assert.Throws<UserErrorException>(() => ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null));
        Assert.Contains("pack the data set again", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Theory]
    [InlineData("model: inception-tiny\nlearning-rate: 0&05\nepochs: 3\nboundaries: [1, 2,          5\noutput: \"x y\"\nrecipe: quick\n")]
    [InlineData("boundaries: [1, 2")]
    [InlineData("a: [")]
    [InlineData("output: \"\\U0011FFFF\"")]
    [InlineData("- a\n- b")]
    public void Yaml_ThatEndsInTheMiddle_IsALine(string yaml)
    {
        UserErrorException error = Assert.Throws<UserErrorException>(() => new TrainingConfigBuilder().AddYaml(yaml, "config.yaml"));
        Assert.StartsWith("config.yaml", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Theory]
    [InlineData("mb32ic64ih56oc192oh56kh3sh0n\"conv2/3x3\"")]
    [InlineData("mb32ic64ih56oc192oh56kh0n\"x\"")]
    [InlineData("mb32ic64ih56oc192oh2147483647kh3sh2147483647n\"x\"")]
    [InlineData("mb2147483647ic2147483647ih2147483647oc192kh3n\"x\"")]
    [InlineData("mb1ic64ih56oc192kh3dh2147483647n\"x\"")]
    [InlineData("mb1ic64ih56oc192kh3ph2147483647n\"x\"")]
    [InlineData("mb1ic2147483647ih2147483647n\"bn\"")]
    [InlineData("g0mb1ic64ih56oc192kh3n\"x\"")]
    public void Shapes_OfWildNumbers_AreALine(string line) =>
        Assert.StartsWith("shapes.txt:1: ", Assert.Throws<UserErrorException>(() => ShapeFile.Parse([line], "shapes.txt")).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("{\"forward\": null}")]
    [InlineData("{\"forward\": {\"Algorithm\": -1, \"MathType\": 0, \"WorkspaceBytes\": 1, \"Milliseconds\": 1, \"Deterministic\": true}}")]
    [InlineData("{\"forward\": {\"Algorithm\": 1, \"MathType\": 0, \"WorkspaceBytes\": -1, \"Milliseconds\": 1, \"Deterministic\": true}}")]
    [InlineData("[1]")]
    public void Algorithms_ThatAreNone_AreALineAtOnce(string json) => Assert.Contains("delete it",
        Assert.Throws<UserErrorException>(() => new AlgorithmChoices(_folder.Write("algorithms.json", Encoding.UTF8.GetBytes(json)))).Message, StringComparison.Ordinal);

    [Fact]
    public void Jpeg_OfHundredsOfScans_IsRefusedAndOneOfAFewIsNot()
    {
        byte[] Jpeg(int scans) => ProgressiveJpeg.Grey(2048, 2048, scans);
        using var decoder = new ImageDecoder();
        foreach ((int scans, ImageStatus expected) in new[] { (10, ImageStatus.Ok), (JpegScans.Most, ImageStatus.Ok), (JpegScans.Most + 1, ImageStatus.TooManyScans), (3000, ImageStatus.TooManyScans) })
        {
            byte[] jpeg = Jpeg(scans);
            Assert.Equal(expected, decoder.Open(jpeg, jpeg.Length));
        }

        byte[] decoded = Jpeg(10);
        Assert.Equal(ImageStatus.Ok, decoder.Open(decoded, decoded.Length));
        Assert.Equal(ImageStatus.Ok, decoder.Decode(0, 0, 2048, 2048, 1));
        Assert.Equal(128, decoder.Pixels[0]);
        // An ordinary file is one scan of all its components.
        byte[] ordinary = TestImages.Texture(64, 48);
        Assert.False(JpegScans.AreTooMany(ordinary));
        Assert.False(JpegScans.AreTooMany([.. ordinary, .. Enumerable.Repeat((byte[])[0xFF, 0xDA, 0, 2], 1000).SelectMany(bytes => bytes)]));
    }

    [Fact]
    public void Message_OfADamagedFile_IsOneLineThatNoTerminalObeys()
    {
        var error = new UserErrorException($"'{UserErrorException.Excerpt("a\nb\u001b[2J" + new string('x', 1000))}' is no name.");
        Assert.StartsWith("'a b·[2J", error.Message, StringComparison.Ordinal);
        Assert.InRange(error.Message.Length, 100, 200);
        Assert.Equal("a·b", new UserErrorException("a\u001bb").Message);
        // JsonException quotes what it found, to the end of the file.
        Assert.Equal("'a  b' is no JSON", new UserErrorException("'a\r\nb' is no JSON", new InvalidDataException()).Message);
        Assert.InRange(new UserErrorException(new string('x', 1 << 20)).Message.Length, 1000, 5000);
    }

    public void Dispose() => _folder.Dispose();

    private void AssertKitIsRefused(byte[] meta)
    {
        string path = _folder.Write("kit.tar.gz", Gzip(Tar(("kit/data/meta.mat", meta), ("kit/data/ILSVRC2012_validation_ground_truth.txt", "1\n"u8.ToArray()))));
        UserErrorException error = Assert.Throws<UserErrorException>(() => DevelopmentKit.Read(path));
        Assert.Contains("meta.mat is", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    /// <summary>No more memory than ten times the file and what a parser always may take.</summary>
    private static void AssertBounded(long fileBytes, Action action)
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        action();
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.InRange(allocated, 0, 10 * fileBytes + FuzzRun.AllowedBytes);
    }

    private static byte[] MatHeader()
    {
        byte[] header = new byte[128];
        (header[126], header[127]) = ((byte)'I', (byte)'M');
        return header;
    }

    /// <summary>A struct array's head, uncompressed.</summary>
    private static byte[] Struct(int elements, int nameBytes, byte[] names)
    {
        static byte[] Element(int type, byte[] data)
        {
            byte[] tag = new byte[8];
            BinaryPrimitives.WriteInt32LittleEndian(tag, type);
            BinaryPrimitives.WriteInt32LittleEndian(tag.AsSpan(4), data.Length);
            return [.. tag, .. data, .. new byte[-data.Length & 7]];
        }

        byte[] dimensions = new byte[8], length = new byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(dimensions, elements);
        BinaryPrimitives.WriteInt32LittleEndian(dimensions.AsSpan(4), 1);
        BinaryPrimitives.WriteInt32LittleEndian(length, nameBytes);
        return
        [
            .. MatHeader(),
            .. Element(14, [.. Element(6, [2, 0, 0, 0, 0, 0, 0, 0]), .. Element(5, dimensions), .. Element(1, "synsets"u8.ToArray()), .. Element(5, length), .. Element(1, names)]),
        ];
    }

    private static byte[] Tar(params (string Name, byte[] Bytes)[] members) =>
        ArchiveTests.Tar(TarEntryFormat.Gnu, members.ToDictionary(member => member.Name, member => member.Bytes));

    private static byte[] Gzip(byte[] bytes) => GzipZeros(bytes, 0);

    private static byte[] GzipZeros(byte[] bytes, int zeros)
    {
        var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Fastest, leaveOpen: true))
        {
            gzip.Write(bytes);
            byte[] block = new byte[1 << 20];
            for (int left = zeros; left > 0; left -= block.Length)
            {
                gzip.Write(block, 0, Math.Min(block.Length, left));
            }
        }

        return packed.ToArray();
    }
}
