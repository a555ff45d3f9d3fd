using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <content>
/// Gradients of values. Each consumer contributes one gradient to a value; the first writes it, the others write to a temporary tensor that is
/// added. Consumers come before producers here, so a gradient is complete when its producer reads it. The inputs of a sum share its gradient's memory;
/// whoever would overwrite it may once all others who share it have been through their backward pass.
/// </content>
internal sealed partial class TrainingPlanner
{
    private readonly Dictionary<Node, Tensor> _gradients = [];
    private readonly Dictionary<Node, int> _contributions = [];
    private readonly HashSet<Node> _needGradient = [];

    // By memory: the nodes whose gradient lies there and whose backward pass is still to come, where there is more than one.
    private readonly Dictionary<Tensor, HashSet<Node>> _sharers = new(ReferenceEqualityComparer.Instance);

    // Ends of residual blocks, whose backward kernel adds a second contribution to the first on its way, and those contributions.
    private readonly HashSet<Node> _takesTwo = [];
    private readonly Dictionary<Node, Tensor> _second = [];

    /// <summary>Where an operation writes its contribution to a gradient, and what is to be emitted after it.</summary>
    private sealed record Contribution(Tensor Target, Action? Finish);

    /// <summary>A value needs a gradient when something before it is learned.</summary>
    private void FindGradientNeeds()
    {
        foreach (Node node in Nodes)
        {
            if (node.Inputs.Any(_needGradient.Contains) || Learns(node))
            {
                _needGradient.Add(node);
            }
        }
    }

    /// <summary>True when a parameter of the layer learns.</summary>
    private bool Learns(Node node) => Shapes.Parameters.Any(p => p.Node == node && p.Spec.Kind != ParameterKind.RunningStatistic && !_rules.Of(p).Frozen);

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
        if (Place(input, layout, overwrite) is { } contribution)
        {
            Emit(operation(contribution.Target));
            contribution.Finish?.Invoke();
        }
        else if (always)
        {
            Emit(operation(new Tensor($"{input.Name}.diff", Value(input).Shape, TensorRole.Gradient, layout, ActivationType)));
        }
    }

    /// <summary>As <see cref="Contribute"/>, for an operation that contributes to several values; null when the value needs no gradient.</summary>
    private Contribution? Place(Node input, TensorLayout layout, Tensor? overwrite)
    {
        if (!_needGradient.Contains(input))
        {
            return null;
        }

        Tensor value = Value(input);
        int number = _contributions[input] = _contributions.GetValueOrDefault(input) + 1;
        string name = number == 1 ? $"{input.Name}.diff" : $"{input.Name}.diff{number}";
        if (PlaceInParallel(input) is Tensor place)
        {
            _gradients[input] = place;
            return new Contribution(place, null);
        }

        if (number == 1 && overwrite is not null && !overwrite.IsSlice && overwrite.Layout == value.Layout && overwrite.DataType == ActivationType && Uses(Fusion.InPlace))
        {
            Count(Fusion.InPlace);
            _gradients[input] = overwrite.Alias(name, TensorRole.Gradient);
            return new Contribution(_gradients[input], null);
        }

        var target = new Tensor(name, value.Shape, TensorRole.Gradient, value.Layout, ActivationType);
        if (layout == value.Layout || LiesAlike(target))
        {
            return new Contribution(layout == value.Layout ? target : target.Relabel(layout), () => Accumulate(input, target));
        }

        var written = new Tensor($"{name} ({layout.ToString().ToLowerInvariant()})", value.Shape, TensorRole.Gradient, layout, ActivationType);
        return new Contribution(written, () =>
        {
            Emit(new Copy(name, written, target));
            Accumulate(input, target);
        });
    }

    private void Accumulate(Node input, Tensor contribution)
    {
        string name = $"{input.Name}.diff";
        if (!_gradients.TryGetValue(input, out Tensor? gradient))
        {
            _gradients[input] = contribution;
        }
        else if (_takesTwo.Contains(input) && _second.TryAdd(input, contribution))
        {
            // Added where it is read.
        }
        else if (_second.TryGetValue(input, out Tensor? second))
        {
            Emit(new Sum(name, [second, contribution], second));
        }
        else if (OwnsGradient(input))
        {
            Emit(new Sum(name, [gradient, contribution], gradient));
        }
        else
        {
            Emit(new Sum(name, [contribution, gradient], contribution));
            ReleaseGradient(input);
            _gradients[input] = contribution;
        }
    }

    /// <summary>The gradient of an input that is placed in a concatenation lies in the concatenation's, which others may share.</summary>
    private void SetGradient(Node input, Tensor gradient)
    {
        _gradients[input] = gradient;
        _sharers.GetValueOrDefault(gradient.Root)?.Add(input);
    }

    /// <summary>The gradient of a sum is that of its inputs: in the same memory where it is an input's first contribution, else a copy.</summary>
    private void PassGradient(Node sum, Node input)
    {
        Tensor diffDst = Gradient(sum);
        if (!_needGradient.Contains(input))
        {
            return;
        }

        if (!Uses(Fusion.InPlace) || _gradients.ContainsKey(input) || diffDst.IsSlice || diffDst.Layout != Value(input).Layout
            || diffDst.DataType != ActivationType || PlaceInParallel(input) is not null)
        {
            Contribute(input, diffDst.Layout, diffSrc => new Copy($"{sum.Name}/{input.Name}.diff", diffDst, diffSrc));
            return;
        }

        Count(Fusion.InPlace);
        _contributions[input] = 1;
        _gradients[input] = diffDst.Alias($"{input.Name}.diff", TensorRole.Gradient);
        (_sharers.TryGetValue(diffDst.Root, out HashSet<Node>? sharers) ? sharers : _sharers[diffDst.Root] = []).Add(input);
    }

    /// <summary>True when nobody but the node needs what its gradient's memory holds.</summary>
    private bool OwnsGradient(Node node) => OrNothing(_gradients[node], node) is not null;

    /// <summary>Memory that <paramref name="node"/> would overwrite, or null when it holds a gradient that others need too.</summary>
    private Tensor? OrNothing(Tensor? overwrite, Node node) =>
        overwrite is not null && _sharers.TryGetValue(overwrite.Root, out HashSet<Node>? sharers) && sharers.Any(s => s != node) ? null : overwrite;

    /// <summary>The node needs its gradient no longer.</summary>
    private void ReleaseGradient(Node node)
    {
        if (_gradients.TryGetValue(node, out Tensor? gradient) && _sharers.TryGetValue(gradient.Root, out HashSet<Node>? sharers))
        {
            sharers.Remove(node);
        }
    }
}
