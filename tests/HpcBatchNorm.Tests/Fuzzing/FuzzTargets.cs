using System.Buffers.Binary;
using System.Formats.Tar;
using System.IO.Compression;
using System.IO.Hashing;
using System.Text;
using Google.Protobuf;
using HpcBatchNorm.Backends.Cudnn;
using HpcBatchNorm.Data;
using HpcBatchNorm.Experiments;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Reporting;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Data;
using HpcBatchNorm.Tests.Reporting;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Training;
using HpcBatchNorm.Verification;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Fuzzing;

/// <summary>Every parser of files that the library did not make this moment itself.</summary>
internal static class FuzzTargets
{
    public static IReadOnlyList<FuzzTarget> All { get; } =
    [
        new("mat", () => [Mat(compressed: true), Mat(compressed: false)], (_, bytes) => ReadMat(bytes)),
        new("devkit", () => [Sample("kit")], (path, _) => DevelopmentKit.Read(path)) { FileName = "kit.tar.gz" },
        new("devkit-tar", () => [Gunzip(Sample("kit"))], (path, _) => DevelopmentKit.Read(path)) { FileName = "kit.tar.gz", Repair = tar => Gzip(RepairTar(tar)) },
        new("devkit-meta", () => [Mat(compressed: false)], (path, _) => DevelopmentKit.Read(path)) { FileName = "kit.tar.gz", Repair = Kit },
        new("tar", TarSeeds, (path, _) => ArchiveIndex.Load(path, cacheDirectory: null)) { FileName = "a.tar", Repair = RepairTar },
        new("class-tar", TarSeeds, (path, _) => OpenAll(path)) { FileName = "a.tar", Repair = RepairTar },
        new("archive-index", () => [Index()], (path, _) => ArchiveIndex.TryRead(path, "key", _ => 100_000)) { Repair = RepairIndex, Tolerant = true },
        new("idx-images", () => [Idx(0x0803, [12, 5, 5], 300)], (path, _) => ReadIdx(path)) { FileName = "train-images-idx3-ubyte" },
        new("idx-images-gz", () => [Idx(0x0803, [12, 5, 5], 300)], (path, _) => ReadIdx(path)) { FileName = "train-images-idx3-ubyte.gz", Repair = Gzip },
        new("idx-labels-gz", () => [Idx(0x0801, [12], 12)], (path, _) => ReadIdx(path)) { FileName = "train-labels-idx1-ubyte.gz", Repair = Gzip },
        new("idx-records", () => [Idx(0x0C02, [12, 2], 96)], (path, _) => ReadIdx(path)) { FileName = "train-labels-idx2-int" },
        new("pack-json", () => [PackJson()], (path, _) => PackManifest.Read(Path.GetDirectoryName(path)!)) { FileName = PackManifest.FileName },
        new("yaml", () => [Text("model: inception-tiny\nlearning-rate: 0.05\nepochs: 3\noutput: \"x y\"\nrecipe: quick\n"), Text(TrainingConfigBuilder.ToYaml(new TrainingConfigBuilder().Config))],
            (path, bytes) => new TrainingConfigBuilder().AddYaml(Encoding.UTF8.GetString(bytes), path)),
        new("shapes", () => [Text("mb32ic64ih56oc192oh56kh3ph1n\"conv2/3x3\"\nmb32_ic64_ih56_n\"conv2/bn*2\"\ng2ic64ih56iw30oc64oh28kh3kw1sh2dh1ph1pw0n\"x\"*3\nic3ih8eps1e-3\n# - \"x\"\n")],
            (path, _) => ShapeFile.Read(path)),
        new("network", () => [Text(SampleNetworks.EveryLayer(10).ToJson())], (_, bytes) => Network.FromJson(Encoding.UTF8.GetString(bytes))),
        new("class-names", () => [Text(ClassNameList.Write(["tench, Tinca tinca", "[odd", "ä"])), Text("a,b,c")], (_, bytes) => ClassNameList.Read(Encoding.UTF8.GetString(bytes))) { Tolerant = true },
        new("safetensors", () => [SavedCheckpoint()], (path, _) => ReadSafetensors(path)),
        new("checkpoint", () => [SavedCheckpoint()], (path, _) => ReadCheckpoint(path)) { Repair = RepairCheckpoint },
        new("onnx", () => [Onnx()], (path, _) => ReadOnnx(path)) { FileName = "a.onnx" },
        new("metrics", () => [Metrics()], (path, _) => ShowRun(Path.GetDirectoryName(path)!)) { FileName = "metrics.jsonl", Tolerant = true },
        new("resume", () => [Metrics()], (path, _) => new RunDirectory(Path.GetDirectoryName(path)!, 60, 60).Dispose()) { FileName = "metrics.jsonl", Tolerant = true },
        new("summary", () => [Text("epoch,step,train_loss,val_loss,val_top1,val_top5,learning_rate,images_per_second,data_wait_share,seconds\n1,40,1,1,0.5,0.9,0.1,30,0,10\n")],
            (path, _) => new RunDirectory(Path.GetDirectoryName(path)!, 60, 60).Dispose()) { FileName = "summary.csv", Tolerant = true },
        new("predictions", () => [Predictions()], (path, _) => ShowRun(Path.GetDirectoryName(path)!)) { FileName = RunFolder.PredictionsName, Tolerant = true },
        new("algorithms", () => [Text("{\"forward 1x2x3\": {\"Algorithm\": 1, \"MathType\": 0, \"WorkspaceBytes\": 100, \"Milliseconds\": 0.5, \"Deterministic\": true}}")],
            (path, _) => new AlgorithmChoices(path).Dispose()),
        new("solution", () => [Text("ImageId,PredictionString\na,n01440764 85 1 499 272\nb,n01443537 1 2 3 4\n")], (path, _) => GroundTruth.Read(Loose("a.JPEG", "b.JPEG"), Below(path), null))
            { FileName = GroundTruth.SolutionName },
        new("annotations", () => [Text("a.JPEG\tn01440764\t0\t32\t44\t62\nb.JPEG\tn01443537\t0\t0\t1\t1\n")], (path, _) => GroundTruth.FromAnnotations(Loose("a.JPEG", "b.JPEG"), Below(path), null, path)),
        new("experiment", () => [Text("{\"experiment\":\"a\",\"title\":\"b\",\"claim\":\"c\",\"result\":null,\"conditions\":[],\"quick\":true}")],
            (path, _) => ExperimentRunner.Read(Path.GetDirectoryName(path)!)) { FileName = "result.json", Tolerant = true },
        new("jpeg", () => [TestImages.Texture(40, 30), TestImages.AdobeCmyk(200, 100, 50, 255)], (_, bytes) => Decode(bytes)) { Tolerant = true },
        new("png", () => [Image(SKEncodedImageFormat.Png)], (_, bytes) => Decode(bytes)) { Tolerant = true },
        new("webp", () => [Image(SKEncodedImageFormat.Webp)], (_, bytes) => Decode(bytes)) { Tolerant = true },
        new("gif", () => [OddImages.Gif], (_, bytes) => Decode(bytes)) { Tolerant = true },
        new("bmp", () => [OddImages.Bmp], (_, bytes) => Decode(bytes)) { Tolerant = true },
    ];

