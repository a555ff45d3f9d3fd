using static System.FormattableString;

namespace HpcBatchNorm.Experiments;

/// <summary>Sections 1 and 4.2.2: networks of saturating nonlinearities.</summary>
internal sealed class DeepSigmoidExperiment : MlpExperiment
{
    private static readonly (int Layers, float Rate)[] All = [(6, 0.1f), (6, 0.5f), (10, 0.1f), (10, 0.5f)];

    /// <inheritdoc/>
    public override string Name => "deep-sigmoid";

    /// <inheritdoc/>
    public override string Title => "Deep networks of sigmoids";

    /// <inheritdoc/>
    public override string Claim => "Sections 1 and 4.2.2: batch normalization makes deep networks with saturating nonlinearities trainable; without it they stay at chance.";

    /// <inheritdoc/>
    public override double Minutes => 1.5;

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        int steps = context.Quick ? 1500 : 6000;
        (int Layers, float Rate)[] cases = context.Quick ? All[1..2] : All;
        IReadOnlyDictionary<string, MlpRun> runs = Train(context, cases.SelectMany(c => WithoutAndWith.Select(bn => (Key(bn, c), new MlpSettings
        {
            BatchNorm = bn,
            LearningRate = c.Rate,
            Steps = steps,
            HiddenLayers = c.Layers,
            EvaluateEvery = 500,
        }))));
        double least = context.Quick ? 85 : 94;
        return new ExperimentResult
        {
            Findings =
            [
                .. cases.SelectMany(c => new[]
                {
                    Finding.AtMost(Invariant($"{c.Layers} hidden layers, learning rate {c.Rate}, without: test accuracy"), "0.1 %, chance (Inception with sigmoid)", runs[Key(false, c)].BestAccuracy, 15, "0.0 '%'"),
                    Finding.AtLeast(Invariant($"{c.Layers} hidden layers, learning rate {c.Rate}, with: test accuracy"), "69.8 % (BN-x5-Sigmoid on ImageNet)", runs[Key(true, c)].FinalAccuracy, least, "0.0 '%'"),
                }),
            ],
            Figures =
            [
                new Figure(Name, "Test accuracy of deep networks of sigmoids", "training step", "% of the test images")
                {
                    Series = [.. cases.SelectMany((c, i) => WithAndWithout.Select(bn => runs[Key(bn, c)].Curve(Invariant($"{(bn ? "with" : "without")} BN, {c.Layers} layers, {c.Rate}"), i, dashed: !bn)))],
                    Marks = [new FigureMark("chance", Y: 10)],
                },
            ],
            Notes = ["Hidden layers of 100 sigmoid units, initial weights N(0, 0.1^2), batches of 60, plain gradient descent."],
        };
    }

    private static string Key(bool batchNorm, (int Layers, float Rate) c) => Invariant($"{(batchNorm ? "bn" : "plain")}-{c.Layers}-lr{c.Rate}");
}
