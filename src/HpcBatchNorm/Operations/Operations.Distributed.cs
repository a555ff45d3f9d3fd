using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>
/// Begins to replace every value by its mean over all ranks (processes that train one network together). The tensors are not to be touched until
/// <see cref="AllReduceFinish"/>; what stands between the two is computed while the values travel.
/// </summary>
/// <param name="Name">What is averaged, for messages.</param>
/// <param name="Tensors">Whole tensors in the host's memory, in an order and of sizes that are the same on all ranks.</param>
public sealed record AllReduceStart(string Name, IReadOnlyList<Tensor> Tensors) : Operation(Name)
{
    /// <summary>The values are rounded to bfloat16, and so is their mean: half as many bytes travel.</summary>
    public bool Narrow { get; init; }

    /// <inheritdoc/>
    public override string Kind => "all-reduce start";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Tensors;

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Tensors;

    /// <inheritdoc/>
    public override void Validate()
    {
        if (Tensors.Count == 0 || Tensors.Any(t => t.Root != t))
        {
            throw new ArgumentException($"{Kind} '{Name}': it needs tensors, and whole ones.");
        }
    }
}

/// <summary>Waits until the tensors of <paramref name="Start"/> hold their mean over all ranks.</summary>
/// <param name="Start">What began it; the same plan holds both.</param>
public sealed record AllReduceFinish(AllReduceStart Start) : Operation(Start.Name)
{
    /// <inheritdoc/>
    public override string Kind => "all-reduce finish";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Start.Tensors;

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Start.Tensors;

    /// <inheritdoc/>
    public override long MinimumBytes => 0;

    /// <inheritdoc/>
    public override void Validate() => Start.Validate();
}
