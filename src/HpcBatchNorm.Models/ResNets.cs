using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Models;

/// <summary>
/// Residual networks (He et al. 2015, 1512.03385), version 1.5: where a bottleneck halves the image, its 3x3 convolution does, not its first 1x1 (torchvision,
/// Goyal et al. 2017). A 7x7/2 convolution and a 3x3/2 max pooling that rounds down come first, then four stages of blocks. Initial weights are He's by
/// fan-in; scales begin at 1.
/// Layers are named as torchvision names its modules, with slashes: <c>conv1</c>, <c>bn1</c>, <c>relu1</c>, <c>pool1</c>, then <c>layer1/0/conv1</c>, ..,
/// <c>layer1/0/shortcut/conv</c> and <c>layer1/0/shortcut/bn</c> (torchvision: <c>downsample.0</c> and <c>.1</c>), <c>layer1/0/sum</c>,
/// <c>layer1/0/relu</c>; <c>pool</c>, <c>fc</c> and <c>loss</c> at the end.
/// </summary>
internal sealed class ResNets
{
    /// <summary>The options that mean something for these networks.</summary>
    public static readonly string[] Options =
    [
        nameof(NetworkOptions.Classes), nameof(NetworkOptions.Activation), nameof(NetworkOptions.BatchNorm), nameof(NetworkOptions.Epsilon),
        nameof(NetworkOptions.AveragingFactor), nameof(NetworkOptions.Dropout), nameof(NetworkOptions.InitialWeightScale),
    ];

    /// <summary>A bottleneck puts out this many times the channels of its 3x3 convolution.</summary>
    private const int Expansion = 4;

    private readonly NetworkBuilder _builder;
    private readonly NetworkOptions _options;
    private readonly Initializer _weights;
    private readonly ActivationKind _activation;
    private readonly bool _bottleneck;

    private ResNets(string name, NetworkOptions options, bool bottleneck)
    {
        _builder = new NetworkBuilder(name);
        _options = options;
        _weights = Initializer.FanIn(2 * options.InitialWeightScale * options.InitialWeightScale);
        _activation = options.Activation ?? ActivationKind.Relu;
        _bottleneck = bottleneck;
    }

    /// <summary>A network of four stages with so many blocks each, of two 3x3 convolutions or of bottlenecks.</summary>
    public static Network Create(string name, NetworkOptions options, bool bottleneck, params ReadOnlySpan<int> blocks)
    {
        if (options.BatchNorm == false)
        {
            throw new UserErrorException($"{name} is made of batch normalization; there is no form of it without.");
        }

        var resnet = new ResNets(name, options, bottleneck);
        Node node = resnet.Stem();
        for (int stage = 0; stage < blocks.Length; stage++)
        {
            for (int block = 0; block < blocks[stage]; block++)
            {
                node = resnet.Block($"layer{stage + 1}/{block}", node, 64 << stage, stage > 0 && block == 0 ? 2 : 1, project: block == 0 && (stage > 0 || bottleneck));
            }
        }

        resnet.Classifier(node);
        return resnet._builder.Build(minimumImageSize: 32);
    }

    private Node Stem()
    {
        Node node = _builder.Add("input", new InputLayer(3));
        node = Activate("relu1", Normalize("bn1", Convolve("conv1", node, 64, 7, 2)));
        return _builder.Add("pool1", new PoolingLayer(PoolingKind.Max, 3, 2, 1), node);
    }

    /// <summary>Two 3x3 convolutions, or 1x1, 3x3 and 1x1; plus the input, as it is or projected; then the nonlinearity.</summary>
    private Node Block(string name, Node input, int width, int stride, bool project)
    {
        int outputs = _bottleneck ? width * Expansion : width;
        Node shortcut = project ? Normalize($"{name}/shortcut/bn", Convolve($"{name}/shortcut/conv", input, outputs, 1, stride)) : input;
        (int Outputs, int Kernel, int Stride)[] convolutions = _bottleneck ? [(width, 1, 1), (width, 3, stride), (outputs, 1, 1)] : [(width, 3, stride), (width, 3, 1)];
        Node node = input;
        for (int i = 1; i <= convolutions.Length; i++)
        {
            (int channels, int kernel, int step) = convolutions[i - 1];
            node = Normalize($"{name}/bn{i}", Convolve($"{name}/conv{i}", node, channels, kernel, step));
            node = i < convolutions.Length ? Activate($"{name}/relu{i}", node) : node;
        }

        return Activate($"{name}/relu", _builder.Add($"{name}/sum", new SumLayer(), node, shortcut));
    }

    private void Classifier(Node node)
    {
        node = _builder.Add("pool", new GlobalAveragePoolingLayer(), node);
        node = _options.Dropout > 0 ? _builder.Add("dropout", new DropoutLayer(_options.Dropout.Value), node) : node;
        node = _builder.Add("fc", new FullyConnectedLayer(_options.Classes, Initializer.FanIn(1)), node);
        _builder.Add("loss", new SoftmaxLossLayer(), node);
    }

    private Node Convolve(string name, Node input, int outputs, int kernel, int stride) =>
        _builder.Add(name, new ConvolutionLayer(outputs, kernel, _weights, stride, kernel / 2), input);

    private Node Normalize(string name, Node input) => _builder.Add(name, new BatchNormLayer(_options.Epsilon ?? NetworkOptions.UsualEpsilon, _options.AveragingFactor), input);

    private Node Activate(string name, Node input) => _builder.Add(name.Replace("relu", _activation.Name(), StringComparison.Ordinal), new ActivationLayer(_activation), input);
}