    private static byte[] Text(string text) => Encoding.UTF8.GetBytes(text);

    private static byte[] Image(SKEncodedImageFormat format) => TestImages.Encode(20, 16, (x, y) => new SKColor((byte)(x * 10), (byte)(y * 15), 100), format);

    private static void Decode(byte[] bytes)
    {
        using var decoder = new ImageDecoder();
        if (decoder.Open(bytes, bytes.Length) == ImageStatus.Ok)
        {
            decoder.Decode(0, 0, decoder.Width, decoder.Height, smallestScale: 1);
        }
    }

    private static byte[] Mat(bool compressed)
    {
        byte[] file = MatFile.WriteStructArray("synsets", ["ILSVRC2012_ID", "WNID", "words", "num_children"],
            [[(double[])[1], "n00000001", "tench", (double[])[0]], [(double[])[2], "n00000002", "goldfish", (double[])[0]], [(double[])[3], "n00000003", "fish", (double[])[2]]]);
        if (compressed)
        {
            return file;
        }

        const int Header = 128, Tag = 8;
        using var zlib = new ZLibStream(new MemoryStream(file[(Header + Tag)..]), CompressionMode.Decompress);
        var inflated = new MemoryStream();
        zlib.CopyTo(inflated);
        return [.. file[..Header], .. inflated.ToArray()];
    }

