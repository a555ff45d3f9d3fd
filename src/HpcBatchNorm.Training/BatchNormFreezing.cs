using HpcBatchNorm.Planning;

namespace HpcBatchNorm.Training;

/// <summary>From which step on batch normalization is frozen: always, never, or after some epochs. A function of the step, so that a resumed run continues it.</summary>
internal sealed class BatchNormFreezing
{
    private readonly long _first;

    public BatchNormFreezing(RunConfig config, double stepsPerEpoch)
    {
        _first = config.Optimizer.FrozenStatistics ? 0
            : config.FreezeBatchNormAfter > 0 ? (long)Math.Ceiling(config.FreezeBatchNormAfter * stepsPerEpoch)
            : long.MaxValue;
    }

    /// <summary>In words, for the start of a run; null when it never happens.</summary>
    public string? Description(bool scaleAndShift) => _first == long.MaxValue
        ? null
        : FormattableString.Invariant($"frozen from step {_first} on: running statistics are constants, scale and shift {(scaleAndShift ? "too" : "still learn")}");

    /// <summary>True from the first frozen step on.</summary>
    public bool BeginsAt(long step) => step >= _first;

    /// <summary>The options of a session that does <paramref name="step"/>.</summary>
    public TrainingOptions OptionsAt(TrainingOptions options, long step) => options with { FrozenStatistics = BeginsAt(step) };
}
