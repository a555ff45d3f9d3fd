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
    private readonly Communicator _ranks;
    private readonly HeldNotes? _held;
    private readonly double[] _mine = new double[1];
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

        Wish wishes = Exchange(
            mistake is not null ? Wish.SayMistake
            : asked.IsCancellationRequested ? Wish.Interrupt
            : stop.IsCancellationRequested ? Wish.EndInTime
            : _control.StopReason is not null ? Wish.StopEarly : Wish.None);
        if (wishes.HasFlag(Wish.Fail))
        {
            throw new AgreedException("Rank 0 has ended the run.", null);
        }

        if (wishes.HasFlag(Wish.SayMistake))
        {
            _ranks.ThrowIfAny(mistake);
        }

        // Of several wishes a signal comes first: whoever sent it waits.
        return wishes.HasFlag(Wish.Diverge) ? TrainingOutcome.LossNotFinite
            : wishes.HasFlag(Wish.Interrupt) ? TrainingOutcome.Interrupted
            : wishes.HasFlag(Wish.EndInTime) ? TrainingOutcome.TimeLimit
            : wishes.HasFlag(Wish.StopEarly) ? TrainingOutcome.StoppedEarly : null;
    }

    /// <summary>Why all ranks have stopped waiting for images: a signal to one of them, or the time limit.</summary>
    private TrainingOutcome AgreeOnStop(CancellationToken asked)
    {
        Wish wish = asked.IsCancellationRequested ? Wish.Interrupt : Wish.EndInTime;
        return (HasRanks ? Exchange(wish) : wish).HasFlag(Wish.Interrupt) ? TrainingOutcome.Interrupted : TrainingOutcome.TimeLimit;
    }

    /// <summary>
    /// Between steps rank 0 alone may have to end: its disk is full, or what it was to save is not finite. The others learn it where they would have agreed on the
    /// next step.
    /// </summary>
    private void SayThatItEnds(Wish why)
    {
        if (HasRanks && Writes && !_inStep && !_inEvaluation && _step < _totalSteps && !_ending)
        {
            _said = true;
            Exchange(why);
        }
    }

    /// <summary>What any of the ranks wishes.</summary>
    private Wish Exchange(Wish mine)
    {
        _mine[0] = (int)mine;
        _ranks.AllGather(_mine, _everybody);
        Wish all = Wish.None;
        foreach (double wish in _everybody)
        {
            all |= (Wish)(int)wish;
        }

        return all;
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
            if (busy == 0)
            {
                return; // on GPUs nobody's clock sees it: it is part of the recorded step
            }

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
            if (busy == 0)
            {
                return;
            }

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

        _ranks.AllGather([mine is null ? 0 : 1], _everybody);
        int first = Enumerable.Range(0, _ranks.Size).FirstOrDefault(r => _everybody[r] != 0, -1);
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
            $"{_ranks.Size} on {machines} {(machines == 1 ? "machine" : "machines")}, {_ranks.Description}; a step is {_ranks.Size} ranks x {_config.BatchSize} images{accumulated} = {_config.ImagesPerStep}; batch normalization sees {(_config.Optimizer.SyncBatchNorm ? _config.BatchSize * (_config.Optimizer.SyncBatchNormRanks > 0 ? _config.Optimizer.SyncBatchNormRanks : _ranks.Size) : _config.BatchSize)}"));
        yield return ("processors", _placement!.Description);
        if (_config.LearningRateBatch == 0)
        {
            yield return ("", "the learning rate is taken as it stands; learning-rate-batch scales it with the images of a step");
        }
    }

    /// <summary>What a rank has to say before a step.</summary>
    [Flags]
    private enum Wish
    {
        None = 0,

        /// <summary>It was sent a signal.</summary>
        Interrupt = 1,

        /// <summary>Its time limit is over.</summary>
        EndInTime = 2,

        /// <summary>Its observer asks for the end.</summary>
        StopEarly = 4,

        /// <summary>Its images cannot be read.</summary>
        SayMistake = 8,

        /// <summary>It writes the run's files, and has ended because it cannot.</summary>
        Fail = 16,

        /// <summary>It has ended because what it was to save is not finite.</summary>
        Diverge = 32,
    }
}
