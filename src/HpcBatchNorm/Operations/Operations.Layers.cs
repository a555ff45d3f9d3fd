using HpcBatchNorm.Backends;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

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
/// diffSrc = diffDst * f'(src), with f' computed from src or from dst = f(src), whichever is not null
/// (<see cref="Of"/> takes the one that the function needs). DiffSrc may alias DiffDst.
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
