using System.Globalization;
using System.IO.Hashing;
using System.Text;
using HpcBatchNorm.Data;
using HpcBatchNorm.Reporting;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Experiments;

/// <summary>Accuracy on the validation images after some steps of a run.</summary>
/// <param name="Step">Steps done.</param>
/// <param name="Top1">Top-1 accuracy, a fraction.</param>
internal readonly record struct AccuracyPoint(long Step, double Top1);

/// <summary>What an experiment keeps of a training run.</summary>
internal sealed record TrainedRun
{
    /// <summary>All evaluations in order.</summary>
    public required IReadOnlyList<AccuracyPoint> Curve { get; init; }

    /// <summary>The newest checkpoint, relative to the experiment's folder; empty when none was written.</summary>
    public required string Checkpoint { get; init; }

    /// <summary>The step at which the loss was not finite; null for a run that did all its steps. Diverging is a result, not an error.</summary>
    public long? DivergedAt { get; init; }

    /// <summary>Highest top-1 accuracy, a fraction; 0 for a run that was never evaluated.</summary>
    public double Best => Curve.Select(p => p.Top1).DefaultIfEmpty(0).Max();
}

/// <summary>
/// How the paper's recipes are made small enough for an experiment: the network, the image size, the length and the learning rates change, in the same
/// way for all; everything that tells the recipes from one another stays.
/// </summary>
internal sealed record ImageNetScale
{
    /// <summary>The learning rate of the recipe 'inception', which the others' are multiples of.</summary>
    private const float PaperLearningRate = 0.0015f;

    /// <summary>Name of a network that has a form with and one without batch normalization; null for the recipes' own.</summary>
    public string? Model { get; init; } = "inception-tiny";

    /// <summary>Height and width of the images in pixels.</summary>
    public int ImageSize { get; init; } = 32;

    /// <summary>Length of each run.</summary>
    public double Epochs { get; init; } = 2;

    /// <summary>Epochs between evaluations.</summary>
    public double EvalEvery { get; init; } = 0.16;

    /// <summary>
    /// Learning rate of the recipe 'inception'; the others keep their ratio to it. A compromise: with less that network hardly begins to learn in a short run,
    /// with more BN-x30 has too much.
    /// </summary>
    public double BaseLearningRate { get; init; } = 0.01;

    /// <summary>
    /// Where the learning rate of every run ends, of its start: that of a whole run of BN-x5. The recipes' own ends lie between 0.19 (BN-Baseline) and 0.01 (BN-x30), which
    /// in a run of an epoch or two would tell them apart by nothing else.
    /// </summary>
    public double FinalLearningRateFraction { get; init; } = 0.086;

    /// <summary>Smallest share of an image's area that a training crop takes: small images have less to spare than the recipes' 8 %.</summary>
    public double MinArea { get; init; } = 0.25;

    /// <summary>Evaluation: image size divided by the short side before the central crop.</summary>
    public double CropFraction { get; init; } = 1;

    /// <summary>Weight of the new batch in running statistics: a short run needs statistics that follow fast.</summary>
    public double AveragingFactor { get; init; } = 0.05;

    /// <summary>Settings over all others, by name.</summary>
    public IReadOnlyList<(string Name, string Value)> Settings { get; init; } = [];

    /// <summary>This scale as an experiment is to be run: with the settings that were given, and in quick mode for a hundred and fifty steps at 16 px.</summary>
    internal ImageNetScale For(ExperimentContext context, int trainingImages)
    {
        const int QuickSteps = 150, Batch = 32;
        ImageNetScale scale = this with { Settings = [.. Settings, .. context.Settings] };
        double epochs = (double)QuickSteps * Batch / trainingImages;
        return context.Quick ? scale with { ImageSize = 16, Epochs = epochs, EvalEvery = EvalEvery < Epochs ? epochs / 6 : epochs } : scale;
    }

    /// <summary>The settings that make a recipe small, with a variant's own last but those of <see cref="Settings"/>.</summary>
    /// <param name="recipe">Name of the recipe.</param>
    /// <param name="rateFactor">Factor on the learning rate beyond the recipe's.</param>
    /// <param name="own">What the variant changes.</param>
    public IReadOnlyList<(string Name, string Value)> Flags(string recipe, double rateFactor, params IEnumerable<(string Name, string Value)> own)
    {
        RunConfig paper = new TrainingConfigBuilder().AddRecipe(recipe).Config;
        List<(string, string)> flags = [];
        if (Model is not null)
        {
            flags.Add(("model", Model));
            flags.Add(("batch-norm", paper.Model == "inception" ? "false" : "true"));
        }

        flags.Add(("learning-rate", Text(BaseLearningRate * paper.LearningRate / PaperLearningRate * rateFactor)));
        flags.Add(("final-learning-rate-fraction", Text(FinalLearningRateFraction)));
        flags.Add(("image-size", Text(ImageSize)));
        flags.Add(("epochs", Text(Epochs)));
        flags.Add(("eval-every", Text(EvalEvery)));
        flags.Add(("min-area", Text(MinArea)));
        flags.Add(("crop-fraction", Text(CropFraction)));
        flags.Add(("averaging-factor", Text(AveragingFactor)));
        flags.AddRange(own);
        flags.AddRange(Settings);
        return flags;
    }

