using System.Diagnostics;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training.Checkpoints;
using HpcBatchNorm.Training.Configuration;
using HpcBatchNorm.Training.Evaluation;
using HpcBatchNorm.Training.Runs;
using HpcBatchNorm.Training.Telemetry;

namespace HpcBatchNorm.Training;

/// <summary>The state of a run between its first and last step, and what happens at which step.</summary>
internal sealed class TrainingLoop : IDisposable
{
    /// <summary>Above this share of training time spent waiting for images, the observer is told what to do.</summary>
    private const double NotableDataWait = 0.2;

    /// <summary>A final evaluation is left out when it has more images than this and than ten times the training.</summary>
    private const int LargeEvaluation = 5000;

    private readonly RunConfig _config;
    private readonly ITrainingObserver _observer;
    private readonly Network _network;
    private readonly BatchNormFreezing _freezing;
    private readonly IImageSource? _validation;
    private readonly BatchLoader _loader;
    private readonly Evaluator? _evaluator;
    private readonly TrainingControl _control;
    private readonly LearningRateSchedule _schedule;
    private readonly RunDirectory _run;
    private readonly RunRecorder _recorder;
    private readonly CheckpointStore _store;
    private readonly IReadOnlyList<(string Name, string Value)> _facts;
    private readonly string _yaml, _networkJson;
    private readonly IReadOnlyList<string> _classNames;
    private readonly long _stepsPerEpoch, _firstStep, _totalSteps;
    private readonly long _start = Stopwatch.GetTimestamp();

    private readonly StepFeeder _feeder;
    private TrainingSession _session;
    private long _step, _evaluatedStep, _bestStep;
    private double _bestTop1;
    private EvaluationResult? _lastEvaluation;
    private string _lastCheckpoint = "";
    private int _badImagesNoted;
    private Divergence? _divergence;

    // Sums over three windows: since the last log line, since the last evaluation, since the start of this process.
    private StepWindow _log, _epoch, _all;
    private double _lastTrainLoss = double.NaN;

    public TrainingLoop(
        RunConfig config, ITrainingObserver observer, Network network, TrainingSession session, IImageSource train, IImageSource? validation,
        long stepsPerEpoch, long totalSteps, Checkpoint? resumed, IReadOnlyList<RunSinkFactory> sinks)
    {
        (_config, _observer, _network, _session, _validation) = (config, observer, network, session, validation);
        (_stepsPerEpoch, _totalSteps) = (stepsPerEpoch, totalSteps);
        _firstStep = _step = resumed?.Info.Step ?? 0;
        _evaluatedStep = resumed?.Info.EvaluatedStep ?? 0;
        (_bestTop1, _bestStep) = resumed is null ? (double.NaN, -1) : (resumed.Info.BestTop1, resumed.Info.BestStep);
        _log = new StepWindow(resumed?.Info.SinceLog ?? default);
        _epoch = new StepWindow(resumed?.Info.SinceEvaluation ?? default);
        _lastCheckpoint = resumed?.Path ?? "";
        _classNames = train.ClassNames;
        _schedule = new LearningRateSchedule(config, stepsPerEpoch, totalSteps);
        _freezing = new BatchNormFreezing(config, stepsPerEpoch);
        _run = new RunDirectory(config.Output, _firstStep, _evaluatedStep);
        try
        {
            _store = new CheckpointStore(RunDirectory.CheckpointFolder(config.Output), config.Keep);
            _facts = [.. TrainingFacts.Of(config, network, session, train, validation), .. Lengths(), .. TrainingFacts.Of(config, network, _freezing), ("run", config.Output)];
            _networkJson = Json(network);
            _control = new TrainingControl(resumed is null ? [] : new RunLog(_run.MetricsPath).Update().Evaluations);
            _yaml = TrainingConfigBuilder.ToYaml(config, "Effective configuration; as a configuration file it repeats the run.");
            _run.WriteConfig(_yaml);
            _loader = new BatchLoader(train, TrainingLoading(), _firstStep);
            _feeder = new StepFeeder(_loader);
            _recorder = new RunRecorder(_run, config, session, validation, EvaluationLoading(), _firstStep, _evaluatedStep, () => Elapsed, sinks);
            _evaluator = validation is null
                ? null
                : new Evaluator(session.Backend, validation, EvaluationLoading(), EvaluationSetup.Session(config)) { OnPrediction = _recorder.Predicted };
        }
        catch
        {
            _recorder?.Dispose();
            _run.Dispose();
            throw;
        }
    }

