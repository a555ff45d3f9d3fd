using HpcBatchNorm.Operations;
using static System.FormattableString;

namespace HpcBatchNorm.Experiments;

/// <summary>Section 3.4 and 4.2.1: dropout is no longer needed.</summary>
internal sealed class DropoutExperiment : MlpExperiment
{
    private const float Ratio = 0.4f;
    private const double QuickMargin = 2;
    private static readonly (bool BatchNorm, float Dropout)[] All = [(false, 0), (false, 0.4f), (true, 0), (true, 0.05f), (true, 0.4f)];

    /// <inheritdoc/>
    public override string Name => "dropout";

    /// <inheritdoc/>
    public override string Title => "Without dropout";

    /// <inheritdoc/>
    public override string Claim => "Sections 3.4 and 4.2.1: batch normalization regularizes, so that dropout can be removed without more overfitting.";

    /// <inheritdoc/>
    public override double Minutes => 3;

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        IReadOnlyList<ulong> seeds = context.SeedsOr(3);
        int steps = context.Quick ? 1500 : 6000;
        (bool BatchNorm, float Dropout)[] cases = context.Quick ? [.. All.Where(c => c.Dropout != 0.05f && !(c.Dropout == 0 && !c.BatchNorm))] : All;
        IReadOnlyDictionary<string, MlpRun> runs = Train(context, cases.SelectMany(c => seeds.Select(s => (Key(c, s), OverfittingMlp.Settings(steps, s) with
        {
            BatchNorm = c.Item1,
            Dropout = c.Item2,
            EvaluateEvery = 500,
        }))));
        return Judge(cases, (batchNorm, dropout) => [.. seeds.Select(s => runs[Key((batchNorm, dropout), s)])], seeds.Count, context.Quick);
    }

    /// <summary>What the runs say: <paramref name="of"/> gives those of a network and a ratio of dropout, one a seed.</summary>
    internal static ExperimentResult Judge(IReadOnlyList<(bool BatchNorm, float Dropout)> cases, Func<bool, float, IReadOnlyList<MlpRun>> of, int seeds, bool quick)
    {
        double Gain((bool, float) a, (bool, float) b) => Mean(of(a.Item1, a.Item2), r => r.FinalAccuracy) - Mean(of(b.Item1, b.Item2), r => r.FinalAccuracy);
        double Noise((bool, float) a, (bool, float) b) => TwoErrors(of(a.Item1, a.Item2), of(b.Item1, b.Item2));
        (bool, float) plain = (false, 0), dropped = (false, Ratio), norm = (true, 0), both = (true, Ratio);
        string mean = Invariant($"mean test accuracy of {Count(seeds)}");
        double over = Gain(norm, dropped), onTop = Gain(both, norm);
        return new ExperimentResult
        {
            Findings = quick
                ?
                [
                    // One seed has no noise to tell: on the claim's side, or not far from it.
                    Finding.AtLeast(Invariant($"with BN and no dropout, over without BN and dropout 0.4: {mean}"), "higher without dropout", over, QuickMargin, Points, side: -QuickMargin),
                    Finding.AtMost(Invariant($"dropout 0.4 on top of BN: gain, {mean}"), "dropout removed: no more overfitting", onTop, -QuickMargin, Points, side: QuickMargin),
                ]
                :
                [
                    Finding.AtLeast(Invariant($"with BN and no dropout, over without BN and dropout 0.4: {mean}"), "higher without dropout", over, Noise(norm, dropped), Points, side: 0),
                    // That dropout is not needed with batch normalization says something only where it is needed without.
                    new(Invariant($"gain by dropout 0.4, {mean}: without BN, and on top of BN"), "dropout removed: no more overfitting", Invariant($"{Gain(dropped, plain):0.00} and {onTop:0.00} points"),
                        Invariant($"more than {Noise(dropped, plain):0.00} (two standard errors), and at most {Noise(both, norm):0.00}; the second alone does not contradict"),
                        Finding.Judge(Gain(dropped, plain) > Noise(dropped, plain) && onTop <= Noise(both, norm), onTop <= Noise(both, norm))),
                ],
            Figures =
            [
                new Figure("dropout", Invariant($"Test accuracy, 3000 training images, mean of {Count(seeds)}"), "training step", "% of the test images")
                {
                    Series = [.. cases.Select((c, i) => Late(Mean(Invariant($"{(c.BatchNorm ? "with" : "without")} BN, dropout {c.Dropout}"), of(c.BatchNorm, c.Dropout), i, dashed: !c.BatchNorm)))],
                },
            ],
            Tables =
            [
                new ResultTable("Test accuracy after the last step, %", ["", "each seed", "mean"],
                    [.. cases.Select(c => Row(Invariant($"{(c.BatchNorm ? "with" : "without")} BN, dropout {c.Dropout}"), of(c.BatchNorm, c.Dropout)))]),
            ],
            Notes =
            [
                "784-256-256-256-10 with ReLU, He's initial weights, 3000 training images, batches of 20, learning rate 0.1: small enough to overfit. How much batch normalization regularizes depends on the batch: the noise of its statistics shrinks as batches grow, and at batches of 60 dropout still gains most of a point on this task.",
                "Differences below a point: the seeds' spread is in the table, and two standard errors of a difference of means (Welch) are what it must exceed.",
            ],
        };
    }

    private static string Key((bool BatchNorm, float Dropout) c, ulong seed) => Invariant($"{(c.BatchNorm ? "bn" : "plain")}-drop{c.Dropout}-seed{seed}");
}

/// <summary>The task of the experiments on regularization: a large network and few images.</summary>
internal static class OverfittingMlp
{
    public static MlpSettings Settings(int steps, ulong seed) => new()
    {
        BatchNorm = true,
        LearningRate = 0.1f,
        Steps = steps,
        Activation = ActivationKind.Relu,
        HiddenUnits = 256,
        InitialDeviation = 0,
        Batch = 20,
        TrainImages = 3000,
        Seed = seed,
    };
}
