using HpcBatchNorm.Layers;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Networks;

/// <summary>
/// Builds a network: one method per kind of layer, inputs before what reads them. A layer's name is that of its parameters in checkpoints, so it should stay.
/// <code>
/// var b = new NetworkBuilder("small");
/// Node x = b.Input(channels: 3);
/// x = b.Convolution("conv1", x, 64, kernel: 3, pad: 1);
/// x = b.BatchNorm("bn1", x);
/// x = b.Relu("relu1", x);
/// x = b.GlobalAveragePooling("pool", x);
/// b.Loss(b.FullyConnected("fc", x, outputs: 10));
/// Network network = b.Build();
/// </code>
/// </summary>
public sealed partial class NetworkBuilder
{
    private readonly List<Node> _nodes = [];
    private readonly Dictionary<string, Node> _byName = new(StringComparer.Ordinal);
    private readonly HashSet<Node> _read = [];

    /// <summary>Begins a network without layers.</summary>
    /// <param name="name">The network's name, for tables and checkpoints.</param>
    public NetworkBuilder(string name)
    {
        Name = !string.IsNullOrWhiteSpace(name) ? name : throw new ArgumentException("A network needs a name. Give it one, such as 'resnet-18-cifar'.");
    }

    /// <summary>The network's name.</summary>
    public string Name { get; }

    /// <summary>Adds any layer.</summary>
    /// <param name="name">Unique in the network.</param>
    /// <param name="layer">What it computes.</param>
    /// <param name="inputs">Nodes that this builder returned.</param>
    /// <exception cref="ArgumentException">The name is taken, an input is another builder's or a loss, or their number is not what the layer takes.</exception>
    public Node Add(string name, Layer layer, params IReadOnlyList<Node> inputs)
    {
        ArgumentNullException.ThrowIfNull(layer);
        ArgumentNullException.ThrowIfNull(inputs);
        if (string.IsNullOrWhiteSpace(name))
        {
            throw new ArgumentException($"Network '{Name}': a layer ({layer.Description}) is without a name. Give it one, such as 'conv1': its parameters are kept under it.");
        }

        if (_byName.TryGetValue(name, out Node? other))
        {
            throw new ArgumentException(
                $"Network '{Name}' has a layer '{name}' ({other.Layer.Description}) already. Give this one ({layer.Description}) another name.");
        }

        CheckInputs(name, layer, inputs);
        var node = new Node(name, layer, [.. inputs]);
        _nodes.Add(node);
        _byName.Add(name, node);
        _read.UnionWith(node.Inputs);
        return node;
    }

    /// <summary>The images.</summary>
    /// <param name="channels">Values per pixel: 3 (R, G, B) or 1 (grey).</param>
    /// <param name="name">Unique in the network.</param>
    public Node Input(int channels = 3, string name = "input") => Add(name, new InputLayer(channels), []);

    /// <summary>
    /// A convolution. Extents and padding may be given as one number or by direction: <c>kernel: (1, 7), pad: (0, 3)</c>.
    /// </summary>
    /// <param name="name">Unique in the network.</param>
    /// <param name="input">What is convolved.</param>
    /// <param name="outputs">Channels of the output.</param>
    /// <param name="kernel">Rows and columns of the kernel.</param>
    /// <param name="stride">Rows and columns between outputs; 1 when null.</param>
    /// <param name="pad">Zeros around the image, on all sides or each.</param>
    /// <param name="dilation">Rows and columns between the kernel's taps; 1, adjacent taps, when null.</param>
    /// <param name="groups">Groups of channels that are convolved apart; as many as channels: depthwise.</param>
    /// <param name="bias">Adds a learned number per output channel; batch normalization behind makes it needless.</param>
    /// <param name="initializer">Of the weights; <see cref="Initializer.He"/> when null.</param>
    public Node Convolution(
        string name, Node input, int outputs, Extent kernel, Extent? stride = null, Padding pad = default, Extent? dilation = null, int groups = 1, bool bias = false,
        Initializer? initializer = null) =>
        Add(name, new ConvolutionLayer(outputs, kernel, initializer, stride, pad, dilation, groups, bias), input);

    /// <summary>A fully connected layer over all elements of an image.</summary>
    /// <param name="name">Unique in the network.</param>
    /// <param name="input">What it reads.</param>
    /// <param name="outputs">Values of the output.</param>
    /// <param name="bias">Adds a learned number per output.</param>
    /// <param name="initializer">Of the weights; <see cref="Initializer.He"/> when null.</param>
    public Node FullyConnected(string name, Node input, int outputs, bool bias = true, Initializer? initializer = null) =>
        Add(name, new FullyConnectedLayer(outputs, initializer ?? Initializer.He, bias), input);

