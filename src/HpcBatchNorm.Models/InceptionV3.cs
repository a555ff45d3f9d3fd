using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Models;

/// <summary>
/// Inception v3 (Szegedy et al. 2015, 1512.00567) as torchvision and TensorFlow have it: large kernels factorised into 3x3, 1x7 and 7x1, batch normalization with
/// epsilon 1e-3 behind every convolution, no padding in the stem and where a module halves the image. Made for images of 299 pixels; any from 75 on do, and
/// from 299 on with the auxiliary head, whose 5x5 convolution needs the room. Initial weights are He's by fan-in (torchvision: normal, truncated, 0.1).
/// A unit is <c>name/conv</c>, <c>name/bn</c>, <c>name/relu</c>; modules are <c>mixed_5b</c> to <c>mixed_7c</c> as in torchvision, their units named by
/// branch: <c>mixed_6b/7x7dbl_2/conv</c>. Branches are concatenated in torchvision's order.
/// </summary>
internal sealed class InceptionV3
{
    /// <summary>The options that mean something for it.</summary>
    public static readonly string[] Options =
    [
        nameof(NetworkOptions.Classes), nameof(NetworkOptions.Activation), nameof(NetworkOptions.BatchNorm), nameof(NetworkOptions.Epsilon),
        nameof(NetworkOptions.AveragingFactor), nameof(NetworkOptions.Dropout), nameof(NetworkOptions.AuxiliaryHeads),
        nameof(NetworkOptions.InitialWeightScale), nameof(NetworkOptions.AverageIncludesPadding),
    ];

    /// <summary>Torchvision's weight of the auxiliary loss; the paper of GoogLeNet has 0.3, that of Inception v3 says nothing.</summary>
    private const float AuxiliaryWeight = 0.4f;

    private readonly NetworkBuilder _builder = new("inception-v3");
    private readonly NetworkOptions _options;
    private readonly Initializer _weights;
    private readonly ActivationKind _activation;
    private readonly float _epsilon;

    private InceptionV3(NetworkOptions options)
    {
        _options = options;
        _weights = Initializer.FanIn(2 * options.InitialWeightScale * options.InitialWeightScale);
        _activation = options.Activation ?? ActivationKind.Relu;
        _epsilon = options.Epsilon ?? 1e-3f;
    }

    public static Network Create(NetworkOptions options)
    {
        if (options.BatchNorm == false)
        {
            throw new UserErrorException("inception-v3 is made of batch normalization; there is no form of it without.");
        }

        var v3 = new InceptionV3(options);
        Node node = v3.Stem();
        node = v3.Grid35("mixed_5b", node, 32);
        node = v3.Grid35("mixed_5c", node, 64);
        node = v3.Grid35("mixed_5d", node, 64);
        node = v3.From35To17("mixed_6a", node);
        node = v3.Grid17("mixed_6b", node, 128);
        node = v3.Grid17("mixed_6c", node, 160);
        node = v3.Grid17("mixed_6d", node, 160);
        node = v3.Grid17("mixed_6e", node, 192);
        if (options.AuxiliaryHeads)
        {
            v3.AuxiliaryHead(node);
        }

        node = v3.From17To8("mixed_7a", node);
        node = v3.Grid8("mixed_7b", node);
        node = v3.Grid8("mixed_7c", node);
        v3.Classifier("", node, options.Dropout ?? 0.5f, 1);
        return v3._builder.Build(options.AuxiliaryHeads ? 299 : 75);
    }

    private Node Stem()
    {
        Node node = _builder.Add("input", new InputLayer(3));
        node = Unit("conv_1a", node, 32, 3, 2, padded: false);
        node = Unit("conv_2a", node, 32, 3, padded: false);
        node = Unit("conv_2b", node, 64, 3);
        node = _builder.Add("pool_3a", new PoolingLayer(PoolingKind.Max, 3, 2), node);
        node = Unit("conv_3b", node, 80, 1);
        node = Unit("conv_4a", node, 192, 3, padded: false);
        return _builder.Add("pool_5a", new PoolingLayer(PoolingKind.Max, 3, 2), node);
    }

    private Node Grid35(string name, Node input, int projection)
    {
        Node five = Unit($"{name}/5x5_2", Unit($"{name}/5x5_1", input, 48, 1), 64, 5);
        Node three = Unit($"{name}/3x3dbl_2", Unit($"{name}/3x3dbl_1", input, 64, 1), 96, 3);
        return Concat(name, Unit($"{name}/1x1", input, 64, 1), five, Unit($"{name}/3x3dbl_3", three, 96, 3), Projection(name, input, projection));
    }

    private Node From35To17(string name, Node input)
    {
        Node twice = Unit($"{name}/3x3dbl_2", Unit($"{name}/3x3dbl_1", input, 64, 1), 96, 3);
        return Concat(
            name, Unit($"{name}/3x3", input, 384, 3, 2, padded: false), Unit($"{name}/3x3dbl_3", twice, 96, 3, 2, padded: false), HalvingPool(name, input));
    }