    private static void ReadMat(byte[] bytes)
    {
        MatStructArray array = MatFile.ReadStructArray(bytes, "synsets");
        for (int i = 0; i < array.Count; i++)
        {
            foreach (string field in array.Fields)
            {
                _ = array[i, field];
            }
        }
    }

    private static byte[] Kit(byte[] meta) => Gzip(ArchiveTests.Tar(TarEntryFormat.Gnu, new()
    {
        ["kit/data/meta.mat"] = meta,
        ["kit/data/ILSVRC2012_validation_ground_truth.txt"] = Text("1\n2\n1\n"),
    }));

    private static byte[] Sample(string what)
    {
        using var folder = new TemporaryFolder();
        SampleGenerator.Write(folder["sample"], new SampleOptions { Classes = 3, TrainPerClass = 2, ValidationPerClass = 2, ImageSize = 16, Seed = 1 });
        return File.ReadAllBytes(folder[$"sample/{(what == "kit" ? DevelopmentKit.FileName : what)}"]);
    }

    /// <summary>A convolution with all that exporters write beside it, a pooling and a classifier; small, so that changes hit what says something.</summary>
    private static byte[] Onnx()
    {
        var graph = new Interchange.OnnxGraphs(height: 6, width: 6);
        string x = graph.Node("Conv", ["images", graph.Floats([4, 3, 3, 3], new float[108])], ("kernel_shape", (int[])[3, 3]), ("pads", (int[])[1, 1, 1, 1]), ("strides", (int[])[1, 1]));
        x = graph.Node("BatchNormalization", [x, .. Enumerable.Range(0, 4).Select(_ => graph.Floats([4], 1, 1, 1, 1))], ("epsilon", 0.001f));
        x = graph.Node("MaxPool", [graph.Node("Relu", [x])], ("kernel_shape", (int[])[2, 2]), ("strides", (int[])[2, 2]));
        x = graph.Node("Reshape", [graph.Node("GlobalAveragePool", [x]), graph.Wholes(0, -1)]);
        graph.Named("Gemm", "out", [x, graph.Floats([5, 4], new float[20]), graph.Floats([5], new float[5])], ("transB", 1));
        return graph.Model.ToByteArray();
    }

    private static void ReadOnnx(string path)
    {
        try
        {
            OnnxImport.Read(path);
        }
        catch (OnnxImportException error)
        {
            // Its message is a list on purpose: a line for each node that stands in the way.
            throw new InvalidDataException("refused", error);
        }
    }

    private static byte[][] TarSeeds() =>
    [
        Sample(DatasetLayouts.TrainArchive),
        ArchiveTests.Tar(TarEntryFormat.Pax, new() { ["train/a/" + new string('x', 200) + ".jpg"] = new byte[700], ["train/b/2.jpg"] = new byte[10], ["val/a/1.jpg"] = new byte[3], ["val/b/1.png"] = [] }),
        ArchiveTests.Tar(TarEntryFormat.Gnu, new() { ["000.jpg"] = new byte[700], ["000.cls"] = Text("3"), ["001.jpg"] = new byte[20], ["001.json"] = Text("{\"label\": 4}") }),
        ArchiveTests.Tar(TarEntryFormat.Ustar, new() { ["a/0"] = [0xFF, 0xD8, 0xFF, 0], ["b/1.jpe"] = new byte[5] }),
    ];

    private static void OpenAll(string path)
    {
        using ImageDataset data = ImageDataset.Open(path, DatasetSplit.Train, cacheDirectory: null);
        byte[] buffer = [];
        for (int i = 0; i < data.Count; i++)
        {
            _ = data.Name(i);
            data.ReadEncoded(i, ref buffer);
        }
    }

