using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>Either direction of an operation of one's own.</summary>
/// <param name="Name">The layer the operation belongs to.</param>
/// <param name="Spec">What computes it, and the shapes of everything it works on.</param>
internal abstract record CustomOperation(string Name, CustomSpec Spec) : Operation(Name)
{
    /// <summary>Throws unless the tensors are whole, plain, Float32, and of the expected shapes.</summary>
    private protected void Check(IReadOnlyList<Tensor> tensors, string role, IReadOnlyList<Shape> expected)
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
}

/// <summary>
/// dst = an operation of one's own (<see cref="ICustomFunction"/>) of srcs. All tensors are whole, plain and Float32; the planner puts copies where others
/// are wanted. With batch statistics it updates RunningStatistics; with <paramref name="Population"/> they are replaced by those of the pass.
/// Saved is what the backward pass reads; it is given at inference too (<paramref name="Training"/> false), where nothing reads it.
/// </summary>
internal sealed record CustomForward(
    string Name, CustomSpec Spec, BatchNormStatistics Statistics, IReadOnlyList<Tensor> Srcs, IReadOnlyList<Tensor> Parameters,
    IReadOnlyList<Tensor> RunningStatistics, Tensor Dst, IReadOnlyList<Tensor> Saved, bool Training = true, bool Population = false) : CustomOperation(Name, Spec)
{
    /// <inheritdoc/>
    public override string Kind => "custom forward";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => [.. Srcs, .. Parameters, .. RunningStatistics];

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Statistics == BatchNormStatistics.Batch ? [Dst, .. Saved, .. RunningStatistics] : [Dst, .. Saved];

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(Srcs, "src", Spec.Srcs);
        Check([Dst], "dst", [Spec.Dst]);
        Check(Parameters, "parameter", [.. Spec.Parameters.Select(p => p.Shape)]);
        Check(RunningStatistics, "running statistic", [.. Spec.RunningStatistics.Select(p => p.Shape)]);
        Check(Saved, "saved tensor", [.. Spec.Saved.Select(p => p.Shape)]);
    }
}

/// <summary>
/// The gradients of an operation of one's own with respect to all its inputs and learned parameters, from the gradient of its output, its inputs and what
/// the forward pass saved. All tensors are whole, plain and Float32.
/// </summary>
internal sealed record CustomBackward(
    string Name, CustomSpec Spec, BatchNormStatistics Statistics, IReadOnlyList<Tensor> Srcs, Tensor DiffDst, IReadOnlyList<Tensor> Parameters,
    IReadOnlyList<Tensor> RunningStatistics, IReadOnlyList<Tensor> Saved, IReadOnlyList<Tensor> DiffSrcs, IReadOnlyList<Tensor> DiffParameters) : CustomOperation(Name, Spec)
{
    /// <inheritdoc/>
    public override string Kind => "custom backward";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => [.. Srcs, DiffDst, .. Parameters, .. RunningStatistics, .. Saved];

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => [.. DiffSrcs, .. DiffParameters];

    /// <inheritdoc/>
    public override void Validate()
    {
        Spec.Validate(Name);
        Check(Srcs, "src", Spec.Srcs);
        Check(DiffSrcs, "diffSrc", Spec.Srcs);
        Check([DiffDst], "diffDst", [Spec.Dst]);
        Check(Parameters, "parameter", [.. Spec.Parameters.Select(p => p.Shape)]);
        Check(DiffParameters, "parameter's gradient", [.. Spec.Parameters.Select(p => p.Shape)]);
        Check(RunningStatistics, "running statistic", [.. Spec.RunningStatistics.Select(p => p.Shape)]);
        Check(Saved, "saved tensor", [.. Spec.Saved.Select(p => p.Shape)]);
    }
}
