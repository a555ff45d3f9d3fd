namespace HpcBatchNorm.Training;

/// <summary>What <see cref="EarlyStopping"/> looks at.</summary>
public enum EarlyStoppingMeasure
{
    /// <summary>Top-1 accuracy on the validation images, a fraction: more is better.</summary>
    Top1,

    /// <summary>Mean cross-entropy on the validation images, in nats: less is better.</summary>
    Loss,
}

/// <summary>
/// Ends a run when the validation images have shown no improvement for some evaluations. A run that is resumed takes the evaluations made before into
/// account, so that it stops where it would have without the interruption.
/// </summary>
/// <param name="patience">Evaluations in a row without an improvement after which the run ends, at least 1.</param>
/// <param name="measure">What is to improve.</param>
/// <param name="smallestImprovement">What counts as an improvement is better than the best so far by more than this.</param>
public sealed class EarlyStopping(int patience, EarlyStoppingMeasure measure = EarlyStoppingMeasure.Top1, double smallestImprovement = 0) : ITrainingObserver
{
    private readonly int _patience = patience >= 1
        ? patience
        : throw new ArgumentOutOfRangeException(nameof(patience), patience, "Patience is a number of evaluations, at least 1.");

    private TrainingControl? _control;
    private double _best = double.NaN;
    private long _bestStep;
    private int _without;

    /// <inheritdoc/>
    public void Attached(TrainingControl control)
    {
        (_control, _best, _bestStep, _without) = (control, double.NaN, 0, 0);
        foreach (EvaluationPoint point in control.Evaluations)
        {
            Add(point.Step, measure == EarlyStoppingMeasure.Top1 ? point.Top1 : point.Loss);
        }
    }

    /// <inheritdoc/>
    public void Evaluated(in EvaluationReport report) =>
        Add(report.Step, measure == EarlyStoppingMeasure.Top1 ? report.Validation.Top1 : report.Validation.Loss);

    private void Add(long step, double value)
    {
        double gain = measure == EarlyStoppingMeasure.Top1 ? value - _best : _best - value;
        if (double.IsNaN(_best) ? !double.IsNaN(value) : gain > smallestImprovement)
        {
            (_best, _bestStep, _without) = (value, step, 0);
        }
        else if (++_without >= _patience)
        {
            _control?.RequestStop(FormattableString.Invariant(
                $"{(measure == EarlyStoppingMeasure.Top1 ? "top-1 accuracy" : "validation loss")} has not improved in {_without} evaluations since step {_bestStep}, when it was {_best:0.#####}."));
        }
    }
}
