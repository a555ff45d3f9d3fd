using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Planning;

namespace HpcBatchNorm.Training;

/// <summary>
/// How the learning rate changes over a run. Those in epochs count from the start of the run; those that span the run
/// take what remains of it after the warm-up.
/// </summary>
public enum ScheduleKind
{
    /// <summary><see cref="Exponential"/> when the run is at least <see cref="RunConfig.ScheduleEpochs"/> long, otherwise <see cref="Span"/>.</summary>
    Auto,

    /// <summary>Times <see cref="RunConfig.DecayRate"/> every <see cref="RunConfig.DecayEpochs"/> epochs (a staircase): the paper's, and GoogLeNet's.</summary>
    Exponential,

    /// <summary>Exponentially, so that the run ends at <see cref="RunConfig.FinalLearningRateFraction"/> of the start.</summary>
    Span,

    /// <summary>Times <see cref="RunConfig.Gamma"/> at every one of <see cref="RunConfig.Milestones"/>.</summary>
    Step,

    /// <summary>Half a cosine down to <see cref="RunConfig.MinimumLearningRate"/>, which the step after the last would have.</summary>
    Cosine,

    /// <summary>A straight line down to <see cref="RunConfig.MinimumLearningRate"/>, which the step after the last would have.</summary>
    Linear,

    /// <summary>Always the same.</summary>
    Constant,
}

/// <summary>How far up a warm-up of w steps is at its step n, counted from 0.</summary>
public enum WarmupForm
{
    /// <summary>(n + 1) / w: the last step has the full rate, and the first is already one part up.</summary>
    Reached,

    /// <summary>n / w, as PyTorch's <c>LinearLR</c>: the first step has the rate that the warm-up rises from, and the step after the last is the first with the full rate.</summary>
    PyTorch,
}

/// <summary>
/// Everything that decides a training run; it never changes. A new object holds the defaults; <see cref="TrainingConfigBuilder"/> lays a recipe, a file
/// and flags over them; docs/settings.md lists every setting with its name, default and meaning.
/// Every value stands here once: what is planned, loaded and evaluated is made from this.
/// </summary>
public sealed record RunConfig
{
    /// <summary>
    /// The defaults for images that have the size which the network takes (32 pixels, say): they are taken whole, in training and in evaluation, and not
    /// varied. What suits the images, mirroring for instance, is set over it.
    /// </summary>
    /// <param name="size">Height and width of the images in pixels.</param>
    public static RunConfig ForWholeImages(int size) => new() { ImageSize = size, CropFraction = 1, Augmentation = AugmentationOptions.None };

    /// <summary>What the run is called: the name of its recipe unless set otherwise.</summary>
    public string Name { get; init; } = "custom";

    // The network.

    /// <summary>Name of the network, or the path of a JSON file that describes one.</summary>
    public string Model { get; init; } = "bn-inception";

    /// <summary>What variant of it; the number of classes comes from the data set.</summary>
    public NetworkOptions Network { get; init; } = new();

    /// <summary>A checkpoint whose weights and statistics the run begins with; empty for none.</summary>
    public string InitialCheckpoint { get; init; } = "";

    /// <summary>Leave out the classifier's weights of <see cref="InitialCheckpoint"/>.</summary>
    public bool ResetClassifier { get; init; }

    // The optimizer.

    /// <summary>Learning rate that the schedule starts from.</summary>
    public float LearningRate { get; init; } = 0.0015f;

    /// <summary>
    /// Images per step that <see cref="LearningRate"/> is meant for: it is multiplied by <see cref="ImagesPerStep"/> over this (linear scaling: Goyal et al., 1706.02677,
    /// section 2.1); 0: it is taken as it stands, whatever the step.
    /// </summary>
    public int LearningRateBatch { get; init; }

    /// <summary>The learning rate that the schedule starts from, scaled where <see cref="LearningRateBatch"/> says so.</summary>
    public float EffectiveLearningRate => LearningRateBatch > 0 ? (float)((double)LearningRate * ImagesPerStep / LearningRateBatch) : LearningRate;

