using static System.FormattableString;

namespace HpcBatchNorm.Experiments;

/// <summary>Sections 3.3 and 4.2: learning rates 5 and 30 times as large.</summary>
internal sealed class LearningRateExperiment : MlpExperiment
{
    private const float Base = 0.03f;
    private static readonly int[] Factors = [1, 5, 30];

    /// <inheritdoc/>
    public override string Name => "learning-rate";

    /// <inheritdoc/>
    public override string Title => "Learning rates 1, 5 and 30 times as large";

    /// <inheritdoc/>
    public override string Claim =>
        "Sections 3.3 and 4.2.2: batch normalization allows learning rates 5 and 30 times as large, which then train in fewer steps and end higher; without it they end in infinity.";

    /// <inheritdoc/>
    public override double Minutes => 1;

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        int steps = context.Quick ? 1000 : 4000;
        IReadOnlyDictionary<string, MlpRun> runs = Train(context, Factors.SelectMany(f => WithoutAndWith.Select(bn => (Key(bn, f), new MlpSettings
        {
            BatchNorm = bn,
            LearningRate = Base * f,
            Steps = steps,
            Activation = Layers.ActivationKind.Relu,
            HiddenLayers = 5,
            InitialDeviation = 0,
            EvaluateEvery = 250,
        }))));
        MlpRun plain = runs[Key(false, 1)], lost = runs[Key(false, 30)];
        int reached = plain.FirstStepAt(plain.BestAccuracy)!.Value;
        double Steps(int factor) => runs[Key(true, factor)].FirstStepAt(plain.BestAccuracy) ?? double.NaN;
        List<Finding> findings =
        [
            Finding.AtMost($"without, x30: test accuracy{(lost.DivergedAt > 0 ? Invariant($" (loss not finite at step {lost.DivergedAt})") : "")}", "x5 already: parameters reached machine infinity (4.2.2)", lost.BestAccuracy, 15, "0.0 '%'"),
            Finding.AtMost(Invariant($"with, x5: steps to the best accuracy without, of those it took ({reached})"), "14 times fewer (4.2.2)", 100 * Steps(5) / reached, 50, "0 '%'"),
        ];
        if (!context.Quick)
        {
            findings.Insert(1, Finding.AtLeast("with: best accuracy of x30 over that of x1", "74.8 % over 72.7 % (Figure 3)", runs[Key(true, 30)].BestAccuracy - runs[Key(true, 1)].BestAccuracy, 0.3, Points));
        }

        return new ExperimentResult
        {
            Findings = findings,
            Figures =
            [
                new Figure(Name, "Test accuracy by learning rate (as Figure 2)", "training step", "% of the test images")
                {
                    Series = [.. WithAndWithout.SelectMany(bn => Factors.Where(f => bn || f < 30).Select((f, i) => Late(runs[Key(bn, f)].Curve($"{(bn ? "with" : "without")} BN, x{f}", bn ? i : 4 + i, dashed: !bn))))],
                    Marks = [new FigureMark(Invariant($"best without BN, x1: {plain.BestAccuracy:0.00} %"), Y: plain.BestAccuracy)],
                },
            ],
            Tables =
            [
                new ResultTable("By learning rate", ["learning rate", "batch normalization", "best accuracy, %", "steps to the best without, x1"],
                    [.. Factors.SelectMany(f => WithoutAndWith.Select(bn => (IReadOnlyList<string>)
                        [Invariant($"{Base * f:0.##} (x{f})"), bn ? "yes" : "no",
                        runs[Key(bn, f)].DivergedAt is > 0 and int step ? Invariant($"diverged at step {step}") : Percent(runs[Key(bn, f)].BestAccuracy),
                        runs[Key(bn, f)].FirstStepAt(plain.BestAccuracy) is int first ? Invariant($"{first}") : "never"]))]),
            ],
            Notes = ["784-100-100-100-100-100-10 with ReLU, He's initial weights, batches of 60, plain gradient descent at 0.03 and its multiples. Accuracy on all test images every 250 steps, by population statistics."],
        };
    }

    private static string Key(bool batchNorm, int factor) => Invariant($"{(batchNorm ? "bn" : "plain")}-x{factor}");
}
