using HpcBatchNorm.Interchange.Onnx;
using HpcBatchNorm.Networks;

namespace HpcBatchNorm.Interchange;

/// <summary>What an ONNX model gave before it became a network, whose output is always probabilities.</summary>
public enum OnnxOutput
{
    /// <summary>The values before the softmax, or features: the graph ends without a softmax.</summary>
    Logits,

    /// <summary>The graph ends with a softmax.</summary>
    Probabilities,

    /// <summary>The graph ends with a softmax and its logarithm.</summary>
    LogProbabilities,
}

/// <summary>What <see cref="OnnxImport"/> cannot find in a file, or should not take from it.</summary>
public sealed record OnnxImportOptions
{
    /// <summary>Name of the network; that of the file, without its ending, when null.</summary>
    public string? Name { get; init; }

    /// <summary>
    /// Rows and columns of the images; those that the model declares when 0, or, where it leaves them open, those in its metadata (<c>image_size</c>), or 224.
    /// Paddings that depend on the size (<c>auto_pad</c>) and fully connected layers are made for it.
    /// </summary>
    public int ImageSize { get; init; }

    /// <summary>
    /// Mean of each channel's pixel values (0 to 255) that whoever runs the model subtracts before it; when null that of the metadata (<c>pixel_mean</c>), or 0 for a model
    /// that normalises its input itself, or 128. Normalization that is part of the model is added to it.
    /// </summary>
    public IReadOnlyList<float>? PixelMean { get; init; }

    /// <summary>Deviation by which the difference is divided before the model; when null that of the metadata (<c>pixel_deviation</c>), or 1 for a model that normalises its input itself, or 128.</summary>
    public IReadOnlyList<float>? PixelDeviation { get; init; }

    /// <summary>
    /// The model takes B, G, R: the input channels of its first convolution are exchanged, so that the network takes R, G, B as all do here. <see cref="PixelMean"/>
    /// and <see cref="PixelDeviation"/> are R, G, B then too.
    /// </summary>
    public bool Bgr { get; init; }

    /// <summary>Name of the value to take for the output, which ends the network there; the graph's only output when null.</summary>
    public string? Output { get; init; }

    /// <exception cref="UserErrorException">A number cannot be; the message names it.</exception>
    internal void Validate()
    {
        Check(ImageSize >= 0, "image size", "0 (the model's own) or more", ImageSize);
        foreach (float mean in PixelMean ?? [])
        {
            Check(float.IsFinite(mean), "mean of the pixels", "finite", mean);
        }

        foreach (float deviation in PixelDeviation ?? [])
        {
            Check(float.IsFinite(deviation) && deviation > 0, "deviation of the pixels", "finite and above 0", deviation);
        }

        static void Check(bool valid, string name, string range, double value)
        {
            if (!valid)
            {
                throw new UserErrorException(FormattableString.Invariant($"The {name} must be {range}; it is {value}."));
            }
        }
    }
}

/// <summary>A network read from an ONNX file, with its parameters.</summary>
public sealed record ImportedModel
{
    /// <summary>The network; it can be trained as any other.</summary>
    public required Network Network { get; init; }

    /// <summary>Its parameters and running statistics, for images of <see cref="Height"/> x <see cref="Width"/>.</summary>
    public required NetworkState State { get; init; }

    /// <summary>Image rows that the model was read for.</summary>
    public required int Height { get; init; }

    /// <summary>Image columns that the model was read for.</summary>
    public required int Width { get; init; }

    /// <summary>Mean of each channel, to subtract from pixel values of 0 to 255.</summary>
    public required IReadOnlyList<float> PixelMean { get; init; }

    /// <summary>Deviation of each channel, to divide the difference by.</summary>
    public required IReadOnlyList<float> PixelDeviation { get; init; }

    /// <summary>Names of the classes from the metadata (<c>class_names</c>); empty when there are none.</summary>
    public required IReadOnlyList<string> ClassNames { get; init; }

    /// <summary>What the model itself gives.</summary>
    public required OnnxOutput Output { get; init; }

    /// <summary>The operator set that the file was written in.</summary>
    public required int OperatorSet { get; init; }

    /// <summary>The program that wrote the file, as it calls itself; may be empty.</summary>
    public required string Producer { get; init; }

