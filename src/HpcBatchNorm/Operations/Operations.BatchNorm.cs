using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>Where batch normalization takes its mean and variance from.</summary>
public enum BatchNormStatistics
{
    /// <summary>Mean and biased variance of this mini-batch; running statistics, when given, are updated (Algorithm 1).</summary>
    Batch,

    /// <summary>The running (or population) mean and variance, constants: inference, and training with frozen statistics.</summary>
    Running,
}

/// <summary>
/// dst = batch normalization of src (<see cref="BatchNormSpec"/>; Algorithm 1), plus <see cref="Residual"/>, then ReLU, as the spec says.
/// With batch statistics it writes Mean and Variance (biased) for the backward pass, and, when they are given, updates
/// RunningMean = (1-a)*RunningMean + a*Mean and RunningVariance = (1-a)*RunningVariance + a*Variance*m/(m-1), a = AveragingFactor.
/// With several groups of images (<see cref="BatchNormSpec.GhostBatch"/>) they are updated by one group after the other, as by that many batches.
/// With <see cref="Renormalization"/> the normalized values are multiplied by r, then d is added (<see cref="BatchRenormalization"/>): both come from
/// the running statistics before their update and go to R and D for the backward pass.
/// With running statistics it reads RunningMean and RunningVariance, one per group, and R and D when they are given, and changes nothing else than dst.
/// Dst may be a slice; it may alias Src when Src is not needed again. Without Dst it makes the batch statistics and nothing else, for whoever normalizes Src while
/// reading it (<see cref="SourceNormalization"/>).
/// </summary>
public sealed record BatchNormForward(string Name, BatchNormSpec Spec) : Operation(Name)
{
    /// <summary>Which statistics normalize.</summary>
    public BatchNormStatistics Statistics { get; init; } = BatchNormStatistics.Batch;

    /// <summary>The input.</summary>
    public required Tensor Src { get; init; }

    /// <summary>The result; null where only batch statistics are wanted.</summary>
    public required Tensor? Dst { get; init; }

    /// <summary>The learned factors (the paper's gamma), of the shape <see cref="BatchNormSpec.Parameters"/>.</summary>
    public required Tensor Scale { get; init; }

    /// <summary>The learned offsets (the paper's beta), of the shape <see cref="BatchNormSpec.Parameters"/>.</summary>
    public required Tensor Shift { get; init; }

    /// <summary>What is added before the ReLU, where the spec has <see cref="BatchNormSpec.Residual"/>; null elsewhere.</summary>
    public Tensor? Residual { get; init; }

    /// <summary>The batch's mean, of the shape <see cref="BatchNormSpec.Statistics"/>; needed with batch statistics.</summary>
    public Tensor? Mean { get; init; }

    /// <summary>The batch's biased variance, of the shape <see cref="BatchNormSpec.Statistics"/>; needed with batch statistics.</summary>
    public Tensor? Variance { get; init; }

    /// <summary>The running mean: updated with batch statistics, where it is given; needed with running statistics. Given together with <see cref="RunningVariance"/>.</summary>
    public Tensor? RunningMean { get; init; }

    /// <summary>The running, unbiased variance.</summary>
    public Tensor? RunningVariance { get; init; }

    /// <summary>
    /// Batch statistics are those of the images of all ranks together: every rank's count, mean and variance are merged. Running statistics become the same on all.
    /// </summary>
    public bool Synchronized { get; init; }

    /// <summary>Where they are synchronized: how many ranks in a row join theirs, a divisor of the number of ranks; 0: all.</summary>
    public int SynchronizedRanks { get; init; }

    /// <summary>Weight of the batch in the running statistics, 0 to 1.</summary>
    public float AveragingFactor { get; init; } = 0.1f;

    /// <summary>The limits of batch renormalization; null for none.</summary>
    public BatchRenormalization? Renormalization { get; init; }

    /// <summary>Batch renormalization's r, of the shape <see cref="BatchNormSpec.Statistics"/>.</summary>
    public Tensor? R { get; init; }

    /// <summary>Batch renormalization's d, of the shape <see cref="BatchNormSpec.Statistics"/>.</summary>
    public Tensor? D { get; init; }

    /// <inheritdoc/>
    public override string Kind => "batch-norm forward";