    /// <summary>Right checksums for whatever stands where headers were.</summary>
    private static byte[] RepairTar(byte[] tar)
    {
        const int Block = 512, Checksum = 148, ChecksumBytes = 8;
        byte[] repaired = [.. tar];
        for (int at = 0; at + Block <= repaired.Length; at += Block)
        {
            Span<byte> header = repaired.AsSpan(at, Block);
            if (header[257..].StartsWith("ustar"u8))
            {
                header.Slice(Checksum, ChecksumBytes).Fill((byte)' ');
                int sum = 0;
                foreach (byte value in header)
                {
                    sum += value;
                }

                Encoding.ASCII.GetBytes(Convert.ToString(sum, 8).PadLeft(6, '0') + "\0 ").CopyTo(header[Checksum..]);
            }
        }

        return repaired;
    }

    private static byte[] Index()
    {
        using var folder = new TemporaryFolder();
        var images = new ImageTable.Builder();
        for (int i = 0; i < 20; i++)
        {
            images.Add($"class{i % 3}/{i}.jpg", i * 1000, 900);
        }

        ArchiveIndex.Write(folder["a"], "key", images.Build(["a note"], new Dictionary<string, string> { ["class0/0"] = "3" }));
        return File.ReadAllBytes(folder["a"]);
    }

    private static byte[] RepairIndex(byte[] index)
    {
        byte[] repaired = [.. index];
        int body = repaired.Length - sizeof(ulong);
        if (body > 0)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(repaired.AsSpan(body), XxHash3.HashToUInt64(repaired.AsSpan(0, body)));
        }

