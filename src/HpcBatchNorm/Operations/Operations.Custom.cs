using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>
/// dst = an operation of one's own (<see cref="ICustomFunction"/>) of srcs. All tensors are whole, plain and Float32; the planner puts copies where others
/// are wanted. With batch statistics it updates RunningStatistics; with <paramref name="Population"/> they are replaced by those of the pass.
/// Saved is what the backward pass reads; it is given at inference too (<paramref name="Training"/> false), where nothing reads it.
/// </summary>
public sealed record CustomForward(
    string Name, CustomSpec Spec, BatchNormStatistics Statistics, IReadOnlyList<Tensor> Srcs, IReadOnlyList<Tensor> Parameters,
    IReadOnlyList<Tensor> RunningStatistics, Tensor Dst, IReadOnlyList<Tensor> Saved, bool Training = true, bool Population = false) : Operation(Name)
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
        CheckCustom(Srcs, "src", Spec.Srcs);
        CheckCustom([Dst], "dst", [Spec.Dst]);
        CheckCustom(Parameters, "parameter", [.. Spec.Parameters.Select(p => p.Shape)]);
        CheckCustom(RunningStatistics, "running statistic", [.. Spec.RunningStatistics.Select(p => p.Shape)]);
        CheckCustom(Saved, "saved tensor", [.. Spec.Saved.Select(p => p.Shape)]);
    }
}

/// <summary>
/// The gradients of an operation of one's own with respect to all its inputs and learned parameters, from the gradient of its output, its inputs and what
/// the forward pass saved. All tensors are whole, plain and Float32.
/// </summary>
public sealed record CustomBackward(
    string Name, CustomSpec Spec, BatchNormStatistics Statistics, IReadOnlyList<Tensor> Srcs, Tensor DiffDst, IReadOnlyList<Tensor> Parameters,
    IReadOnlyList<Tensor> RunningStatistics, IReadOnlyList<Tensor> Saved, IReadOnlyList<Tensor> DiffSrcs, IReadOnlyList<Tensor> DiffParameters) : Operation(Name)
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
        CheckCustom(Srcs, "src", Spec.Srcs);
        CheckCustom(DiffSrcs, "diffSrc", Spec.Srcs);
        CheckCustom([DiffDst], "diffDst", [Spec.Dst]);
        CheckCustom(Parameters, "parameter", [.. Spec.Parameters.Select(p => p.Shape)]);
        CheckCustom(DiffParameters, "parameter's gradient", [.. Spec.Parameters.Select(p => p.Shape)]);
        CheckCustom(RunningStatistics, "running statistic", [.. Spec.RunningStatistics.Select(p => p.Shape)]);
        CheckCustom(Saved, "saved tensor", [.. Spec.Saved.Select(p => p.Shape)]);
    }
}