    /// <summary>Batch normalization.</summary>
    /// <param name="name">Unique in the network.</param>
    /// <param name="input">What is normalized.</param>
    /// <param name="epsilon">Added to the variance.</param>
    /// <param name="averagingFactor">Weight of the new batch in running statistics.</param>
    /// <param name="perActivation">Statistics, scale and shift for each channel and position instead of each channel.</param>
    /// <param name="initialScale">The scale before training; 0 where a residual block begins as the identity.</param>
    public Node BatchNorm(string name, Node input, float epsilon = 1e-5f, float averagingFactor = 0.1f, bool perActivation = false, float initialScale = 1f) =>
        Add(name, new BatchNormLayer(epsilon, averagingFactor, perActivation, initialScale), input);

    /// <summary>An element-wise nonlinearity.</summary>
    /// <param name="name">Unique in the network.</param>
    /// <param name="input">What it reads.</param>
    /// <param name="function">Which one.</param>
    public Node Activation(string name, Node input, ActivationKind function) => Add(name, new ActivationLayer(function), input);

    /// <summary>max(0, x).</summary>
    public Node Relu(string name, Node input) => Activation(name, input, ActivationKind.Relu);

    /// <summary>1 / (1 + exp(-x)).</summary>
    public Node Sigmoid(string name, Node input) => Activation(name, input, ActivationKind.Sigmoid);

    /// <summary>tanh(x).</summary>
    public Node Tanh(string name, Node input) => Activation(name, input, ActivationKind.Tanh);

    /// <summary>The largest value of each window.</summary>
    /// <param name="name">Unique in the network.</param>
    /// <param name="input">What it reads.</param>
    /// <param name="kernel">Rows and columns of the window.</param>
    /// <param name="stride">Rows and columns between windows; the kernel's when null.</param>
    /// <param name="pad">Padding around the image, which never wins.</param>
    /// <param name="ceil">Round the number of windows up instead of down.</param>
    public Node MaxPooling(string name, Node input, Extent kernel, Extent? stride = null, Padding pad = default, bool ceil = false) =>
        Add(name, new PoolingLayer(PoolingKind.Max, kernel, stride, pad, ceil), input);

    /// <summary>The mean of each window.</summary>
    /// <param name="name">Unique in the network.</param>
    /// <param name="input">What it reads.</param>
    /// <param name="kernel">Rows and columns of the window.</param>
    /// <param name="stride">Rows and columns between windows; the kernel's when null.</param>
    /// <param name="pad">Padding around the image.</param>
    /// <param name="ceil">Round the number of windows up instead of down.</param>
    /// <param name="includePadding">The mean is over the whole window, padding counted as zeros, instead of over its part inside the image.</param>
    public Node AveragePooling(
        string name, Node input, Extent kernel, Extent? stride = null, Padding pad = default, bool ceil = false, bool includePadding = false) =>
        Add(name, new PoolingLayer(includePadding ? PoolingKind.AverageIncludePadding : PoolingKind.AverageExcludePadding, kernel, stride, pad, ceil), input);

    /// <summary>The mean over all positions of each channel.</summary>
    public Node GlobalAveragePooling(string name, Node input) => Add(name, new GlobalAveragePoolingLayer(), input);

    /// <summary>Local response normalization across channels.</summary>
    /// <param name="name">Unique in the network.</param>
    /// <param name="input">What is normalized.</param>
    /// <param name="size">Channels around each; odd.</param>
    /// <param name="alpha">Weight of their mean square.</param>
    /// <param name="beta">The exponent.</param>
    /// <param name="k">Added to it.</param>
    public Node LocalResponseNorm(string name, Node input, int size = 5, float alpha = 1e-4f, float beta = 0.75f, float k = 1f) =>
        Add(name, new LrnLayer(size, alpha, beta, k), input);

    /// <summary>Dropout; the identity at inference.</summary>
    /// <param name="name">Unique in the network.</param>
    /// <param name="input">What it reads.</param>
    /// <param name="ratio">The share of values that are set to zero, in [0, 1).</param>
    public Node Dropout(string name, Node input, float ratio) => Add(name, new DropoutLayer(ratio), input);

    /// <summary>Concatenation along channels.</summary>
    public Node Concatenation(string name, params IReadOnlyList<Node> inputs) => Add(name, new ConcatLayer(), inputs);

    /// <summary>Element-wise sum.</summary>
    public Node Sum(string name, params IReadOnlyList<Node> inputs) => Add(name, new SumLayer(), inputs);

    /// <summary>
    /// Softmax and cross-entropy. A network has one or more; the heaviest is its main head, which inference computes, the others help training.
    /// </summary>
    /// <param name="logits">One value per class and image.</param>
    /// <param name="weight">Its weight in the sum of all losses.</param>
    /// <param name="name">Unique in the network.</param>
    public Node Loss(Node logits, float weight = 1f, string name = "loss") => Add(name, new SoftmaxLossLayer(weight), logits);
}
