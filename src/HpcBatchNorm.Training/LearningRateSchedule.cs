namespace HpcBatchNorm.Training;

/// <summary>
/// The learning rate of every step, a pure function of the step's number, so that a resumed run continues it exactly. With rate = LearningRate,
/// epoch = step / StepsPerEpoch, and t = (step - w) / (TotalSteps - w) for a warm-up of w steps:
/// <list type="bullet">
/// <item>exponential: rate * DecayRate^floor(epoch / DecayEpochs);</item>
/// <item>span: rate * FinalFraction^((step - w) / (TotalSteps - w - 1));</item>
/// <item>step: rate * Gamma^(milestones that are not after epoch);</item>
/// <item>cosine: minimum + (rate - minimum) * (1 + cos(pi * t)) / 2 (Loshchilov and Hutter, 1608.03983, one cycle); with CycleEpochs, cycles of CycleEpochs * CycleMultiplier^i epochs, each begins at rate * CycleDecay^i;</item>
/// <item>linear: minimum + (rate - minimum) * (1 - t).</item>
/// </list>
/// Warm-up, steps 0 to w - 1: from + (scheduled - from) * (step + 1) / w, from = WarmupLearningRate (Goyal et al., 1706.02677, section 2.2);
/// with <see cref="WarmupForm.PyTorch"/> step in the place of step + 1.
/// </summary>
/// <remarks>The paper says "exponential" (section 4.2.1), and six times faster for BN-x5; the constants in the recipes are the usual reconstruction.</remarks>
internal sealed class LearningRateSchedule
{
    private readonly RunConfig _config;
    private readonly double _stepsPerEpoch;
    private readonly long _totalSteps;
    private readonly long _warmupSteps;
    private readonly ScheduleKind _kind;

    /// <summary>Makes the schedule of a run of <paramref name="totalSteps"/> steps with <paramref name="stepsPerEpoch"/> steps to an epoch.</summary>
    public LearningRateSchedule(RunConfig config, double stepsPerEpoch, long totalSteps)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(stepsPerEpoch);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(totalSteps);
        (_config, _stepsPerEpoch, _totalSteps) = (config, stepsPerEpoch, totalSteps);
        _warmupSteps = (long)Math.Round(config.WarmupEpochs * stepsPerEpoch);
        _kind = config.Schedule != ScheduleKind.Auto ? config.Schedule
            : totalSteps >= config.ScheduleEpochs * stepsPerEpoch ? ScheduleKind.Exponential
            : ScheduleKind.Span;
    }

    /// <summary>The learning rate of a step, numbered from 0.</summary>
    public float At(long step)
    {
        double scheduled = Scheduled(step);
        return (float)(step < _warmupSteps
            ? _config.WarmupLearningRate + (scheduled - _config.WarmupLearningRate) * (_config.WarmupForm == WarmupForm.PyTorch ? step : step + 1) / _warmupSteps
            : scheduled);
    }

    /// <summary>The rule in words and numbers, for the start of a run.</summary>
    public string Description => Main + Warmup;

    private double Scheduled(long step)
    {
        double rate = _config.EffectiveLearningRate, minimum = _config.MinimumLearningRate, epoch = step / _stepsPerEpoch;
        double done = Math.Max(0, step - _warmupSteps), length = _totalSteps - _warmupSteps;
        return _kind switch
        {
            ScheduleKind.Exponential => rate * Math.Pow(_config.DecayRate, Math.Floor(step / (_stepsPerEpoch * _config.DecayEpochs))),
            ScheduleKind.Span => rate * Math.Pow(_config.FinalLearningRateFraction, done / Math.Max(1.0, length - 1)),
            ScheduleKind.Step => rate * Math.Pow(_config.Gamma, MilestonesPassed(epoch)),
            ScheduleKind.Cosine when _config.CycleEpochs > 0 => Cycle(done),
            ScheduleKind.Cosine => minimum + (rate - minimum) * (1 + Math.Cos(Math.PI * done / Math.Max(1.0, length))) / 2,
            ScheduleKind.Linear => minimum + (rate - minimum) * (1 - done / Math.Max(1.0, length)),
            _ => rate,
        };
    }

    /// <summary>Cosine with restarts: a step's cycle, and where in it the step is.</summary>
    private double Cycle(double done)
    {
        double length = _config.CycleEpochs * _stepsPerEpoch, rate = _config.EffectiveLearningRate, minimum = _config.MinimumLearningRate;
        if (_config.CycleMultiplier == 1)
        {
            double number = Math.Floor(done / length);
            (done, rate) = (done - number * length, rate * Math.Pow(_config.CycleDecay, number));
        }
        else
        {
            for (; done >= length; done -= length, length *= _config.CycleMultiplier, rate *= _config.CycleDecay)
            {
            }
        }

        return minimum + (Math.Max(rate, minimum) - minimum) * (1 + Math.Cos(Math.PI * done / length)) / 2;
    }

    /// <summary>A method of its own, because a lambda's captures would be allocated in every step of every schedule.</summary>
    private int MilestonesPassed(double epoch) => _config.Milestones.Count(m => epoch >= m);

    private string Main => _kind switch
    {
        ScheduleKind.Exponential => FormattableString.Invariant(
            $"{Rate}, times {_config.DecayRate} every {_config.DecayEpochs:0.###} epochs ({_config.DecayEpochs * _stepsPerEpoch:0} steps), {AtEnd} at the end"),
        ScheduleKind.Span => FormattableString.Invariant(
            $"{Rate}, falling exponentially to {AtEnd} ({_config.FinalLearningRateFraction} of it) at step {_totalSteps}")
            + (_config.Schedule == ScheduleKind.Auto ? FormattableString.Invariant($"; the run is shorter than the {_config.ScheduleEpochs:0.#} epochs the recipe's decay was made for") : ""),
        ScheduleKind.Step => FormattableString.Invariant(
            $"{Rate}, times {_config.Gamma} after epochs {string.Join(", ", _config.Milestones.Select(m => FormattableString.Invariant($"{m:0.###}")))}, {AtEnd} at the end"),
        ScheduleKind.Cosine when _config.CycleEpochs > 0 => FormattableString.Invariant(
            $"{Rate}, half cosines down to {_config.MinimumLearningRate:0.###e+0}, the first of {_config.CycleEpochs:0.###} epochs, each {_config.CycleMultiplier:0.###} times as long and {_config.CycleDecay:0.###} times as high as the one before it"),
        ScheduleKind.Cosine => FormattableString.Invariant($"{Rate}, half a cosine down to {_config.MinimumLearningRate:0.###e+0} after step {_totalSteps}"),
        ScheduleKind.Linear => FormattableString.Invariant($"{Rate}, in a straight line down to {_config.MinimumLearningRate:0.###e+0} after step {_totalSteps}"),
        _ => FormattableString.Invariant($"{Rate}, constant"),
    };

    private string Rate => _config.LearningRateBatch == 0
        ? FormattableString.Invariant($"{_config.LearningRate}")
        : FormattableString.Invariant($"{_config.LearningRate} for {_config.LearningRateBatch} images, {_config.EffectiveLearningRate} for a step's {_config.ImagesPerStep}");

    private string Warmup => _warmupSteps == 0 ? "" : FormattableString.Invariant(
        $"; first {_warmupSteps} steps of warm-up from {_config.WarmupLearningRate:0.###e+0}{(_warmupSteps >= _totalSteps ? ", which is the whole run" : "")}");

    private string AtEnd => FormattableString.Invariant($"{At(_totalSteps - 1):0.###e+0}");
}
