using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Models;

/// <summary>What a module's pooling branch does.</summary>
internal enum ModulePool
{
    /// <summary>3x3 average pooling, stride 1, then a 1x1 projection.</summary>
    Average,

    /// <summary>3x3 max pooling, stride 1, then a 1x1 projection.</summary>
    Max,

    /// <summary>3x3 max pooling, stride 2, concatenated as it is; the 3x3 branches have stride 2 too.</summary>
    PassThrough,
}

/// <summary>One row of the paper's Figure 5: branch widths of an inception module.</summary>
internal readonly record struct ModuleRow(
    string Name, int Conv1x1, int Reduce3x3, int Conv3x3, int ReduceDouble3x3, int Double3x3, ModulePool Pool, int Projection);

/// <summary>
/// The building blocks the Inception networks share: convolution, batch normalization (or bias) and nonlinearity as one unit; inception modules.
/// Stride 2 of a pass-through module sits on its 3x3 convolution, on the second convolution of its double branch and on its pooling, all padded by 1, so
/// that their outputs agree for every image size (<see cref="NetworkOptions.UnpaddedPools"/> apart). Branches are concatenated in the order 1x1, 3x3, double 3x3, pool, as in all ports.
/// </summary>
internal sealed class InceptionModules(NetworkBuilder builder, NetworkOptions options, bool batchNorm)
{
    private readonly Initializer _weights = Initializer.FanIn(2 * options.InitialWeightScale * options.InitialWeightScale);
    private readonly ActivationKind _activation = options.Activation ?? ActivationKind.Relu;

    /// <summary>name/conv, name/bn, name/relu: convolution, batch normalization and nonlinearity.</summary>
    public Node Unit(string name, Node input, int outputs, int kernel, int stride = 1, bool perActivation = false)
    {
        Node node = builder.Add($"{name}/conv", new ConvolutionLayer(outputs, kernel, _weights, stride, kernel / 2, bias: !batchNorm), input);
        return Normalize(name, node, perActivation);
    }

    /// <summary>The paper's separable first convolution: depthwise with the given multiplier, then 1x1, with no nonlinearity between.</summary>
    public Node SeparableUnit(string name, Node input, int channels, int multiplier, int outputs, int kernel, int stride)
    {
        Node depthwise = builder.Add(
            $"{name}/depthwise", new ConvolutionLayer(channels * multiplier, kernel, _weights, stride, kernel / 2, groups: channels), input);
        Node node = builder.Add($"{name}/conv", new ConvolutionLayer(outputs, 1, _weights, bias: !batchNorm), depthwise);
        return Normalize(name, node, false);
    }

    public Node Module(Node input, ModuleRow row, bool perActivation = false)
    {
        int stride = row.Pool == ModulePool.PassThrough ? 2 : 1;
        List<Node> branches = [];
        if (row.Conv1x1 > 0)
        {
            branches.Add(Unit($"{row.Name}/1x1", input, row.Conv1x1, 1, perActivation: perActivation));
        }

        Node reduced = Unit($"{row.Name}/3x3_reduce", input, row.Reduce3x3, 1, perActivation: perActivation);
        branches.Add(Unit($"{row.Name}/3x3", reduced, row.Conv3x3, 3, stride, perActivation));

        Node doubled = Unit($"{row.Name}/double3x3_reduce", input, row.ReduceDouble3x3, 1, perActivation: perActivation);
        doubled = Unit($"{row.Name}/double3x3a", doubled, row.Double3x3, 3, perActivation: perActivation);
        branches.Add(Unit($"{row.Name}/double3x3b", doubled, row.Double3x3, 3, stride, perActivation));

        PoolingKind kind = row.Pool != ModulePool.Average ? PoolingKind.Max
            : options.AverageIncludesPadding ? PoolingKind.AverageIncludePadding : PoolingKind.AverageExcludePadding;
        bool unpadded = options.UnpaddedPools && row.Pool == ModulePool.PassThrough;
        Node pooled = builder.Add($"{row.Name}/pool", unpadded ? new PoolingLayer(kind, 3, stride, ceil: true) : new PoolingLayer(kind, 3, stride, 1), input);
        branches.Add(row.Pool == ModulePool.PassThrough ? pooled : Unit($"{row.Name}/projection", pooled, row.Projection, 1, perActivation: perActivation));
        return builder.Add($"{row.Name}/concat", new ConcatLayer(), branches);
    }

    /// <summary>GoogLeNet's auxiliary classifier: average pooling 5x5/3, 1x1 convolution of 128, 1024 hidden units, dropout 70 %.</summary>
    public void AuxiliaryHead(string name, Node input)
    {
        Node node = builder.Add($"{name}/pool", new PoolingLayer(PoolingKind.AverageExcludePadding, 5, 3, 2), input);
        node = Unit($"{name}/1x1", node, 128, 1);
        node = builder.Add($"{name}/fc1", new FullyConnectedLayer(1024, _weights, Bias: !batchNorm), node);
        node = Normalize($"{name}/fc1", node, false);
        node = builder.Add($"{name}/dropout", new DropoutLayer(0.7f), node);
        node = builder.Add($"{name}/fc", new FullyConnectedLayer(options.Classes, Initializer.FanIn(1)), node);
        builder.Add($"{name}/loss", new SoftmaxLossLayer(0.3f), node);
    }

    /// <summary>Global average pooling, optional dropout, classifier and loss.</summary>
    public void Classifier(Node input, float dropout)
    {
        Node node = builder.Add("pool", new GlobalAveragePoolingLayer(), input);
        if (dropout > 0)
        {
            node = builder.Add("dropout", new DropoutLayer(dropout), node);
        }

        node = builder.Add("fc", new FullyConnectedLayer(options.Classes, Initializer.FanIn(1)), node);
        builder.Add("loss", new SoftmaxLossLayer(), node);
    }

    private Node Normalize(string name, Node node, bool perActivation)
    {
        if (batchNorm)
        {
            node = builder.Add($"{name}/bn", new BatchNormLayer(options.Epsilon ?? NetworkOptions.UsualEpsilon, options.AveragingFactor, perActivation), node);
        }

        return builder.Add($"{name}/{_activation.Name()}", new ActivationLayer(_activation), node);
    }
}