    private Node Grid17(string name, Node input, int width)
    {
        Node once = Unit($"{name}/7x7_1", input, width, 1);
        once = Strip($"{name}/7x7_2", once, width, 1, 7);
        once = Strip($"{name}/7x7_3", once, 192, 7, 1);
        Node twice = Unit($"{name}/7x7dbl_1", input, width, 1);
        twice = Strip($"{name}/7x7dbl_2", twice, width, 7, 1);
        twice = Strip($"{name}/7x7dbl_3", twice, width, 1, 7);
        twice = Strip($"{name}/7x7dbl_4", twice, width, 7, 1);
        twice = Strip($"{name}/7x7dbl_5", twice, 192, 1, 7);
        return Concat(name, Unit($"{name}/1x1", input, 192, 1), once, twice, Projection(name, input, 192));
    }

    private Node From17To8(string name, Node input)
    {
        Node three = Unit($"{name}/3x3_1", input, 192, 1);
        Node seven = Unit($"{name}/7x7x3_1", input, 192, 1);
        seven = Strip($"{name}/7x7x3_2", seven, 192, 1, 7);
        seven = Strip($"{name}/7x7x3_3", seven, 192, 7, 1);
        return Concat(
            name, Unit($"{name}/3x3_2", three, 320, 3, 2, padded: false), Unit($"{name}/7x7x3_4", seven, 192, 3, 2, padded: false), HalvingPool(name, input));
    }

    /// <summary>The widest modules: both branches of 3x3 end in a 1x3 and a 3x1 side by side.</summary>
    private Node Grid8(string name, Node input)
    {
        Node once = Unit($"{name}/3x3_1", input, 384, 1);
        Node twice = Unit($"{name}/3x3dbl_2", Unit($"{name}/3x3dbl_1", input, 448, 1), 384, 3);
        return Concat(
            name, Unit($"{name}/1x1", input, 320, 1), Strip($"{name}/3x3_2a", once, 384, 1, 3), Strip($"{name}/3x3_2b", once, 384, 3, 1),
            Strip($"{name}/3x3dbl_3a", twice, 384, 1, 3), Strip($"{name}/3x3dbl_3b", twice, 384, 3, 1), Projection(name, input, 192));
    }

    private void AuxiliaryHead(Node input)
    {
        Node node = _builder.Add("aux/pool", new PoolingLayer(PoolingKind.AverageExcludePadding, 5, 3), input);
        node = Unit("aux/conv0", node, 128, 1);
        node = Unit("aux/conv1", node, 768, 5, padded: false);
        Classifier("aux/", node, 0, AuxiliaryWeight);
    }

    private void Classifier(string prefix, Node node, float dropout, float weight)
    {
        node = _builder.Add($"{prefix}{(prefix.Length > 0 ? "global_pool" : "pool")}", new GlobalAveragePoolingLayer(), node);
        node = dropout > 0 ? _builder.Add($"{prefix}dropout", new DropoutLayer(dropout), node) : node;
        node = _builder.Add($"{prefix}fc", new FullyConnectedLayer(_options.Classes, Initializer.FanIn(1)), node);
        _builder.Add($"{prefix}loss", new SoftmaxLossLayer(weight), node);
    }

    private Node Projection(string name, Node input, int outputs)
    {
        PoolingKind kind = _options.AverageIncludesPadding ? PoolingKind.AverageIncludePadding : PoolingKind.AverageExcludePadding;
        return Unit($"{name}/projection", _builder.Add($"{name}/pool", new PoolingLayer(kind, 3, 1, 1), input), outputs, 1);
    }

    private Node HalvingPool(string name, Node input) => _builder.Add($"{name}/pool", new PoolingLayer(PoolingKind.Max, 3, 2), input);

    private Node Concat(string name, params IReadOnlyList<Node> branches) => _builder.Add($"{name}/concat", new ConcatLayer(), branches);

    private Node Unit(string name, Node input, int outputs, int kernel, int stride = 1, bool padded = true) =>
        Normalize(name, _builder.Add($"{name}/conv", new ConvolutionLayer(outputs, kernel, _weights, stride, padded ? kernel / 2 : 0), input));

    /// <summary>A kernel of so many rows and columns, padded so that the size stays.</summary>
    private Node Strip(string name, Node input, int outputs, int rows, int columns) =>
        Normalize(name, _builder.Add($"{name}/conv", new ConvolutionLayer(outputs, (rows, columns), _weights, pad: (rows / 2, columns / 2)), input));

    private Node Normalize(string name, Node node)
    {
        node = _builder.Add($"{name}/bn", new BatchNormLayer(_epsilon, _options.AveragingFactor), node);
        return _builder.Add($"{name}/{_activation.Name()}", new ActivationLayer(_activation), node);
    }
}
