using System.Diagnostics;
using System.Diagnostics.Metrics;
using HpcBatchNorm.Sessions;

namespace HpcBatchNorm.Training;

/// <summary>
/// What dotnet-counters and OpenTelemetry see of a process: a <see cref="System.Diagnostics.Metrics.Meter"/> and an <see cref="ActivitySource"/>, both called
/// <see cref="Name"/>. docs/metrics.md lists the instruments. A step allocates nothing here, whether somebody listens or not.
/// </summary>
public static class Instruments
{
    /// <summary>Name of the meter and of the activity source.</summary>
    public const string Name = "HpcBatchNorm";

    private static readonly Meter Meter = new(Name);
    private static readonly Counter<long> Steps = Meter.CreateCounter<long>("hpcbn.train.steps", "{step}", "Training steps done.");
    private static readonly Counter<long> Images = Meter.CreateCounter<long>("hpcbn.train.images", "{image}", "Images trained on.");
    private static readonly Histogram<double> StepSeconds = Meter.CreateHistogram<double>("hpcbn.train.step.duration", "s", "Time of a training step, waiting for its images included.");
    private static readonly Counter<double> DataWait = Meter.CreateCounter<double>("hpcbn.train.data_wait", "s", "Time training has waited for images.");
    private static readonly Gauge<double> Loss = Meter.CreateGauge<double>("hpcbn.train.loss", "nat", "Mean loss of the last step's batch, without weight decay.");
    private static readonly Gauge<double> LearningRate = Meter.CreateGauge<double>("hpcbn.train.learning_rate", description: "Learning rate of the last step.");
    private static readonly Gauge<double> Throughput = Meter.CreateGauge<double>("hpcbn.train.throughput", "{image}/s", "Images per second since the last log step.");
    private static readonly Histogram<double> EvaluationSeconds = Meter.CreateHistogram<double>("hpcbn.evaluation.duration", "s", "Time of an evaluation during training.");
    private static readonly Gauge<double> EvaluationLoss = Meter.CreateGauge<double>("hpcbn.evaluation.loss", "nat", "Mean loss of the last evaluation.");
    private static readonly Gauge<double> Top1 = Meter.CreateGauge<double>("hpcbn.evaluation.top1", "1", "Top-1 accuracy of the last evaluation.");
    private static readonly Gauge<double> Top5 = Meter.CreateGauge<double>("hpcbn.evaluation.top5", "1", "Top-5 accuracy of the last evaluation.");
    private static readonly Histogram<double> RequestSeconds = Meter.CreateHistogram<double>("hpcbn.classifier.request.duration", "s", "Time from a request to its answer.");
    private static readonly UpDownCounter<long> QueueLength = Meter.CreateUpDownCounter<long>("hpcbn.classifier.queue", "{request}", "Requests that wait for a session.");
    private static readonly Histogram<int> PassRequests = Meter.CreateHistogram<int>("hpcbn.classifier.pass.requests", "{request}", "Requests answered by one pass.");
    private static readonly Histogram<double> PassSeconds = Meter.CreateHistogram<double>("hpcbn.classifier.pass.duration", "s", "Time of one pass of a session.");

    static Instruments() => Meter.CreateObservableGauge("hpcbn.memory.peak", () => ProcessMemory.PeakMb() * 1e6, "By", "Peak resident memory of the process, native memory in it.");

    /// <summary>Spans: <c>hpcbn.train</c>, <c>hpcbn.evaluate</c>, <c>hpcbn.save</c>, <c>hpcbn.classify</c>.</summary>
    internal static ActivitySource Source { get; } = new(Name);

    /// <summary>A training step is done.</summary>
    internal static void Stepped(in StepReport report, int images, double seconds, double waited)
    {
        Steps.Add(1);
        Images.Add(images);
        StepSeconds.Record(seconds);
        DataWait.Add(waited);
        Loss.Record(report.Loss);
        LearningRate.Record(report.LearningRate);
        if (report.IsLogStep)
        {
            Throughput.Record(report.ImagesPerSecond);
        }
    }

    /// <summary>An evaluation during training is done.</summary>
    internal static void Evaluated(in EvaluationReport report)
    {
        EvaluationSeconds.Record(report.Validation.Seconds);
        EvaluationLoss.Record(report.Validation.Loss);
        Top1.Record(report.Validation.Top1);
        Top5.Record(report.Validation.Top5);
    }

    /// <summary>A classifier has answered a request that came in at <paramref name="start"/>: ok, invalid_image, cancelled or error.</summary>
    internal static void Answered(long start, string outcome)
    {
        if (RequestSeconds.Enabled)
        {
            RequestSeconds.Record(Stopwatch.GetElapsedTime(start).TotalSeconds, new KeyValuePair<string, object?>("outcome", outcome));
        }
    }

    /// <summary>Requests have joined or left the queue.</summary>
    internal static void Queued(int change) => QueueLength.Add(change);

    /// <summary>A pass has answered requests.</summary>
    internal static void Computed(int requests, double seconds)
    {
        PassRequests.Record(requests);
        PassSeconds.Record(seconds);
    }
}
