using System.Diagnostics;
using System.Runtime.ExceptionServices;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training.Distributed;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Training;

/// <summary>The state of a run between its first and last step, and what happens at which step.</summary>
internal sealed partial class TrainingLoop : IDisposable
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
    private readonly EarlyStopping? _earlyStopping;
    private readonly LearningRateSchedule _schedule;
    private readonly RunDirectory? _run; // these three on the rank that writes
    private readonly RunRecorder? _recorder;
    private CheckpointStore? _store;
    private readonly Placement? _placement;
    private readonly IReadOnlyList<(string Name, string Value)> _facts;
    private readonly string _yaml, _networkJson;
    private readonly IReadOnlyList<string> _classNames;
    private readonly DataPosition _position;
    private readonly long _firstStep, _totalSteps, _alreadyEvaluated;
    private readonly long _start;
    private readonly int _images;

    private readonly StepFeeder _feeder;
    private TrainingSession _session;
    private long _step, _evaluatedStep, _bestStep;
    private double _bestTop1;
    private EvaluationResult? _lastEvaluation;
    private string _lastCheckpoint = "";
    private int _badImagesNoted;
    private bool _inStep, _inEvaluation;
    private Divergence? _divergence;

    // Sums over three windows: since the last log line, since the last evaluation, since the start of this process.
    private StepWindow _log, _epoch, _all;
    private double _lastTrainLoss = double.NaN;

    /// <param name="config">How to train.</param>
    /// <param name="observer">Told how it goes.</param>
    /// <param name="network">What is trained.</param>
    /// <param name="session">Makes the steps.</param>
    /// <param name="train">The images to train on.</param>
    /// <param name="validation">The images to evaluate on, or null.</param>
    /// <param name="position">How steps and the place in the data belong together.</param>
    /// <param name="totalSteps">Steps of the whole run.</param>
    /// <param name="resumed">The checkpoint to go on from, or null.</param>
    /// <param name="sinks">Keep something of the run.</param>
    /// <param name="start">When the process began to work on the run, which its time limit counts from.</param>
    /// <param name="ranks">The processes that train together.</param>
    /// <param name="placement">What of its machine each of them uses; null for one process.</param>
    public TrainingLoop(
        RunConfig config, ITrainingObserver observer, Network network, TrainingSession session, IImageSource train, IImageSource? validation,
        DataPosition position, long totalSteps, Checkpoint? resumed, IReadOnlyList<RunSinkFactory> sinks, long start,
        Communicator ranks, Placement? placement)
    {
        (_ranks, _placement, _everybody) = (ranks, placement, new double[ranks.Size]);
        _held = Writes ? null : new HeldNotes();
        (_config, _observer, _network, _session, _validation) = (config, new GuardedObserver(Writes ? observer : _held!), network, session, validation);
        (_position, _totalSteps, _start, _images) = (position, totalSteps, start, train.Count);
        _firstStep = _step = resumed?.Info.Step ?? 0;
        _evaluatedStep = resumed?.Info.EvaluatedStep ?? 0;
        (_bestTop1, _bestStep) = resumed is null ? (double.NaN, -1) : (resumed.Info.BestTop1, resumed.Info.BestStep);
        _log = new StepWindow(resumed?.Info.SinceLog ?? default);
        _epoch = new StepWindow(resumed?.Info.SinceEvaluation ?? default);
        _lastCheckpoint = resumed?.Path ?? "";
        _classNames = train.ClassNames;
        _alreadyEvaluated = resumed is not null && position.Epoch(_firstStep) <= resumed.Info.EpochOf(_evaluatedStep) ? _firstStep : _evaluatedStep;
        _schedule = new LearningRateSchedule(config, position.StepsPerEpoch, Math.Max(1, position.DataStep(totalSteps)));
        _freezing = new BatchNormFreezing(config, position.StepsPerEpoch);
        _earlyStopping = config.Patience > 0 ? new EarlyStopping(config.Patience) : null;
        _yaml = TrainingConfigBuilder.ToYaml(config, "Effective configuration; as a configuration file it repeats the run.");
        _networkJson = Json(network);
        _facts =
        [
            .. TrainingFacts.Of(config, network, session.Prepared, train, validation), .. RankFacts(), .. Lengths(), .. TrainingFacts.Of(config, network, _freezing), ("run", config.Output),
        ];
        if (placement is { Warning.Length: > 0 } && ranks.LocalRank == 0)
        {
            _observer.Note(placement.Warning);
        }

        BatchMixer? mixer = config.Optimizer.MixesLabels ? new BatchMixer(config.Optimizer, network.InputChannels) : null;
        if (!Writes)
        {
            _control = new TrainingControl([]);
            _loader = new BatchLoader(train, TrainingLoading(), position.DataStep(_firstStep));
            _feeder = new StepFeeder(_loader, mixer);
            _evaluator = MakeEvaluator(null);
            return;
        }

        _run = new RunDirectory(config.Output, _firstStep, _evaluatedStep);
        try
        {
            _store = new CheckpointStore(RunDirectory.CheckpointFolder(config.Output), config.Keep);
            int aside = _store.SetAside(after: resumed is null ? -1 : _firstStep);
            if (aside > 0 && resumed is not null)
            {
                _observer.Note(FormattableString.Invariant(
                    $"{aside} checkpoints of later steps than {_firstStep} are kept in '{CheckpointStore.AsideOf(RunDirectory.CheckpointFolder(config.Output))}'."));
            }

            _control = new TrainingControl(resumed is null ? [] : new RunLog(_run.MetricsPath).Update().Evaluations);
            _run.WriteConfig(_yaml);
            _loader = new BatchLoader(train, TrainingLoading(), position.DataStep(_firstStep));
            _feeder = new StepFeeder(_loader, mixer);
            _recorder = new RunRecorder(_run, config, session, validation, EvaluationLoading(), _firstStep, _evaluatedStep, () => Elapsed, sinks);
            _evaluator = MakeEvaluator(_recorder.Predicted);
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
            // The run's own files; what cannot take a line of metrics may still take a checkpoint.
            SayThatItEnds(Wish.Fail);
            TrySave();
            throw Failed(error);
        }
        catch (ObserverException error)
        {
            SayThatItEnds(Wish.Fail);
            TrySave();
            ExceptionDispatchInfo.Throw(error.InnerException!);
            throw;
        }
        catch (Exception) when (!_inStep)
        {
            // Between steps the state is whole, whatever has failed; within one some parameters may have been updated and others not.
            TrySave();
            throw;
        }
    }

    private TrainingResult RunSteps(CancellationToken asked)
    {
        using var limited = CancellationTokenSource.CreateLinkedTokenSource(asked);
        if (_config.MaxTime > TimeSpan.Zero)
        {
            TimeSpan left = _config.MaxTime - Stopwatch.GetElapsedTime(_start);
            limited.CancelAfter(left > TimeSpan.Zero ? left : TimeSpan.Zero);
        }

        CancellationToken stop = limited.Token;
        // A run that was stopped during its final evaluation is not complete.
        if (_step > _totalSteps || (_step == _totalSteps && !IsEvaluationDue()))
        {
            return Result(TrainingOutcome.AlreadyComplete);
        }

        _earlyStopping?.Attached(_control);
        _observer.Attached(_control);
        _observer.Started(_facts, _step, _totalSteps);
        _recorder?.Started(_facts, _step, _totalSteps, _position);
        try
        {
            // A run that was stopped during an evaluation makes it first.
            while (EvaluateAndSave(stop) && _step < _totalSteps)
            {
                if (EndBeforeStep(asked, stop) is { } outcome)
                {
                    return outcome == TrainingOutcome.LossNotFinite
                        ? Diverged(new Divergence(_step, "", FormattableString.Invariant($"After step {_step} the state that rank 0 was to save is not finite.")))
                        : Ended(outcome);
                }

                if (!float.IsFinite(Step(stop)))
                {
                    return Diverged(FindDivergence());
                }
            }
        }
        catch (OperationCanceledException)
        {
            _inStep = _inEvaluation = false; // it waited for images
            return Ended(AgreeOnStop(asked));
        }
        catch (NotFiniteStateException error)
        {
            if (error.InSaving)
            {
                SayThatItEnds(Wish.Diverge);
            }

            return Diverged(error.Divergence);
        }

        return Result(TrainingOutcome.Completed);
    }

    public void Dispose()
    {
        _session.Dispose(); // another than the constructor's when batch normalization was frozen on the way
        _loader.Dispose();
        _recorder?.Dispose();
        _run?.Dispose();
    }

    private float Step(CancellationToken stop)
    {
        long dataStep = _position.DataStep(_step);
        if (_freezing.BeginsAt(dataStep) && !_session.Options.FrozenStatistics)
        {
            _session = _session.Continue(_freezing.OptionsAt(_session.Options, dataStep));
            _recorder?.Follow(_session);
            _observer.Note(FormattableString.Invariant($"batch normalization is frozen from step {_step} on."));
        }

        long start = HasRanks ? _stepBegan : Stopwatch.GetTimestamp();
        float learningRate = _schedule.At(dataStep);
        bool goesOn = _step + 1 < _totalSteps && !_freezing.BeginsAt(dataStep + 1); // another session follows where statistics freeze
        _inStep = true;
        float loss = _feeder.Step(_session, new StepContext(_step, learningRate), goesOn, stop, out double waited);
        _step++;
        _inStep = false;
        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        _log.Add(loss, seconds, waited);
        _epoch.Add(loss, seconds, waited);
        _all.Add(loss, seconds, waited);

        bool log = _step % _config.LogEvery == 0 || _step == _totalSteps || !float.IsFinite(loss);
        TimeSpan remaining = StepReport.Duration(_all.Seconds / _all.Steps * (_totalSteps - _step));
        var report = new StepReport(
            _step, _totalSteps, _position.StepsPerEpoch, loss, _log.MeanLoss, learningRate, _log.ImagesPerSecond(_config.ImagesPerStep), _log.WaitShare, remaining, log,
            log ? _session.LossScale : null)
        {
            Offset = _position.Offset,
        };
        Instruments.Stepped(report, _config.ImagesPerStep, seconds, waited);
        if (log)
        {
            CollectNotes();
        }

        _observer.Stepped(report);
        if (log)
        {
            MeasureCommunication(_log.Steps);
            _recorder?.Logged(report with { Metrics = _control.TakeMetrics() });
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
        if (evaluate)
        {
            CheckState();
            SaveBeforeEvaluation();
            Evaluate(stop);
        }

        if ((evaluate || _step > _firstStep) && (IsRegular(_step) || evaluate || IsTimeToSave))
        {
            Save();
        }

        return true;
    }

    private bool IsEvaluationDue() =>
        _validation is not null && _step > Math.Max(_evaluatedStep, _alreadyEvaluated) && (_step == _totalSteps ? IsFinalEvaluationDue() : EndsInterval(_step));

    /// <summary>True when a step is the first at or after a multiple of the epochs between evaluations, which need not be whole.</summary>
    private bool EndsInterval(long step)
    {
        double interval = _config.EvalEvery * _position.StepsPerEpoch;
        long done = _position.DataStep(step);
        return interval > 0 && Math.Floor(done / interval) > Math.Floor((done - 1) / interval);
    }

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
        _recorder?.EvaluationStarted();
        _inEvaluation = true;
        EvaluationResult result = _evaluator!.Run(
            [new EnsembleMember(_network, _session.ReadNetworkState(_config.Optimizer.AverageDecay > 0))], _session.Arena, new Told<EvaluationProgress>(p => _observer.Evaluating(p)), stop);
        CollectNotes();
        _inEvaluation = false;
        bool best = double.IsNaN(_bestTop1) || result.Top1 > _bestTop1;
        if (best)
        {
            (_bestTop1, _bestStep) = (result.Top1, _step);
        }

        _evaluatedStep = _step;
        _lastEvaluation = result;
        _lastTrainLoss = _epoch.MeanLoss;
        var report = new EvaluationReport(_step, _position.Epoch(_step), _epoch.MeanLoss, result, best);
        Instruments.Evaluated(report);
        _earlyStopping?.Evaluated(report);
        _observer.Evaluated(report);
        _recorder?.Evaluated(
            report with { Metrics = _control.TakeMetrics() }, _schedule.At(Math.Max(0, _position.DataStep(_step) - 1)), _epoch.ImagesPerSecond(_config.ImagesPerStep), _epoch.WaitShare);
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

    /// <summary>The step whose loss is not finite has updated nothing; its forward pass is made again, looking at every layer.</summary>
    private Divergence FindDivergence()
    {
        NotFiniteOutput? output = FindNotFinite(out string rank);
        string loss = FormattableString.Invariant($"The loss of step {_step} is not finite{rank}.");
        return output is null && rank.Length > 0
            ? new Divergence(_step, "", loss)
            : output is null
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
        _ending = true;
        NoteTroubles();
        CollectNotes();
        NoteCommunication();
        string? reason = outcome == TrainingOutcome.StoppedEarly ? _control.StopReason : null;
        _recorder?.Ended(outcome, reason, _step, _position.Epoch(_step));
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
            Evaluations = _run is null ? [] : new RunLog(_run.MetricsPath).Update().Evaluations,
            Checkpoint = _lastCheckpoint,
            Report = _run is not null && File.Exists(_run.ReportPath) ? _run.ReportPath : "",
            RunDirectory = _config.Output,
            StopReason = reason,
            Divergence = _divergence,
        };
    }

    private double Elapsed => Stopwatch.GetElapsedTime(_start).TotalSeconds;

    private Evaluator? MakeEvaluator(PredictionHandler? predicted) => _validation is null
        ? null
        : new Evaluator(_session.Backend, _validation, EvaluationLoading(), EvaluationSetup.Session(_config)) { OnPrediction = predicted, Ranks = _ranks };

    private LoaderOptions TrainingLoading() => Shared(TrainingSetup.Loading(_config, _network)) with
    {
        EndStep = _position.DataStep(_totalSteps),
        Prefetch = Math.Max(1, 3 / _config.Optimizer.Accumulate), // about as many images ahead as without accumulation
    };

    private LoaderOptions EvaluationLoading() => EvaluationSetup.Loading(_config, _network);

    /// <summary>The lines of the start that only the loop knows.</summary>
    private IEnumerable<(string Name, string Value)> Lengths()
    {
        yield return ("learning rate", _schedule.Description);
        yield return ("steps", FormattableString.Invariant(
            $"{_totalSteps} of {_config.ImagesPerStep} images, {_position.Epoch(_totalSteps):0.##} epochs of {_position.StepsPerEpoch} steps") + (_firstStep > 0 ? FormattableString.Invariant($"; going on after step {_firstStep}, epoch {_position.Epoch(_firstStep):0.###}") : ""));
    }
}