    /// <summary>How the learning rate changes over the run.</summary>
    public ScheduleKind Schedule { get; init; }

    /// <summary>Epochs after which <see cref="ScheduleKind.Step"/> multiplies the learning rate, rising.</summary>
    public IReadOnlyList<double> Milestones { get; init; } = [];

    /// <summary>What <see cref="ScheduleKind.Step"/> multiplies it by.</summary>
    public double Gamma { get; init; } = 0.1;

    /// <summary>What <see cref="ScheduleKind.Cosine"/> and <see cref="ScheduleKind.Linear"/> end at.</summary>
    public double MinimumLearningRate { get; init; }

    /// <summary>Length of the first cycle of <see cref="ScheduleKind.Cosine"/> in epochs, after which the rate jumps up and falls again; 0: one cycle, the whole run.</summary>
    public double CycleEpochs { get; init; }

    /// <summary>How many times as long every cycle is as the one before it.</summary>
    public double CycleMultiplier { get; init; } = 1;

    /// <summary>How many times as high every cycle begins as the one before it.</summary>
    public double CycleDecay { get; init; } = 1;

    /// <summary>Epochs over which the learning rate rises in a straight line before the schedule, 0 for none.</summary>
    public double WarmupEpochs { get; init; }

    /// <summary>Learning rate that the warm-up rises from.</summary>
    public double WarmupLearningRate { get; init; }

    /// <summary>How far up the warm-up is at each of its steps.</summary>
    public WarmupForm WarmupForm { get; init; }

    /// <summary>Factor of one decay.</summary>
    public double DecayRate { get; init; } = 0.96;

    /// <summary>Epochs between decays.</summary>
    public double DecayEpochs { get; init; } = 8;

    /// <summary>Length of the run the decay constants were made for, in epochs.</summary>
    public double ScheduleEpochs { get; init; }

    /// <summary>Share of the first learning rate that a run with <see cref="ScheduleKind.Span"/> ends at.</summary>
    public double FinalLearningRateFraction { get; init; } = 0.086;

    /// <summary>Epochs after which batch normalization is frozen (<see cref="TrainingOptions.FrozenStatistics"/>), 0 for never.</summary>
    public double FreezeBatchNormAfter { get; init; }

    /// <summary>
    /// What a training session is planned with: momentum, weight decay, averaging and the like, and the batch, the image size and the seed, which
    /// <see cref="BatchSize"/>, <see cref="ImageSize"/> and <see cref="Seed"/> set alone. An initializer that sets this too sets it before them.
    /// </summary>
    public TrainingOptions Optimizer { get; init; } = new() { WeightDecay = 2e-4f };

    // The data.

    /// <summary>Folder or archive of the data set; empty means the generated sample.</summary>
    public string Data { get; init; } = "";

    /// <summary>Height and width of the network's input in pixels: another name for those of <see cref="Optimizer"/>.</summary>
    public int ImageSize
    {
        get => Optimizer.Height;
        init => Optimizer = Optimizer with { Height = value, Width = value };
    }

    /// <summary>Images per forward and backward pass, what batch normalization sees together: another name for <see cref="PlanOptions.Batch"/> of <see cref="Optimizer"/>.</summary>
    public int BatchSize
    {
        get => Optimizer.Batch;
        init => Optimizer = Optimizer with { Batch = value };
    }

    /// <summary>Images per step: several batches where gradients are accumulated, and those of all ranks.</summary>
    public int ImagesPerStep => Optimizer.ImagesPerStep;

    /// <summary>Order of training images.</summary>
    public ShuffleMode Shuffle { get; init; } = ShuffleMode.Global;

    /// <summary>Images per shard of <see cref="ShuffleMode.Shard"/>, where the data set has no shards of its own.</summary>
    public int ShardSize { get; init; } = 1024;

