namespace HpcBatchNorm.Training;

/// <summary>
/// The learning rate of every step, a pure function of the step's number, so that a resumed run continues it exactly.
/// Constants: rate * DecayRate^floor(epoch / DecayEpochs), epoch = step / StepsPerEpoch. Span: rate * FinalFraction^(step / (TotalSteps - 1)).
/// PAPER.md 3.3: the paper says "exponential" and six times faster for BN-x5; the constants are the usual reconstruction.
/// </summary>
public sealed class LearningRateSchedule
{
    private readonly TrainingConfig _config;
    private readonly double _stepsPerEpoch;
    private readonly long _totalSteps;
    private readonly DecayMode _mode;

    /// <summary>Makes the schedule of a run of <paramref name="totalSteps"/> steps with <paramref name="stepsPerEpoch"/> steps to an epoch.</summary>
    public LearningRateSchedule(TrainingConfig config, double stepsPerEpoch, long totalSteps)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(stepsPerEpoch);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(totalSteps);
        (_config, _stepsPerEpoch, _totalSteps) = (config, stepsPerEpoch, totalSteps);
        _mode = config.Decay != DecayMode.Auto ? config.Decay
            : totalSteps >= config.ScheduleEpochs * stepsPerEpoch ? DecayMode.Constants
            : DecayMode.Span;
    }

    /// <summary>The learning rate of a step, numbered from 0.</summary>
    public float At(long step) => (float)(_config.LearningRate * _mode switch
    {
        DecayMode.Constants => Math.Pow(_config.DecayRate, Math.Floor(step / (_stepsPerEpoch * _config.DecayEpochs))),
        DecayMode.Span => Math.Pow(_config.FinalLearningRateFraction, step / Math.Max(1.0, _totalSteps - 1)),
        _ => 1,
    });

    /// <summary>The rule in words and numbers, for the start of a run.</summary>
    public string Description => _mode switch
    {
        DecayMode.Constants => FormattableString.Invariant(
            $"{_config.LearningRate}, times {_config.DecayRate} every {_config.DecayEpochs:0.###} epochs ({_config.DecayEpochs * _stepsPerEpoch:0} steps), {At(_totalSteps - 1):0.###e+0} at the end"),
        DecayMode.Span => FormattableString.Invariant(
            $"{_config.LearningRate}, falling exponentially to {At(_totalSteps - 1):0.###e+0} ({_config.FinalLearningRateFraction} of it) at step {_totalSteps}")
            + (_config.Decay == DecayMode.Auto ? FormattableString.Invariant($"; the run is shorter than the {_config.ScheduleEpochs:0.#} epochs the recipe's decay was made for") : ""),
        _ => FormattableString.Invariant($"{_config.LearningRate}, constant"),
    };
}
