using HpcBatchNorm.Backends;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>
/// One step of a plan: what to compute, on which tensors. Pure data; <see cref="Backend.CreateKernel"/> makes it executable.
/// Every backend implements every operation; adding one is described in CONTRIBUTING.md.
/// </summary>
/// <param name="Name">The layer the operation belongs to, e.g. <c>inception_3a/3x3/conv</c>.</param>
public abstract record Operation(string Name)
{
    /// <summary>Tensors whose contents the operation needs.</summary>
    public abstract IEnumerable<Tensor> Reads { get; }

    /// <summary>Tensors whose contents the operation sets (or updates, when they are also in <see cref="Reads"/>).</summary>
    public abstract IEnumerable<Tensor> Writes { get; }

    /// <summary>Floating-point operations, two per multiply-add; 0 for operations bound by memory.</summary>
    public virtual long Flops => 0;

    /// <summary>
    /// Bytes that must move between processor and memory when nothing stays in a cache: every tensor read once and written once, and twice where the
    /// operation must see all of it before it can write anything.
    /// </summary>
    public virtual long MinimumBytes => Reads.Concat(Writes).Sum(t => t.Bytes);

    /// <summary>What it does, in one word or two: <c>convolution backward-data</c>.</summary>
    public abstract string Kind { get; }

    /// <summary>Throws <see cref="ArgumentException"/> when the spec or a tensor's shape does not fit.</summary>
    public abstract void Validate();

    /// <summary>The tensors that are not null.</summary>
    private protected static IEnumerable<Tensor> Some(params Tensor?[] tensors) => tensors.Where(t => t is not null)!;

    /// <summary>Throws unless the tensors are whole, plain, Float32, and of the expected shapes.</summary>
    private protected void CheckCustom(IReadOnlyList<Tensor> tensors, string role, IReadOnlyList<Shape> expected)
    {
        if (tensors.Count != expected.Count)
        {
            throw new ArgumentException($"{Kind} '{Name}': {tensors.Count} tensors were given as {role}, expected {expected.Count}.");
        }

        for (int i = 0; i < tensors.Count; i++)
        {
            Tensor tensor = tensors[i];
            Check(tensor, role, expected[i]);
            if (tensor.Layout != TensorLayout.Plain || tensor.DataType != DataType.Float32 || tensor.IsSlice || tensor.Shape.Count > int.MaxValue)
            {
                throw new ArgumentException(
                    $"{Kind} '{Name}': {role} '{tensor}' must be a whole plain Float32 tensor of less than 2^31 elements; copy it to one first.");
            }
        }
    }

    /// <summary>Throws unless <paramref name="tensor"/> is null or has the shape <paramref name="expected"/>.</summary>
    private protected void Check(Tensor? tensor, string role, Shape expected)
    {
        if (tensor is not null && tensor.Shape != expected)
        {
            throw new ArgumentException($"{Kind} '{Name}': {role} '{tensor.Name}' has the shape {tensor.Shape}, expected {expected}.");
        }
    }
}

/// <summary>
/// dst = convolution of src (<see cref="ConvolutionSpec"/>), plus <paramref name="Residual"/>, then ReLU when <paramref name="Relu"/> (both at inference only).
/// Dst may alias Residual; kernels add to what is there, so elsewhere it costs a copy.
/// </summary>
public sealed record ConvolutionForward(
    string Name, ConvolutionSpec Spec, Tensor Src, Tensor Weights, Tensor? Bias, Tensor Dst, bool Relu = false, Tensor? Residual = null) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "convolution forward";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src, Weights, Bias, Residual);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(Dst);

    /// <inheritdoc/>
    public override long Flops => Spec.Flops;

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(Src, "src", Spec.Src);
        Check(Weights, "weights", Spec.Weights);
        Check(Bias, "bias", Spec.BiasShape);
        Check(Dst, "dst", Spec.Dst);
        Check(Residual, "residual", Spec.Dst);
    }
}

/// <summary>diffSrc = gradient of the convolution with respect to src.</summary>
public sealed record ConvolutionBackwardData(string Name, ConvolutionSpec Spec, Tensor DiffDst, Tensor Weights, Tensor DiffSrc) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "convolution backward-data";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(DiffDst, Weights);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(DiffSrc);

    /// <inheritdoc/>
    public override long Flops => Spec.Flops;

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(DiffDst, "diffDst", Spec.Dst);
        Check(Weights, "weights", Spec.Weights);
        Check(DiffSrc, "diffSrc", Spec.Src);
    }
}

