using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Tests.Evaluation;

/// <summary>Evaluation of real checkpoints on nine images, against single forward passes.</summary>
public sealed class EvaluatorTests(EvaluationFixture fixture) : IClassFixture<EvaluationFixture>
{
    private const int Size = 8, Classes = 3;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(1)]
    [InlineData(2)] // the last batch holds one image
    [InlineData(4)]
    [InlineData(9)]
    [InlineData(32)] // there is only a partial batch
    public void Run_AnyBatchSize_CountsEachImageOnceAndGivesTheSame(int batch)
    {
        using var run = new Run(fixture, batch, crops: 1, fixture.First);

        Assert.Equal(9, run.Result.Images);
        Assert.Equal(Enumerable.Range(0, 9), run.Predictions.Select(p => p.Image));
        Assert.Equal([3L, 3, 3], run.Result.Classes.Select(c => c.Images));
        Assert.Equal(run.Result.Images - run.Result.Classes.Sum(c => c.Top1Images), run.Result.Confusions.Sum(c => c.Images));
        AssertClose(run.ForwardOneByOne(0), run.Predictions);
        Assert.Equal(run.Predictions.Average(p => -Math.Log(p.Probabilities[p.Label])), run.Result.Loss, 6);
        Assert.Equal(run.Predictions.Count(p => p.Probabilities.Max() == p.Probabilities[p.Label]) / 9.0, run.Result.Top1, 12);
    }

    [Theory]
    [InlineData(10, 4)] // one image at a time, five forward passes of two views
    [InlineData(10, 25)] // two images at a time; the last one alone
    [InlineData(144, 32)]
    public void Run_SeveralCrops_AveragesTheProbabilitiesOfAllViews(int crops, int batch)
    {
        using var run = new Run(fixture, batch, crops, fixture.First);

        Assert.Equal(9, run.Result.Images);
        AssertClose(run.ForwardOneByOne(0), run.Predictions);
    }

    [Fact]
    public void Run_Ensemble_AveragesTheProbabilitiesOfDifferentNetworks()
    {
        using var both = new Run(fixture, 4, crops: 1, fixture.First, fixture.Second);

        double[][] expected = [.. both.ForwardOneByOne(0).Zip(both.ForwardOneByOne(1), (a, b) => a.Zip(b, (x, y) => (x + y) / 2).ToArray())];
        Assert.NotEqual(both.ForwardOneByOne(0)[0][0], both.ForwardOneByOne(1)[0][0], 1e-3);
        AssertClose(expected, both.Predictions);
        foreach ((EvaluationResult member, string checkpoint) in both.Result.Members.Zip([fixture.First, fixture.Second]))
        {
            using var alone = new Run(fixture, 4, crops: 1, checkpoint);
            Assert.Equal(alone.Result with { Seconds = 0 }, member with { Seconds = 0 });
            Assert.Empty(alone.Result.Members);
        }

        Assert.Equal(2, both.Result.Members.Count);
    }

    [Fact]
    public void Run_BatchStatistics_NormaliseEachBatchByItsOwnImages()
    {
        using var run = new Run(fixture, 4, crops: 1, BatchNormStatistics.Batch, fixture.First);
        using var whole = new Run(fixture, 9, crops: 1, BatchNormStatistics.Batch, fixture.First);
        using var running = new Run(fixture, 9, crops: 1, fixture.First);

        Assert.Equal(9, run.Result.Images);
        // The ninth image is a batch of its own, which has statistics over its positions.
        AssertClose([run.ForwardBatch([8])[0]], run.Predictions[8..]);
        AssertClose(run.ForwardBatch([4, 5, 6, 7]), run.Predictions[4..8]);
        AssertClose(run.ForwardBatch([.. Enumerable.Range(0, 9)]), whole.Predictions);
        Assert.True(Distance(whole, run) > 1e-3 && Distance(whole, running) > 1e-3);
    }

    [Fact]
    public void Progress_EndsWithTheResult()
    {
        List<EvaluationProgress> reports = [];
        EvaluationResult result = Request(fixture.First).Run(_ => { }, reports.Add, TestContext.Current.CancellationToken);

        Assert.Equal([4L, 8, 9], reports.Select(r => r.Images));
        Assert.Equal((9, result.Top1, result.Top5, TimeSpan.Zero), (reports[^1].Total, reports[^1].Top1, reports[^1].Top5, reports[^1].Remaining));
    }

    [Fact]
    public void Request_OtherClasses_IsRefusedNamingTheFirst()
    {
        string data = fixture.Training.NewFolder();
        SampleGenerator.Write(data, new SampleOptions { Classes = 4, TrainPerClass = 2, ValidationPerClass = 2, ImageSize = 16 }, cancellationToken: TestContext.Current.CancellationToken);

        EvaluationRequest request = Request(fixture.First) with { Flags = [("data", data)] };

        string message = Assert.Throws<UserErrorException>(() => request.Run(_ => { }, stop: TestContext.Current.CancellationToken)).Message;
        Assert.Contains("trained on 3 other classes than the 4", message, StringComparison.Ordinal);
        Assert.Contains("class 3 is nothing in the checkpoint, 'n", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Request_EnsembleOfOtherClasses_IsRefused()
    {
        string data = fixture.Training.NewFolder();
        SampleGenerator.Write(data, new SampleOptions { Classes = 4, TrainPerClass = 2, ValidationPerClass = 2, ImageSize = 16 }, cancellationToken: TestContext.Current.CancellationToken);
        string other = fixture.Train(("data", data));

        UserErrorException error = Assert.Throws<UserErrorException>(() => Request(fixture.First, other).Run(_ => { }, stop: TestContext.Current.CancellationToken));

        Assert.Contains(other, error.Message, StringComparison.Ordinal);
        Assert.Contains("must all know the same classes", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Request_BatchStatisticsWithCrops_IsRefused() => Assert.Throws<UserErrorException>(
        () => (Request(fixture.First) with { Crops = 10, Statistics = BatchNormStatistics.Batch }).Run(_ => { }, stop: TestContext.Current.CancellationToken));

    private static EvaluationRequest Request(params string[] checkpoints) => new() { Checkpoints = checkpoints };

    private static double Distance(Run a, Run b) =>
        a.Predictions.Zip(b.Predictions, (p, q) => p.Probabilities.Zip(q.Probabilities, (x, y) => Math.Abs(x - y)).Max()).Max();

    private static void AssertClose(IReadOnlyList<double[]> expected, IReadOnlyList<Prediction> actual)
    {
        Assert.Equal(expected.Count, actual.Count);
        for (int i = 0; i < expected.Count; i++)
        {
            Assert.Equal(expected[i], actual[i].Probabilities, (a, b) => Math.Abs(a - b) <= 1e-5);
        }
    }

    private sealed record Prediction(int Image, int Label, double[] Probabilities);

    /// <summary>An evaluation with what it predicted, and the means to predict the same otherwise.</summary>
    private sealed class Run : IDisposable
    {
        private readonly RunConfig _config;
        private readonly int _crops;
        private readonly ImageDataset _dataset;
        private readonly Backend _backend = Backend.Create(TrainingFixture.Backend, new BackendOptions { Threads = 1 });
        private readonly EnsembleMember[] _members;

        public Run(EvaluationFixture fixture, int batch, int crops, params string[] checkpoints)
            : this(fixture, batch, crops, BatchNormStatistics.Running, checkpoints)
        {
        }

        public Run(EvaluationFixture fixture, int batch, int crops, BatchNormStatistics statistics, params string[] checkpoints)
        {
            _crops = crops;
            _dataset = ImageDataset.Open(fixture.Training.Data, DatasetSplit.Validation, cacheDirectory: null);
            _config = new RunConfig { Optimizer = new TrainingOptions { Height = Size, Width = Size, Batch = batch } };
            _members = [.. checkpoints.Select(path =>
            {
                using Checkpoint checkpoint = Checkpoint.Open(path);
                return checkpoint.ReadMember(_dataset, Size);
            })];
            var evaluator = new Evaluator(
                _backend, _dataset, EvaluationSetup.Loading(_config, _members[0].Network, crops), EvaluationSetup.Session(_config, crops) with { Statistics = statistics })
            {
                OnPrediction = (image, label, probabilities) => Predictions.Add(new Prediction(image, label, probabilities.ToArray())),
            };
            Result = evaluator.Run(_members, cancellationToken: TestContext.Current.CancellationToken);
        }

        public List<Prediction> Predictions { get; } = [];

        public EvaluationResult Result { get; }

        /// <summary>Every view of every image alone, averaged per image.</summary>
        public List<double[]> ForwardOneByOne(int member)
        {
            using var session = new ForwardSession(
                _backend, _members[member].Network, new InferenceOptions { Batch = 1, Height = Size, Width = Size }, _members[member].State);
            List<double[]> means = [];
            float[] probabilities = new float[Classes];
            for (int image = 0; image < _dataset.Count; image++)
            {
                double[] mean = new double[Classes];
                byte[] pixels = Pixels(image);
                int bytes = pixels.Length / _crops;
                for (int view = 0; view < _crops; view++)
                {
                    session.Forward(pixels.AsSpan(view * bytes, bytes), probabilities);
                    for (int c = 0; c < Classes; c++)
                    {
                        mean[c] += probabilities[c] / (double)_crops;
                    }
                }

                means.Add(mean);
            }

            return means;
        }

        /// <summary>Some images together, normalised by their own statistics.</summary>
        public List<double[]> ForwardBatch(int[] images)
        {
            var options = new InferenceOptions { Batch = images.Length, Height = Size, Width = Size, Statistics = BatchNormStatistics.Batch };
            using var session = new ForwardSession(_backend, _members[0].Network, options, _members[0].State);
            float[] probabilities = new float[images.Length * Classes];
            session.Forward(images.SelectMany(Pixels).ToArray(), probabilities);
            return [.. probabilities.Chunk(Classes).Select(row => Array.ConvertAll(row, p => (double)p))];
        }

        public void Dispose()
        {
            _backend.Dispose();
            _dataset.Dispose();
        }

        private byte[] Pixels(int image)
        {
            using var loader = new BatchLoader(_dataset, LoaderOptions.ForEvaluation(1, Size) with { Crops = _crops }, firstStep: image);
            return loader.Next(Token).Pixels.ToArray();
        }
    }
}
