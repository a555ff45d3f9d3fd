using System.Diagnostics;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;
using HpcBatchNorm.Training.Serving;

namespace HpcBatchNorm.Tests.Serving;

/// <summary>A classifier answers many at once as it answers one, and nobody's trouble is another's.</summary>
public sealed class ClassifierTests(ServingFixture fixture) : IClassFixture<ServingFixture>
{
    [Theory]
    [InlineData(1, 1, 0)]
    [InlineData(2, 1, 0)]
    [InlineData(2, 8, 2)]
    [InlineData(1, 5, 0)]
    public async Task Classify_From8Threads_GivesTheAnswersOfOneThread(int sessions, int maxBatch, int delayMilliseconds)
    {
        await using Classifier classifier = Open(sessions, maxBatch, delayMilliseconds);
        Assert.Equal(sessions, classifier.Sessions);
        Assert.InRange(classifier.MaxBatch, 1, maxBatch);
        byte[][] expected = [.. fixture.Pictures.Select(p => Bits(classifier.Classify(p)))];
        Assert.True(expected.Select(Convert.ToHexString).Distinct().Count() > 10); // different pictures, different answers
        int wrong = 0, answered = 0;
        await Task.WhenAll(Enumerable.Range(0, 8).Select(thread => Task.Run(async () =>
        {
            for (int i = 0; i < 50; i++)
            {
                int picture = (i * 7 + thread) % fixture.Pictures.Count;
                Classification answer = i % 2 == 0
                    ? await classifier.ClassifyAsync(fixture.Pictures[picture], TestContext.Current.CancellationToken)
                    : classifier.Classify(fixture.Pictures[picture]);
                Interlocked.Increment(ref answered);
                if (!Bits(answer).AsSpan().SequenceEqual(expected[picture]))
                {
                    Interlocked.Increment(ref wrong);
                }
            }
        })));
        Assert.Equal((400, 0), (answered, wrong));
    }

    [Fact]
    public async Task Classify_GivesTheProbabilitiesOfEvaluation()
    {
        await using Classifier classifier = Open(1, 1, 0);
        using ImageDataset images = ImageDataset.Open(fixture.Data, DatasetSplit.Validation, cacheDirectory: null);
        using var checkpoint = Checkpoint.Open(fixture.Checkpoint);
        RunConfig config = EvaluationSetup.Configure(checkpoint, [("batch-size", "1")]);
        using Backend backend = Backend.Create(config.Backend, config.BackendOptions);
        EnsembleMember member = checkpoint.ReadMember(images, config.ImageSize);
        var expected = new Dictionary<int, double[]>();
        var evaluator = new Evaluator(backend, images, EvaluationSetup.Loading(config, member.Network), EvaluationSetup.Session(config))
        {
            OnPrediction = (image, _, probabilities) => expected[image] = probabilities.ToArray(),
        };
        evaluator.Run([member], cancellationToken: TestContext.Current.CancellationToken);
        byte[] encoded = [];
        for (int i = 0; i < images.Count; i++)
        {
            int length = images.ReadEncoded(i, ref encoded);
            Classification answer = await classifier.ClassifyAsync(encoded.AsMemory(0, length), TestContext.Current.CancellationToken);
            Assert.Equal(expected[i], answer.Probabilities.ToArray().Select(p => (double)p));
            Assert.Equal(images.ClassNames[answer.Best.Index], answer.Best.Name);
            Assert.Equal(3, answer.Top.Count);
            Assert.Equal(answer.Top.OrderByDescending(c => c.Probability), answer.Top);
        }
    }

    [Fact]
    public async Task ClassifyAsync_OfRawPixels_IsThatOfTheEncodedPicture()
    {
        await using Classifier classifier = Open(1, 1, 0);
        byte[] rgb = new byte[24 * 20 * 3];
        new Random(1).NextBytes(rgb);
        byte[] png = Data.TestImages.Encode(24, 20, (x, y) => new SkiaSharp.SKColor(rgb[3 * (y * 24 + x)], rgb[3 * (y * 24 + x) + 1], rgb[3 * (y * 24 + x) + 2]), SkiaSharp.SKEncodedImageFormat.Png);
        Assert.Equal(
            Bits(classifier.Classify(png)), Bits(await classifier.ClassifyAsync(rgb, 24, 20, PixelFormat.Rgb, TestContext.Current.CancellationToken)));
    }

    [Fact]
    public async Task BadImage_FailsItsRequestOnly()
    {
        await using Classifier classifier = Open(2, 4, 20);
        CancellationToken token = TestContext.Current.CancellationToken;
        Task<Classification>[] tasks = [.. Enumerable.Range(0, 24).Select(i => i % 3 == 0
            ? classifier.ClassifyAsync("this is no image"u8.ToArray(), token)
            : classifier.ClassifyAsync(fixture.Pictures[i % 20], token))];
        for (int i = 0; i < tasks.Length; i++)
        {
            if (i % 3 == 0)
            {
                InvalidImageException error = await Assert.ThrowsAsync<InvalidImageException>(() => tasks[i]);
                Assert.Equal(ImageStatus.NotAnImage, error.Status);
            }
            else
            {
                Assert.Equal(Bits(classifier.Classify(fixture.Pictures[i % 20])), Bits(await tasks[i]));
            }
        }

        Assert.Throws<InvalidImageException>(() => classifier.Classify([]));
    }