/// <summary>diffWeights (and diffBias) = gradient of the convolution with respect to its parameters.</summary>
public sealed record ConvolutionBackwardWeights(
    string Name, ConvolutionSpec Spec, Tensor Src, Tensor DiffDst, Tensor DiffWeights, Tensor? DiffBias) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "convolution backward-weights";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src, DiffDst);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(DiffWeights, DiffBias);

    /// <inheritdoc/>
    public override long Flops => Spec.Flops;

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(Src, "src", Spec.Src);
        Check(DiffDst, "diffDst", Spec.Dst);
        Check(DiffWeights, "diffWeights", Spec.Weights);
        Check(DiffBias, "diffBias", Spec.BiasShape);
    }
}

/// <summary>Where batch normalization takes its mean and variance from.</summary>
public enum BatchNormStatistics
{
    /// <summary>Mean and biased variance of this mini-batch; running statistics, when given, are updated (Algorithm 1).</summary>
    Batch,

    /// <summary>The running (or population) mean and variance, constants: inference, and training with frozen statistics.</summary>
    Running,
}

/// <summary>
/// dst = batch normalization of src (<see cref="BatchNormSpec"/>; Algorithm 1), plus <paramref name="Residual"/>, then ReLU, as the spec says.
/// With batch statistics it writes Mean and Variance (biased) for the backward pass, and, when they are given, updates
/// RunningMean = (1-a)*RunningMean + a*Mean and RunningVariance = (1-a)*RunningVariance + a*Variance*m/(m-1), a = AveragingFactor.
/// With several groups of images (<see cref="BatchNormSpec.GhostBatch"/>) they are updated by one group after the other, as by that many batches.
/// With <paramref name="Renormalization"/> the normalized values are multiplied by r, then d is added (<see cref="BatchRenormalization"/>): both come from
/// the running statistics before their update and go to R and D for the backward pass.
/// With running statistics it reads RunningMean and RunningVariance, one per group, and R and D when they are given, and changes nothing else than dst.
/// Dst may be a slice; it may alias Src when Src is not needed again.
/// </summary>
public sealed record BatchNormForward(
    string Name, BatchNormSpec Spec, BatchNormStatistics Statistics, Tensor Src, Tensor Scale, Tensor Shift, Tensor? Residual, Tensor Dst,
    Tensor? Mean, Tensor? Variance, Tensor? RunningMean, Tensor? RunningVariance, float AveragingFactor,
    BatchRenormalization? Renormalization = null, Tensor? R = null, Tensor? D = null) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "batch-norm forward";

    /// <summary>Src is read for its statistics, then again.</summary>
    public override long MinimumBytes => base.MinimumBytes + (Statistics == BatchNormStatistics.Batch ? Src.Bytes : 0);

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
        if (batch)
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
public sealed record BatchNormBackward(
    string Name, BatchNormSpec Spec, BatchNormStatistics Statistics, Tensor Src, Tensor? Dst, Tensor DiffDst, Tensor Scale, Tensor Shift,
    Tensor Mean, Tensor Variance, Tensor DiffSrc, Tensor DiffScale, Tensor DiffShift, Tensor? DiffResidual, Tensor? R = null, Tensor? D = null,
    Tensor? SecondDiffDst = null) : Operation(Name)
{
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

/// <summary>dst = f(src), element by element. Dst may alias Src.</summary>
public sealed record ActivationForward(string Name, ActivationKind Function, Tensor Src, Tensor Dst) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "activation forward";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(Dst);

    /// <inheritdoc/>
    public override void Validate()
    {
        _ = Function.GradientReadsSrc(); // throws for a value that is no function
        Check(Dst, "dst", Src.Shape);
    }
}

/// <summary>
/// diffSrc = diffDst * f'(src), with f' computed from src or from dst = f(src), whichever <see cref="ActivationKinds.GradientReadsSrc"/> names; the other
/// is null. DiffSrc may alias DiffDst.
/// </summary>
public sealed record ActivationBackward(string Name, ActivationKind Function, Tensor? Src, Tensor? Dst, Tensor DiffDst, Tensor DiffSrc) : Operation(Name)
{
    /// <summary>The operation that reads of <paramref name="src"/> and <paramref name="dst"/> what the function's gradient needs.</summary>
    public static ActivationBackward Of(string name, ActivationKind function, Tensor src, Tensor dst, Tensor diffDst, Tensor diffSrc) =>
        function.GradientReadsSrc() ? new(name, function, src, null, diffDst, diffSrc) : new(name, function, null, dst, diffDst, diffSrc);

    /// <summary>What the forward pass left for this operation: src or dst.</summary>
    public Tensor Kept => Src ?? Dst ?? throw new InvalidOperationException($"{Kind} '{Name}': neither src nor dst is given.");

    /// <inheritdoc/>
    public override string Kind => "activation backward";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src, Dst, DiffDst);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(DiffSrc);

    /// <inheritdoc/>
    public override void Validate()
    {
        bool readsSrc = Function.GradientReadsSrc();
        if (Src is not null != readsSrc || Dst is not null == readsSrc)
        {
            string found = (Src, Dst) switch { (null, null) => "neither is given", (null, _) => "only dst is given", (_, null) => "only src is given", _ => "both are given" };
            throw new ArgumentException($"{Kind} '{Name}': the gradient of {Function.Name()} reads {(readsSrc ? "src, not dst" : "dst, not src")}; {found}.");
        }

        Check(DiffDst, "diffDst", Kept.Shape);
        Check(DiffSrc, "diffSrc", Kept.Shape);
    }
}

