using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Planning;

namespace HpcBatchNorm.Training.Configuration;

/// <summary>
/// How the learning rate changes over a run (<see cref="LearningRateSchedule"/>). Those in epochs count from the start of the run; those that span the run
/// take what remains of it after the warm-up.
/// </summary>
public enum ScheduleKind
{
    /// <summary><see cref="Exponential"/> when the run is at least <see cref="TrainingConfig.ScheduleEpochs"/> long, otherwise <see cref="Span"/>.</summary>
    Auto,

    /// <summary>Times <see cref="TrainingConfig.DecayRate"/> every <see cref="TrainingConfig.DecayEpochs"/> epochs (a staircase): the paper's, and GoogLeNet's.</summary>
    Exponential,

    /// <summary>Exponentially, so that the run ends at <see cref="TrainingConfig.FinalLearningRateFraction"/> of the start.</summary>
    Span,

    /// <summary>Times <see cref="TrainingConfig.Gamma"/> at every one of <see cref="TrainingConfig.Milestones"/>.</summary>
    Step,

    /// <summary>Half a cosine down to <see cref="TrainingConfig.MinimumLearningRate"/>, which the step after the last would have.</summary>
    Cosine,

    /// <summary>A straight line down to <see cref="TrainingConfig.MinimumLearningRate"/>, which the step after the last would have.</summary>
    Linear,

    /// <summary>Always the same.</summary>
    Constant,
}

/// <summary>
/// Everything that decides a training run. A new object holds the defaults; <see cref="TrainingConfigBuilder"/> lays a recipe, a file and flags over
/// them; <see cref="TrainingSettings"/> lists every setting with its name, range and meaning, which is the only place that text exists.
/// </summary>
public sealed class TrainingConfig
{
    /// <summary>What the run is called: the name of its recipe unless set otherwise.</summary>
    public string Name { get; set; } = "custom";

    // The network.

    /// <summary>Name of the network.</summary>
    public string Model { get; set; } = "bn-inception";

    /// <summary>What variant of it; the number of classes comes from the data set.</summary>
    public NetworkOptions Network { get; set; } = new();

    /// <summary>A checkpoint whose weights and statistics the run begins with; empty for none.</summary>
    public string InitialCheckpoint { get; set; } = "";

    /// <summary>Leave out the classifier's weights of <see cref="InitialCheckpoint"/>.</summary>
    public bool ResetClassifier { get; set; }

    // The optimizer.

    /// <summary>Learning rate that the schedule starts from.</summary>
    public float LearningRate { get; set; } = 0.0015f;

    /// <summary>How the learning rate changes over the run.</summary>
    public ScheduleKind Schedule { get; set; }

    /// <summary>Epochs after which <see cref="ScheduleKind.Step"/> multiplies the learning rate, rising.</summary>
    public IReadOnlyList<double> Milestones { get; set; } = [];

    /// <summary>What <see cref="ScheduleKind.Step"/> multiplies it by.</summary>
    public double Gamma { get; set; } = 0.1;

    /// <summary>What <see cref="ScheduleKind.Cosine"/> and <see cref="ScheduleKind.Linear"/> end at.</summary>
    public double MinimumLearningRate { get; set; }

    /// <summary>Epochs over which the learning rate rises in a straight line before the schedule, 0 for none.</summary>
    public double WarmupEpochs { get; set; }

    /// <summary>Learning rate that the warm-up rises from.</summary>
    public double WarmupLearningRate { get; set; }

    /// <summary>Factor of one decay.</summary>
    public double DecayRate { get; set; } = 0.96;

    /// <summary>Epochs between decays.</summary>
    public double DecayEpochs { get; set; } = 8;

    /// <summary>Length of the run the decay constants were made for, in epochs.</summary>
    public double ScheduleEpochs { get; set; }

    /// <summary>Share of the first learning rate that a run with <see cref="ScheduleKind.Span"/> ends at.</summary>
    public double FinalLearningRateFraction { get; set; } = 0.086;

    /// <summary>Epochs after which batch normalization is frozen (<see cref="TrainingOptions.FrozenStatistics"/>), 0 for never.</summary>
    public double FreezeBatchNormAfter { get; set; }

    /// <summary>Momentum, weight decay, averaging and the like; batch, image size and seed are taken from the properties below.</summary>
    public TrainingOptions Optimizer { get; set; } = new() { WeightDecay = 2e-4f };

    // The data.

    /// <summary>Folder or archive of the data set; empty means the generated sample.</summary>
    public string Data { get; set; } = "";

    /// <summary>Height and width of the network's input in pixels.</summary>
    public int ImageSize { get; set; } = 224;

    /// <summary>Images per forward and backward pass: what batch normalization sees together.</summary>
    public int BatchSize { get; set; } = 32;

    /// <summary>Images per step: several batches where gradients are accumulated.</summary>
    public int ImagesPerStep => BatchSize * Optimizer.Accumulate;

    /// <summary>Order of training images.</summary>
    public ShuffleMode Shuffle { get; set; } = ShuffleMode.Global;

    /// <summary>Images per shard of <see cref="ShuffleMode.Shard"/>, where the data set has no shards of its own.</summary>
    public int ShardSize { get; set; } = 1024;

    /// <summary>How training images are varied.</summary>
    public AugmentationOptions Augmentation { get; set; } = new() { PhotometricStrength = 1 };

    /// <summary>Pixels are black or white: values of 128 and more become 255, the others 0.</summary>
    public bool Binarize { get; set; }

    /// <summary>Evaluation: image size divided by the short side that images are resized to before their centre is cropped.</summary>
    public double CropFraction { get; set; } = 0.875;

    /// <summary>What an unreadable image does.</summary>
    public BadImagePolicy OnBadImage { get; set; }

    /// <summary>Root of every random number of the run.</summary>
    public long Seed { get; set; } = 1;

    // Where and how it runs.

    /// <summary>Backend: <c>auto</c>, <c>onednn</c> or <c>reference</c>.</summary>
    public string Backend { get; set; } = "auto";

    /// <summary>Threads that decode images.</summary>
    public int Workers { get; set; } = 2;

    /// <summary>Seconds without a finished image after which loading fails; 0 means never.</summary>
    public double LoaderTimeout { get; set; } = 120;

    /// <summary>Threads and algorithms of the backend.</summary>
    public BackendOptions BackendOptions { get; set; } = new();

    // The run.

    /// <summary>Length of the run in epochs; used when <see cref="Steps"/> is 0.</summary>
    public double Epochs { get; set; } = 80;

    /// <summary>Length of the run in steps; 0 means <see cref="Epochs"/> decides.</summary>
    public long Steps { get; set; }

    /// <summary>Epochs between evaluations on the validation images, besides the one at the end; 0 means none at all.</summary>
    public double EvalEvery { get; set; } = 1;

    /// <summary>Steps between checkpoints; 0 means one per evaluation.</summary>
    public long CheckpointEvery { get; set; }

    /// <summary>Checkpoints kept besides the best.</summary>
    public int Keep { get; set; } = 2;

    /// <summary>Steps between lines of <c>metrics.jsonl</c> and of the plain progress.</summary>
    public int LogEvery { get; set; } = 20;

    /// <summary>Folder of the run; empty means a new one under <c>runs</c>.</summary>
    public string Output { get; set; } = "";

    /// <summary>An object of its own with the same settings.</summary>
    internal TrainingConfig Copy() => (TrainingConfig)MemberwiseClone();
}
