using System.Diagnostics;
using System.Text;
using HpcBatchNorm.Data;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Training;

/// <content>
/// What several ranks add. Before each step they agree on whether it is made: a signal, a time limit, an observer or a mistake of any rank ends the run of all,
/// and each has its images by then, so that within a step nobody waits for somebody who does not come. After a step all ranks have the same state, which rank 0
/// saves by itself.
/// </content>
internal sealed partial class TrainingLoop
{
    private const double Interrupted = 1, OutOfTime = 2, StoppedEarly = 4, HasFailed = 8, HasDiverged = 16;

    private readonly Communicator _ranks;
    private readonly HeldNotes? _held;
    private readonly double[] _mine = new double[2];
    private readonly double[] _everybody;
    private long _stepBegan;
    private bool _said, _ending;
    private (double Busy, double Waited) _communicated;

    private bool HasRanks => _ranks.Size > 1;

    /// <summary>True on the one rank that writes files.</summary>
    private bool Writes => _ranks.Rank == 0;

    /// <summary>How the run is to end before the next step, on all ranks alike; null when it is to go on. Has this rank's images by then.</summary>
    /// <exception cref="AgreedException">A rank cannot go on; the message names it.</exception>
    private TrainingOutcome? EndBeforeStep(CancellationToken asked, CancellationToken stop)
    {
        TrainingOutcome Stopped() => asked.IsCancellationRequested ? TrainingOutcome.Interrupted : TrainingOutcome.TimeLimit;
        if (!HasRanks)
        {
            return stop.IsCancellationRequested ? Stopped() : _control.StopReason is not null ? TrainingOutcome.StoppedEarly : null;
        }

        _stepBegan = Stopwatch.GetTimestamp();
        UserErrorException? mistake = null;
        try
        {
            _feeder.Load(stop);
        }
        catch (OperationCanceledException)
        {
            // Said below.
        }
        catch (UserErrorException error)
        {
            mistake = error;
        }

        double wish = asked.IsCancellationRequested ? Interrupted : stop.IsCancellationRequested ? OutOfTime : _control.StopReason is not null ? StoppedEarly : 0;
        (double most, bool anyMistake) = Exchange(wish, mistake is not null);
        if (anyMistake)
        {
            _ranks.ThrowIfAny(mistake);
        }

        // Of several wishes a signal comes first: whoever sent it waits.
        int wishes = (int)most;
        return (wishes & (int)HasFailed) != 0 ? throw new AgreedException("Rank 0 has ended the run.", null)
            : (wishes & (int)HasDiverged) != 0 ? TrainingOutcome.LossNotFinite
            : (wishes & (int)Interrupted) != 0 ? TrainingOutcome.Interrupted
            : (wishes & (int)OutOfTime) != 0 ? TrainingOutcome.TimeLimit
            : wishes != 0 ? TrainingOutcome.StoppedEarly : null;
    }

    /// <summary>Why all ranks have stopped waiting for images: a signal to one of them, or the time limit.</summary>
    private TrainingOutcome AgreeOnStop(CancellationToken asked)
    {
        double wish = asked.IsCancellationRequested ? Interrupted : OutOfTime;
        int wishes = HasRanks ? (int)Exchange(wish, false).Wishes : (int)wish;
        return (wishes & (int)Interrupted) != 0 ? TrainingOutcome.Interrupted : TrainingOutcome.TimeLimit;
    }

    /// <summary>
    /// Between steps rank 0 alone may have to end: its disk is full, or what it was to save is not finite. The others learn it where they would have agreed on the
    /// next step.
    /// </summary>
    private void SayThatItEnds(double why)
    {
        if (HasRanks && Writes && !_inStep && !_inEvaluation && _step < _totalSteps && !_ending)
        {
            _said = true;
            Exchange(why, false);
        }
    }

    private (double Wishes, bool Mistake) Exchange(double wish, bool mistake)
    {
        (_mine[0], _mine[1]) = (wish, mistake ? 1 : 0);
        _ranks.AllGather(_mine, _everybody);
        int wishes = 0;
        bool any = false;
        for (int r = 0; r < _ranks.Size; r++)
        {
            wishes |= (int)_everybody[2 * r];
            any |= _everybody[2 * r + 1] != 0;
        }

        return (wishes, any);
    }