    /// <summary>Src is read for its statistics, then again for what is made of it.</summary>
    public override long MinimumBytes => base.MinimumBytes + (Statistics == BatchNormStatistics.Batch && Dst is not null ? Src.Bytes : 0);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Statistics == BatchNormStatistics.Batch
        ? Some(Src, Scale, Shift, Residual, RunningMean, RunningVariance)
        : Some(Src, Scale, Shift, Residual, RunningMean, RunningVariance, R, D);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes =>
        Statistics == BatchNormStatistics.Batch ? Some(Dst, Mean, Variance, RunningMean, RunningVariance, R, D) : Some(Dst);

    /// <inheritdoc/>
    public override void Validate()
    {
        bool batch = Statistics == BatchNormStatistics.Batch;
        if (Synchronized && (!batch || Spec.Groups > 1 || Renormalization is not null))
        {
            throw new ArgumentException($"{Kind} '{Name}': ranks join batch statistics, of one group of images and without batch renormalization.");
        }

        if (batch && !Synchronized)
        {
            Spec.ValidateForTraining(Name);
        }
        else
        {
            Spec.Validate(Name);
        }

        Check(Src, "src", Spec.Src);
        Check(Dst, "dst", Spec.Src);
        Check(Residual, "residual", Spec.Src);
        Check(Scale, "scale", Spec.Parameters);
        Check(Shift, "shift", Spec.Parameters);
        Check(Mean, "mean", Spec.Statistics);
        Check(Variance, "variance", Spec.Statistics);
        Check(RunningMean, "running mean", batch ? Spec.Parameters : Spec.Statistics);
        Check(RunningVariance, "running variance", batch ? Spec.Parameters : Spec.Statistics);
        Check(R, "r", Spec.Statistics);
        Check(D, "d", Spec.Statistics);
        Renormalization?.Validate(Name);
        if ((R is null) != (D is null) || (batch && (R is null) != (Renormalization is null)) || (Renormalization is not null && (!batch || RunningMean is null)))
        {
            throw new ArgumentException($"{Kind} '{Name}': batch renormalization needs batch statistics, running statistics, r and d; r and d are given together.");
        }

        if (Spec.Residual != (Residual is not null))
        {
            throw new ArgumentException($"{Kind} '{Name}': the spec says residual = {Spec.Residual}, but a residual tensor was {(Residual is null ? "not " : "")}given.");
        }

        if (batch && (Mean is null || Variance is null))
        {
            throw new ArgumentException($"{Kind} '{Name}': batch statistics need tensors for mean and variance.");
        }

        if ((RunningMean is null) != (RunningVariance is null) || (!batch && RunningMean is null))
        {
            throw new ArgumentException($"{Kind} '{Name}': running mean and running variance are given together, and always when they are the statistics used.");
        }

        if (Dst is null && (!batch || Synchronized || Spec.Residual || Spec.Groups > 1 || Renormalization is not null))
        {
            throw new ArgumentException($"{Kind} '{Name}': only plain batch statistics can be wanted without dst: no residual, groups, renormalization or other ranks.");
        }

        if (!(AveragingFactor >= 0 && AveragingFactor <= 1))
        {
            throw new ArgumentException(FormattableString.Invariant($"{Kind} '{Name}': averaging factor is {AveragingFactor}; it must be in [0, 1]."));
        }
    }
}

/// <summary>
/// Gradients of batch normalization (section 3, after Algorithm 1). With batch statistics Mean and Variance are those the forward pass wrote,
/// and the gradient flows through them; with running statistics they are constants: pass the running tensors as Mean and Variance.
/// Where the spec has ReLU, the mask is Dst > 0 when Dst is given and is recomputed from Src otherwise; Dst is required with a residual and ReLU.
/// R and D, given together, are those of batch renormalization, constants. DiffScale and DiffShift are sums over all groups of images.
/// DiffSrc may alias Src or DiffDst. DiffDst may be a slice. DiffResidual receives the masked diffDst and may alias DiffDst, unless DiffSrc does.
/// SecondDiffDst, only given with DiffResidual, is added to DiffDst: the gradient of a value that a residual block reads twice, summed on the way. The sum is
/// rounded to DiffResidual's type before anything is computed from it.
/// </summary>
public sealed record BatchNormBackward(string Name, BatchNormSpec Spec) : Operation(Name)
{
    /// <summary>Which statistics the forward pass normalized by.</summary>
    public BatchNormStatistics Statistics { get; init; } = BatchNormStatistics.Batch;

