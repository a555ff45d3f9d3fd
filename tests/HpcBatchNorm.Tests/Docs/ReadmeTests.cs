using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Serving;

namespace HpcBatchNorm.Tests.Docs;

/// <summary>The samples of README.md are compiled and run here, and must stand there word for word.</summary>
public sealed class ReadmeTests : IDisposable
{
    private readonly Backend backend = Backend.Create(Backend.Probe().Any(p => p is { Name: "onednn", Available: true }) ? "onednn" : "reference");

    public void Dispose() => backend.Dispose();

    [Fact]
    public void BatchNormSample_NormalisesEachChannel()
    {
        float[] images = [1, 2, 3, 6, -5, -5, 5, 5, 3, 2, 1, 6, 5, 5, -5, -5];
        float[] normalized = new float[images.Length];

        // sample: one operation
        var spec = new BatchNormSpec(new Shape(N: 2, C: 2, H: 2, W: 2), Relu: true);
        Tensor src = new("src", spec.Src, TensorRole.Activation), dst = new("dst", spec.Src, TensorRole.Activation);
        Tensor scale = new("scale", spec.Parameters, TensorRole.Parameter), shift = new("shift", spec.Parameters, TensorRole.Parameter);
        Tensor mean = new("mean", spec.Parameters, TensorRole.BatchStatistic), variance = new("variance", spec.Parameters, TensorRole.BatchStatistic);
        using var runner = new OperationRunner(backend, new BatchNormForward("bn", spec)
        {
            Src = src,
            Dst = dst,
            Scale = scale,
            Shift = shift,
            Mean = mean,
            Variance = variance,
        });
        runner.Write(src, images);                // float[16], NCHW
        runner.Write(scale, [1f, 1f]);
        runner.Write(shift, [0f, 0f]);
        runner.Execute();
        runner.Read(dst, normalized);             // max(0, (src - mean) / sqrt(variance + 1e-5))
        // end

        float high = (float)(3 / Math.Sqrt(3.5 + 1e-5)), one = (float)(5 / Math.Sqrt(25 + 1e-5));
        float[] expected = [0, 0, 0, high, 0, 0, one, one, 0, 0, 0, high, one, one, 0, 0];
        Assert.Equal(expected, normalized, (a, b) => Math.Abs(a - b) <= 1e-6f);
        Assert.Contains(Sample("one operation"), Readme(), StringComparison.Ordinal);
    }

    [Fact]
    public void TrainingSample_LearnsItsBatch()
    {
        // sample: training
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10 });
        using var session = new TrainingSession(backend, network, new TrainingOptions { Batch = 8, Height = 32, Width = 32 });
        byte[] pixels = new byte[8 * 32 * 32 * 3]; // NHWC
        int[] labels = [0, 1, 2, 3, 4, 5, 6, 7];
        new Random(1).NextBytes(pixels);
        for (int step = 0; step < 10; step++)
        {
            float loss = session.Step(pixels, labels, new StepContext(step, LearningRate: 0.05f));
            Console.WriteLine($"step {step}: loss {loss:F3}");
        }
        // end

        float first = session.Step(pixels, labels, new StepContext(10, 0.05f));
        Assert.InRange(first, 0, MathF.Log(10) - 0.5f);
        Assert.Contains(Sample("training"), Readme(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task NetworkSample_IsTrainedAndClassifies()
    {
        string[] classNames = ["dark", "light"];
        int[] labels = [.. Enumerable.Range(0, 64).Select(i => i % 2)];
        byte[] pixels = [.. labels.SelectMany(label => Enumerable.Range(0, 16 * 16 * 3).Select(i => (byte)((label == 1 ? 150 : 50) + i % 7)))], photo = pixels[(16 * 16 * 3)..(2 * 16 * 16 * 3)];
        string folder = Directory.CreateTempSubdirectory("hpcbn-readme").FullName;

#pragma warning disable xUnit1051 // The sample stands as a user writes it, without the tests' cancellation.
        // sample: a network of one's own
        var b = new NetworkBuilder("my-net");
        Node x = b.Convolution("conv1", b.Input(channels: 3), 16, kernel: 3, pad: 1);
        x = b.Relu("relu1", b.BatchNorm("bn1", x));
        b.Loss(b.FullyConnected("fc", b.GlobalAveragePooling("pool", x), outputs: 2));
        Network network = b.Build();

        var images = new InMemoryImageSource(pixels, width: 16, height: 16, channels: 3, labels, classNames);
        RunConfig config = RunConfig.ForWholeImages(16) with { BatchSize = 8, LearningRate = 0.05f, Epochs = 8, Output = folder };
        TrainingResult result = new Trainer(network, images, validation: images, config).Run();

        using Classifier classifier = Classifier.Open(result.Checkpoint); // safe from any thread
        Classification answer = await classifier.ClassifyAsync(photo, 16, 16, PixelFormat.Rgb);
        Console.WriteLine($"{answer.Best.Name}: {answer.Best.Probability:P0}");
        // end
#pragma warning restore xUnit1051

        Assert.Equal((1, "light"), (answer.Best.Index, answer.Best.Name));
        Assert.InRange(result.Validation!.Top1, 0.99, 1);
        Assert.Contains(Sample("a network of one's own"), Readme(), StringComparison.Ordinal);
        Directory.Delete(folder, recursive: true);
    }

    private static string Readme() => File.ReadAllText(RepoPaths.InRepo("README.md"));

    /// <summary>The lines between "// sample: name" and "// end" in this file, without the indentation they have here.</summary>
    private static string Sample(string name)
    {
        IEnumerable<string> lines = File.ReadLines(RepoPaths.InRepo("tests", "HpcBatchNorm.Tests", "Docs", "ReadmeTests.cs"))
            .SkipWhile(l => l.Trim() != $"// sample: {name}").Skip(1)
            .TakeWhile(l => l.Trim() != "// end")
            .Select(l => l.Length > 8 ? l[8..] : "");
        return string.Join('\n', lines);
    }
}
