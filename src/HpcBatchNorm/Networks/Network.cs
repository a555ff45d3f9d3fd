using System.Text;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Networks;

/// <summary>One layer in a network, with its name and where its inputs come from. Compared by identity. A <see cref="NetworkBuilder"/> makes it.</summary>
public sealed class Node
{
    internal Node(string name, Layer layer, IReadOnlyList<Node> inputs)
    {
        Name = name;
        Layer = layer;
        Inputs = inputs;
    }

    /// <summary>The name, unique in a network: <c>inception_3a/3x3/bn</c>.</summary>
    public string Name { get; }

    /// <summary>What it computes.</summary>
    public Layer Layer { get; }

    /// <summary>Where its inputs come from.</summary>
    public IReadOnlyList<Node> Inputs { get; }

    /// <inheritdoc/>
    public override string ToString() => $"{Name}: {Layer.Description}";
}

/// <summary>
/// An immutable network: layers in an order in which every input comes before its use. It has no memory, no image size and no backend; the planner
/// makes a plan of it for a batch, an image size and a backend's traits. It is made by a <see cref="NetworkBuilder"/> or read from a file.
/// </summary>
public sealed class Network
{
    /// <summary>From a builder, which has checked it all.</summary>
    internal Network(string name, IReadOnlyList<Node> nodes, int minimumImageSize, int classes)
    {
        Name = name;
        Nodes = nodes;
        MinimumImageSize = minimumImageSize;
        Classes = classes;
        Input = nodes.Single(n => n.Layer is InputLayer);
        Losses = [.. nodes.Where(n => n.Layer is SoftmaxLossLayer)];
        Loss = Losses.MaxBy(n => ((SoftmaxLossLayer)n.Layer).Weight)!;
    }

    /// <summary>The name, e.g. <c>bn-inception</c>.</summary>
    public string Name { get; }

    /// <summary>All layers, inputs before uses.</summary>
    public IReadOnlyList<Node> Nodes { get; }

    /// <summary>The smallest image side the network's strides allow.</summary>
    public int MinimumImageSize { get; }

    /// <summary>How many classes it tells apart: the values of its logits.</summary>
    public int Classes { get; }

    /// <summary>Where images enter.</summary>
    public Node Input { get; }

    /// <summary>Values per pixel of the images it takes: 3 (R, G, B) or 1 (grey).</summary>
    public int InputChannels => ((InputLayer)Input.Layer).Channels;

    /// <summary>All loss layers: the main one and those of auxiliary heads.</summary>
    public IReadOnlyList<Node> Losses { get; }

    /// <summary>The main (heaviest) loss; its input are the logits.</summary>
    public Node Loss { get; }

    /// <summary>The shapes of all outputs and parameters for a batch of images.</summary>
    /// <exception cref="ArgumentException">The image is too small for the network's strides, or a layer's inputs do not fit.</exception>
    public NetworkShapes Infer(int batch, int height, int width)
    {
        if (batch < 1)
        {
            throw new ArgumentException($"The batch is {batch}; it must be at least 1.");
        }

        if (Math.Min(height, width) < MinimumImageSize)
        {
            throw new ArgumentException(
                $"Image size {(height == width ? $"{height}" : $"{height}x{width}")} is too small for {Name}: its strides need at least {MinimumImageSize}. Use an image size of {MinimumImageSize} or more.");
        }

        return new NetworkShapes(this, new Shape(batch, InputChannels, height, width));
    }

    /// <summary>The nodes that <paramref name="output"/> depends on, in order, with it.</summary>
    internal IReadOnlyList<Node> Ancestors(Node output)
    {
        HashSet<Node> needed = [output];
        foreach (Node node in Nodes.Reverse())
        {
            if (needed.Contains(node))
            {
                needed.UnionWith(node.Inputs);
            }
        }

        return [.. Nodes.Where(needed.Contains)];
    }

    /// <summary>The network as text in the form of network files, one layer a line; <see cref="FromJson"/> makes the same network of it.</summary>
    /// <exception cref="NotSupportedException">A layer or initializer made elsewhere has no form in network files (<see cref="LayerTypes.Register"/>).</exception>
    public string ToJson() => NetworkJson.Write(this);

    /// <summary>Writes <see cref="ToJson"/> in UTF-8.</summary>
    /// <exception cref="NotSupportedException">A layer or initializer made elsewhere has no form in network files (<see cref="LayerTypes.Register"/>).</exception>
    public void WriteJson(Stream stream) => stream.Write(Encoding.UTF8.GetBytes(NetworkJson.Write(this)));

    /// <summary>Makes the network that <see cref="ToJson"/> or a person wrote. Comments and commas after last elements are allowed.</summary>
    /// <exception cref="UserErrorException">It is not a network file, or says something that cannot be; the message names the layer and what was found.</exception>
    public static Network FromJson(string json)
    {
        ArgumentNullException.ThrowIfNull(json);
        return NetworkJson.Read(Encoding.UTF8.GetBytes(json));
    }

    /// <inheritdoc cref="FromJson"/>
    public static Network ReadJson(Stream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        using var bytes = new MemoryStream();
        stream.CopyTo(bytes);
        return NetworkJson.Read(bytes.GetBuffer().AsMemory(0, (int)bytes.Length));
    }
}

/// <summary>A network's shapes for one batch and image size.</summary>
public sealed class NetworkShapes
{
    private readonly Dictionary<Node, Shape> _outputs = [];
    private readonly Shape _input;

    internal NetworkShapes(Network network, Shape input)
    {
        _input = input;
        List<NetworkParameter> parameters = [];
        foreach (Node node in network.Nodes)
        {
            IReadOnlyList<Shape> inputs = Inputs(node);
            _outputs[node] = node.Layer.Infer(node.Name, inputs);
            parameters.AddRange(node.Layer.Parameters(inputs).Select(p => new NetworkParameter(node, p)));
            MultiplyAdds += node.Layer.MultiplyAdds(inputs);
        }

        Parameters = parameters;
    }

    /// <summary>The shape of a node's output.</summary>
    public Shape this[Node node] => _outputs[node];

    /// <summary>All persistent tensors, in network order.</summary>
    public IReadOnlyList<NetworkParameter> Parameters { get; }

    /// <summary>Learned values: weights, biases, scales and shifts.</summary>
    public long ParameterCount => Parameters.Where(p => p.Spec.Kind != ParameterKind.RunningStatistic).Sum(p => p.Spec.Shape.Count);

    /// <summary>Multiply-adds of one forward pass over the whole batch.</summary>
    public long MultiplyAdds { get; }

    /// <summary>The shapes of a node's inputs.</summary>
    public IReadOnlyList<Shape> Inputs(Node node) => node.Inputs.Count == 0 ? [_input] : [.. node.Inputs.Select(i => _outputs[i])];
}

/// <summary>A parameter of a network: the node it belongs to and its spec.</summary>
public sealed record NetworkParameter(Node Node, ParameterSpec Spec)
{
    /// <summary>The full name, for example <c>inception_3a/3x3/conv.weights</c>.</summary>
    public string Name => $"{Node.Name}.{Spec.Name}";
}
