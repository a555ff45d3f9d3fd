namespace HpcBatchNorm.Training;

/// <summary>What an observer has thrown, so that the run does not take it for its own: a full disk under somebody's log is not the run folder's.</summary>
internal sealed class ObserverException(Exception inner) : Exception(inner.Message, inner);

/// <summary>
/// Passes everything on and marks what comes back with <see cref="ObserverException"/>; only mistakes worded for people and requests to stop pass as they are.
/// Allocates nothing unless something is thrown.
/// </summary>
internal sealed class GuardedObserver(ITrainingObserver inner) : ITrainingObserver
{
    public void Attached(TrainingControl control)
    {
        try
        {
            inner.Attached(control);
        }
        catch (Exception error) when (IsForeign(error))
        {
            throw new ObserverException(error);
        }
    }

    public void Note(string message)
    {
        try
        {
            inner.Note(message);
        }
        catch (Exception error) when (IsForeign(error))
        {
            throw new ObserverException(error);
        }
    }

    public void Started(IReadOnlyList<(string Name, string Value)> facts, long firstStep, long totalSteps)
    {
        try
        {
            inner.Started(facts, firstStep, totalSteps);
        }
        catch (Exception error) when (IsForeign(error))
        {
            throw new ObserverException(error);
        }
    }

    public void Stepped(in StepReport report)
    {
        try
        {
            inner.Stepped(report);
        }
        catch (Exception error) when (IsForeign(error))
        {
            throw new ObserverException(error);
        }
    }

    public void Evaluating(in Evaluation.EvaluationProgress progress)
    {
        try
        {
            inner.Evaluating(progress);
        }
        catch (Exception error) when (IsForeign(error))
        {
            throw new ObserverException(error);
        }
    }

    public void Evaluated(in EvaluationReport report)
    {
        try
        {
            inner.Evaluated(report);
        }
        catch (Exception error) when (IsForeign(error))
        {
            throw new ObserverException(error);
        }
    }

    public void Saved(string checkpoint)
    {
        try
        {
            inner.Saved(checkpoint);
        }
        catch (Exception error) when (IsForeign(error))
        {
            throw new ObserverException(error);
        }
    }

    private static bool IsForeign(Exception error) => error is not (UserErrorException or OperationCanceledException);
}
