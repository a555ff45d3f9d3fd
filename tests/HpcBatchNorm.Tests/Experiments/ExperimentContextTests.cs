using HpcBatchNorm.Data;
using HpcBatchNorm.Experiments;

namespace HpcBatchNorm.Tests.Experiments;

public sealed class ExperimentContextTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hpcbn-experiment").FullName;
    private int _computed;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Once_SameSettings_IsComputedOnceAndReadBackExactly()
    {
        double[] values = [0.1, double.NaN, double.PositiveInfinity, 1e-300];

        Assert.Equal(values, Context().Once("a.b-1", Count(values), "rate 0.1"));
        Assert.Equal(values, Context().Once("a.b-1", Count(new double[] { 7 }), "rate 0.1"));
        Assert.Equal(1, _computed);
    }

    [Theory]
    [InlineData("rate 0.5", false)]
    [InlineData("rate 0.1", true)]
    public void Once_OtherSettingsOrQuick_IsComputedAgain(string settings, bool quick)
    {
        Context().Once("run", Count(new double[] { 1 }), "rate 0.1");

        Assert.Equal([2], Context(quick).Once("run", Count(new double[] { 2 }), settings));
    }

    [Theory]
    [InlineData("")]
    [InlineData("{\"settings\":")]
    [InlineData("{\"settings\":7}")]
    public void Once_DamagedFile_IsComputedAgain(string text)
    {
        Context().Once("run", Count(new double[] { 1 }));
        File.WriteAllText(Path.Combine(_folder, "runs", "run.json"), text);

        Assert.Equal([2], Context().Once("run", Count(new double[] { 2 })));
    }

    [Fact]
    public void Once_KeyThatIsNoFileName_IsRefused() =>
        Assert.Throws<ArgumentException>(() => Context().Once("../run", Count(new double[] { 1 })));

    [Fact]
    public void Once_UnknownType_IsRefusedBeforeAnythingIsComputed()
    {
        Assert.Throws<NotSupportedException>(() => Context().Once("run", Count(new Version(1, 0))));
        Assert.Equal(0, _computed);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void All_GivesResultsInOrder_AndGoesOnAfterAFailure(int jobs)
    {
        ExperimentRun<double>[] Runs(int broken) =>
        [
            .. Enumerable.Range(0, 8).Select(i => new ExperimentRun<double>($"run{i}", "", _ =>
            {
                Interlocked.Increment(ref _computed);
                return i == broken ? throw new UserErrorException("run 5 failed") : i;
            })),
        ];

        UserErrorException error = Assert.Throws<UserErrorException>(() => Context(jobs: jobs).All(Runs(5)));
        Assert.Equal("run 5 failed", error.Message);
        int before = _computed;
        Assert.InRange(before, 6, 8);

        Assert.Equal([0, 1, 2, 3, 4, 5, 6, 7], Context(jobs: jobs).All(Runs(-1)));
        Assert.InRange(_computed - before, 1, 8 - 5);
    }

    [Fact]
    public void All_Stopped_EndsTheRunAtItsNextReport()
    {
        using var stop = new CancellationTokenSource();
        var context = new ExperimentContext { Output = _folder, Cancellation = stop.Token };

        Assert.Throws<OperationCanceledException>(() => context.Once("run", progress =>
        {
            progress.Report(0.5);
            stop.Cancel();
            progress.Report(0.6);
            return 1.0;
        }));
        Assert.False(File.Exists(Path.Combine(_folder, "runs", "run.json")));
    }

    [Fact]
    public void Progress_CountsWhatIsKeptAndWhatIsDone()
    {
        Context().Once("run0", Count(new double[] { 1 }));
        List<ExperimentProgress> seen = [];
        var context = new ExperimentContext { Output = _folder, Progress = new Listener(seen.Add) };

        context.All([new ExperimentRun<double[]>("run0", "", Count(new double[] { 1 })), new ExperimentRun<double[]>("run1", "", progress =>
        {
            progress.Report(0.5);
            return [1];
        })]);

        Assert.Equal([new ExperimentProgress(1, 2, 0.75, "run1"), new ExperimentProgress(2, 2, 1, "run1")], seen);
    }

    [Fact]
    public void Catalog_UnknownName_SaysWhichWasMeant()
    {
        UserErrorException error = Assert.Throws<UserErrorException>(() => ExperimentCatalog.Create("droput"));
        Assert.Contains("did you mean 'dropout'?", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Data_Missing_SaysWhereMnistIs()
    {
        UserErrorException error = Assert.Throws<UserErrorException>(() => ExperimentDataPath.Find(ExperimentData.Mnist, [], _ => { }));
        Assert.Contains("train-images-idx3-ubyte", error.Message, StringComparison.Ordinal);
        Assert.Contains("as the data", error.Message, StringComparison.Ordinal);
        Assert.Null(ExperimentDataPath.Find(ExperimentData.None, [], _ => { }));
    }

    [Fact]
    public void DrawnDigits_AreIdxFilesOfTenClasses_TheSameEachTime()
    {
        string first = DigitGenerator.Ensure(Path.Combine(_folder, "a"), _ => { }, train: 600, test: 100), second = DigitGenerator.Ensure(Path.Combine(_folder, "b"), _ => { }, 600, 100);

        (MnistImages train, MnistImages test) = MnistImages.Load(first, TestContext.Current.CancellationToken);

        Assert.Equal((600, 100), (train.Count, test.Count));
        Assert.Equal(10, train.Labels.Distinct().Count());
        Assert.InRange(train.Images.Count(v => v == 255) / (600.0 * 784), 0.05, 0.3);
        Assert.All(Directory.GetFiles(first), f => Assert.Equal(File.ReadAllBytes(f), File.ReadAllBytes(Path.Combine(second, Path.GetFileName(f)))));
        Assert.Equal(first, ExperimentDataPath.Find(ExperimentData.Mnist, [first], _ => { }));
    }

    private ExperimentContext Context(bool quick = false, int jobs = 1) => new() { Output = _folder, Quick = quick, Jobs = jobs };

    private Func<IProgress<double>, T> Count<T>(T result) => _ =>
    {
        _computed++;
        return result;
    };

    private sealed class Listener(Action<ExperimentProgress> listen) : IProgress<ExperimentProgress>
    {
        public void Report(ExperimentProgress value) => listen(value);
    }
}
