using System.Globalization;

namespace HpcBatchNorm.Experiments;

/// <summary>
/// Section 4.2.2, Figures 2 and 3: the recipes of the single networks, and the two that the text says do not train, on images in one of ImageNet's layouts.
/// Scaled down by <see cref="Scale"/>; the seven changes stay as the recipes have them.
/// </summary>
internal sealed class ImageNetVariants : Experiment
{
    /// <summary>Seeds of Inception and BN-x5, which the headline compares; the others are run once.</summary>
    private const int HeadlineSeeds = 3;

    private static readonly Variant[] Variants =
    [
        new("inception", "Inception", "inception", "31.0 M", 31.0, "72.2 %", Headline: true),
        new("bn-x5", "BN-x5", "bn-x5", "2.1 M", 2.1, "73.0 %", Headline: true),
        new("bn-baseline", "BN-Baseline", "bn-baseline", "13.3 M", 13.3, "72.7 %"),
        new("bn-x30", "BN-x30", "bn-x30", "2.7 M", 2.7, "74.8 %"),
        new("bn-x5-sigmoid", "BN-x5-Sigmoid", "bn-x5-sigmoid", "-", null, "69.8 %"),
        new("inception-x5", "Inception, 5x learning rate", "inception", "-", null, "diverges") { RateFactor = 5 },
        new("inception-sigmoid", "Inception, sigmoid", "inception", "-", null, "chance (0.1 %)") { Own = [("activation", "sigmoid")] },
    ];

    private static readonly string[] Quickly = ["inception", "bn-x5", "bn-x5-sigmoid", "inception-sigmoid"];

    /// <inheritdoc/>
    public override string Name => "imagenet-variants";

    /// <inheritdoc/>
    public override string Title => "Inception with and without batch normalization";

    /// <inheritdoc/>
    public override string Claim =>
        "Batch normalization reaches Inception's accuracy in a fraction of the steps (14 times fewer for BN-x5), ends higher, and trains with the sigmoid (section 4.2.2).";

    /// <inheritdoc/>
    public override ExperimentData Data => ExperimentData.ImageNet;

    /// <inheritdoc/>
    public override double Minutes => 60;

    /// <summary>How the recipes are made small.</summary>
    public ImageNetScale Scale { get; init; } = new();

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        string data = ImageNetTraining.DataOf(context);
        (int images, int classes, int validation) = ImageNetTraining.SizeOf(data);
        ImageNetScale scale = Scale.For(context, images);
        Variant[] chosen = [.. Variants.Where(v => !context.Quick || Quickly.Contains(v.Key))];
        List<(Variant Variant, ImageNetTraining Training)> trainings = [];
        foreach (Variant variant in chosen)
        {
            foreach (ulong seed in variant.Headline ? context.SeedsOr(HeadlineSeeds) : [1])
            {
                trainings.Add((variant, new ImageNetTraining(
                    FormattableString.Invariant($"{variant.Key}-{seed}"), variant.Recipe,
                    scale.Flags(variant.Recipe, variant.RateFactor, [.. variant.Own, ("seed", Text(seed))]))));
            }
        }