    [Fact]
    public async Task Cancellation_EndsTheWaitAndNothingElse()
    {
        // The pass waits for a batch that never fills, so that the request is certainly still in the queue or in the pass.
        await using Classifier classifier = Open(1, 8, 2000);
        using var stop = new CancellationTokenSource();
        Task<Classification> first = classifier.ClassifyAsync(fixture.Pictures[0], stop.Token);
        await Task.Delay(200, TestContext.Current.CancellationToken);
        long start = Stopwatch.GetTimestamp();
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => first);
        Assert.True(Stopwatch.GetElapsedTime(start).TotalSeconds < 1.5);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => classifier.ClassifyAsync(fixture.Pictures[0], stop.Token));
        Assert.NotNull(await classifier.ClassifyAsync(fixture.Pictures[1], TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task Dispose_WaitsForRequestsInFlight_AndRefusesLaterOnes()
    {
        Classifier classifier = Open(1, 4, 100);
        Task<Classification>[] tasks = [.. Enumerable.Range(0, 20).Select(i => classifier.ClassifyAsync(fixture.Pictures[i], TestContext.Current.CancellationToken))];
        await classifier.DisposeAsync();
        Assert.All(tasks, t => Assert.True(t.IsCompletedSuccessfully));
        classifier.Dispose();
        await Assert.ThrowsAsync<ObjectDisposedException>(() => classifier.ClassifyAsync(fixture.Pictures[0], TestContext.Current.CancellationToken));
        Assert.Throws<ObjectDisposedException>(() => classifier.Classify(fixture.Pictures[0]));
    }

    [Fact]
    public void AnotherSession_CostsActivationsOnly()
    {
        Network network = NetworkCatalog.Create("mnist-mlp", new NetworkOptions { Classes = 10, HiddenUnits = 2000 });
        using Backend reference = Backend.Create("reference");
        using var training = new TrainingSession(reference, network, new TrainingOptions { Batch = 2, Height = 28, Width = 28 });
        NetworkState state = training.ReadNetworkState();
        var preprocessing = new PreprocessingOptions { Size = 28, Channels = 1, CropFraction = 1 };
        string[] names = [.. Enumerable.Range(0, 10).Select(i => $"{i}")];
        double Resident(int sessions)
        {
            GC.Collect();
            double before = ResidentMb();
            using Classifier classifier = Classifier.Open(
                network, state, new InferenceOptions { Batch = 1, Height = 28, Width = 28 }, preprocessing, names,
                new ClassifierOptions { Backend = TrainingFixture.Backend, Sessions = sessions });
            Assert.True(classifier.SessionBytes < classifier.WeightBytes / 20, $"{classifier.SessionBytes} {classifier.WeightBytes}");
            return ResidentMb() - before;
        }

        Resident(1); // warms up
        double one = Resident(1), nine = Resident(9);
        double weights = network.Infer(1, 28, 28).ParameterCount * 4e-6;
        // Eight more copies of the weights would be in it; allow three for what else a process allocates.
        Assert.True(nine - one < 3 * weights, $"1 session {one:0.0} MB, 9 sessions {nine:0.0} MB, weights {weights:0.0} MB");
    }

    [Fact]
    public void Open_OfWhatCannotBe_SaysWhatIsWrong()
    {
        Assert.Throws<UserErrorException>(() => Classifier.Open(fixture.Checkpoint + "x"));
        Assert.Contains("sessions", Assert.Throws<UserErrorException>(() => Classifier.Open(fixture.Checkpoint, new ClassifierOptions { Sessions = 0 })).Message, StringComparison.Ordinal);
        Assert.Throws<UserErrorException>(() => Classifier.Open(fixture.Checkpoint, new ClassifierOptions { MaxBatch = 0 }));
    }

    private static double ResidentMb()
    {
        using var process = Process.GetCurrentProcess();
        return process.WorkingSet64 / 1e6;
    }

    private static byte[] Bits(Classification answer) => System.Runtime.InteropServices.MemoryMarshal.AsBytes(answer.Probabilities.Span).ToArray();

    private Classifier Open(int sessions, int maxBatch, int delayMilliseconds) => Classifier.Open(fixture.Checkpoint, new ClassifierOptions
    {
        Backend = TrainingFixture.Backend,
        Sessions = sessions,
        MaxBatch = maxBatch,
        BatchingDelay = TimeSpan.FromMilliseconds(delayMilliseconds),
    });
}