    /// <summary>Seven significant digits, which is what a learning rate keeps.</summary>
    private static string Text(double value) => value.ToString("G7", CultureInfo.InvariantCulture);
}

/// <summary>
/// A training run of an experiment: a recipe with settings over it, in a folder of its own, where it goes on after an interruption. The folder's name has a
/// hash of the settings, so that a changed experiment does not go on with another one's run.
/// </summary>
/// <param name="Name">What it is called.</param>
/// <param name="Recipe">Name of the recipe.</param>
/// <param name="Flags">Settings over it.</param>
internal sealed record ImageNetTraining(string Name, string Recipe, IReadOnlyList<(string Name, string Value)> Flags)
{
    /// <summary>Folder of the run and name of its result.</summary>
    public string Key { get; } = string.Create(CultureInfo.InvariantCulture,
        $"{Name}-{(uint)XxHash64.HashToUInt64(Encoding.UTF8.GetBytes(string.Join('\n', Flags.Select(f => $"{f.Name}: {f.Value}").Prepend(Recipe)))):x8}");

    /// <summary>The settings in effect.</summary>
    public RunConfig Config
    {
        get
        {
            TrainingConfigBuilder builder = new TrainingConfigBuilder().AddRecipe(Recipe);
            foreach ((string name, string value) in Flags)
            {
                builder.Set(name, value);
            }

            return builder.Config;
        }
    }

    /// <summary>What is trained and for how long, in words.</summary>
    public string Description
    {
        get
        {
            RunConfig config = Config;
            return string.Create(CultureInfo.InvariantCulture,
                $"{config.Model} at {config.ImageSize} px, {(config.Steps > 0 ? $"{config.Steps} steps" : string.Create(CultureInfo.InvariantCulture, $"{config.Epochs:0.##} epochs"))} of batches of {config.BatchSize}");
        }
    }

    /// <summary>The run as part of an experiment.</summary>
    public ExperimentRun<TrainedRun> In(ExperimentContext context, string data) =>
        new(Key, string.Join("; ", Flags.Select(f => $"{f.Name} {f.Value}").Prepend(Recipe)), progress => Run(context, data, progress));

    /// <summary>The data set of an experiment.</summary>
    /// <exception cref="UserErrorException">None was named.</exception>
    public static string DataOf(ExperimentContext context) => context.DataPath is { } path
        ? Path.GetFullPath(path)
        : throw new UserErrorException("This experiment trains on images in one of ImageNet's layouts; DataPath must name them.");

    /// <summary>A number as the value of a setting.</summary>
    public static string Text(IFormattable value) => value.ToString(null, CultureInfo.InvariantCulture);

    /// <summary>Images to train on, classes, and validation images of a data set.</summary>
    public static (int Images, int Classes, int Validation) SizeOf(string data)
    {
        using ImageDataset train = ImageDataset.Open(data, DatasetSplit.Train), validation = ImageDataset.Open(data, DatasetSplit.Validation);
        return (train.Count, train.ClassCount, validation.Count);
    }

    private TrainedRun Run(ExperimentContext context, string data, IProgress<double> progress)
    {
        string folder = Path.Combine(context.Output, "runs", Key);
        var request = new TrainingRequest
        {
            Recipe = Recipe,
            Resume = TrainingRequest.Auto,
            Flags =
            [
                .. Flags,
                ("data", data),
                ("backend", context.BackendName),
                ("threads", Text(context.ThreadsPerRun)),
                ("workers", "1"),
                ("keep", "1"),
                ("output", folder),
            ],
        };
        using PreparedRun run = request.Prepare(_ => { });
        TrainingResult result = run.Run(new Observer(progress), RunSinks.All, context.Cancellation);
        if (result.Outcome == TrainingOutcome.Interrupted)
        {
            throw new OperationCanceledException(context.Cancellation);
        }

        if (result.Outcome == TrainingOutcome.TimeLimit)
        {
            throw new UserErrorException($"'{folder}' has reached its max-time. The same experiment goes on from there.");
        }

        return new TrainedRun
        {
            Curve = [.. result.Evaluations.Select(e => new AccuracyPoint(e.Step, e.Top1))],
            Checkpoint = result.Checkpoint.Length > 0 ? Path.GetRelativePath(context.Output, result.Checkpoint) : "",
            DivergedAt = result.Divergence?.Step,
        };
    }

    private sealed class Observer(IProgress<double> progress) : ITrainingObserver
    {
        public void Stepped(in StepReport report)
        {
            if (report.IsLogStep)
            {
                progress.Report((double)report.Step / report.TotalSteps);
            }
        }
    }
}
