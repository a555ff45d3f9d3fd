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

    /// <summary>Refuses a number that would give wrong results in silence, or none. What operations say themselves is theirs.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Names the option, what was found and what was expected.</exception>
    internal virtual void Validate()
    {
        foreach (float mean in PixelMean ?? [])
        {
            Check(nameof(PixelMean), mean, float.IsFinite(mean), "finite numbers");
        }

        foreach (float deviation in PixelDeviation ?? [])
        {
            Check(nameof(PixelDeviation), deviation, float.IsFinite(deviation) && deviation > 0, "finite numbers above 0");
        }
    }

    private protected static void Check(string name, double value, bool fits, string expected)
    {
        if (!fits)
        {
            throw new ArgumentOutOfRangeException(name, value, FormattableString.Invariant($"{name} is {value}; expected {expected}."));
        }
    }
}

/// <summary>Settings of a training plan. The learning rate is not among them: it comes with every step.</summary>
public sealed record TrainingOptions : PlanOptions
{
    /// <summary>Seed of initial weights and dropout masks.</summary>
    public ulong Seed { get; init; } = 1;

    /// <summary>What updates the parameters. <see cref="Mu"/>, <see cref="Nesterov"/> and <see cref="MomentumForm"/> are for SGD, the betas and epsilon for the others.</summary>
    public OptimizerAlgorithm Algorithm { get; init; }

    /// <summary>AdamW and LAMB: decay of the moving average of gradients.</summary>
    public double Beta1 { get; init; } = 0.9;

    /// <summary>AdamW and LAMB: decay of the moving average of squared gradients.</summary>
    public double Beta2 { get; init; } = 0.999;

    /// <summary>AdamW and LAMB: what is added to the root of the second moment; null for the usual one, 1e-8 for AdamW (PyTorch) and 1e-6 for LAMB (timm).</summary>
    public float? OptimizerEpsilon { get; init; }

    internal float OptimizerEpsilonOrUsual => OptimizerEpsilon ?? (Algorithm == OptimizerAlgorithm.Lamb ? 1e-6f : 1e-8f);

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

    /// <summary>
    /// Patterns of the parameters that do not learn (<see cref="ParameterPattern"/>). No backward pass is planned for leading layers of which nothing learns;
    /// running statistics go on (<see cref="FrozenStatistics"/> is for those).
    /// </summary>
    public IReadOnlyList<string> Frozen { get; init; } = [];

    /// <summary>Patterns of the parameters that weight decay leaves alone, besides those that <see cref="DecayScaleAndShift"/> says.</summary>
    public IReadOnlyList<string> WithoutDecay { get; init; } = [];

    /// <summary>Factors on the learning rate of the parameters that a pattern names; of several patterns that name one parameter the last counts.</summary>
    public IReadOnlyList<RateFactor> RateFactors { get; init; } = [];

    /// <summary>Label smoothing: the share of the target spread evenly over all classes.</summary>
    public float LabelSmoothing { get; init; }

    /// <summary>Every class is a yes or no of its own, binary cross-entropy instead of softmax's, as in timm's newer recipes (2110.00476).</summary>
    public bool BinaryLoss { get; init; }

    /// <summary>With <see cref="BinaryLoss"/>: targets above this become 1, the others 0; 0 leaves them as they are.</summary>
    public float BinaryTargetThreshold { get; init; }

    /// <summary>Mixup (1710.09412): alpha of the Beta distribution of the first image's share; 0 for none.</summary>
    public float Mixup { get; init; }

    /// <summary>Cutmix (1905.04899): alpha of the Beta distribution of the part that stays; 0 for none.</summary>
    public float Cutmix { get; init; }

    /// <summary>Share of the batches that are mixed.</summary>
    public float MixProbability { get; init; } = 1;

    /// <summary>Where both are on: share of the mixed batches that get cutmix.</summary>
    public float CutmixShare { get; init; } = 0.5f;

    /// <summary>Images have two labels and a weight (<see cref="Sessions.MixedLabels"/>).</summary>
    internal bool MixesLabels => Mixup > 0 || Cutmix > 0;

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

    /// <summary>
    /// With <see cref="SyncBatchNorm"/>: how many ranks in a row join their batches (those of one machine, say), a divisor of <see cref="Ranks"/>; 0: all of them.
    /// Running statistics are then the mean over the groups.
    /// </summary>
    public int SyncBatchNormRanks { get; init; }

    /// <summary>
    /// With several ranks: gradients are rounded to bfloat16 where they travel between them, and so is their mean; statistics and loss are not.
    /// </summary>
    public bool NarrowGradients { get; init; }

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

    /// <inheritdoc/>
    internal override void Validate()
    {
        base.Validate();
        Share(nameof(Mu), Mu);
        AtLeastZero(nameof(WeightDecay), WeightDecay);
        Share(nameof(LabelSmoothing), LabelSmoothing);
        Share(nameof(BinaryTargetThreshold), BinaryTargetThreshold);
        AtLeastZero(nameof(Mixup), Mixup);
        AtLeastZero(nameof(Cutmix), Cutmix);
        Share(nameof(MixProbability), MixProbability);
        Share(nameof(CutmixShare), CutmixShare);
        AtLeastZero(nameof(ClipNorm), ClipNorm);
        Check(nameof(LossScale), LossScale, float.IsFinite(LossScale) && LossScale > 0, "a finite number above 0");
        AtLeastZero(nameof(LossScaleGrowth), LossScaleGrowth);
        Check(nameof(AverageDecay), AverageDecay, AverageDecay is >= 0 and < 1, "0, or a number below 1");
        AtLeastZero(nameof(GhostBatch), GhostBatch);
        AtLeastZero(nameof(SyncBatchNormRanks), SyncBatchNormRanks);

        static void AtLeastZero(string name, double value) => Check(name, value, double.IsFinite(value) && value >= 0, "a finite number of 0 or more");
        static void Share(string name, double value) => Check(name, value, value is >= 0 and <= 1, "a number from 0 to 1");
    }
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
