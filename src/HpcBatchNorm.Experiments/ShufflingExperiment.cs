using static System.FormattableString;

namespace HpcBatchNorm.Experiments;

/// <summary>Section 4.2.1: more thorough shuffling.</summary>
internal sealed class ShufflingExperiment : MlpExperiment
{
    /// <inheritdoc/>
    public override string Name => "shuffling";

    /// <inheritdoc/>
    public override string Title => "The same images in the same batch, or not";

    /// <inheritdoc/>
    public override string Claim =>
        "Section 4.2.1: when the same examples do not always share a mini-batch, validation accuracy is about 1 % higher, because batch normalization's noise then differs each time.";

    /// <inheritdoc/>
    public override double Minutes => 3;

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        IReadOnlyList<ulong> seeds = context.SeedsOr(3);
        int steps = context.Quick ? 3000 : 9000;
        (bool BatchNorm, bool Fixed)[] cases = [(true, false), (true, true), (false, false), (false, true)];
        if (context.Quick)
        {
            cases = cases[..2];
        }

        IReadOnlyDictionary<string, MlpRun> runs = Train(context, cases.SelectMany(c => seeds.Select(s => (Key(c, s), OverfittingMlp.Settings(steps, s) with
        {
            BatchNorm = c.BatchNorm,
            FixedBatches = c.Fixed,
            EvaluateEvery = 500,
        }))));
        MlpRun[] Of((bool, bool) c) => [.. seeds.Select(s => runs[Key(c, s)])];
        double Gain(bool batchNorm) => Mean(Of((batchNorm, false)), r => r.FinalAccuracy) - Mean(Of((batchNorm, true)), r => r.FinalAccuracy);
        List<Finding> findings = [Finding.AtLeast(Invariant($"with BN, batches drawn anew each epoch: gain, mean of {Count(seeds.Count)}"), "about +1 %", Gain(true), context.Quick ? 0.2 : 0.6, Points, side: 0)];
        if (!context.Quick)
        {
            findings.Add(new Finding("the same without BN", "(not said)", Invariant($"{Gain(false):0.00} points"), "a third of the gain with BN, or less", Finding.Judge(3 * Gain(false) <= Gain(true), false)));
        }

        return new ExperimentResult
        {
            Findings = findings,
            Figures =
            [
                new Figure(Name, Invariant($"Test accuracy by the company of images, mean of {Count(seeds.Count)}"), "training step", "% of the test images")
                {
                    Series = [.. cases.Select((c, i) => Late(Mean(Label(c), Of(c), i / 2 * 2 + (c.Fixed ? 1 : 0), dashed: c.Fixed)))],
                },
            ],
            Tables = [new ResultTable("Test accuracy after the last step, %", ["", "each seed", "mean"], [.. cases.Select(c => Row(Label(c), Of(c)))])],
            Notes = ["784-256-256-256-10 with ReLU, He's initial weights, 3000 training images, batches of 20, learning rate 0.1. Fixed batches: the composition of each batch is drawn once, and only the order of the batches changes from epoch to epoch."],
        };
    }

    private static string Label((bool BatchNorm, bool Fixed) c) => $"{(c.BatchNorm ? "with" : "without")} BN, {(c.Fixed ? "fixed batches" : "new batches each epoch")}";

    private static string Key((bool BatchNorm, bool Fixed) c, ulong seed) => Invariant($"{(c.BatchNorm ? "bn" : "plain")}-{(c.Fixed ? "fixed" : "anew")}-seed{seed}");
}