    public TrainingResult Run(CancellationToken stop)
    {
        using Activity? activity = Instruments.Source.StartActivity("hpcbn.train");
        activity?.SetTag("hpcbn.model", _network.Name).SetTag("hpcbn.backend", _session.Backend.Name).SetTag("hpcbn.first_step", _firstStep);
        try
        {
            return RunSteps(stop);
        }
        catch (UserErrorException error)
        {
            // Images that cannot be read any more, for instance: what has been trained until then is kept.
            TrySave();
            throw Failed(error);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // The run's own files.
            throw Failed(error);
        }
    }

    private TrainingResult RunSteps(CancellationToken stop)
    {
        // A run that was stopped during its final evaluation is not complete.
        if (_step > _totalSteps || (_step == _totalSteps && !IsEvaluationDue()))
        {
            return Result(TrainingOutcome.AlreadyComplete);
        }

        _observer.Attached(_control);
        _observer.Started(_facts, _step, _totalSteps);
        _recorder.Started(_facts, _step, _totalSteps, _stepsPerEpoch);
        try
        {
            // A run that was stopped during an evaluation makes it first.
            while (EvaluateAndSave(stop) && _step < _totalSteps)
            {
                if (stop.IsCancellationRequested)
                {
                    return Ended(TrainingOutcome.Interrupted);
                }

                if (_control.StopReason is not null)
                {
                    return Ended(TrainingOutcome.StoppedEarly);
                }

                if (!float.IsFinite(Step(stop)))
                {
                    return Diverged(FindDivergence());
                }
            }
        }
        catch (OperationCanceledException)
        {
            return Ended(TrainingOutcome.Interrupted);
        }
        catch (NotFiniteStateException error)
        {
            return Diverged(error.Divergence);
        }

        return Result(TrainingOutcome.Completed);
    }

    public void Dispose()
    {
        _session.Dispose(); // another than the constructor's when batch normalization was frozen on the way
        _loader.Dispose();
        _recorder.Dispose();
        _run.Dispose();
    }

    private float Step(CancellationToken stop)
    {
        if (_freezing.BeginsAt(_step) && !_session.Options.FrozenStatistics)
        {
            _session = _session.Continue(_freezing.OptionsAt(_session.Options, _step));
            _recorder.Follow(_session);
            _observer.Note(FormattableString.Invariant($"batch normalization is frozen from step {_step} on."));
        }

        long start = Stopwatch.GetTimestamp();
        float learningRate = _schedule.At(_step);
        bool goesOn = _step + 1 < _totalSteps && !_freezing.BeginsAt(_step + 1); // another session follows where statistics freeze
        float loss = _feeder.Step(_session, new StepContext(_step, learningRate), goesOn, stop, out double waited);
        _step++;
        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        _log.Add(loss, seconds, waited);
        _epoch.Add(loss, seconds, waited);
        _all.Add(loss, seconds, waited);

        bool log = _step % _config.LogEvery == 0 || _step == _totalSteps || !float.IsFinite(loss);
        TimeSpan remaining = StepReport.Duration(_all.Seconds / _all.Steps * (_totalSteps - _step));
        var report = new StepReport(
            _step, _totalSteps, _stepsPerEpoch, loss, _log.MeanLoss, learningRate, _log.ImagesPerSecond(_config.ImagesPerStep), _log.WaitShare, remaining, log,
            log ? _session.LossScale : null);
        Instruments.Stepped(report, _config.ImagesPerStep, seconds, waited);
        _observer.Stepped(report);
        if (log)
        {
            _recorder.Logged(report with { Metrics = _control.TakeMetrics() });
            _log = default;
            if (float.IsFinite(loss))
            {
                CheckState();
            }
        }

        return loss;
    }

    /// <summary>An update can overflow without a loss that shows it; found at the next log step, it has not spoilt a day's work.</summary>
    private void CheckState()
    {
        if (_session.FindNotFiniteState() is { } entry)
        {
            throw new NotFiniteStateException(new Divergence(_step, entry.Source.Node.Name, FormattableString.Invariant(
                $"After step {_step} '{entry.Tensor.Name}' is not finite, though the step's loss was: an update overflowed.")));
        }
    }

    /// <summary>Does what is due after the current step; always true, so that it can stand in the loop's condition.</summary>
    private bool EvaluateAndSave(CancellationToken stop)
    {
        bool evaluate = IsEvaluationDue();
        bool save = _step == _totalSteps || evaluate || (_config.CheckpointEvery > 0 && _step % _config.CheckpointEvery == 0);
        if (evaluate)
        {
            CheckState();
            Evaluate(stop);
        }

        if (save && (_step > _firstStep || evaluate))
        {
            Save();
        }

        return true;
    }

