using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <content>
/// Gradients of values. Each consumer contributes one gradient to a value; the first writes it, the others write to a temporary tensor that is
/// added. Consumers come before producers here, so a gradient is complete when its producer reads it.
/// </content>
internal sealed partial class TrainingPlanner
{
    private readonly Dictionary<Node, Tensor> _gradients = [];
    private readonly Dictionary<Node, int> _contributions = [];
    private readonly HashSet<Node> _needGradient = [];

    /// <summary>A value needs a gradient when something before it is learned.</summary>
    private void FindGradientNeeds()
    {
        foreach (Node node in Nodes)
        {
            if (node.Inputs.Any(_needGradient.Contains) || Shapes.Parameters.Any(p => p.Node == node))
            {
                _needGradient.Add(node);
            }
        }
    }

    /// <summary>The complete gradient of a node's value.</summary>
    private Tensor Gradient(Node node) =>
        _gradients.TryGetValue(node, out Tensor? gradient)
            ? gradient
            : throw new InvalidOperationException($"Nothing contributes a gradient to '{node.Name}'; does its output reach a loss?");

    /// <summary>
    /// Emits the operation that computes one consumer's contribution to the gradient of <paramref name="input"/>'s value, in the layout that operation
    /// writes. <paramref name="overwrite"/>, when given, is memory that is not needed after the operation: a first contribution goes there.
    /// With <paramref name="always"/> it is emitted even where nobody needs the gradient, since it makes those of parameters too.
    /// </summary>
    private void Contribute(Node input, TensorLayout layout, Func<Tensor, Operation> operation, Tensor? overwrite = null, bool always = false)
    {
        Tensor value = Value(input);
        if (!_needGradient.Contains(input))
        {
            if (always)
            {
                Emit(operation(new Tensor($"{input.Name}.diff", value.Shape, TensorRole.Gradient, layout, ActivationType)));
            }

            return;
        }

        int number = _contributions[input] = _contributions.GetValueOrDefault(input) + 1;
        string name = number == 1 ? $"{input.Name}.diff" : $"{input.Name}.diff{number}";
        if (PlaceInParallel(input) is Tensor place)
        {
            _gradients[input] = place;
            Emit(operation(place));
            return;
        }

        if (number == 1 && overwrite is not null && !overwrite.IsSlice && overwrite.Layout == value.Layout && overwrite.DataType == ActivationType && Uses(Fusion.InPlace))
        {
            Count(Fusion.InPlace);
            _gradients[input] = overwrite.Alias(name, TensorRole.Gradient);
            Emit(operation(_gradients[input]));
            return;
        }

        var target = new Tensor(name, value.Shape, TensorRole.Gradient, value.Layout, ActivationType);
        if (layout == value.Layout)
        {
            Emit(operation(target));
        }
        else if (LiesAlike(target))
        {
            Emit(operation(target.Relabel(layout)));
        }
        else
        {
            var written = new Tensor($"{name} ({layout.ToString().ToLowerInvariant()})", value.Shape, TensorRole.Gradient, layout, ActivationType);
            Emit(operation(written));
            Emit(new Copy(name, written, target));
        }

        Accumulate(input, target);
    }

    private void Accumulate(Node input, Tensor contribution)
    {
        if (_gradients.TryGetValue(input, out Tensor? gradient))
        {
            Emit(new Sum($"{input.Name}.diff", [gradient, contribution], gradient));
        }
        else
        {
            _gradients[input] = contribution;
        }
    }
}
