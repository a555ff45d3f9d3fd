using HpcBatchNorm.Interop;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Reporting;

/// <summary>What this library keeps of a run: to be given to the trainer.</summary>
public static class RunSinks
{
    /// <summary>TensorBoard's events, then <c>predictions.json</c> and <c>report.html</c>, in the folder of the run.</summary>
    public static IReadOnlyList<RunSinkFactory> All { get; } = [context => new EventSink(context), context => new ReportSink(context)];

    /// <summary>Scalars for TensorBoard.</summary>
    private sealed class EventSink(RunContext context) : IRunSink
    {
        private readonly EventFileWriter _events = new(context.Folder, context.FirstStep);

        public void Logged(in StepReport report)
        {
            _events.Add("loss/train", report.MeanLoss);
            _events.Add("lr", report.LearningRate);
            _events.Add("throughput/samples_per_sec", report.ImagesPerSecond);
            _events.Add("time/step", report.ImagesPerSecond > 0 ? context.ImagesPerStep / report.ImagesPerSecond : 0);
            _events.Add("time/data_wait_share", report.DataWaitShare);
            _events.Add("memory/peak_mb", ProcessMemory.PeakMb());
            _events.Add("epoch", report.Epoch);
            if (report.LossScale is { } scale)
            {
                _events.Add("loss_scale", scale.Scale);
                _events.Add("skipped_steps", scale.SkippedSteps);
            }

            Add(report.Metrics);
            _events.Write(report.Step);
        }

        public void Evaluated(in EvaluationReport report, IReadOnlyList<LayerDrift> drift)
        {
            _events.Add("loss/val", report.Validation.Loss);
            _events.Add("acc1/val", report.Validation.Top1);
            _events.Add("acc5/val", report.Validation.Top5);
            _events.Add("throughput/val_samples_per_sec", report.Validation.ImagesPerSecond);
            foreach (LayerDrift layer in drift)
            {
                if (double.IsFinite(layer.Shift))
                {
                    _events.Add($"bn_shift/{layer.Layer}", layer.Shift);
                }

                _events.Add($"bn_deviation/{layer.Layer}", layer.Deviation);
            }

            Add(report.Metrics);
            _events.Write(report.Step);
        }

        public void Dispose() => _events.Dispose();

        private void Add(IReadOnlyDictionary<string, double> metrics)
        {
            foreach ((string name, double value) in metrics)
            {
                _events.Add($"metrics/{name}", value);
            }
        }
    }

    /// <summary>What was said of single images, and the page that shows the run.</summary>
    private sealed class ReportSink(RunContext context) : IRunSink
    {
        private readonly PredictionLog? _predictions = context.Validation is null ? null : new(context.Validation, context.EvaluationLoading, Path.Combine(context.Folder, RunFolder.PredictionsName));

        public void EvaluationStarted() => _predictions?.Begin();

        public void Predicted(int image, int label, ReadOnlySpan<double> probabilities) => _predictions?.Add(image, label, probabilities);

        public void Evaluated(in EvaluationReport report, IReadOnlyList<LayerDrift> drift)
        {
            _predictions?.Write(report.Step, report.Validation);
            WritePage();
        }

        public void Ended() => WritePage();

        public void Dispose()
        {
        }

        private void WritePage()
        {
            var folder = new RunFolder(context.Folder);
            folder.Log.Update();
            AtomicFile.ReplaceText(RunDirectory.ReportOf(context.Folder), WebPage.Render(RunPage.Title(folder), RunPage.Main(folder)).Html);
        }
    }
}
