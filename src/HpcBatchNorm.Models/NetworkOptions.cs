using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Models;

/// <summary>
/// What variants of the networks differ in. Not every network looks at every option; each says where it applies. The residual networks and
/// <c>inception-v3</c> refuse what they do not look at.
/// </summary>
public sealed record NetworkOptions
{
    private static readonly NetworkOptions Defaults = new();

    // In place of reflection, so that trimmed programs work; a test compares it with the properties. No LRN is asked for where there is none anyway.
    private static readonly (string Name, Func<NetworkOptions, object?> Get)[] Properties =
    [
        (nameof(Classes), o => o.Classes), (nameof(Width), o => o.Width), (nameof(SeparableFirstConvolution), o => o.SeparableFirstConvolution),
        (nameof(Activation), o => o.Activation), (nameof(BatchNorm), o => o.BatchNorm), (nameof(Epsilon), o => o.Epsilon),
        (nameof(AveragingFactor), o => o.AveragingFactor), (nameof(PerActivationLast), o => o.PerActivationLast), (nameof(Lrn), o => o.Lrn == false ? null : o.Lrn),
        (nameof(Dropout), o => o.Dropout), (nameof(AuxiliaryHeads), o => o.AuxiliaryHeads), (nameof(InitialWeightScale), o => o.InitialWeightScale),
        (nameof(AverageIncludesPadding), o => o.AverageIncludesPadding), (nameof(UnpaddedPools), o => o.UnpaddedPools), (nameof(HiddenLayers), o => o.HiddenLayers),
        (nameof(HiddenUnits), o => o.HiddenUnits), (nameof(InitialDeviation), o => o.InitialDeviation),
    ];

    /// <summary>The names of all options.</summary>
    public static IReadOnlyList<string> Names { get; } = [.. Properties.Select(p => p.Name)];

    /// <summary>Number of classes.</summary>
    public int Classes { get; init; } = 1000;

    /// <summary>
    /// Output channels of modules 4c and 4d of the Inception networks: 608 adds up the branch widths printed in the paper's Figure 5,
    /// 576 is the output size printed there (pool projections of 96 instead of 128).
    /// </summary>
    public int Width { get; init; } = 608;

    /// <summary>First convolution as in the paper's footnote, separable with depth multiplier 8 (7x7 depthwise, then 1x1), instead of a plain 7x7.</summary>
    public bool SeparableFirstConvolution { get; init; }

    /// <summary>The nonlinearity; null means the network's own (ReLU; sigmoid for <c>mnist-mlp</c>).</summary>
    public ActivationKind? Activation { get; init; }

    /// <summary>Batch normalization before every nonlinearity; null means the network's own choice.</summary>
    public bool? BatchNorm { get; init; }

    /// <summary>Batch normalization's epsilon, for which the paper gives no value; null means the network's own (1e-5; 1e-3 for <c>inception-v3</c>).</summary>
    public float? Epsilon { get; init; }

    /// <summary>The epsilon of networks that have none of their own.</summary>
    internal const float UsualEpsilon = 1e-5f;

    /// <summary>Weight of the new batch in running statistics.</summary>
    public float AveragingFactor { get; init; } = 0.1f;

    /// <summary>Per-activation (non-convolutional) batch normalization in the last module, as some ensemble members have (section 4.2.3).</summary>
    public bool PerActivationLast { get; init; }

    /// <summary>Local response normalization after the first max pooling and after the second convolution (GoogLeNet); null means where there is no batch normalization.</summary>
    public bool? Lrn { get; init; }

    /// <summary>Dropout before the classifier; null means the network's own (0.4 for <c>inception</c>, 0.5 for <c>inception-v3</c>, 0 otherwise).</summary>
    public float? Dropout { get; init; }

    /// <summary>
    /// Auxiliary classifiers: after modules 4a and 4d of the Inception networks, weight 0.3 each (GoogLeNet; whether the paper's network had them is not known);
    /// after the last 17x17 module of <c>inception-v3</c>, weight 0.4 (torchvision).
    /// </summary>
    public bool AuxiliaryHeads { get; init; }

    /// <summary>Initial weights are this times their usual deviation (larger initial weights are one of the ensemble's changes, section 4.2.3).</summary>
    public double InitialWeightScale { get; init; } = 1;

    /// <summary>Average pooling inside modules counts padding as zeros (Caffe) instead of leaving it out of the mean (TensorFlow).</summary>
    public bool AverageIncludesPadding { get; init; } = true;

    /// <summary>
    /// The max poolings of the modules that halve the image (3c and 4e of the Inception networks) have no padding and round up, as in Caffe's network and its
    /// ports, instead of being padded by 1 as the convolutions beside them. Their outputs agree where the image has an even number of rows and columns there,
    /// as for sizes that are multiples of 32.
    /// </summary>
    public bool UnpaddedPools { get; init; }

    /// <summary>Hidden layers of <c>mnist-mlp</c>.</summary>
    public int HiddenLayers { get; init; } = 3;

    /// <summary>Units of each hidden layer of <c>mnist-mlp</c>.</summary>
    public int HiddenUnits { get; init; } = 100;

    /// <summary>Deviation of the initial weights of <c>mnist-mlp</c>; 0 means He's.</summary>
    public double InitialDeviation { get; init; } = 0.1;

    /// <summary>Names of the options that differ from their defaults.</summary>
    internal IEnumerable<string> NamesOfSet() => Properties.Where(p => !Equals(p.Get(this), p.Get(Defaults))).Select(p => p.Name);
}
