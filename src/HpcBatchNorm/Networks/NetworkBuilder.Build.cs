using HpcBatchNorm.Layers;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Networks;

/// <content>What is checked: inputs as they are added, shapes and heads at the end.</content>
public sealed partial class NetworkBuilder
{
    /// <summary>Image sizes up to here are tried to find the smallest.</summary>
    private const int LargestTried = 512;

    /// <summary>The size whose mistake is told when there is no size that the network takes.</summary>
    private const int UsualSize = 256;

    /// <summary>Makes the network of the layers added so far, and checks that they fit.</summary>
    /// <param name="minimumImageSize">The smallest image side; when null, the smallest that all layers can take, found by trying.</param>
    /// <exception cref="ArgumentException">
    /// There is no input or no loss, nothing reads a layer, shapes do not fit, or the heads tell different numbers of classes apart; the message names the layer.
    /// </exception>
    public Network Build(int? minimumImageSize = null)
    {
        if (!_nodes.Exists(n => n.Layer is InputLayer))
        {
            throw new ArgumentException($"Network '{Name}' has no input. Begin it with Input(channels).");
        }

        if (!_nodes.Exists(n => n.Layer is SoftmaxLossLayer))
        {
            throw new ArgumentException($"Network '{Name}' has no loss. End it with Loss(logits).");
        }

        if (_nodes.Find(n => n.Layer is not SoftmaxLossLayer && !_read.Contains(n)) is Node unread)
        {
            throw new ArgumentException(
                $"Network '{Name}': nothing reads the layer '{unread.Name}' ({unread.Layer.Description}). Give it to the layer that should, or leave it out.");
        }

        int size = minimumImageSize ?? FindMinimumImageSize();
        Dictionary<Node, Shape> shapes = [];
        if (FindMistake(size, shapes) is string mistake)
        {
            throw new ArgumentException($"Network '{Name}' cannot take images of {size}x{size}. {mistake}");
        }

        return new Network(Name, [.. _nodes], size, FindClasses(shapes));
    }

    private void CheckInputs(string name, Layer layer, IReadOnlyList<Node> inputs)
    {
        if (layer is InputLayer && _nodes.Find(n => n.Layer is InputLayer) is Node input)
        {
            throw new ArgumentException($"Network '{Name}' has its input, '{input.Name}', already; images come in at one place. Read '{input.Name}' instead of adding '{name}'.");
        }

        if (inputs.Count < layer.MinimumInputs || inputs.Count > layer.MaximumInputs)
        {
            string expected = layer.MaximumInputs == layer.MinimumInputs ? $"{layer.MinimumInputs}"
                : layer.MaximumInputs == int.MaxValue ? $"{layer.MinimumInputs} or more"
                : $"{layer.MinimumInputs} to {layer.MaximumInputs}";
            throw new ArgumentException(
                $"Network '{Name}': the layer '{name}' ({layer.Description}) takes {expected} input{(expected == "1" ? "" : "s")}, got {inputs.Count}. Pass as many nodes as it takes.");
        }

        foreach (Node? node in inputs)
        {
            if (node is null)
            {
                throw new ArgumentNullException(nameof(inputs), $"Network '{Name}': an input of the layer '{name}' ({layer.Description}) is null. Pass what this builder returned.");
            }

            if (_byName.GetValueOrDefault(node.Name) != node)
            {
                throw new ArgumentException(
                    $"Network '{Name}': the layer '{name}' ({layer.Description}) reads '{node.Name}', which another builder made. Pass what this builder returned.");
            }

            if (node.Layer is SoftmaxLossLayer)
            {
                throw new ArgumentException(
                    $"Network '{Name}': the layer '{name}' ({layer.Description}) reads '{node.Name}', a loss, which ends its head. Read its logits, '{node.Inputs[0].Name}'.");
            }
        }
    }

    private int FindMinimumImageSize()
    {
        for (int size = 1; size <= LargestTried; size++)
        {
            if (FindMistake(size, []) is null)
            {
                return size;
            }
        }

        throw new ArgumentException($"Network '{Name}' takes images of no size up to {LargestTried}x{LargestTried}. With {UsualSize}x{UsualSize}: {FindMistake(UsualSize, [])}");
    }

    /// <summary>What the first layer says whose inputs do not fit, for one image of this size; null when all fit, and then all shapes.</summary>
    private string? FindMistake(int size, Dictionary<Node, Shape> shapes)
    {
        foreach (Node node in _nodes)
        {
            IReadOnlyList<Shape> inputs = node.Layer is InputLayer { Channels: int channels } ? [new Shape(1, channels, size, size)] : [.. node.Inputs.Select(i => shapes[i])];
            try
            {
                shapes[node] = node.Layer.Infer(node.Name, inputs);
            }
            catch (ArgumentException e)
            {
                string read = string.Join(", ", node.Inputs.Select(i => $"'{i.Name}' {shapes[i]}"));
                return $"The layer '{node.Name}' ({node.Layer.Description}) reads {(read.Length > 0 ? read : "the images")}: {e.Message}";
            }
        }

        return null;
    }

    private int FindClasses(Dictionary<Node, Shape> shapes)
    {
        Node[] losses = [.. _nodes.Where(n => n.Layer is SoftmaxLossLayer)];
        int classes = shapes[losses[0]].C;
        return Array.Find(losses, l => shapes[l].C != classes) is not Node other
            ? classes
            : throw new ArgumentException(
                $"Network '{Name}': the loss '{other.Name}' tells {shapes[other].C} classes apart, but '{losses[0].Name}' {classes}. All heads learn from the same labels; give their logits the same number of outputs.");
    }
}
