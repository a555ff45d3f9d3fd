using HpcBatchNorm.Data;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Reporting;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training.Configuration;

namespace HpcBatchNorm.Training.Runs;

/// <summary>What a run leaves behind to be looked at: metrics, TensorBoard events, drift, predictions, and the report made of them.</summary>
internal sealed class RunRecorder : IDisposable
{
    /// <summary>The file of <see cref="PredictionLog"/> in a run's folder.</summary>
    public const string PredictionsName = "predictions.json";

    private readonly RunDirectory _run;
    private readonly TrainingConfig _config;
    private readonly EventFileWriter _events;
    private readonly BatchNormDrift _drift;
    private readonly Func<double> _elapsedSeconds;

    /// <summary>Begins to record; says in the metrics that a process begins.</summary>
    public RunRecorder(
        RunDirectory run, TrainingConfig config, TrainingSession session, ImageDataset validation, LoaderOptions evaluation, long firstStep, long evaluatedStep,
        Func<double> elapsedSeconds)
    {
        (_run, _config, _elapsedSeconds) = (run, config, elapsedSeconds);
        _drift = new BatchNormDrift(session, run.Path, firstStep, evaluatedStep);
        Predictions = new PredictionLog(validation, evaluation, Path.Combine(run.Path, PredictionsName));
        _events = new EventFileWriter(run.Path, firstStep);
    }

    /// <summary>To be told of every image of an evaluation.</summary>
    public PredictionLog Predictions { get; }

    /// <summary>The report's file.</summary>
    public string ReportPath => _run.ReportPath;

    /// <summary>The run goes on in another session.</summary>
    public void Follow(TrainingSession session) => _drift.Follow(session);

    /// <summary>The run is about to begin.</summary>
    public void Started(IReadOnlyList<(string Name, string Value)> facts, long firstStep, long totalSteps, long stepsPerEpoch) =>
        _run.WriteStart($"{_config.Model}, {_config.Name}", facts, firstStep, totalSteps, stepsPerEpoch, _elapsedSeconds());

    /// <summary>A log step is done.</summary>
    public void Logged(in StepReport report)
    {
        _run.WriteStep(report, _elapsedSeconds());
        _events.Add("loss/train", report.MeanLoss);
        _events.Add("lr", report.LearningRate);
        _events.Add("throughput/samples_per_sec", report.ImagesPerSecond);
        _events.Add("time/step", report.ImagesPerSecond > 0 ? _config.ImagesPerStep / report.ImagesPerSecond : 0);
        _events.Add("time/data_wait_share", report.DataWaitShare);
        _events.Add("memory/peak_mb", ProcessMemory.PeakMb());
        _events.Add("epoch", report.Epoch);
        if (report.LossScale is { } scale)
        {
            _events.Add("loss_scale", scale.Scale);
            _events.Add("skipped_steps", scale.SkippedSteps);
        }

        _events.Write(report.Step);
    }

    /// <summary>An evaluation is done; brings the report up to date.</summary>
    public void Evaluated(in EvaluationReport report, float learningRate, double imagesPerSecond, double dataWaitShare)
    {
        long since = _drift.SinceStep;
        IReadOnlyList<LayerDrift> drifts = _drift.Measure(report.Step);
        _run.WriteEvaluation(report, learningRate, imagesPerSecond, dataWaitShare, _elapsedSeconds());
        if (drifts.Count > 0)
        {
            _run.WriteDrift(report.Step, report.Epoch, since, drifts, _elapsedSeconds());
        }

        _events.Add("loss/val", report.Validation.Loss);
        _events.Add("acc1/val", report.Validation.Top1);
        _events.Add("acc5/val", report.Validation.Top5);
        _events.Add("throughput/val_samples_per_sec", report.Validation.ImagesPerSecond);
        foreach (LayerDrift drift in drifts)
        {
            if (double.IsFinite(drift.Shift))
            {
                _events.Add($"bn_shift/{drift.Layer}", drift.Shift);
            }

            _events.Add($"bn_deviation/{drift.Layer}", drift.Deviation);
        }

        _events.Write(report.Step);
        Predictions.Write(report.Step, report.Validation);
        WriteReport();
    }

    /// <summary>The run has ended.</summary>
    public void Ended(TrainingOutcome outcome, long step, double epoch)
    {
        if (outcome != TrainingOutcome.AlreadyComplete)
        {
            _run.WriteEnd(outcome, step, epoch, _elapsedSeconds());
        }

        WriteReport();
    }

    public void Dispose() => _events.Dispose();

    private void WriteReport()
    {
        var folder = new RunFolder(_run.Path);
        folder.Log.Update();
        AtomicFile.ReplaceText(_run.ReportPath, WebPage.Render(RunPage.Title(folder), RunPage.Main(folder)));
    }
}
