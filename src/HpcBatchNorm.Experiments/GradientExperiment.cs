using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using static System.FormattableString;

namespace HpcBatchNorm.Experiments;

/// <summary>Section 2: gradients must flow through the statistics.</summary>
internal sealed class GradientExperiment : MlpExperiment
{
    private const string Full = "full", Constant = "constant";

    /// <inheritdoc/>
    public override string Name => "gradient-through-statistics";

    /// <inheritdoc/>
    public override string Title => "Gradients through mean and variance";

    /// <inheritdoc/>
    public override string Claim =>
        "Section 2: an optimizer that does not know of the normalization moves parameters without changing the output, so that they grow without bound; gradients must flow through the statistics.";

    /// <inheritdoc/>
    public override double Minutes => 0.3;

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        int steps = context.Quick ? 1000 : 4000;
        IReadOnlyDictionary<string, MlpRun> runs = Train(context, WithoutAndWith.Select(constant => (constant ? Constant : Full, new MlpSettings
        {
            BatchNorm = true,
            ConstantStatistics = constant,
            LearningRate = 0.1f,
            Steps = steps,
            Activation = ActivationKind.Relu,
            InitialDeviation = 0,
            EvaluateEvery = 250,
            EvaluateAlsoAt = "50 100 150 200 300 400",
        })));
        (MlpRun full, MlpRun constant) = (runs[Full], runs[Constant]);
        double LossAt300(MlpRun run) => run.Loss[run.Steps.IndexOf(300)];
        double Growth(MlpRun run) => run.WeightNorm[^1] / run.InitialWeightNorm - 1;
        (double withFull, double withConstant) = (BiasGradient(false), BiasGradient(true));
        return new ExperimentResult
        {
            Findings =
            [
                Finding.AtLeast("loss at step 300: statistics as constants, over full gradient", "worse; the model blew up in early experiments", LossAt300(constant) / LossAt300(full), context.Quick ? 1.3 : 1.5, "0.00 'x'"),
                Finding.AtLeast(Invariant($"growth of the second layer's weights in {steps} steps: constants, over full"), "parameters grow without bound", Growth(constant) / Growth(full), context.Quick ? 2 : 4, "0.0 'x'"),
                Finding.AtMost("gradient of a bias before normalization, full gradient, relative", "0: the mean takes it away", withFull, 1e-6, "0.0e+0"),
                Finding.AtLeast("the same, statistics as constants", "not 0", withConstant, 1e-3, "0.0e+0"),
            ],
            Figures =
            [
                new Figure("gradient-loss", "Training loss with and without gradients through the statistics", "training step", "loss, mean of 50 steps (nats)")
                {
                    Series = [Loss("full gradient", full, 0), Loss("statistics as constants", constant, 1)],
                },
                new Figure("gradient-norm", "Norm of the second hidden layer's weights", "training step", "norm, times the initial one")
                {
                    Series = [Norm("full gradient", full, 0), Norm("statistics as constants", constant, 1)],
                },
            ],
            Tables =
            [
                new ResultTable("With and without", ["gradient", "loss at step 300", "accuracy at step 300, %", "accuracy after the last step, %", "growth of the weights' norm, %"],
                    [.. new[] { ("full", full), ("statistics as constants", constant) }.Select(r => (IReadOnlyList<string>)
                        [r.Item1, Invariant($"{LossAt300(r.Item2):0.000}"), Percent(r.Item2.At(300)), Percent(r.Item2.FinalAccuracy), Invariant($"{100 * Growth(r.Item2):0.0}")])]),
            ],
            Notes = ["784-100-100-100-10 with ReLU, He's initial weights, batches of 60, learning rate 0.1; TrainingOptions.ConstantStatistics makes the difference. At this size nothing blows up, but the mechanism is there. The bias is one of a fully connected layer in double precision on the reference backend; its gradient is relative to the sum of the magnitudes it is made of."],
        };
    }

    /// <summary>The largest gradient of a bias before batch normalization, over the sum of the magnitudes of the gradients that arrive.</summary>
    private static double BiasGradient(bool constantStatistics)
    {
        using Backend backend = Backend.Create("reference");
        using var layer = new NormalizedLayer(backend, convolutional: false, epsilon: 1e-5f, bias: true, constantStatistics);
        double[] gradient = layer.Run(1).DiffBias;
        return gradient.Max(Math.Abs) / (layer.Arriving.Sum(Math.Abs) / NormalizedLayer.Outputs);
    }

    private static FigureSeries Loss(string name, MlpRun run, int style) => FigureSeries.Of(name, run.Steps.Zip(run.Loss, (s, l) => ((double)s, l)), style);

    private static FigureSeries Norm(string name, MlpRun run, int style) =>
        FigureSeries.Of(name, run.Steps.Zip(run.WeightNorm, (s, n) => ((double)s, n / run.InitialWeightNorm)).Prepend((0, 1)), style);
}
