using HpcBatchNorm.Operations;
using static System.FormattableString;

namespace HpcBatchNorm.Experiments;

/// <summary>Section 3.1 and Algorithm 2: statistics of the population at inference.</summary>
internal sealed class PopulationExperiment : MlpExperiment
{
    private static readonly int[] All = [60, 16, 8, 4, 2];

    /// <inheritdoc/>
    public override string Name => "population-statistics";

    /// <inheritdoc/>
    public override string Title => "Population statistics at inference (Algorithm 2)";

    /// <inheritdoc/>
    public override string Claim =>
        "Section 3.1: at inference the output must depend on the input only, so statistics of the population take the place of the mini-batch's; moving averages serve to follow accuracy during training.";

    /// <inheritdoc/>
    public override double Minutes => 1.5;

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        int steps = context.Quick ? 1500 : 6000, late = context.Quick ? 1000 : 3000;
        int[] batches = context.Quick ? [60, 8] : All;
        IReadOnlyDictionary<string, MlpRun> runs = Train(context, batches.Select(b => (Key(b), new MlpSettings
        {
            BatchNorm = true,
            LearningRate = 0.05f,
            Steps = steps,
            Activation = ActivationKind.Relu,
            InitialDeviation = 0,
            Batch = b,
            EvaluateEvery = 500,
            EvaluateAlsoAt = "20 50 100 150 200 300 400",
            AllStatistics = true,
        })));
        double Gain(int batch) => runs[Key(batch)].FinalAccuracy - runs[Key(batch)].BatchAccuracy[^1];
        MlpRun whole = runs[Key(60)];
        double away = whole.Steps.Select((s, i) => s >= late ? Math.Abs(whole.Accuracy[i] - whole.RunningAccuracy[i]) : 0).Max();
        return new ExperimentResult
        {
            Findings =
            [
                Finding.AtLeast("batches of 60: test accuracy by population statistics over that by the test batch's own", "inference must use the population (no number)", Gain(60), context.Quick ? 0.3 : 0.5, Points),
                Finding.AtLeast("batches of 8: the same", "", Gain(8), 3, Points),
                Finding.AtMost(Invariant($"batches of 60, from step {late} on: population and moving average apart at most"), "moving averages follow accuracy", away, context.Quick ? 1 : 0.5, Points),
                Finding.AtMost("one image alone, in a batch, in another: largest difference of a class probability", "depends on the input only", whole.Dependence, 1e-5, "0.0e+0"),
            ],
            Figures =
            [
                new Figure(Name, "Test accuracy by what normalizes, batches of 60", "training step (logarithmic)", "% of the test images")
                {
                    LogarithmicX = true,
                    Series =
                    [
                        whole.Curve("population (Algorithm 2)"),
                        FigureSeries.Of("moving average, decay 0.99", whole.Steps.Zip(whole.RunningAccuracy, (s, a) => ((double)s, a)), 1, dashed: true),
                        FigureSeries.Of("the test batch's own", whole.Steps.Zip(whole.BatchAccuracy, (s, a) => ((double)s, a)), 2, dashed: true),
                    ],
                },
            ],
            Tables =
            [
                new ResultTable(Invariant($"Test accuracy after {steps} steps, %"), ["batch", "population", "the test batch's own", "moving average"],
                    [.. batches.Select(b => (IReadOnlyList<string>)[Invariant($"{b}"), Percent(runs[Key(b)].FinalAccuracy), Percent(runs[Key(b)].BatchAccuracy[^1]), Percent(runs[Key(b)].RunningAccuracy[^1])])]),
            ],
            Notes =
            [
                "784-100-100-100-10 with ReLU, He's initial weights, learning rate 0.05; population statistics of 100 training batches as large as the training's. In batches of two every normalized value is +1 or -1 whatever the input and no gradient passes (section 3: the Jacobian has rank m - 2), so nothing before the last layer learns.",
            ],
        };
    }

    private static string Key(int batch) => Invariant($"batch{batch}");
}
