using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>
/// A layer of one's own: derive a record from it, in any assembly, and use it in a network like any other layer. Forward and backward pass are managed code
/// on spans of single-precision values in logical NCHW order; the planner puts copies where a value lies otherwise. It runs on the backends <c>onednn</c>
/// and <c>reference</c>, on one thread; a GPU refuses it. Its parameters are initialised, updated, clipped, averaged and kept in checkpoints as all others.
/// </summary>
/// <remarks>
/// What the record's properties say must say everything: one object may serve several places of a network, several sessions and several threads at a time,
/// so <see cref="Forward"/> and <see cref="Backward"/> keep nothing in fields. What the backward pass needs of the forward pass goes to <see cref="Saved"/>.
/// Check a new layer with <c>GradientCheck.Run</c> of HpcBatchNorm.Verification before training with it.
/// </remarks>
public abstract record CustomLayer : Layer, ICustomFunction
{
    /// <summary>A word for tables and messages; the record's name unless overridden.</summary>
    public virtual string FunctionName => GetType().Name;

    /// <inheritdoc/>
    public override string Description => FunctionName;

    /// <summary>
    /// What the forward pass leaves for the backward pass besides the inputs, which it has anyway: names within the layer and shapes. Each is kept from the
    /// one to the other, so small ones (statistics) are cheaper than ones of the size of the output.
    /// </summary>
    public virtual IReadOnlyList<NamedShape> Saved(IReadOnlyList<Shape> inputs) => [];

    /// <inheritdoc/>
    public abstract void Forward(in ForwardContext context);

    /// <inheritdoc/>
    public abstract void Backward(in BackwardContext context);

    /// <summary>The operation for inputs of these shapes. Throws <see cref="ArgumentException"/> naming the layer when they do not fit.</summary>
    public CustomSpec Spec(string name, IReadOnlyList<Shape> inputs)
    {
        Shape dst = Infer(name, inputs);
        IReadOnlyList<ParameterSpec> parameters = Parameters(inputs);
        var spec = new CustomSpec(
            this, [.. inputs], dst, [.. Select(parameters, running: false)], [.. Select(parameters, running: true)], [.. Saved(inputs)]);
        spec.Validate(name);
        return spec;
    }

    private static IEnumerable<NamedShape> Select(IReadOnlyList<ParameterSpec> parameters, bool running) =>
        parameters.Where(p => p.Kind == ParameterKind.RunningStatistic == running).Select(p => new NamedShape(p.Name, p.Shape));
}
