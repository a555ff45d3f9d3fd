using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Planning;

/// <summary>What training and inference have in common: the images.</summary>
public abstract record PlanOptions
{
    /// <summary>What it computes in; activations and their gradients have the 16-bit type of <see cref="Precision.Bf16"/> and <see cref="Precision.Fp16"/>.</summary>
    public Precision Precision { get; init; }

    /// <summary>Images per forward pass; in training per micro-batch, see <see cref="TrainingOptions.Accumulate"/>.</summary>
    public int Batch { get; init; } = 32;

    /// <summary>Image rows.</summary>
    public int Height { get; init; } = 224;

    /// <summary>Image columns.</summary>
    public int Width { get; init; } = 224;

    /// <summary>Mean of each channel, subtracted from pixel values of 0 to 255; one value stands for all channels, null for 128 (inputs in about [-1, 1]).</summary>
    public IReadOnlyList<float>? PixelMean { get; init; }

    /// <summary>Deviation of each channel, by which the difference is divided; one value stands for all channels, null for 128.</summary>
    public IReadOnlyList<float>? PixelDeviation { get; init; }

    /// <summary>Names of planner rules that are switched off (<see cref="Fusion"/>).</summary>
    public IReadOnlyCollection<string> DisabledFusions { get; init; } = [];
}

/// <summary>Settings of a training plan. The learning rate is not among them: it comes with every step.</summary>
public sealed record TrainingOptions : PlanOptions
{
    /// <summary>Seed of initial weights and dropout masks.</summary>
    public ulong Seed { get; init; } = 1;

    /// <summary>The optimizer's momentum.</summary>
    public float Mu { get; init; } = 0.9f;

    /// <summary>Nesterov's form of momentum.</summary>
    public bool Nesterov { get; init; }

    /// <summary>Where the learning rate stands: in the momentum, or before it.</summary>
    public MomentumForm MomentumForm { get; init; }

    /// <summary>L2 weight decay of weights: this times the weight is added to its gradient.</summary>
    public float WeightDecay { get; init; }

    /// <summary>Decay biases, scales and shifts too.</summary>
    public bool DecayScaleAndShift { get; init; }

    /// <summary>Label smoothing: the share of the target spread evenly over all classes.</summary>
    public float LabelSmoothing { get; init; }

    /// <summary>Gradients are scaled down to this global norm when they exceed it; 0 means no clipping.</summary>
    public float ClipNorm { get; init; }

    /// <summary>In fp16: what the loss's gradient is multiplied by at the start. It halves whenever a gradient overflows; that step updates nothing.</summary>
    public float LossScale { get; init; } = 65536;

    /// <summary>In fp16: steps in a row without an overflow after which the scale doubles; 0 for never.</summary>
    public int LossScaleGrowth { get; init; } = 2000;

    /// <summary>
    /// Micro-batches of <see cref="PlanOptions.Batch"/> images whose mean gradient makes one update. Batch normalization sees one micro-batch at a time.
    /// </summary>
    public int Accumulate { get; init; } = 1;

    /// <summary>
    /// Processes ("ranks") that train the network together, each on batches of its own; their gradients are averaged before each update. A <c>Trainer</c> sets it
    /// to the number there are.
    /// </summary>
    public int Ranks { get; init; } = 1;

    /// <summary>Which of them this is, from 0.</summary>
    public int Rank { get; init; }

    /// <summary>With several ranks: batch statistics over the batches of all ranks together, forward and backward.</summary>
    public bool SyncBatchNorm { get; init; }

    /// <summary>Images per update, of all ranks.</summary>
    public int ImagesPerStep => Batch * Accumulate * Ranks;

    /// <summary>Decay of the moving average of parameters and running statistics; 0 means none is kept.</summary>
    public float AverageDecay { get; init; }

    /// <summary>
    /// Compute batch normalization's output again in the backward pass instead of keeping it: about a third less memory for some percent more time,
    /// and the same numbers bit for bit.
    /// </summary>
    public bool RecomputeBatchNorm { get; init; }

    /// <summary>
    /// Images of each group that has batch statistics of its own ("ghost" or virtual batches); 0: all of a pass together. A divisor of
    /// <see cref="PlanOptions.Batch"/>.
    /// </summary>
    public int GhostBatch { get; init; }

    /// <summary>Batch renormalization, as <see cref="Renormalization"/> says, instead of batch normalization.</summary>
    public bool BatchRenormalize { get; init; }

    /// <summary>Limits of batch renormalization, in training steps.</summary>
    public BatchRenormalization Renormalization { get; init; } = new();

    /// <summary>
    /// Normalise with batch statistics, but leave their dependence on the layer's input out of the gradient, as if they were constants: the mistake section 2
    /// of the paper warns of. For experiments; networks train worse, or not at all.
    /// </summary>
    public bool ConstantStatistics { get; init; }

    /// <summary>Normalise with running statistics, held constant, instead of batch statistics.</summary>
    public bool FrozenStatistics { get; init; }

    /// <summary>Where statistics are frozen, scale and shift do not learn either: batch normalization is a fixed affine map.</summary>
    public bool FrozenScaleAndShift { get; init; }
}

/// <summary>Settings of an inference plan.</summary>
public sealed record InferenceOptions : PlanOptions
{
    /// <summary>
    /// What batch normalization uses. Running (or population) statistics, the default, are constants, so images do not influence one another. With batch
    /// statistics each pass normalises by its own images, as in training, and leaves its mean and unbiased variance where the running statistics would be:
    /// the way to Algorithm 2's population statistics.
    /// </summary>
    public BatchNormStatistics Statistics { get; init; } = BatchNormStatistics.Running;
}