    /// <summary>Brings the other ranks' warnings to rank 0; all ranks come here after the same steps.</summary>
    private void CollectNotes()
    {
        if (!HasRanks)
        {
            return;
        }

        byte[][]? notes = _ranks.Gather(Encoding.UTF8.GetBytes(_held?.Take() ?? ""));
        for (int r = 1; notes is not null && r < notes.Length; r++)
        {
            foreach (string warning in Encoding.UTF8.GetString(notes[r]).Split('\n', StringSplitOptions.RemoveEmptyEntries))
            {
                _observer.Note(HeldNotes.From(_ranks.Names[r], warning));
            }
        }
    }

    /// <summary>Adds to the next line of metrics how much of the averaging was hidden behind the computation since the last one.</summary>
    private void MeasureCommunication(long steps)
    {
        if (HasRanks && steps > 0)
        {
            (double busy, double waited) = _ranks.MeanSeconds;
            (double sinceBusy, double sinceWaited) = (busy - _communicated.Busy, waited - _communicated.Waited);
            _communicated = (busy, waited);
            _control.AddMetric("communication_seconds_per_step", sinceBusy / steps);
            _control.AddMetric("communication_hidden_share", HiddenShare(sinceBusy, sinceWaited));
        }
    }

    private static double HiddenShare(double busy, double waited) => busy > 0 ? Math.Clamp(1 - waited / busy, 0, 1) : 1;

    private void NoteCommunication()
    {
        if (HasRanks && _all.Steps > 0)
        {
            (double busy, double waited) = _ranks.MeanSeconds;
            _observer.Note(FormattableString.Invariant(
                $"Averaging over {_ranks.Size} ranks took {busy:0.0} of {_all.Seconds:0.0} s, {100 * HiddenShare(busy, waited):0} % of it behind the computation."));
        }
    }

    /// <summary>Every rank looks at its own images; the first one that finds something speaks for all.</summary>
    private NotFiniteOutput? FindNotFinite(out string rank)
    {
        NotFiniteOutput? mine = _session.FindNotFinite();
        rank = "";
        if (!HasRanks)
        {
            return mine;
        }

        _ranks.AllGather([mine is null ? 0 : 1, 0], _everybody);
        int first = Enumerable.Range(0, _ranks.Size).FirstOrDefault(r => _everybody[2 * r] != 0, -1);
        if (first >= 0)
        {
            rank = $" on {_ranks.Names[first]}";
        }

        return mine;
    }

    private LoaderOptions Shared(LoaderOptions options) => options with
    {
        BatchSize = _config.BatchSize * _config.Optimizer.Accumulate,
        Share = new LoaderShare(_ranks.Rank, _ranks.Size, _config.BatchSize),
        Shift = _position.Shift,
        Workers = _placement is null || _config.Workers > 0 ? options.Workers : Math.Max(1, Math.Min(options.Workers, _placement.Share)),
    };

    private IEnumerable<(string Name, string Value)> RankFacts()
    {
        if (!HasRanks)
        {
            yield break;
        }

        int machines = _ranks.Names.Select(n => n[(n.IndexOf('(', StringComparison.Ordinal) + 1)..].Split(',')[0]).Distinct().Count();
        string accumulated = _config.Optimizer.Accumulate > 1 ? FormattableString.Invariant($" x {_config.Optimizer.Accumulate} passes") : "";
        yield return ("ranks", FormattableString.Invariant(
            $"{_ranks.Size} on {machines} {(machines == 1 ? "machine" : "machines")}, {_ranks.Description}; a step is {_ranks.Size} ranks x {_config.BatchSize} images{accumulated} = {_config.ImagesPerStep}; batch normalization sees {(_config.Optimizer.SyncBatchNorm ? _config.BatchSize * _ranks.Size : _config.BatchSize)}"));
        yield return ("processors", _placement!.Description);
        if (_config.LearningRateBatch == 0)
        {
            yield return ("", "the learning rate is taken as it stands; learning-rate-batch scales it with the images of a step");
        }
    }
}
