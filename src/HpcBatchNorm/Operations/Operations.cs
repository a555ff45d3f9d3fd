using HpcBatchNorm.Backends;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>
/// One step of a plan: what to compute, on which tensors. Pure data; a session or an <see cref="OperationRunner"/> executes it.
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
/// Dst may alias Residual; kernels add to what is there, so elsewhere it costs a copy. With <see cref="Normalization"/> it is the convolution of src normalized.
/// </summary>
public sealed record ConvolutionForward(
    string Name, ConvolutionSpec Spec, Tensor Src, Tensor Weights, Tensor? Bias, Tensor Dst, bool Relu = false, Tensor? Residual = null) : Operation(Name)
{
    /// <summary>A batch normalization that is done to src on its way in; null: src is taken as it is.</summary>
    public SourceNormalization? Normalization { get; init; }

    /// <inheritdoc/>
    public override string Kind => "convolution forward";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some([Src, Weights, Bias, Residual, .. Normalization?.Tensors ?? []]);

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
        Normalization?.Validate($"{Kind} '{Name}'", Spec.Src);
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

/// <summary>
/// diffWeights (and diffBias) = gradient of the convolution with respect to its parameters; with <see cref="Normalization"/> that of the convolution of src normalized.
/// </summary>
public sealed record ConvolutionBackwardWeights(
    string Name, ConvolutionSpec Spec, Tensor Src, Tensor DiffDst, Tensor DiffWeights, Tensor? DiffBias) : Operation(Name)
{
    /// <summary>The batch normalization that the forward pass did to src on its way in; null for none.</summary>
    public SourceNormalization? Normalization { get; init; }

    /// <inheritdoc/>
    public override string Kind => "convolution backward-weights";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some([Src, DiffDst, .. Normalization?.Tensors ?? []]);

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
        Normalization?.Validate($"{Kind} '{Name}'", Spec.Src);
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
