using System.Text.RegularExpressions;
using HpcBatchNorm.Networks;

namespace HpcBatchNorm.Interchange;

/// <summary>
/// How PyTorch's programs lay out the weights of a family of networks: what they call each layer, and what the images are that the published weights want.
/// All that is known of a family stands in its entry of <see cref="All"/>.
/// </summary>
internal sealed class PyTorchLayout
{
    private static readonly float[] ImageNetMean = [123.675f, 116.28f, 103.53f];
    private static readonly float[] ImageNetDeviation = [58.395f, 57.12f, 57.375f];

    /// <summary>The families, in the order they are listed.</summary>
    public static IReadOnlyList<PyTorchLayout> All { get; } =
    [
        new()
        {
            // torchvision/models/resnet.py; timm's resnet18, 34, 50 and 101 have the same names, and Cadene's but for last_linear.
            Networks = ["resnet-18", "resnet-34", "resnet-50", "resnet-101"],
            Layers = Rows(
                ("conv1", "conv1"),
                ("bn1", "bn1"),
                (@"layer(\d)/(\d+)/(conv\d|bn\d)", "layer$1.$2.$3"),
                (@"layer(\d)/(\d+)/shortcut/conv", "layer$1.$2.downsample.0"),
                (@"layer(\d)/(\d+)/shortcut/bn", "layer$1.$2.downsample.1"),
                ("fc", "fc")),
            ImageSize = 224,
            PixelMean = ImageNetMean,
            PixelDeviation = ImageNetDeviation,
        },
        new()
        {
            // torchvision/models/inception.py, and timm's. Its transform_input turns ImageNet's normalization back into Google's, for which the weights were made.
            Networks = ["inception-v3"],
            Layers = Rows(
                ("conv_1a/(conv|bn)", "Conv2d_1a_3x3.$1"),
                ("conv_2a/(conv|bn)", "Conv2d_2a_3x3.$1"),
                ("conv_2b/(conv|bn)", "Conv2d_2b_3x3.$1"),
                ("conv_3b/(conv|bn)", "Conv2d_3b_1x1.$1"),
                ("conv_4a/(conv|bn)", "Conv2d_4a_3x3.$1"),
                (@"mixed_(\d\w)/projection/(conv|bn)", "Mixed_$1.branch_pool.$2"),
                (@"mixed_(\d\w)/(\dx\w+)/(conv|bn)", "Mixed_$1.branch$2.$3"),
                ("aux/(conv0|conv1)/(conv|bn)", "AuxLogits.$1.$2"),
                ("aux/fc", "AuxLogits.fc"),
                ("fc", "fc")),
            Auxiliary = "AuxLogits.",
            ImageSize = 299,
            PixelMean = [127.5f, 127.5f, 127.5f],
            PixelDeviation = [127.5f, 127.5f, 127.5f],
        },
        new()
        {
            // Cadene's pretrainedmodels/models/bninception.py, made of yjxiong's Caffe weights: B, G, R, 0 to 255, and a bias for every convolution.
            Networks = ["bn-inception"],
            Layers = Rows(
                ("conv1/conv", "conv1_7x7_s2"),
                ("conv1/bn", "conv1_7x7_s2_bn"),
                ("conv2_reduce/conv", "conv2_3x3_reduce"),
                ("conv2_reduce/bn", "conv2_3x3_reduce_bn"),
                ("conv2/conv", "conv2_3x3"),
                ("conv2/bn", "conv2_3x3_bn"),
                (@"(inception_\d\w)/(1x1|3x3|3x3_reduce)/conv", "$1_$2"),
                (@"(inception_\d\w)/(1x1|3x3|3x3_reduce)/bn", "$1_$2_bn"),
                (@"(inception_\d\w)/double3x3_reduce/conv", "$1_double_3x3_reduce"),
                (@"(inception_\d\w)/double3x3_reduce/bn", "$1_double_3x3_reduce_bn"),
                (@"(inception_\d\w)/double3x3a/conv", "$1_double_3x3_1"),
                (@"(inception_\d\w)/double3x3a/bn", "$1_double_3x3_1_bn"),
                (@"(inception_\d\w)/double3x3b/conv", "$1_double_3x3_2"),
                (@"(inception_\d\w)/double3x3b/bn", "$1_double_3x3_2_bn"),
                (@"(inception_\d\w)/projection/conv", "$1_pool_proj"),
                (@"(inception_\d\w)/projection/bn", "$1_pool_proj_bn"),
                ("fc", "last_linear")),
            ConvolutionBias = true,
            Bgr = true,
            UnpaddedPools = true,
            ImageSize = 224,
            PixelMean = [128, 117, 104],
            PixelDeviation = [1, 1, 1],
        },
    ];

    /// <summary>The catalogue's names of the networks.</summary>
    public required string[] Networks { get; init; }

    /// <summary>The table of names: what a layer's name in our networks matches, and what it is called in the file. The first row that matches counts.</summary>
    public required (Regex Ours, string Theirs)[] Layers { get; init; }

    /// <summary>What the names of an auxiliary head's tensors begin with; empty for a family without one.</summary>
    public string Auxiliary { get; init; } = "";

    /// <summary>Every convolution has a bias in the file, though a batch normalization behind it takes it away again.</summary>
    public bool ConvolutionBias { get; init; }

    /// <summary>The first convolution takes B, G, R.</summary>
    public bool Bgr { get; init; }

    /// <summary>The modules that halve the image pool without padding, rounded up.</summary>
    public bool UnpaddedPools { get; init; }

    /// <summary>Image size of the published weights.</summary>
    public required int ImageSize { get; init; }

    /// <summary>Mean of R, G, B, of pixel values of 0 to 255, that the published weights want subtracted.</summary>
    public required float[] PixelMean { get; init; }

    /// <summary>Deviation by which they want it divided.</summary>
    public required float[] PixelDeviation { get; init; }

    /// <summary>The layout of a network; null for one that PyTorch's programs have no names for.</summary>
    public static PyTorchLayout? Find(string network) => All.FirstOrDefault(l => l.Networks.Contains(network));

    /// <summary>The layout of a network.</summary>
    /// <exception cref="UserErrorException">PyTorch's programs have no names for it.</exception>
    public static PyTorchLayout Get(string network) => Find(network) ?? throw new UserErrorException(
        $"There are no PyTorch names for the layers of a network '{network}'; there are for {string.Join(", ", All.SelectMany(l => l.Networks))}.");

    /// <summary>What a layer is called in the file; null where the file has no such layer.</summary>
    public string? NameOf(Node node)
    {
        foreach ((Regex ours, string theirs) in Layers)
        {
            if (ours.Match(node.Name) is { Success: true } match)
            {
                return match.Result(theirs);
            }
        }

        return null;
    }

    private static (Regex, string)[] Rows(params (string Ours, string Theirs)[] rows) =>
        [.. rows.Select(r => (new Regex($"^{r.Ours}$", RegexOptions.CultureInvariant), r.Theirs))];
}