    /// <summary>The batch statistics were those of all ranks, and so their gradient is: DiffSrc takes the sums of all, DiffScale and DiffShift hold this rank's.</summary>
    public bool Synchronized { get; init; }

    /// <summary>Where they were: how many ranks in a row had joined theirs; 0: all.</summary>
    public int SynchronizedRanks { get; init; }

    /// <summary>The input of the forward pass.</summary>
    public required Tensor Src { get; init; }

    /// <summary>The result of the forward pass, for the mask of its ReLU; null to compute the mask again.</summary>
    public Tensor? Dst { get; init; }

    /// <summary>The learned factors.</summary>
    public required Tensor Scale { get; init; }

    /// <summary>The learned offsets.</summary>
    public required Tensor Shift { get; init; }

    /// <summary>The mean that the forward pass normalized by.</summary>
    public required Tensor Mean { get; init; }

    /// <summary>The variance that the forward pass normalized by.</summary>
    public required Tensor Variance { get; init; }

    /// <summary>The gradient of the result.</summary>
    public required Tensor DiffDst { get; init; }

    /// <summary>A second gradient of the result, which is added to the first; null for none.</summary>
    public Tensor? SecondDiffDst { get; init; }

    /// <summary>Receives the gradient of the input.</summary>
    public required Tensor DiffSrc { get; init; }

    /// <summary>Receives the gradient of the learned factors.</summary>
    public required Tensor DiffScale { get; init; }

    /// <summary>Receives the gradient of the learned offsets.</summary>
    public required Tensor DiffShift { get; init; }

    /// <summary>Receives the gradient of the residual; null where there is none.</summary>
    public Tensor? DiffResidual { get; init; }

    /// <summary>Batch renormalization's r; null for none.</summary>
    public Tensor? R { get; init; }

    /// <summary>Batch renormalization's d; null for none.</summary>
    public Tensor? D { get; init; }

    /// <inheritdoc/>
    public override string Kind => "batch-norm backward";

    /// <summary>With batch statistics src and diffDst are read for the gradients of scale and shift, then again.</summary>
    public override long MinimumBytes => base.MinimumBytes + (Statistics == BatchNormStatistics.Batch ? Src.Bytes + DiffDst.Bytes : 0);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src, Dst, DiffDst, SecondDiffDst, Scale, Shift, Mean, Variance, R, D);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(DiffSrc, DiffScale, DiffShift, DiffResidual);

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(Src, "src", Spec.Src);
        Check(Dst, "dst", Spec.Src);
        Check(DiffDst, "diffDst", Spec.Src);
        Check(SecondDiffDst, "second diffDst", Spec.Src);
        Check(DiffSrc, "diffSrc", Spec.Src);
        Check(DiffResidual, "diffResidual", Spec.Src);
        Check(Scale, "scale", Spec.Parameters);
        Check(Shift, "shift", Spec.Parameters);
        Check(Mean, "mean", Spec.Statistics);
        Check(Variance, "variance", Spec.Statistics);
        Check(R, "r", Spec.Statistics);
        Check(D, "d", Spec.Statistics);
        Check(DiffScale, "diffScale", Spec.Parameters);
        Check(DiffShift, "diffShift", Spec.Parameters);
        if (Synchronized && (Statistics != BatchNormStatistics.Batch || Spec.Groups > 1 || R is not null))
        {
            throw new ArgumentException($"{Kind} '{Name}': ranks join batch statistics, of one group of images and without batch renormalization.");
        }

        if (SecondDiffDst is not null && DiffResidual is null)
        {
            throw new ArgumentException($"{Kind} '{Name}': a second diffDst needs diffResidual, where the sum of both is kept.");
        }

        if (Spec.Residual && Spec.Relu && Dst is null)
        {
            throw new ArgumentException($"{Kind} '{Name}': with a residual and ReLU the mask needs dst.");
        }
    }
}
