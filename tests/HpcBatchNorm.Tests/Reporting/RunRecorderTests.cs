using System.Text.Json;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Reporting;
using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Tests.Reporting;

/// <summary>What real runs leave behind to be looked at.</summary>
public sealed class RunRecorderTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    [Fact]
    [Trait("Category", "Slow")]
    public void Run_StoppedAndResumed_TellsTheSameStoryAsOneThatWasNot()
    {
        string whole = fixture.NewFolder(), halves = fixture.NewFolder();
        (string, string)[] length = [("steps", "9"), ("eval-every", "0.5"), ("checkpoint-every", "1"), ("keep", "9")];
        using RecordingObserver all = new(), first = new() { StopAfter = 5 }, second = new();
        TrainingResult result = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(whole, length) }, all);
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(halves, length) }, first);
        Assert.Equal("interrupted", new RunFolder(halves).Log.Update().Outcome);
        // As if the process had been killed after more steps: the resumed run drops and repeats them.
        File.AppendAllText(Path.Combine(halves, "metrics.jsonl"), """{"type":"train","step":6,"epoch":1,"loss":9}""" + "\n" + """{"type":"tra""");
        File.AppendAllText(Path.Combine(halves, "summary.csv"), "1,6,9,9,");
        TrainingFixture.Run(new TrainingRequest { Resume = halves }, second);

        RunLog expected = new RunFolder(whole).Log.Update(), actual = new RunFolder(halves).Log.Update();
        Assert.Equal(expected.Train.Select(t => (t.Step, t.LearningRate)), actual.Train.Select(t => (t.Step, t.LearningRate)));
        Assert.Equal(expected.Evaluations.Select(e => (e.Step, e.Loss, e.Top1, e.Top5)), actual.Evaluations.Select(e => (e.Step, e.Loss, e.Top1, e.Top5)));
        Assert.Equal(expected.Drift.SelectMany(d => d.Layers), actual.Drift.SelectMany(d => d.Layers));
        Assert.Equal([(3L, 0L), (6L, 3L), (9L, 6L)], actual.Drift.Select(d => (d.Step, d.SinceStep)));
        Assert.Equal("completed", actual.Outcome);
        static IEnumerable<string> Steps(string run) => File.ReadLines(Path.Combine(run, "summary.csv")).Select(l => l.Split(',')[1]);
        Assert.Equal(Steps(whole), Steps(halves));
        Assert.Equal(File.ReadAllText(Path.Combine(whole, RunFolder.PredictionsName)), File.ReadAllText(Path.Combine(halves, RunFolder.PredictionsName)));

        // Events of both processes, without what the second repeats.
        string[] files = [.. Directory.GetFiles(halves, EventFileWriter.Prefix + "*").Order(StringComparer.Ordinal)];
        Assert.Equal(2, files.Length);
        List<EventFileTests.Event>[] events = [.. files.Select(f => EventFileTests.Parse(EventFileTests.Read(f)))];
        Assert.Equal(6, Assert.Single(events[1], e => e.Restarts).Step);
        Assert.Equal([2, 4, 6, 8, 9], events.SelectMany(e => e).Where(e => e.Scalars.ContainsKey("loss/train")).Select(e => e.Step));
        EventFileTests.Event last = events[1].Last(e => e.Scalars.ContainsKey("acc1/val"));
        Assert.Equal((9, (float)result.Validation!.Top1), (last.Step, last.Scalars["acc1/val"]));
        Assert.Contains("bn_shift/inception_3a/3x3/bn", last.Scalars.Keys);
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Drift_IsTheDistanceOfTheRunningStatistics()
    {
        string run = fixture.NewFolder();
        using var observer = new RecordingObserver();
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(run, ("steps", "6"), ("eval-every", "0.5"), ("keep", "9")) }, observer);
        string[] files = [.. Directory.GetFiles(Path.Combine(run, "checkpoints")).Order(StringComparer.Ordinal)];
        Dictionary<string, float[]> before = TrainingFixture.Tensors(files[^2]), after = TrainingFixture.Tensors(files[^1]);

        DriftPoint drift = new RunFolder(run).Log.Update().Drift[^1];

        Assert.Equal((3, 6), (drift.SinceStep, drift.Step));
        Assert.NotEmpty(drift.Layers);
        foreach (LayerDrift layer in drift.Layers)
        {
            (float[] Mean, float[] Variance) Statistics(Dictionary<string, float[]> state) => (state[$"{layer.Layer}.running_mean"], state[$"{layer.Layer}.running_variance"]);
            ((float[] m0, float[] v0), (float[] m1, float[] v1)) = (Statistics(before), Statistics(after));
            double[] shifts = [.. m0.Select((_, c) => Math.Sqrt(Math.Pow((double)m1[c] - m0[c], 2) + Math.Pow(Math.Sqrt(v1[c]) - Math.Sqrt(v0[c]), 2)) / Math.Sqrt(v0[c])).Order()];
            Assert.Equal(shifts[shifts.Length / 2], layer.Shift, 1e-5);
            Assert.Equal(shifts[^1], layer.LargestShift, 1e-5);
            Assert.Equal(m0.Length, layer.Channels);
        }
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Predictions_AgreeWithTheEvaluation_AndShowThePictures()
    {
        string run = fixture.NewFolder();
        using var observer = new RecordingObserver();
        TrainingResult result = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(run, ("steps", "3")) }, observer);
        EvaluationResult validation = result.Validation!;

        using JsonDocument json = JsonDocument.Parse(new RunFolder(run).Predictions);
        JsonElement root = json.RootElement;
        Assert.Equal(3, root.GetProperty("step").GetInt32());
        // 9 images: all of them are shown, and as many mistakes as there are.
        JsonElement[] spread = [.. root.GetProperty("spread").EnumerateArray()];
        Assert.Equal(9, spread.Length);
        Assert.Equal(Math.Round(9 * validation.Top1), spread.Count(p => p.GetProperty("top")[0].GetProperty("right").GetBoolean()));
        Assert.Equal(Math.Round(9 * (1 - validation.Top1)), root.GetProperty("mistakes").GetArrayLength());
        Assert.Equal(Math.Round(9 * validation.Top1), root.GetProperty("worst_classes").EnumerateArray().Sum(c => c.GetProperty("right").GetInt32()));
        Assert.Equal(Math.Round(9 * (1 - validation.Top1)), root.GetProperty("confusions").EnumerateArray().Sum(c => c.GetProperty("count").GetInt32()));
        Assert.All(spread, p =>
        {
            double[] probabilities = [.. p.GetProperty("top").EnumerateArray().Select(t => t.GetProperty("probability").GetDouble())];
            Assert.Equal(probabilities.OrderDescending(), probabilities);
            Assert.Equal(1, probabilities.Sum(), 1e-4);
            Assert.Equal([0xFF, 0xD8], p.GetProperty("jpeg").GetBytesFromBase64()[..2]);
        });
        double likelihood = spread.Sum(p => -Math.Log(p.GetProperty("top").EnumerateArray().First(t => t.GetProperty("right").GetBoolean()).GetProperty("probability").GetDouble()));
        Assert.Equal(validation.Loss, likelihood / 9, 1e-3);

        // The page needs nothing from anywhere else.
        string report = File.ReadAllText(result.Report);
        Assert.Equal(9, report.Split("data:image/jpeg;base64,").Length - 1 - root.GetProperty("mistakes").GetArrayLength());
        Assert.Contains("step-00000003.safetensors", report, StringComparison.Ordinal);
        Assert.DoesNotContain("src=\"http", report, StringComparison.Ordinal);
        Assert.DoesNotContain("href=\"http", report, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(run, "*" + AtomicFile.TemporarySuffix, SearchOption.AllDirectories));
    }
}
