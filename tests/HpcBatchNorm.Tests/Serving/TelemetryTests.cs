using System.Collections.Concurrent;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Serving;
using Microsoft.Extensions.Logging;

namespace HpcBatchNorm.Tests.Serving;

/// <summary>What listeners of the meter, the activity source and the log see of a run and of a classifier.</summary>
[Collection(Name)]
public sealed class TelemetryTests : IDisposable
{
    private const string Name = "telemetry";

    private readonly TrainingFixture _fixture = new();

    [CollectionDefinition(Name, DisableParallelization = true)]
    public sealed class Alone;

    [Fact]
    public async Task Meter_OfARunAndAClassifier_CountsThem()
    {
        var sums = new ConcurrentDictionary<string, double>();
        var last = new ConcurrentDictionary<string, double>();
        var outcomes = new ConcurrentBag<string>();
        using var listener = new MeterListener();
        listener.InstrumentPublished = (instrument, l) =>
        {
            if (instrument.Meter.Name == Instruments.Name)
            {
                l.EnableMeasurementEvents(instrument);
            }
        };
        void Record(string name, double value, ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            sums.AddOrUpdate(name, value, (_, sum) => sum + value);
            last[name] = value;
            foreach ((string key, object? tag) in tags)
            {
                outcomes.Add($"{key}={tag}");
            }
        }

        listener.SetMeasurementEventCallback<double>((i, value, tags, _) => Record(i.Name, value, tags));
        listener.SetMeasurementEventCallback<long>((i, value, tags, _) => Record(i.Name, value, tags));
        listener.SetMeasurementEventCallback<int>((i, value, tags, _) => Record(i.Name, value, tags));
        listener.Start();
        var spans = new ConcurrentBag<string>();
        using var activities = new ActivityListener
        {
            ShouldListenTo = source => source.Name == Instruments.Name,
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStopped = activity => spans.Add(activity.OperationName),
        };
        ActivitySource.AddActivityListener(activities);

        TrainingResult result = Run(new RecordingObserver());
        using (Classifier classifier = Classifier.Open(result.Checkpoint, new ClassifierOptions { Backend = TrainingFixture.Backend }))
        {
            string image = Directory.EnumerateFiles(Path.Combine(_fixture.Data), "*.JPEG", SearchOption.AllDirectories).FirstOrDefault() ?? "";
            byte[] picture = image.Length > 0 ? File.ReadAllBytes(image) : Data.TestImages.Encode(20, 20, (x, y) => new SkiaSharp.SKColor((byte)x, (byte)y, 3));
            classifier.Classify(picture);
            await classifier.ClassifyAsync(picture, TestContext.Current.CancellationToken);
            Assert.ThrowsAny<Exception>(() => classifier.Classify("x"u8));
        }

        listener.RecordObservableInstruments();
        Assert.Equal((6, 24), (sums["hpcbn.train.steps"], sums["hpcbn.train.images"]));
        Assert.True(sums["hpcbn.train.step.duration"] > 0);
        Assert.True(sums["hpcbn.train.data_wait"] >= 0);
        Assert.True(last["hpcbn.train.loss"] > 0);
        Assert.True(last["hpcbn.train.learning_rate"] > 0);
        Assert.True(last["hpcbn.train.throughput"] > 0);
        Assert.True(last["hpcbn.memory.peak"] > 10e6);
        Assert.Equal(result.Validation!.Top1, last["hpcbn.evaluation.top1"]);
        Assert.Equal(result.Validation.Loss, last["hpcbn.evaluation.loss"]);
        Assert.Equal(0, sums["hpcbn.classifier.queue"]);
        Assert.Equal(2, sums["hpcbn.classifier.pass.requests"]);
        Assert.True(sums["hpcbn.classifier.pass.duration"] > 0);
        Assert.True(sums["hpcbn.classifier.request.duration"] > 0);
        Assert.Equal(["outcome=invalid_image", "outcome=ok", "outcome=ok"], outcomes.Order(StringComparer.Ordinal));
        Assert.Equal(["hpcbn.classify", "hpcbn.evaluate", "hpcbn.save", "hpcbn.train"], spans.Distinct().Order(StringComparer.Ordinal));

        string page = File.ReadAllText(RepoPaths.InRepo("docs", "metrics.md"));
        Assert.All(sums.Keys.Concat(spans), name => Assert.Contains($"`{name}`", page, StringComparison.Ordinal));
    }

    [Fact]
    public void LoggerObserver_WritesWhatTheRunReports()
    {
        var log = new ListLogger();
        using var next = new RecordingObserver();
        Run(new LoggerObserver(log, next));
        Assert.Equal(6, next.Losses.Count);
        Assert.Contains(log.Lines, l => l.StartsWith("Information: Training from step 0 to 6.", StringComparison.Ordinal));
        Assert.Contains(log.Lines, l => l.StartsWith("Information: network: inception-tiny", StringComparison.Ordinal));
        Assert.Equal(3, log.Lines.Count(l => l.StartsWith("Information: Step ", StringComparison.Ordinal)));
        Assert.Contains(log.Lines, l => l.StartsWith("Information: Evaluation after step 6: top-1 ", StringComparison.Ordinal));
        Assert.Contains(log.Lines, l => l.Contains("is on the disk", StringComparison.Ordinal));
        var observer = new LoggerObserver(log);
        observer.Note("warning: mind the gap.");
        Assert.Equal("Warning: mind the gap.", log.Lines[^1]);
    }

    [Fact]
    public void Steps_WhenNobodyListens_AllocateNothing()
    {
        var report = new StepReport(1, 2, 1, 0.5f, 0.5, 0.1f, 10, 0, default, IsLogStep: true);
        var observer = new LoggerObserver(new ListLogger { IsOff = true });
        observer.Stepped(report);
        Instruments.Stepped(report, 4, 0.1, 0);
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 100; i++)
        {
            observer.Stepped(report);
            Instruments.Stepped(report, 4, 0.1, 0);
        }

        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    }

    public void Dispose() => _fixture.Dispose();

    private TrainingResult Run(ITrainingObserver observer)
    {
        var request = new TrainingRequest { Flags = _fixture.Flags(_fixture.NewFolder(), ("steps", "6"), ("threads", "1")) };
        using PreparedRun run = request.Prepare(observer.Note);
        return run.Run(observer, stop: TestContext.Current.CancellationToken);
    }

    private sealed class ListLogger : ILogger
    {
        public List<string> Lines { get; } = [];

        public bool IsOff { get; init; }

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => !IsOff && logLevel >= LogLevel.Information;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            Lines.Add($"{logLevel}: {formatter(state, exception)}");
    }
}
