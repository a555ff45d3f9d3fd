using HpcBatchNorm.Operations;
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
    public override double Minutes => 1.5;

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        int steps = context.Quick ? 1000 : 4000;
        IReadOnlyList<ulong> seeds = context.SeedsOr(3);
        IReadOnlyDictionary<string, MlpRun> runs = Train(context, Factors.SelectMany(f => WithoutAndWith.SelectMany(bn => seeds.Select(s => (Key(bn, f, s), new MlpSettings
        {
            BatchNorm = bn,
            LearningRate = Base * f,
            Steps = steps,
            Activation = ActivationKind.Relu,
            HiddenLayers = 5,
            InitialDeviation = 0,
            EvaluateEvery = 250,
            Seed = s,
        })))));
        MlpRun[] Of(bool batchNorm, int factor) => [.. seeds.Select(s => runs[Key(batchNorm, factor, s)])];
        FigureSeries Curve(bool batchNorm, int factor, int style = 0) => Mean($"{(batchNorm ? "with" : "without")} BN, x{factor}", Of(batchNorm, factor), style, dashed: !batchNorm);
        FigureSeries plain = Curve(false, 1);
        double best = plain.Y.Max();
        double Steps(FigureSeries curve) => curve.X.Zip(curve.Y).Where(p => p.Second >= best).Select(p => p.First).FirstOrDefault(double.NaN);
        MlpRun[] lost = Of(false, 30);
        string of = Invariant($"mean of {Count(seeds)}");
        List<Finding> findings =
        [
            context.Quick
                ? Finding.AtMost("without, x30: best test accuracy", "parameters reached machine infinity (already at x5, 4.2.2)", lost.Max(r => r.BestAccuracy), 50, "0.0 '%'")
                : Finding.AtMost(Invariant($"without, x30: test accuracy at the end (loss not finite at step {string.Join(", ", lost.Select(r => r.DivergedAt is > 0 and int at ? Invariant($"{at}") : "never"))}), largest of {Count(seeds)}"),
                    "parameters reached machine infinity (already at x5, 4.2.2)", lost.Max(r => r.FinalAccuracy), 15, "0.0 '%'"),
            Finding.AtMost(Invariant($"with, x5: steps to the best accuracy without, of those that took ({Steps(plain)}), {of}"), "14 times fewer (4.2.2)", 100 * Steps(Curve(true, 5)) / Steps(plain), 50, "0 '%'"),
        ];
        if (!context.Quick)
        {
            findings.Insert(1, Finding.AtLeast($"with: best accuracy of x30 over that of x1, {of}", "74.8 % over 72.7 % (Figure 3)", Curve(true, 30).Y.Max() - Curve(true, 1).Y.Max(), 0.3, Points));
        }

        return new ExperimentResult
        {
            Findings = findings,
            Figures =
            [
                new Figure(Name, Invariant($"Test accuracy by learning rate, {of} (as Figure 2)"), "training step", "% of the test images")
                {
                    Series = [.. Factors.Select((f, i) => Late(Curve(true, f, i))), .. Factors[..2].Select((f, i) => Late(Curve(false, f, 4 + i)))],
                    Marks = [new FigureMark(Invariant($"best without BN, x1: {best:0.00} %"), Y: best)],
                },
            ],
            Tables =
            [
                new ResultTable("By learning rate", ["learning rate", "batch normalization", "best accuracy of each seed, %", "best of the mean, %", "steps to the best without, x1"],
                    [.. Factors.SelectMany(f => WithoutAndWith.Select(bn => (IReadOnlyList<string>)
                        [Invariant($"{Base * f:0.##} (x{f})"), bn ? "yes" : "no",
                        string.Join(" / ", Of(bn, f).Select(r => r.DivergedAt > 0 ? Invariant($"diverged at step {r.DivergedAt}") : Percent(r.BestAccuracy))),
                        Percent(Curve(bn, f).Y.Max()), Steps(Curve(bn, f)) is > 0 and var first ? Invariant($"{first}") : "never"]))]),
            ],
            Notes = ["784-100-100-100-100-100-10 with ReLU, He's initial weights, batches of 60, plain gradient descent at 0.03 and its multiples. Accuracy on all test images every 250 steps, by population statistics. Steps and bests are of the mean curve over the seeds: of one seed's, the best is a matter of luck."],
        };
    }

    private static string Key(bool batchNorm, int factor, ulong seed) => Invariant($"{(batchNorm ? "bn" : "plain")}-x{factor}-seed{seed}");
}
