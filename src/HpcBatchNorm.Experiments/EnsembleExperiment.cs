using System.Globalization;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Experiments;

/// <summary>Accuracies of the members of an ensemble, each by itself, and of their average, fractions.</summary>
internal sealed record EnsembleAccuracy
{
    /// <summary>Each member's top-1 and top-5 accuracy, in the order of the recipes.</summary>
    public required IReadOnlyList<TopAccuracy> Members { get; init; }

    /// <summary>That of the averaged class probabilities.</summary>
    public required TopAccuracy Averaged { get; init; }
}

/// <summary>Shares of images whose label is the most probable class, and among the five most probable.</summary>
internal readonly record struct TopAccuracy(double Top1, double Top5);

/// <summary>
/// Section 4.2.3, Figure 4: networks that are each BN-x30 with another modification, classifying one and 144 crops, alone and averaged.
/// </summary>
internal sealed class EnsembleExperiment : Experiment
{
    private const int Recipes = 6, UsualMembers = 3, QuickMembers = 2, ViewsTogether = 72;

    /// <inheritdoc/>
    public override string Name => "ensemble";

    /// <inheritdoc/>
    public override string Title => "Ensemble and 144 crops";

    /// <inheritdoc/>
    public override string Claim =>
        "Averaging the predictions of six modified BN-x30 networks over 144 crops gives 4.9 % top-5 error, better than each network and than a single crop (section 4.2.3).";

    /// <inheritdoc/>
    public override ExperimentData Data => ExperimentData.ImageNet;

    /// <inheritdoc/>
    public override double Minutes => 40;

    /// <summary>How the recipes are made small. Crops need images a little larger than the network's input.</summary>
    public ImageNetScale Scale { get; init; } = new() { CropFraction = 0.875, Epochs = 2, EvalEvery = 2 };

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        string data = ImageNetTraining.DataOf(context);
        (int images, int classes, int validation) = ImageNetTraining.SizeOf(data);
        ImageNetScale scale = Scale.For(context, images);
        if (context.Quick)
        {
            scale = scale with { BaseLearningRate = scale.BaseLearningRate / 5 }; // thirty times the rate takes longer than a quick run to pay
        }

        int members = context.Seeds > 0 ? context.Seeds : context.Quick ? QuickMembers : UsualMembers;
        if (members is < 2 or > Recipes)
        {
            throw new UserErrorException(FormattableString.Invariant($"The ensemble has {Recipes} recipes, bn-x30-e1 to bn-x30-e{Recipes}; seeds says how many of them to take, 2 to {Recipes}, not {members}."));
        }