    /// <summary>How training images are varied.</summary>
    public AugmentationOptions Augmentation { get; init; } = new() { PhotometricStrength = 1 };

    /// <summary>Pixels are black or white: values of 128 and more become 255, the others 0.</summary>
    public bool Binarize { get; init; }

    /// <summary>The filter that images are resized with, in training and evaluation.</summary>
    public Interpolation Interpolation { get; init; }

    /// <summary>Evaluation: image size divided by the short side that images are resized to before their centre is cropped.</summary>
    public double CropFraction { get; init; } = 0.875;

    /// <summary>What an unreadable image does.</summary>
    public BadImagePolicy OnBadImage { get; init; }

    /// <summary>Root of every random number of the run: another name for <see cref="TrainingOptions.Seed"/> of <see cref="Optimizer"/>, whose bits these are.</summary>
    public long Seed
    {
        get => unchecked((long)Optimizer.Seed);
        init => Optimizer = Optimizer with { Seed = unchecked((ulong)value) };
    }

    // Where and how it runs.

    /// <summary>Backend: <c>auto</c>, <c>onednn</c> or <c>reference</c>.</summary>
    public string Backend { get; init; } = "auto";

    /// <summary>
    /// Threads that decode images; 0: as many as go with the machine (<see cref="LoaderThreads"/>). The images and their order do not depend on it.
    /// </summary>
    public int Workers { get; init; }

    /// <summary>
    /// The threads that decode images here: <see cref="Workers"/>, or half of the processors, as the other half computes, at least 2 and at most 16, which
    /// feed more than any one machine trains on.
    /// </summary>
    public int LoaderThreads => Workers > 0 ? Workers : DefaultWorkers(Environment.ProcessorCount);

    /// <summary>Seconds without a finished image after which loading fails; 0 means never.</summary>
    public double LoaderTimeout { get; init; } = 120;

    /// <summary>The longest time that ranks wait for one another; then the job ends with a message that names who is missing. Zero: for ever.</summary>
    public TimeSpan RankTimeout { get; init; } = TimeSpan.FromMinutes(10);

    /// <summary>Threads and algorithms of the backend.</summary>
    public BackendOptions BackendOptions { get; init; } = new();

    // The run.

    /// <summary>Length of the run in epochs; used when <see cref="Steps"/> is 0.</summary>
    public double Epochs { get; init; } = 80;

    /// <summary>Length of the run in steps; 0 means <see cref="Epochs"/> decides.</summary>
    public long Steps { get; init; }

    /// <summary>Epochs between evaluations on the validation images, besides the one at the end; 0 means none at all.</summary>
    public double EvalEvery { get; init; } = 1;

    /// <summary>Evaluations in a row without a better top-1 accuracy after which the run ends (<see cref="EarlyStopping"/>); 0: it never does.</summary>
    public int Patience { get; init; }

    /// <summary>Steps between checkpoints; 0 means one per evaluation.</summary>
    public long CheckpointEvery { get; init; }

    /// <summary>The longest time without a checkpoint; zero: <see cref="CheckpointEvery"/> and evaluations alone decide.</summary>
    public TimeSpan CheckpointTime { get; init; } = TimeSpan.FromMinutes(15);

    /// <summary>Time after which a process saves and ends, from its start on; zero: it never does.</summary>
    public TimeSpan MaxTime { get; init; }

    /// <summary>Checkpoints kept besides the best.</summary>
    public int Keep { get; init; } = 2;

    /// <summary>Steps between lines of <c>metrics.jsonl</c> and of the plain progress.</summary>
    public int LogEvery { get; init; } = 20;

    /// <summary>Folder of the run; a <see cref="Trainer"/> needs one. The command makes a new one under <c>runs</c> where none is named.</summary>
    public string Output { get; init; } = "";

    /// <summary>The loader threads of a machine with so many processors.</summary>
    internal static int DefaultWorkers(int processors) => Math.Clamp(processors / 2, 2, 16);
}
