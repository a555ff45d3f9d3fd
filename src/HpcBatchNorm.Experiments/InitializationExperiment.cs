using static System.FormattableString;

namespace HpcBatchNorm.Experiments;

/// <summary>Section 1 and 3.3: less dependence on the scale of initial weights.</summary>
internal sealed class InitializationExperiment : MlpExperiment
{
    private static readonly double[] Deviations = [0.01, 0.1, 1];

    /// <inheritdoc/>
    public override string Name => "init-insensitivity";

    /// <inheritdoc/>
    public override string Title => "Initial weights of very different scale";

    /// <inheritdoc/>
    public override string Claim => "Sections 1 and 3.3: batch normalization makes gradients depend less on the scale of the parameters, so that one need be less careful about initialization.";

    /// <inheritdoc/>
    public override double Minutes => 1;

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        int steps = context.Quick ? 1000 : 10_000;
        IReadOnlyDictionary<string, MlpRun> runs = Train(context, Deviations.SelectMany(d => WithoutAndWith.Select(bn => (Key(bn, d), new MlpSettings
        {
            BatchNorm = bn,
            LearningRate = 0.5f,
            Steps = steps,
            InitialDeviation = d,
            EvaluateEvery = context.Quick ? 250 : 500,
        }))));
        List<Finding> findings =
        [
            Finding.AtLeast("deviation 0.01: test accuracy at step 1000, gain by batch normalization", "less care about initialization (no number)",
                runs[Key(true, 0.01)].At(1000) - runs[Key(false, 0.01)].At(1000), 40, "0.0 'points'"),
        ];
        foreach (double deviation in Deviations)
        {
            findings.Add(Finding.AtLeast(Invariant($"deviation {deviation}: test accuracy after {steps} steps, gain"), "not worse",
                runs[Key(true, deviation)].FinalAccuracy - runs[Key(false, deviation)].FinalAccuracy, 0, Points));
        }

        double Spread(bool batchNorm) => Deviations.Max(d => runs[Key(batchNorm, d)].FinalAccuracy) - Deviations.Min(d => runs[Key(batchNorm, d)].FinalAccuracy);
        findings.Add(new Finding(Invariant($"test accuracy after {steps} steps, highest less lowest of the three deviations: with, beside without"), "less dependence on initialization (no number)",
            Invariant($"{Spread(true):0.00} beside {Spread(false):0.00} points"), "smaller", Finding.Judge(Spread(true) < Spread(false), false)));
        return new ExperimentResult
        {
            Findings = findings,
            Figures =
            [
                new Figure(Name, "Test accuracy by the deviation of initial weights", "training step", "% of the test images")
                {
                    Series = [.. Deviations.SelectMany((d, i) => WithAndWithout.Select(bn => runs[Key(bn, d)].Curve(Invariant($"{(bn ? "with" : "without")} BN, {d}"), i, dashed: !bn)))],
                },
            ],
            Tables =
            [
                new ResultTable("Test accuracy, %", ["initial weights", "without: step 1000", "last", "with: step 1000", "last"],
                    [.. Deviations.Select(d => (IReadOnlyList<string>)[Invariant($"N(0, {d}^2)"), .. WithoutAndWith.SelectMany(bn => new[] { Percent(runs[Key(bn, d)].At(1000)), Percent(runs[Key(bn, d)].FinalAccuracy) })])]),
            ],
            Notes = ["The network of section 4.1 (three hidden layers of 100 sigmoid units), batches of 60, learning rate 0.5."],
        };
    }

    private static string Key(bool batchNorm, double deviation) => Invariant($"{(batchNorm ? "bn" : "plain")}-{deviation}");
}