    private bool IsEvaluationDue() =>
        _validation is not null && _step > _evaluatedStep && (_step == _totalSteps ? IsFinalEvaluationDue() : IsMultiple(_config.EvalEvery * _stepsPerEpoch));

    /// <summary>True when the current step is the first at or after a multiple of <paramref name="interval"/> steps, which need not be whole.</summary>
    private bool IsMultiple(double interval) => interval > 0 && Math.Floor(_step / interval) > Math.Floor((_step - 1) / interval);

    private bool IsFinalEvaluationDue()
    {
        bool due = _config.EvalEvery > 0 && (_validation!.Count <= LargeEvaluation || _validation.Count <= 10 * _totalSteps * _config.ImagesPerStep);
        if (!due && _config.EvalEvery > 0)
        {
            _observer.Note(FormattableString.Invariant(
                $"No evaluation: {_validation!.Count} validation images are many for a run of {_totalSteps} steps. hpcbn eval does it for the checkpoint."));
        }

        return due;
    }

    private void Evaluate(CancellationToken stop)
    {
        using Activity? activity = Instruments.Source.StartActivity("hpcbn.evaluate");
        _recorder.EvaluationStarted();
        EvaluationResult result = _evaluator!.Run(
            [new EnsembleMember(_network, _session.ReadNetworkState(_config.Optimizer.AverageDecay > 0))], _session.Arena, p => _observer.Evaluating(p), stop);
        bool best = double.IsNaN(_bestTop1) || result.Top1 > _bestTop1;
        if (best)
        {
            (_bestTop1, _bestStep) = (result.Top1, _step);
        }

        _evaluatedStep = _step;
        _lastEvaluation = result;
        _lastTrainLoss = _epoch.MeanLoss;
        var report = new EvaluationReport(_step, (double)_step / _stepsPerEpoch, _epoch.MeanLoss, result, best);
        Instruments.Evaluated(report);
        _observer.Evaluated(report);
        _recorder.Evaluated(
            report with { Metrics = _control.TakeMetrics() }, _schedule.At(_step - 1), _epoch.ImagesPerSecond(_config.ImagesPerStep), _epoch.WaitShare);
        NoteTroubles();
        _epoch = default;
    }

    private void NoteTroubles()
    {
        if (_epoch.WaitShare > NotableDataWait)
        {
            _observer.Note(FormattableString.Invariant(
                $"warning: {100 * _epoch.WaitShare:0} % of the training time was spent waiting for images. Raise workers (now {_config.LoaderThreads}), or use smaller images."));
        }

        IReadOnlyList<BadImage> bad = _loader.BadImages;
        if (bad.Count > _badImagesNoted)
        {
            _observer.Note(FormattableString.Invariant($"warning: {bad.Count} training images cannot be read and are passed over, the last '{bad[^1].Name}' ({bad[^1].Status})."));
            _badImagesNoted = bad.Count;
        }
    }

    private void Save()
    {
        using Activity? activity = Instruments.Source.StartActivity("hpcbn.save");
        string path = _store.PathOf(_step);
        _run.FlushToDisk();
        Checkpoint.Save(path, [.. _session.State.Select(s => s.Tensor)], ReadFinite, new CheckpointInfo
        {
            Step = _step,
            StepsPerEpoch = _stepsPerEpoch,
            EvaluatedStep = _evaluatedStep,
            Model = _network.Name,
            Network = _networkJson,
            Config = _yaml,
            ConfigHash = TrainingSettings.Hash(_config),
            ClassNames = _classNames,
            BestTop1 = _bestTop1,
            BestStep = _bestStep,
            SinceLog = _log.Losses,
            SinceEvaluation = _epoch.Losses,
            LossScale = _session.LossScale,
        });
        _store.Prune(_bestStep);
        _lastCheckpoint = path;
        _observer.Saved(path);
    }

