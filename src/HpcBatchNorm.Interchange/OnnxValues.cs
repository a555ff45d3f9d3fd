using HpcBatchNorm.Layers;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Interchange;

/// <summary>A layer in the making: what follows in the graph may still change it (a bias that is added, a factor that folds into its weights).</summary>
internal sealed class OnnxLayer(string name, string type, Layer layer, IReadOnlyList<OnnxLayer> inputs, Shape shape)
{
    public string Name { get; } = name;

    /// <summary>The operator it was made of.</summary>
    public string Operator { get; } = type;

    public Layer Layer { get; set; } = layer;

    public IReadOnlyList<OnnxLayer> Inputs { get; } = inputs;

    /// <summary>Of its output, for one image of the size that the model is read for.</summary>
    public Shape Shape { get; } = shape;

    /// <summary>By the names of <see cref="Layer.Parameters"/>.</summary>
    public Dictionary<string, float[]> Parameters { get; } = new(StringComparer.Ordinal);
}

/// <summary>What a name of an ONNX graph stands for while it is read.</summary>
internal abstract record OnnxMeaning;

/// <summary>What comes after something that could not be read.</summary>
internal sealed record OnnxUnknown : OnnxMeaning
{
    public static OnnxUnknown Value { get; } = new();
}

/// <summary>A constant.</summary>
internal sealed record OnnxConstant(OnnxTensor Tensor) : OnnxMeaning;

/// <summary>Whole numbers that the graph computes from shapes.</summary>
internal sealed record OnnxWholes(long[] Values) : OnnxMeaning
{
    /// <summary>Stands for the number of images, which is open.</summary>
    public const long Batch = long.MinValue;
}

/// <summary>The graph's input, of which only factor * x + offset was made yet, one of each per channel.</summary>
internal sealed record OnnxImages(double[] Factors, double[] Offsets, bool ChannelsLast, bool IsChanged) : OnnxMeaning;

/// <summary>What a layer computes.</summary>
/// <param name="Layer">The layer.</param>
/// <param name="IsMatrix">Batch x features instead of batch x channels x rows x columns: all elements of an image in a row.</param>
/// <param name="Sole">Nothing else reads it, so that what follows may fold into the layer.</param>
/// <param name="Pad">Zeros around it that the next layer has to add: top, left, bottom, right.</param>
internal sealed record OnnxActivation(OnnxLayer Layer, bool IsMatrix, bool Sole = true, Padding Pad = default) : OnnxMeaning;

/// <summary>Probabilities of classes, or their logarithms: the end of the graph.</summary>
internal sealed record OnnxEnd(OnnxActivation Logits, OnnxOutput Kind) : OnnxMeaning;