/// <summary>dst = pooling of src. In training, max pooling also writes Workspace (which position won) for its backward pass.</summary>
public sealed record PoolingForward(string Name, PoolingSpec Spec, Tensor Src, Tensor Dst, Tensor? Workspace) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "pooling forward";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(Dst, Workspace);

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(Src, "src", Spec.Src);
        Check(Dst, "dst", Spec.Dst);
    }
}

/// <summary>diffSrc = gradient of the pooling with respect to src; max pooling needs the Workspace its forward pass wrote.</summary>
public sealed record PoolingBackward(string Name, PoolingSpec Spec, Tensor DiffDst, Tensor? Workspace, Tensor DiffSrc) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "pooling backward";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(DiffDst, Workspace);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(DiffSrc);

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(DiffDst, "diffDst", Spec.Dst);
        Check(DiffSrc, "diffSrc", Spec.Src);
        if (Spec.Kind == PoolingKind.Max && Workspace is null)
        {
            throw new ArgumentException($"{Kind} '{Name}': max pooling needs the workspace of its forward pass.");
        }
    }
}

/// <summary>dst = local response normalization of src; Workspace, when given, keeps what the backward pass needs.</summary>
public sealed record LrnForward(string Name, LrnSpec Spec, Tensor Src, Tensor Dst, Tensor? Workspace) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "lrn forward";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(Dst, Workspace);

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(Src, "src", Spec.Src);
        Check(Dst, "dst", Spec.Src);
    }
}

/// <summary>diffSrc = gradient of local response normalization with respect to src.</summary>
public sealed record LrnBackward(string Name, LrnSpec Spec, Tensor Src, Tensor DiffDst, Tensor Workspace, Tensor DiffSrc) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "lrn backward";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src, DiffDst, Workspace);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(DiffSrc);

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(Src, "src", Spec.Src);
        Check(DiffDst, "diffDst", Spec.Src);
        Check(DiffSrc, "diffSrc", Spec.Src);
    }
}

/// <summary>
/// dst = src with dropped elements set to zero and kept ones divided by 1 - Ratio (<see cref="DropoutSpec"/>). The same operation, applied to
/// diffDst, is its own backward pass. The step number comes from <see cref="StepContext"/>. Dst may alias Src.
/// </summary>
public sealed record Dropout(string Name, DropoutSpec Spec, Tensor Src, Tensor Dst, bool Backward = false) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => Backward ? "dropout backward" : "dropout forward";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(Dst);

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(Src, "src", Spec.Src);
        Check(Dst, "dst", Spec.Src);
    }
}

/// <summary>dst = fully connected layer applied to src.</summary>
public sealed record InnerProductForward(string Name, InnerProductSpec Spec, Tensor Src, Tensor Weights, Tensor? Bias, Tensor Dst) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "inner-product forward";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src, Weights, Bias);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(Dst);

    /// <inheritdoc/>
    public override long Flops => Spec.Flops;

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(Src, "src", Spec.Src);
        Check(Weights, "weights", Spec.Weights);
        Check(Bias, "bias", Spec.BiasShape);
        Check(Dst, "dst", Spec.Dst);
    }
}

/// <summary>diffSrc = gradient of the fully connected layer with respect to src.</summary>
public sealed record InnerProductBackwardData(string Name, InnerProductSpec Spec, Tensor DiffDst, Tensor Weights, Tensor DiffSrc) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "inner-product backward-data";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(DiffDst, Weights);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(DiffSrc);

    /// <inheritdoc/>
    public override long Flops => Spec.Flops;

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(DiffDst, "diffDst", Spec.Dst);
        Check(Weights, "weights", Spec.Weights);
        Check(DiffSrc, "diffSrc", Spec.Src);
    }
}

/// <summary>diffWeights (and diffBias) = gradient of the fully connected layer with respect to its parameters.</summary>
public sealed record InnerProductBackwardWeights(
    string Name, InnerProductSpec Spec, Tensor Src, Tensor DiffDst, Tensor DiffWeights, Tensor? DiffBias) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "inner-product backward-weights";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src, DiffDst);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(DiffWeights, DiffBias);

    /// <inheritdoc/>
    public override long Flops => Spec.Flops;

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(Src, "src", Spec.Src);
        Check(DiffDst, "diffDst", Spec.Dst);
        Check(DiffWeights, "diffWeights", Spec.Weights);
        Check(DiffBias, "diffBias", Spec.BiasShape);
    }
}