        IReadOnlyList<TrainedRun> runs = context.All([.. trainings.Select(t => t.Training.In(context, data))]);
        Dictionary<string, Outcome> outcomes = chosen.ToDictionary(
            v => v.Key, v => new Outcome(v, [.. runs.Where((_, i) => trainings[i].Variant == v)]), StringComparer.Ordinal);
        return Judge(outcomes, context.Quick, classes, validation, Describe(trainings[0].Training, images, classes, validation));
    }

    private static ExperimentResult Judge(Dictionary<string, Outcome> outcomes, bool quick, int classes, int validation, IReadOnlyList<string> notes)
    {
        Outcome inception = outcomes["inception"], x5 = outcomes["bn-x5"];
        double target = inception.Best, chance = 1.0 / classes;
        long own = inception.StepsTo(target) ?? throw new UserErrorException(FormattableString.Invariant(
            $"Inception diverged at step {inception.DivergedAt}; the others are compared with it. Set a lower learning-rate."));
        List<Finding> findings = [];
        if (quick)
        {
            findings.Add(ClearlyAbove(x5, inception, validation));
        }

        foreach (Outcome o in outcomes.Values.Where(o => !quick && o.Variant.PaperSteps is not null && o != inception))
        {
            bool half = o == x5;
            long? steps = o.StepsTo(target);
            findings.Add(new Finding(
                $"steps of {o.Variant.Title} to Inception's best accuracy",
                string.Create(CultureInfo.InvariantCulture, $"{o.Variant.PaperStepsText} of 31.0 M, {31.0 / o.Variant.PaperSteps:0.0} times fewer"),
                steps is null
                    ? string.Create(CultureInfo.InvariantCulture, $"not reached: {Percent(o.Best)} of {Percent(target)}")
                    : string.Create(CultureInfo.InvariantCulture, $"{steps} of {own}, {(double)own / steps:0.0} times fewer"),
                half ? "at most half; fewer does not contradict" : "fewer",
                Finding.Judge(half ? 2 * steps <= own : steps < own, steps < own)));
        }

        if (outcomes.TryGetValue("bn-x30", out Outcome? x30))
        {
            findings.Add(Higher(x5, inception, validation));
            findings.Add(Higher(x30, x5, validation));
        }

        int factor = quick ? 2 : 5;
        Outcome trained = outcomes["bn-x5-sigmoid"], untrained = outcomes["inception-sigmoid"];
        findings.Add(new Finding(
            "highest accuracy of BN-x5-Sigmoid", "69.8 % (chance 0.1 %)", $"{Percent(trained.Best)} (chance {Percent(chance)})", $"at least {factor} times chance", Finding.Judge(trained.Best >= factor * chance, false)));
        findings.Add(new Finding(
            "highest accuracy of Inception with the sigmoid", "never above chance (0.1 %)", $"{Percent(untrained.Best)} (chance {Percent(chance)})", "at most 1.5 times chance", Finding.Judge(untrained.Best <= 1.5 * chance, false)));
        if (outcomes.TryGetValue("inception-x5", out Outcome? fast))
        {
            findings.Add(new Finding(
                "Inception at 5 times the learning rate", "parameters reach machine infinity",
                fast.DivergedAt is long step ? string.Create(CultureInfo.InvariantCulture, $"diverges at step {step}") : $"{Percent(fast.Best)} beside {Percent(target)}",
                "diverges; worse does not contradict", Finding.Judge(fast.DivergedAt is not null, fast.Best < target)));
        }

        return new ExperimentResult
        {
            Findings = findings,
            Figures = [Figure2(outcomes, target)],
            Tables = [Figure3(outcomes, target)],
            Notes = notes,
        };
    }

    /// <summary>One variant ends higher than another, by two standard errors of two accuracies on as many images.</summary>
    private static Finding Higher(Outcome higher, Outcome lower, int validation)
    {
        double noise = 2 * Math.Sqrt(higher.Variance(validation) + lower.Variance(validation));
        return new Finding($"highest accuracy, {higher.Variant.Title} beside {lower.Variant.Title}", $"{higher.Variant.PaperBest} beside {lower.Variant.PaperBest}",
            $"{Percent(higher.Best)} beside {Percent(lower.Best)}",
            string.Create(CultureInfo.InvariantCulture, $"higher by {100 * noise:0.0} points (two standard errors); higher does not contradict"),
            Finding.Judge(higher.Best > lower.Best + noise, higher.Best >= lower.Best));
    }

    /// <summary>
    /// The headline of the quick form. In so few steps Inception stays near chance, so that where in its curve its best lies is luck, and which network comes to that
    /// accuracy first is too; what is not is that BN-x5 comes well above all of it.
    /// </summary>
    private static Finding ClearlyAbove(Outcome x5, Outcome inception, int validation)
    {
        long last = inception.Curve[^1].Step;
        double target = inception.Best, own = inception.Variance(validation);
        long? steps = x5.Curve.Where(p => p.Top1 > target + 2 * Math.Sqrt(own + p.Top1 * (1 - p.Top1) / validation)).Select(p => (long?)p.Step).FirstOrDefault();
        return new Finding(
            $"steps of {x5.Variant.Title} to clearly more than Inception's best accuracy",
            string.Create(CultureInfo.InvariantCulture, $"{x5.Variant.PaperStepsText} of 31.0 M to as much"),
            steps is null
                ? string.Create(CultureInfo.InvariantCulture, $"not reached: {Percent(x5.Best)} beside {Percent(target)}")
                : string.Create(CultureInfo.InvariantCulture, $"{steps} of {last}; in all {Percent(x5.Best)} beside {Percent(target)}"),
            "fewer, two standard errors above", Finding.Judge(steps < last, false));
    }

    private static Figure Figure2(Dictionary<string, Outcome> outcomes, double target) =>
        new("imagenet-variants", "Validation accuracy while training (the paper's Figure 2)", "steps", "top-1 accuracy, %")
        {
            Series = [.. outcomes.Values.Select(o => FigureSeries.Of(
                o.Variant.Title + (o.Seeds > 1 ? FormattableString.Invariant($" (mean of {o.Seeds})") : ""), o.Curve.Select(p => ((double)p.Step, 100 * p.Top1)), StyleOf(o.Variant)))],
            Marks =
            [
                new FigureMark($"Inception's best, {Percent(target)}", Y: 100 * target),
                .. outcomes.Values.Where(o => o.Variant.PaperSteps is not null).Select(o => (Outcome: o, Steps: o.StepsTo(target))).Where(o => o.Steps is not null)
                    .Select(o => new FigureMark(Text(o.Steps!.Value), o.Steps, 100 * o.Outcome.Curve.First(p => p.Step == o.Steps).Top1, StyleOf(o.Outcome.Variant))),
            ],
        };

    private static ResultTable Figure3(Dictionary<string, Outcome> outcomes, double target) => new(
        "The paper's Figure 3: steps to Inception's highest accuracy, and highest accuracy",
        ["model", "steps to match, paper", "ours", "highest accuracy, paper", "ours", "seeds"],
        [.. outcomes.Values.Select(o => (IReadOnlyList<string>)
        [
            o.Variant.Title, o.Variant.PaperStepsText, o.StepsTo(target) is long steps ? Text(steps) : "-", o.Variant.PaperBest,
            o.DivergedAt is long step ? FormattableString.Invariant($"diverges at step {step}") : o.BestText, Text(o.Seeds),
        ])]);

    private static string[] Describe(ImageNetTraining inception, int images, int classes, int validation) =>
    [
        string.Create(CultureInfo.InvariantCulture,
            $"{images} training images of {classes} classes, {validation} validation images; {inception.Description}. Inception's learning rate is {inception.Config.LearningRate}; the others' are the recipes' multiples of it. In all runs the learning rate falls exponentially to {100 * inception.Config.FinalLearningRateFraction:0.#} % of its start."),
        "\"Highest accuracy\" is that of the evaluations; a step count is that of the first evaluation at or above the mark. Where there are several seeds, curves are averaged first; ± is the standard deviation over them.",
        string.Create(CultureInfo.InvariantCulture, $"The standard error of an accuracy p is sqrt(p (1 - p) / {validation})."),
    ];

    private static int StyleOf(Variant variant) => Array.IndexOf(Variants, variant);

    private static string Text(IFormattable value) => value.ToString(null, CultureInfo.InvariantCulture);

    private static string Percent(double share) => double.IsNaN(share) ? "diverged" : (100 * share).ToString("0.0", CultureInfo.InvariantCulture) + " %";

    /// <summary>A line of the paper's Figure 3, or a statement of its text.</summary>
    private sealed record Variant(
        string Key, string Title, string Recipe, string PaperStepsText, double? PaperSteps, string PaperBest, bool Headline = false)
    {
        public double RateFactor { get; init; } = 1;

        public (string Name, string Value)[] Own { get; init; } = [];
    }

    /// <summary>What a variant's runs came to. Means are of those that did not diverge.</summary>
    private sealed class Outcome(Variant variant, IReadOnlyList<TrainedRun> runs)
    {
        private readonly TrainedRun[] _finite = [.. runs.Where(r => r.DivergedAt is null)];

        public Variant Variant => variant;

        public int Seeds => runs.Count;

        /// <summary>Mean over the seeds, where all of them were evaluated.</summary>
        public IReadOnlyList<AccuracyPoint> Curve => field ??= MeanCurve();

        /// <summary>The highest point of <see cref="Curve"/>; not a number when every run diverged.</summary>
        public double Best => Curve.Select(p => p.Top1).DefaultIfEmpty(double.NaN).Max();

        /// <summary>The first divergence when every run diverged, else null.</summary>
        public long? DivergedAt => _finite.Length == 0 ? runs.Min(r => r.DivergedAt) : null;

        public string BestText => Percent(Best) + (_finite.Length > 1 ? string.Create(CultureInfo.InvariantCulture, $" ± {100 * Deviation:0.0}") : "")
            + (_finite.Length < Seeds ? FormattableString.Invariant($" ({Seeds - _finite.Length} diverged)") : "");

        public long? StepsTo(double accuracy) => Curve.Where(p => p.Top1 >= accuracy).Select(p => (long?)p.Step).FirstOrDefault();

        /// <summary>Squared standard error of <see cref="Best"/> that comes from the number of validation images.</summary>
        public double Variance(int images) => Best * (1 - Best) / images;

        private double Deviation
        {
            get
            {
                double mean = _finite.Average(r => r.Best);
                return Math.Sqrt(_finite.Sum(r => (r.Best - mean) * (r.Best - mean)) / (_finite.Length - 1));
            }
        }

        private AccuracyPoint[] MeanCurve() => _finite.Length == 0 ? [] :
        [
            .. _finite[0].Curve.Select(p => p.Step).Where(step => _finite.All(r => r.Curve.Any(p => p.Step == step)))
                .Select(step => new AccuracyPoint(step, _finite.Average(r => r.Curve.First(p => p.Step == step).Top1))),
        ];
    }
}