        ImageNetTraining[] trainings = [.. Enumerable.Range(1, members).Select(i => FormattableString.Invariant($"bn-x30-e{i}"))
            .Select(recipe => new ImageNetTraining(recipe, recipe, scale.Flags(recipe, 1)))];
        IReadOnlyList<TrainedRun> runs = context.All([.. trainings.Select(t => t.In(context, data))]);
        if (runs.FirstOrDefault(r => r.DivergedAt is not null) is { } diverged)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"A member diverged at step {diverged.DivergedAt}; an ensemble needs networks that train. Set a lower learning-rate."));
        }

        string[] checkpoints = [.. runs.Select(r => Path.Combine(context.Output, r.Checkpoint))];
        ExperimentRun<EnsembleAccuracy> Evaluation(int crops) => new(
            FormattableString.Invariant($"crops-{crops}"), string.Join(", ", trainings.Select(t => t.Key)), progress => Evaluate(context, checkpoints, crops, progress));
        IReadOnlyList<EnsembleAccuracy> found = context.All([Evaluation(1), Evaluation(144)]);
        RunConfig config = trainings[0].Config;
        return Judge(found[0], found[1], config.ImageSize, validation, string.Create(CultureInfo.InvariantCulture,
            $"{members} networks, bn-x30-e1 to bn-x30-e{members}: {trainings[0].Description} on {images} images of {classes} classes. {validation} validation images, seen as one central crop of a short side of {config.ImageSize / config.CropFraction:0.#} px, or as 144 crops at the four scales of GoogLeNet's section 7, times {config.ImageSize}/224."));
    }

    private static EnsembleAccuracy Evaluate(ExperimentContext context, IReadOnlyList<string> checkpoints, int crops, IProgress<double> progress)
    {
        var request = new EvaluationRequest
        {
            Checkpoints = checkpoints,
            Crops = crops,
            Flags =
            [
                ("backend", context.BackendName), ("threads", ImageNetTraining.Text(context.ThreadsPerRun)), ("workers", "1"),
                .. crops > 1 ? [("batch-size", ImageNetTraining.Text(ViewsTogether))] : Array.Empty<(string, string)>(),
            ],
        };
        EvaluationResult result = request.Run(_ => { }, p => progress.Report((double)p.Images / p.Total), context.Cancellation);
        return new EnsembleAccuracy { Members = [.. result.Members.Select(Of)], Averaged = Of(result) };

        static TopAccuracy Of(EvaluationResult r) => new(r.Top1, r.Top5);
    }

    /// <summary>What the accuracies on <paramref name="images"/> validation images say, with one crop and with 144.</summary>
    internal static ExperimentResult Judge(EnsembleAccuracy single, EnsembleAccuracy multi, int resolution, int images, string setup)
    {
        int count = single.Members.Count;
        string name = FormattableString.Invariant($"ensemble of {count}, 144 crops");
        List<Finding> findings = [];
        foreach ((string top, Func<TopAccuracy, double> of, string[] paper) in new (string, Func<TopAccuracy, double>, string[])[]
        {
            ("top-5", a => a.Top5, ["4.9 % (6 networks)", "5.82 %", "7.82 %"]), ("top-1", a => a.Top1, ["20.1 % (6 networks)", "21.99 %", "25.2 %"]),
        })
        {
            findings.Add(Lower($"{top} error of the {name}, beside its best member's, 144 crops", $"{paper[0]} beside {paper[1]}", of(multi.Averaged), multi.Members.Max(of), images));
            findings.Add(Lower($"{top} error with 144 crops beside a single crop, mean of the members", $"{paper[1]} beside {paper[2]}", multi.Members.Average(of), single.Members.Average(of), images));
            findings.Add(Lower($"{top} error of the {name}, beside the best member's, single crop", $"{paper[0]} beside {paper[2]}", of(multi.Averaged), single.Members.Max(of), images));
        }

        static string[] Paper(string model, string resolution, string crops, string models, string top1, string top5) => [model + " (paper)", resolution, crops, models, top1, top5];
        string[] Ours(string model, string crops, int models, TopAccuracy a) =>
            [model, ImageNetTraining.Text(resolution), crops, ImageNetTraining.Text(models), Error(a.Top1), Error(a.Top5)];
        IReadOnlyList<string>[] rows =
        [
            Paper("GoogLeNet ensemble", "224", "144", "7", "-", "6.67 %"),
            Paper("Deep Image low-res", "256", "-", "1", "-", "7.96 %"),
            Paper("Deep Image high-res", "512", "-", "1", "24.88 %", "7.42 %"),
            Paper("Deep Image ensemble", "variable", "-", "-", "-", "5.98 %"),
            Paper("BN-Inception single crop", "224", "1", "1", "25.2 %", "7.82 %"),
            Paper("BN-Inception multicrop", "224", "144", "1", "21.99 %", "5.82 %"),
            Paper("BN-Inception ensemble", "224", "144", "6", "20.1 %", "4.9 %"),
            .. single.Members.Select((m, i) => Ours(FormattableString.Invariant($"bn-x30-e{i + 1} single crop"), "1", 1, m)),
            .. multi.Members.Select((m, i) => Ours(FormattableString.Invariant($"bn-x30-e{i + 1} multicrop"), "144", 1, m)),
            Ours("ensemble single crop", "1", count, single.Averaged),
            Ours("ensemble", "144", count, multi.Averaged),
        ];
        return new ExperimentResult
        {
            Findings = findings,
            Figures =
            [
                new Figure("ensemble", "Top-1 error: each network, and their average", "member", "top-1 error, %")
                {
                    Series =
                    [
                        FigureSeries.Of("single crop", single.Members.Select((m, i) => (i + 1.0, 100 * (1 - m.Top1))), 0),
                        FigureSeries.Of("144 crops", multi.Members.Select((m, i) => (i + 1.0, 100 * (1 - m.Top1))), 1),
                    ],
                    Marks =
                    [
                        new FigureMark($"averaged, single crop: {Error(single.Averaged.Top1)}", Y: 100 * (1 - single.Averaged.Top1)),
                        new FigureMark($"averaged, 144 crops: {Error(multi.Averaged.Top1)}", Y: 100 * (1 - multi.Averaged.Top1)),
                    ],
                },
            ],
            Tables = [new ResultTable("The paper's Figure 4: error on the validation images", ["model", "resolution", "crops", "models", "top-1 error", "top-5 error"], rows)],
            Notes =
            [
                setup,
                "The paper names the kinds of modification (larger initial weights, dropout of 5 or 10 %, per-activation normalization in the last module), not which network has which; our assignment is in the recipes.",
                "Class probabilities are averaged, with equal weight, over crops and then over networks. The standard error is that of accuracies on different images. All lines are on the same images, so that the true one is smaller; how much, these numbers do not say.",
            ],
        };
    }

    /// <summary>One error is lower than another, by two standard errors of two accuracies on as many images.</summary>
    private static Finding Lower(string quantity, string paper, double better, double worse, int images)
    {
        double noise = 2 * Math.Sqrt((better * (1 - better) + worse * (1 - worse)) / images);
        return new Finding(quantity, paper, $"{Error(better)} beside {Error(worse)}",
            string.Create(CultureInfo.InvariantCulture, $"lower by {100 * noise:0.0} points (two standard errors); lower does not contradict"), Finding.Judge(better > worse + noise, better > worse));
    }

    private static string Error(double accuracy) => (100 * (1 - accuracy)).ToString("0.0", CultureInfo.InvariantCulture) + " %";
}
