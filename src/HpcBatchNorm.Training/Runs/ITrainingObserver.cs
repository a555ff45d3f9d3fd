using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Training;

/// <summary>
/// Watches a run, may end it and add to what it writes down; called on the thread that trains, which waits meanwhile. Whoever implements it writes the
/// members that matter. The library itself prints nothing.
/// </summary>
public interface ITrainingObserver
{
    /// <summary>The run has its folder and is about to begin. The control stays valid until it ends.</summary>
    void Attached(TrainingControl control)
    {
    }

    /// <summary>A line worth reading: what was found, resumed, passed over. Some come before <see cref="Attached"/>.</summary>
    void Note(string message)
    {
    }

    /// <summary>The first step follows; all that is known of the run, as lines of name and value.</summary>
    void Started(IReadOnlyList<(string Name, string Value)> facts, long firstStep, long totalSteps)
    {
    }

    /// <summary>A step is done. What is added to the metrics now goes into the line of the next log step, this one included.</summary>
    void Stepped(in StepReport report)
    {
    }

    /// <summary>An evaluation goes on; told after every batch.</summary>
    void Evaluating(in EvaluationProgress progress)
    {
    }

    /// <summary>The validation images have been evaluated. What is added to the metrics now goes into the line of this evaluation.</summary>
    void Evaluated(in EvaluationReport report)
    {
    }

    /// <summary>A checkpoint is on the disk.</summary>
    void Saved(string checkpoint)
    {
    }

    /// <summary>One observer that tells several, in their order.</summary>
    static ITrainingObserver Combine(params IReadOnlyList<ITrainingObserver> observers) => new All(observers);

    private sealed class All(IReadOnlyList<ITrainingObserver> observers) : ITrainingObserver
    {
        public void Attached(TrainingControl control)
        {
            foreach (ITrainingObserver observer in observers)
            {
                observer.Attached(control);
            }
        }

        public void Note(string message)
        {
            foreach (ITrainingObserver observer in observers)
            {
                observer.Note(message);
            }
        }

        public void Started(IReadOnlyList<(string Name, string Value)> facts, long firstStep, long totalSteps)
        {
            foreach (ITrainingObserver observer in observers)
            {
                observer.Started(facts, firstStep, totalSteps);
            }
        }

        public void Stepped(in StepReport report)
        {
            for (int i = 0; i < observers.Count; i++)
            {
                observers[i].Stepped(report);
            }
        }

        public void Evaluating(in EvaluationProgress progress)
        {
            for (int i = 0; i < observers.Count; i++)
            {
                observers[i].Evaluating(progress);
            }
        }

        public void Evaluated(in EvaluationReport report)
        {
            foreach (ITrainingObserver observer in observers)
            {
                observer.Evaluated(report);
            }
        }

        public void Saved(string checkpoint)
        {
            foreach (ITrainingObserver observer in observers)
            {
                observer.Saved(checkpoint);
            }
        }
    }
}

/// <summary>What an observer can do to the run it watches.</summary>
public sealed class TrainingControl
{
    private SortedDictionary<string, double> _metrics = new(StringComparer.Ordinal);
    private volatile string? _stopReason;

    internal TrainingControl(IReadOnlyList<EvaluationPoint> evaluations) => Evaluations = evaluations;

    /// <summary>The evaluations that were made before this process went on with the run, in order; none in a new run.</summary>
    public IReadOnlyList<EvaluationPoint> Evaluations { get; }

    /// <summary>Why the run is to end; null while it is to go on.</summary>
    public string? StopReason => _stopReason;

    /// <summary>
    /// Ends the run after the step or evaluation that is going on: its state is saved, and the result's outcome is
    /// <see cref="TrainingOutcome.StoppedEarly"/>. From any thread; the first reason counts.
    /// </summary>
    /// <param name="reason">Why, in words for people.</param>
    public void RequestStop(string reason)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(reason);
        _stopReason ??= reason;
    }

    /// <summary>
    /// Adds a figure to the next line of the run's metrics, under <c>metrics</c>, and to what sinks are told. Of several values of one name before that
    /// line, the last counts. For the thread that trains.
    /// </summary>
    /// <param name="name">What it is called.</param>
    /// <param name="value">A number; one that is not finite is written as <c>null</c>.</param>
    public void AddMetric(string name, double value)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(name);
        _metrics[name] = value;
    }

    internal IReadOnlyDictionary<string, double> TakeMetrics()
    {
        if (_metrics.Count == 0)
        {
            return NoMetrics.Value;
        }

        SortedDictionary<string, double> taken = _metrics;
        _metrics = new(StringComparer.Ordinal);
        return taken;
    }
}

/// <summary>The figures of an observer that has added none.</summary>
internal static class NoMetrics
{
    public static readonly IReadOnlyDictionary<string, double> Value = System.Collections.Immutable.ImmutableSortedDictionary<string, double>.Empty;
}