        return repaired;
    }

    private static byte[] Idx(int magic, int[] sizes, int bytes)
    {
        byte[] file = new byte[4 + 4 * sizes.Length + bytes];
        BinaryPrimitives.WriteInt32BigEndian(file, magic);
        for (int i = 0; i < sizes.Length; i++)
        {
            BinaryPrimitives.WriteInt32BigEndian(file.AsSpan(4 + 4 * i), sizes[i]);
        }

        return file;
    }

    /// <summary>The other file of the two is good.</summary>
    private static void ReadIdx(string path)
    {
        string folder = Path.GetDirectoryName(path)!;
        bool images = Path.GetFileName(path).Contains("images", StringComparison.Ordinal);
        File.WriteAllBytes(Path.Combine(folder, images ? "train-labels-idx1-ubyte" : "train-images-idx3-ubyte"), images ? Idx(0x0801, [12], 12) : Idx(0x0803, [12, 5, 5], 300));
        using DatasetContentsScope data = new(IdxFiles.Read(folder, DatasetSplit.Train));
    }

    private static byte[] PackJson() => Text(
        """
        {"version":1,"complete":true,"short_side":352,"quality":90,"shard_images":30,"shuffled":true,"seed":1,"source":"6ff2","classes":["n1","n2"],
        "descriptions":["circle","square"],"train":[{"file":"train-00000.tar","images":30,"bytes":47104},{"file":"train-00001.tar","images":20,"bytes":31744}],
        "validation":[{"file":"val-00000.tar","images":20,"bytes":31744}],"skipped":["a"]}
        """);

    private static byte[] SavedCheckpoint()
    {
        using var folder = new TemporaryFolder();
        Tensor[] state = [new("a/weights", new Shape(2, 3, 1, 1), TensorRole.Parameter), new("a/bias", Shape.Vector(2), TensorRole.Parameter)];
        Checkpoint.Save(folder["a"], state, (_, values) => values.Fill(0.5f), new CheckpointInfo
        {
            Step = 40,
            StepsPerEpoch = 20,
            Model = "every-layer",
            Network = "{\"format\":\"hpcbn-network\",\"version\":1,\"name\":\"a\",\"layers\":[]}",
            Config = "model: inception-tiny\n",
            ConfigHash = "1234",
            ClassNames = ["a", "b, c"],
            BestTop1 = 0.5,
            BestStep = 20,
            EvaluatedStep = 40,
            SinceLog = new LossSum(1.5, 3),
            LossScale = new LossScale(1024, 3, 1),
        });
        return File.ReadAllBytes(folder["a"]);
    }

    /// <summary>A header of the length that stands before it, and the checksum of what is there.</summary>
    private static byte[] RepairCheckpoint(byte[] file)
    {
        byte[] repaired = [.. file];
        int key = repaired.AsSpan().IndexOf("checksum_xxh3_128\":\""u8);
        int digits = key + "checksum_xxh3_128\":\"".Length;
        if (key < 0 || repaired.Length < digits + 32 || repaired.Length < 8)
        {
            return repaired;
        }

        // The data are the last 32 bytes: what lies between them and the length is the header.
        BinaryPrimitives.WriteInt64LittleEndian(repaired, Math.Max(0, repaired.Length - 8 - 32));
        repaired.AsSpan(digits, 32).Fill((byte)'0');
        string hash = Convert.ToHexStringLower(XxHash128.Hash(repaired));
        Encoding.ASCII.GetBytes(hash).CopyTo(repaired, digits);
        return repaired;
    }

    private static void ReadSafetensors(string path)
    {
        using SafetensorsFile file = SafetensorsFile.Open(path);
        file.VerifyChecksum();
        foreach (SafetensorsTensor tensor in file.Tensors.Where(t => t.DataType.StartsWith('F') && t.DataType.Length == 3))
        {
            file.Read(tensor.Name, new float[tensor.Count]);
        }
    }

    private static void ReadCheckpoint(string path)
    {
        using Checkpoint file = Checkpoint.Open(path);
        file.SaveCopy(path + ".copy", new NetworkState());
        _ = file.Info.Epoch;
        try
        {
            file.ReadNetwork();
        }
        catch (UserErrorException)
        {
            // The one of the seed has no layers.
        }
    }

    private static byte[] Metrics()
    {
        using var folder = new TemporaryFolder();
        var run = new WrittenRun(folder["run"], "net, a", 1000, 0);
        for (int i = 0; i < 6; i++)
        {
            run.Log(50);
        }

        run.End("completed");
        // Two evaluations with as many layers as matter.
        return [.. File.ReadAllBytes(folder["run/metrics.jsonl"]).AsSpan(0, 9000), .. Text("\n{\"type\":\"batch_norm\",\"step\":300,\"epoch\":3,\"since_step\":200,\"layers\":[{\"name\":\"a/bn\",\"channels\":64,\"shift\":0.1,\"largest_shift\":0.2,\"deviation\":1.5,\"quiet_channels\":1}]}\n")];
    }

    private static byte[] Predictions() => Text(
        $$"""
        {"step":40,"spread":[{"image":"a.jpg","class":"tench","top":[{"class":"tench","probability":0.9,"right":true},{"class":"eel","probability":0.1,"right":false}],"jpeg":"{{Convert.ToBase64String(TestImages.Jpeg(4, 4, SKColors.Red))}}"}],
        "mistakes":[{"image":"b.jpg","class":"eel","top":[{"class":"tench","probability":0.9,"right":false}]}],
        "worst_classes":[{"class":"eel","images":10,"right":2}],"confusions":[{"class":"eel","predicted":"tench","count":8,"images":10}]}
        """);

    private static void ShowRun(string folder)
    {
        string metrics = Path.Combine(folder, "metrics.jsonl");
        if (!File.Exists(metrics))
        {
            File.WriteAllText(metrics, "");
        }

        var run = new RunFolder(folder);
        run.Log.Update();
        WebPage.Render(RunPage.Title(run), RunPage.Main(run));
        RunsPage.Main([("a", run)], [], bySteps: false);
    }

    private static ImageTable Loose(params string[] names)
    {
        var images = new ImageTable.Builder();
        foreach (string name in names)
        {
            images.Add(name);
        }

        return images.Build();
    }

    private static string Below(string path) => Path.Combine(Path.GetDirectoryName(path)!, "val");

    private static byte[] Gzip(byte[] bytes)
    {
        var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Fastest, leaveOpen: true))
        {
            gzip.Write(bytes);
        }

        return packed.ToArray();
    }

    private static byte[] Gunzip(byte[] bytes)
    {
        using var gzip = new GZipStream(new MemoryStream(bytes), CompressionMode.Decompress);
        var unpacked = new MemoryStream();
        gzip.CopyTo(unpacked);
        return unpacked.ToArray();
    }

    private readonly struct DatasetContentsScope(DatasetContents contents) : IDisposable
    {
        public void Dispose() => contents.Store.Dispose();
    }
}
