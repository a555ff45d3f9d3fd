using System.Diagnostics;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Training;

/// <summary>When the run's state is saved, and what happens where it cannot be.</summary>
internal sealed partial class TrainingLoop
{
    /// <summary>Seconds of work that are worth a checkpoint of their own before an evaluation, which may take hours.</summary>
    private const double WorthSaving = 60;

    private long _saved = Stopwatch.GetTimestamp();

    /// <summary>True when the state after the current step is in a checkpoint.</summary>
    private bool IsSaved => _store is null || _lastCheckpoint == _store.PathOf(_step);

    private bool IsTimeToSave => _config.CheckpointTime > TimeSpan.Zero && Stopwatch.GetElapsedTime(_saved) >= _config.CheckpointTime;

    /// <summary>True for the steps whose checkpoints the configuration asks for; those that the clock or a signal asks for are only kept until the next of them.</summary>
    private bool IsRegular(long step) =>
        step == _totalSteps || (_config.CheckpointEvery > 0 && step % _config.CheckpointEvery == 0) || (_validation is not null && EndsInterval(step));

    private void SaveBeforeEvaluation()
    {
        if (_config.CheckpointTime > TimeSpan.Zero && _step > _firstStep && !IsSaved
            && Stopwatch.GetElapsedTime(_saved).TotalSeconds >= Math.Min(WorthSaving, _config.CheckpointTime.TotalSeconds))
        {
            Save();
        }
    }

    private void Save()
    {
        if (_store is null)
        {
            return; // rank 0 does it: after a step all have the same state
        }

        using Activity? activity = Instruments.Source.StartActivity("hpcbn.save");
        string path = _store.PathOf(_step);
        if (!_run!.IsLost)
        {
            _run.FlushToDisk();
        }

        Checkpoint.Save(path, [.. _session.State.Select(s => s.Tensor)], ReadFinite, new CheckpointInfo
        {
            Step = _step,
            StepsPerEpoch = _position.StepsPerEpoch,
            Offset = _position.Offset,
            Shift = _position.Shift,
            ImagesPerStep = _config.ImagesPerStep,
            Images = _images,
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
        _store.Prune(_bestStep, IsRegular);
        _lastCheckpoint = path;
        _saved = Stopwatch.GetTimestamp();
        _observer.Saved(path);
    }

    private void TrySave()
    {
        try
        {
            bool lost = _run is { IsLost: true };
            if (lost)
            {
                // What it held may be gone; where another run began, nothing of this one belongs.
                _store = new CheckpointStore(RunDirectory.CheckpointFolder(RunDirectory.FreePath(_config.Output)), _config.Keep);
            }

            if ((lost || _step > _firstStep) && !IsSaved)
            {
                Save();
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException or NotFiniteStateException)
        {
            TryNote($"The state after step {_step} could not be saved: {error.Message}");
        }
        catch (ObserverException)
        {
            // The checkpoint is there; who could not be told of it is a matter of its own.
        }
    }

    private void TryNote(string message)
    {
        try
        {
            _observer.Note(message);
        }
        catch (ObserverException)
        {
            // What went wrong first is what people must read.
        }
    }

    private UserErrorException Failed(Exception error)
    {
        bool lost = _run is { IsLost: true };
        string next = _lastCheckpoint.Length == 0 ? "No checkpoint had been written."
            : !lost ? $"The last good checkpoint is '{_lastCheckpoint}'; put that right, then resume '{_config.Output}'."
            : IsSaved ? $"What was trained is in '{_lastCheckpoint}'; resume '{Path.GetDirectoryName(Path.GetDirectoryName(_lastCheckpoint))}' to go on."
            : "Its checkpoints are where the folder went.";
        string message = $"{(error is UserErrorException ? "" : $"The run's folder '{_config.Output}' cannot be written: ")}{error.Message} {next}";
        return _said ? new AgreedException(message, error) : new UserErrorException(message, error);
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
                    $"After step {_step} '{tensor.Name}' is not finite, though the step's loss was: its update overflowed. This state was not saved.")), inSaving: true);
            }
        }
    }

    /// <summary>Ends before the last step; the state is kept.</summary>
    private TrainingResult Ended(TrainingOutcome outcome)
    {
        _ending = true;
        bool saved = outcome == TrainingOutcome.StoppedEarly && IsSaved;
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
    private sealed class NotFiniteStateException(Divergence divergence, bool inSaving = false) : Exception(divergence.Description)
    {
        /// <summary>Found by the one rank that saves, and not by all.</summary>
        public bool InSaving { get; } = inSaving;

        public Divergence Divergence { get; } = divergence;
    }
}
