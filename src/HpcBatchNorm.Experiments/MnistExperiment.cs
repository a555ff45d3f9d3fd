using static System.FormattableString;

namespace HpcBatchNorm.Experiments;

/// <summary>Section 4.1 and Figure 1: the paper's network on MNIST with and without batch normalization.</summary>
internal sealed class MnistExperiment : Experiment
{
    private const string Paper41 = "faster and higher (Figure 1a, no numbers printed)";
    private static readonly (float Rate, string Key)[] Rates = [(0.5f, "0.5"), (0.1f, "0.1")];

    /// <inheritdoc/>
    public override string Name => "mnist";

    /// <inheritdoc/>
    public override string Title => "MNIST with and without batch normalization (Figure 1)";

    /// <inheritdoc/>
    public override string Claim =>
        "Section 4.1: with batch normalization the network trains in fewer steps and ends with a higher test accuracy, and the inputs of its sigmoids keep a steadier distribution.";

    /// <inheritdoc/>
    public override ExperimentData Data => ExperimentData.Mnist;

    /// <inheritdoc/>
    public override double Minutes => 3;

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        int steps = context.Quick ? 1500 : 50_000;
        var data = MlpTraining.Data(context);
        List<ExperimentRun<MlpRun>> runs = [];
        foreach ((float rate, string key) in Rates)
        {
            foreach (bool batchNorm in new[] { false, true })
            {
                runs.Add(MlpTraining.Run(context, $"{(batchNorm ? "bn" : "plain")}-lr{key}", new MlpSettings
                {
                    BatchNorm = batchNorm,
                    LearningRate = rate,
                    Steps = steps,
                    EvaluateEvery = context.Quick ? 250 : 1000,
                    EvaluateAlsoAt = "100 200 300 400 600 800",
                    TestImages = context.Quick ? 2000 : 0,
                    Percentiles = rate == 0.1f,
                }, data));
            }
        }

        IReadOnlyList<MlpRun> done = context.All(runs);
        (MlpRun fastPlain, MlpRun fastNorm, MlpRun plain, MlpRun norm) = (done[0], done[1], done[2], done[3]);
        List<Finding> findings =
        [
            Finding.AtLeast("test accuracy at step 300, learning rate 0.5: gain by batch normalization", Paper41, fastNorm.At(300) - fastPlain.At(300), 15, "0.0 'points'", side: 0),
        ];
        if (!context.Quick)
        {
            findings.Add(Finding.AtLeast("test accuracy after 50,000 steps, learning rate 0.5: gain", Paper41, fastNorm.FinalAccuracy - fastPlain.FinalAccuracy, 0.2, "0.00 'points'", side: 0));
            double share = norm.FirstStepAt(plain.BestAccuracy) is int passed ? 100.0 * passed / steps : double.NaN;
            findings.Add(Finding.AtMost("steps to the other network's best accuracy, learning rate 0.1, of all", Paper41, share, 60, "0 '%'", side: 100));
        }

        double[] plainSpread = Spread(plain), normSpread = Spread(norm);
        string steadier = "much steadier (Figure 1b, c)";
        findings.Add(Finding.AtLeast("width of a sigmoid's input from the 15th to the 85th percentile, largest to smallest of the run, without: least of three units",
            steadier, plainSpread.Min(), context.Quick ? 4 : 8, "0.0 'x'"));
        findings.Add(Finding.AtMost("the same with batch normalization: most of three units", steadier, normSpread.Max(), 2.5, "0.0 'x'"));
        return new ExperimentResult
        {
            Findings = findings,
            Figures = [Accuracy(done), Early(done), Percentiles("mnist-inputs-without", "without batch normalization (Figure 1b)", plain, norm), Percentiles("mnist-inputs-with", "with batch normalization (Figure 1c)", norm, plain)],
            Tables =
            [
                new ResultTable("Test accuracy, %", ["learning rate", "batch normalization", "step 300", "step 1000", "last", "best"],
                    [.. done.Select((r, i) => (IReadOnlyList<string>)[Rates[i / 2].Key, i % 2 == 0 ? "no" : "yes", Invariant($"{r.At(300):0.00}"), Invariant($"{r.At(1000):0.00}"), Invariant($"{r.FinalAccuracy:0.00}"), Invariant($"{r.BestAccuracy:0.00}")])]),
            ],
            Notes =
            [
                "Three hidden layers of 100 sigmoid units on binary 28x28 images (value 128 and more), batches of 60, a new order in each epoch, as the paper has it. Ours, because it does not say: initial weights N(0, 0.1^2), plain gradient descent, epsilon 1e-5. Accuracy is on all test images, by population statistics of 100 training batches (Algorithm 2).",
                Invariant($"Widths of three units, largest to smallest from step 100 on: without {string.Join(", ", plainSpread.Select(s => Invariant($"{s:0.0}")))}; with {string.Join(", ", normSpread.Select(s => Invariant($"{s:0.0}")))}. Inputs are those of 1000 test images; with batch normalization as the training network computes them, from these images' own statistics, as in the paper."),
            ],
        };
    }

    /// <summary>Of each unit: the largest P85 - P15 of the run divided by the smallest.</summary>
    private static double[] Spread(MlpRun run) =>
    [
        .. Enumerable.Range(0, 3).Select(unit =>
        {
            double[] widths = [.. run.Percentiles.Where(p => p.Length > 0).Select(p => p[3 * unit + 2] - p[3 * unit])];
            return widths.Max() / widths.Min();
        }),
    ];

    private static Figure Accuracy(IReadOnlyList<MlpRun> runs) => new("mnist-accuracy", "Test accuracy on MNIST (Figure 1a)", "training step", "% of the test images")
    {
        // Like the paper's, which begins at 70 %.
        Series = [.. Curves(runs).Select(s => s with { X = [.. s.X.Where((_, i) => s.Y[i] >= 70)], Y = [.. s.Y.Where(y => y >= 70)] })],
        Marks =
        [
            .. runs[3].FirstStepAt(runs[2].BestAccuracy) is int step
                ? new[] { new FigureMark(Invariant($"with BN at {Rates[1].Key}: the best without, {runs[2].BestAccuracy:0.00} %"), step, runs[2].BestAccuracy, 3) } : [],
        ],
    };

    private static Figure Early(IReadOnlyList<MlpRun> runs) => new("mnist-accuracy-early", "Test accuracy on MNIST, the first steps", "training step (logarithmic)", "% of the test images")
    {
        Series = [.. Curves(runs)],
        LogarithmicX = true,
    };

    private static IEnumerable<FigureSeries> Curves(IReadOnlyList<MlpRun> runs) =>
        runs.Select((r, i) => r.Curve($"{(i % 2 == 0 ? "without" : "with")} BN, learning rate {Rates[i / 2].Key}", (i % 2 == 0 ? 1 : 0) + i / 2 * 3, dashed: i % 2 == 0));

    private static Figure Percentiles(string name, string title, MlpRun run, MlpRun other)
    {
        const int Unit = 0;
        return new Figure(name, $"Input of a sigmoid {title}", "training step", "last hidden layer, unit 0, 1000 test images")
        {
            Including = [.. other.Percentiles.SelectMany(p => p.Take(3))],
            Series =
            [
                .. new[] { (2, "85th percentile"), (1, "50th percentile"), (0, "15th percentile") }.Select((p, i) => FigureSeries.Of(
                    p.Item2, run.Steps.Zip(run.Percentiles).Where(s => s.Second.Length > 0).Select(s => ((double)s.First, s.Second[3 * Unit + p.Item1])), i)),
            ],
        };
    }
}