    /// <summary>What the reader of the result should know, a sentence each: what was assumed, and what is another thing in training than it was.</summary>
    public required IReadOnlyList<string> Notes { get; init; }
}

/// <summary>A node of an ONNX graph that no layer can stand for.</summary>
/// <param name="Node">Its name, or that of its first output where it has none; empty for what concerns the graph as a whole.</param>
/// <param name="Operator">Its operator.</param>
/// <param name="Reason">Why.</param>
public sealed record OnnxProblem(string Node, string Operator, string Reason)
{
    /// <summary>For example <c>'act1' (LeakyRelu): ...</c>.</summary>
    public override string ToString() => Node.Length > 0 ? $"'{Node}' ({Operator}): {Reason}" : Reason;
}

/// <summary>An ONNX file holds a model that is no network of these layers; lists all that stands in the way.</summary>
public sealed class OnnxImportException : UserErrorException
{
    internal OnnxImportException(string path, IReadOnlyList<OnnxProblem> problems)
        : base($"'{path}' cannot be made a network; what stands in the way:{string.Concat(problems.Select(p => $"{Environment.NewLine}{p}."))}") =>
        (Path, Problems) = (path, problems);

    /// <summary>Creates the error with its text.</summary>
    public OnnxImportException(string message)
        : base(message)
    {
    }

    /// <summary>Creates the error with its text and what caused it.</summary>
    public OnnxImportException(string message, Exception innerException)
        : base(message, innerException)
    {
    }

    /// <summary>Creates an error without a message; exists because every exception has this constructor.</summary>
    public OnnxImportException()
    {
    }

    /// <summary>The file.</summary>
    public string Path { get; } = "";

    /// <summary>All of them, in the order of the graph.</summary>
    public IReadOnlyList<OnnxProblem> Problems { get; } = [];
}

/// <summary>
/// Reads ONNX models (operator sets 7 to 22) that are made of what our layers compute, as networks with their parameters. What a model computes is
/// represented exactly, for the image size it is read for, or refused; docs/import.md lists the operators.
/// </summary>
public static class OnnxImport
{
    /// <summary>Reads a model. Memory is in proportion to the file, and to those beside it that its constants are in.</summary>
    /// <param name="path">The file.</param>
    /// <param name="options">What is not in it; may be null.</param>
    /// <exception cref="OnnxImportException">The model has nodes that no layer can stand for; lists all of them.</exception>
    /// <exception cref="DamagedFileException">It is not an ONNX file, or a damaged one.</exception>
    /// <exception cref="UserErrorException">The file cannot be read, or the options do not fit it.</exception>
    public static ImportedModel Read(string path, OnnxImportOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(path);
        options ??= new OnnxImportOptions();
        options.Validate();
        if (!options.Bgr)
        {
            return new OnnxImporter(path, ReadModel(path), options).Import();
        }

        // Until the weights are exchanged, mean and deviation are in the file's own order.
        options = options with { PixelMean = options.PixelMean?.Reverse().ToArray(), PixelDeviation = options.PixelDeviation?.Reverse().ToArray() };
        ImportedModel model = new OnnxImporter(path, ReadModel(path), options).Import();
        ChannelOrder.Exchange(model.Network, model.Network.Infer(1, model.Height, model.Width), model.State, path);
        return model with { PixelMean = [.. model.PixelMean.Reverse()], PixelDeviation = [.. model.PixelDeviation.Reverse()] };
    }

    private static ModelProto ReadModel(string path)
    {
        if (Directory.Exists(path))
        {
            throw new UserErrorException($"'{path}' is a folder; name the model, a file in it that ends in .onnx.");
        }

        ModelProto model;
        try
        {
            using FileStream file = File.OpenRead(path);
            model = ModelProto.Parser.ParseFrom(file);
        }
        catch (Google.Protobuf.InvalidProtocolBufferException error)
        {
            throw new DamagedFileException($"'{path}' is not an ONNX file, or a damaged one: {error.Message} Take a file that ends in .onnx, whole.", error);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"The model '{path}' cannot be read: {error.Message}", error);
        }

        return model.Graph is { Node.Count: > 0 }
            ? model
            : throw new DamagedFileException($"'{path}' is not an ONNX file, or a damaged one: it has no graph with nodes. Take a file that ends in .onnx, whole.");
    }
}
