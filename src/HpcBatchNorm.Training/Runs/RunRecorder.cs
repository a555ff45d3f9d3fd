using HpcBatchNorm.Data;
using HpcBatchNorm.Sessions;

namespace HpcBatchNorm.Training;

/// <summary>What a run leaves behind to be looked at: metrics and drift, and whatever the sinks make of it.</summary>
internal sealed class RunRecorder : IDisposable
{
    private readonly RunDirectory _run;
    private readonly string _title;
    private readonly BatchNormDrift _drift;
    private readonly Func<double> _elapsedSeconds;
    private readonly List<IRunSink> _sinks = [];

    /// <summary>Begins to record; says in the metrics that a process begins.</summary>
    public RunRecorder(
        RunDirectory run, RunConfig config, TrainingSession session, IImageSource? validation, LoaderOptions evaluation, long firstStep, long evaluatedStep,
        Func<double> elapsedSeconds, IReadOnlyList<RunSinkFactory> sinks)
    {
        (_run, _title, _elapsedSeconds) = (run, $"{session.Plan.Network.Name}, {config.Name}", elapsedSeconds);
        _drift = new BatchNormDrift(session, run.Path, firstStep, evaluatedStep);
        try
        {
            var context = new RunContext(run.Path, firstStep, config.ImagesPerStep, validation, evaluation);
            foreach (RunSinkFactory sink in sinks)
            {
                _sinks.Add(sink(context));
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The run goes on in another session.</summary>
    public void Follow(TrainingSession session) => _drift.Follow(session);

    /// <summary>The run is about to begin.</summary>
    public void Started(IReadOnlyList<(string Name, string Value)> facts, long firstStep, long totalSteps, DataPosition position) =>
        _run.WriteStart(_title, facts, firstStep, position.Epoch(firstStep), totalSteps, position.StepsPerEpoch, _elapsedSeconds());

    /// <summary>A log step is done.</summary>
    public void Logged(in StepReport report)
    {
        _run.WriteStep(report, _elapsedSeconds());
        foreach (IRunSink sink in _sinks)
        {
            sink.Logged(report);
        }
    }

    /// <summary>An evaluation begins.</summary>
    public void EvaluationStarted() => _sinks.ForEach(s => s.EvaluationStarted());

    /// <summary>An evaluation has classified an image.</summary>
    public void Predicted(int image, int label, ReadOnlySpan<double> probabilities)
    {
        foreach (IRunSink sink in _sinks)
        {
            sink.Predicted(image, label, probabilities);
        }
    }

    /// <summary>An evaluation is done.</summary>
    public void Evaluated(in EvaluationReport report, float learningRate, double imagesPerSecond, double dataWaitShare)
    {
        long since = _drift.SinceStep;
        IReadOnlyList<LayerDrift> drifts = _drift.Measure(report.Step);
        _run.WriteEvaluation(report, learningRate, imagesPerSecond, dataWaitShare, _elapsedSeconds());
        if (drifts.Count > 0)
        {
            _run.WriteDrift(report.Step, report.Epoch, since, drifts, _elapsedSeconds());
        }

        foreach (IRunSink sink in _sinks)
        {
            sink.Evaluated(report, drifts);
        }
    }

    /// <summary>The run has ended.</summary>
    public void Ended(TrainingOutcome outcome, string? stopReason, long step, double epoch)
    {
        if (outcome != TrainingOutcome.AlreadyComplete)
        {
            _run.WriteEnd(outcome, stopReason, step, epoch, _elapsedSeconds());
        }

        _sinks.ForEach(s => s.Ended());
    }

    public void Dispose() => _sinks.ForEach(s => s.Dispose());
}