    private void TrySave()
    {
        try
        {
            if (_step > _firstStep && _lastCheckpoint != _store.PathOf(_step))
            {
                Save();
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException or NotFiniteStateException)
        {
            _observer.Note($"The state after step {_step} could not be saved: {error.Message}");
        }
    }

    private UserErrorException Failed(Exception error)
    {
        string next = _lastCheckpoint.Length == 0
            ? "No checkpoint had been written."
            : $"The last good checkpoint is '{_lastCheckpoint}'; put that right, then resume '{_run.Path}'.";
        return new UserErrorException($"{(error is UserErrorException ? "" : $"The run's folder '{_run.Path}' cannot be written: ")}{error.Message} {next}", error);
    }

    /// <summary>A state that is not finite is not worth keeping, and must not push out one that is.</summary>
    private void ReadFinite(Tensor tensor, Span<float> values)
    {
        _session.Read(tensor, values);
        foreach (float value in values)
        {
            if (!float.IsFinite(value))
            {
                string layer = _session.State.First(s => s.Tensor == tensor).Source.Node.Name;
                throw new NotFiniteStateException(new Divergence(_step, layer, FormattableString.Invariant(
                    $"After step {_step} '{tensor.Name}' is not finite, though the step's loss was: its update overflowed. This state was not saved.")));
            }
        }
    }

    /// <summary>Ends before the last step; the state is kept.</summary>
    private TrainingResult Ended(TrainingOutcome outcome)
    {
        bool saved = outcome == TrainingOutcome.StoppedEarly && _lastCheckpoint == _store.PathOf(_step);
        if (!saved && (_step > _firstStep || _lastCheckpoint.Length == 0))
        {
            try
            {
                Save();
            }
            catch (NotFiniteStateException error)
            {
                return Diverged(error.Divergence);
            }
        }

        return Result(outcome);
    }

    /// <summary>The step whose loss is not finite has updated nothing; its forward pass is made again, looking at every layer.</summary>
    private Divergence FindDivergence()
    {
        NotFiniteOutput? output = _session.FindNotFinite();
        string loss = FormattableString.Invariant($"The loss of step {_step} is not finite.");
        return output is null
            ? new Divergence(_step, "", $"{loss} Every layer's output is; the loss itself overflowed.")
            : new Divergence(_step, output.Layer, $"{loss} {output}");
    }

    private TrainingResult Diverged(Divergence divergence)
    {
        _divergence = divergence;
        return Result(TrainingOutcome.LossNotFinite);
    }

    private TrainingResult Result(TrainingOutcome outcome)
    {
        NoteTroubles();
        string? reason = outcome == TrainingOutcome.StoppedEarly ? _control.StopReason : null;
        _recorder.Ended(outcome, reason, _step, (double)_step / _stepsPerEpoch);
        return new TrainingResult
        {
            Outcome = outcome,
            Steps = _step,
            Images = _all.Steps * _config.ImagesPerStep,
            Seconds = _all.Seconds,
            DataWaitShare = _all.WaitShare,
            PeakMemoryMb = ProcessMemory.PeakMb(),
            TrainLoss = _epoch.Losses.Steps > 0 ? _epoch.MeanLoss : _lastTrainLoss,
            Validation = _lastEvaluation,
            BestTop1 = _bestTop1,
            Evaluations = new RunLog(_run.MetricsPath).Update().Evaluations,
            Checkpoint = _lastCheckpoint,
            Report = File.Exists(_run.ReportPath) ? _run.ReportPath : "",
            RunDirectory = _run.Path,
            StopReason = reason,
            Divergence = _divergence,
        };
    }

    private double Elapsed => Stopwatch.GetElapsedTime(_start).TotalSeconds;

    private LoaderOptions TrainingLoading() => TrainingSetup.Loading(_config, _network) with
    {
        BatchSize = _config.ImagesPerStep,
        EndStep = _totalSteps,
        Prefetch = Math.Max(1, 3 / _config.Optimizer.Accumulate), // about as many images ahead as without accumulation
    };

    private LoaderOptions EvaluationLoading() => EvaluationSetup.Loading(_config, _network);

    /// <summary>The lines of the start that only the loop knows.</summary>
    private IEnumerable<(string Name, string Value)> Lengths()
    {
        yield return ("learning rate", _schedule.Description);
        yield return ("steps", FormattableString.Invariant(
            $"{_totalSteps} of {_config.ImagesPerStep} images, {(double)_totalSteps / _stepsPerEpoch:0.##} epochs of {_stepsPerEpoch} steps") + (_firstStep > 0 ? FormattableString.Invariant($"; going on after step {_firstStep}") : ""));
    }

    /// <summary>Empty for a network that has no form in files: its checkpoints can only be used by who has it.</summary>
    private static string Json(Network network)
    {
        try
        {
            return network.ToJson();
        }
        catch (NotSupportedException)
        {
            return "";
        }
    }

    /// <summary>Ends the writing of a checkpoint whose values are not finite.</summary>
    private sealed class NotFiniteStateException(Divergence divergence) : Exception(divergence.Description)
    {
        public Divergence Divergence { get; } = divergence;
    }
}
