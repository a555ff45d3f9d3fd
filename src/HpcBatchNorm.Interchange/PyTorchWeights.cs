using System.Globalization;
using System.Runtime.InteropServices;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Interchange;

/// <summary>What <see cref="PyTorchWeights.Write"/> says in the file besides the tensors.</summary>
public sealed record PyTorchOptions
{
    /// <summary>Rows and columns of the images that the network was trained on.</summary>
    public required int ImageSize { get; init; }

    /// <summary>Mean of the channels' pixel values (0 to 255; R, G, B), which is subtracted; one value stands for all.</summary>
    public required IReadOnlyList<float> PixelMean { get; init; }

    /// <summary>Deviation by which the difference is divided; one value stands for all.</summary>
    public required IReadOnlyList<float> PixelDeviation { get; init; }

    /// <summary>Names of the classes in the order of the output; may be empty.</summary>
    public IReadOnlyList<string> ClassNames { get; init; } = [];

    /// <summary>Options of the network as text of the writing program, which <see cref="PyTorchWeights.Settings"/> gives back.</summary>
    public string Settings { get; init; } = "";
}

/// <summary>A tensor of a file that is not what the network needs.</summary>
/// <param name="Name">Its name in the file.</param>
/// <param name="Expected">Its extents as they should be, e.g. <c>[64, 3, 7, 7]</c>, or <c>nothing</c> where the network has no such tensor.</param>
/// <param name="Found">What is in the file, e.g. <c>F32 [64, 3, 3, 3]</c>, or <c>nothing</c>.</param>
public sealed record PyTorchProblem(string Name, string Expected, string Found)
{
    /// <summary>For example <c>fc.weight: expected [10, 512], found F32 [1000, 512]</c>.</summary>
    public override string ToString() => $"{Name}: expected {Expected}, found {Found}";
}

/// <summary>A file of weights does not fit the network that it was read for; lists all tensors that differ.</summary>
public sealed class PyTorchWeightsException : UserErrorException
{
    internal PyTorchWeightsException(string path, string network, IReadOnlyList<PyTorchProblem> problems)
        : base($"'{path}' does not hold the weights of {network}; what differs:{string.Concat(problems.Select(p => $"{Environment.NewLine}{p}."))}") =>
        (Path, Network, Problems) = (path, network, problems);

    /// <summary>Creates the error with its text.</summary>
    public PyTorchWeightsException(string message)
        : base(message)
    {
    }

    /// <summary>Creates the error with its text and what caused it.</summary>
    public PyTorchWeightsException(string message, Exception innerException)
        : base(message, innerException)
    {
    }

    /// <summary>Creates an error without a message; exists because every exception has this constructor.</summary>
    public PyTorchWeightsException()
    {
    }

    /// <summary>The file.</summary>
    public string Path { get; } = "";

    /// <summary>Name of the network.</summary>
    public string Network { get; } = "";

    /// <summary>All of them: first what is missing or has another shape, in the network's order, then what is too many.</summary>
    public IReadOnlyList<PyTorchProblem> Problems { get; } = [];
}

/// <summary>
/// Weights in a safetensors file under the names that PyTorch's programs give them: torchvision's and timm's for <c>resnet-18</c>, <c>-34</c>, <c>-50</c>,
/// <c>-101</c> and <c>inception-v3</c>, Cadene's for <c>bn-inception</c>. Images are R, G, B here: where the file's first convolution takes B, G, R, its input
/// channels are exchanged. A bias before a batch normalization is subtracted from its running mean, which is the same. docs/import.md says what the files are.
/// </summary>
public sealed class PyTorchWeights : IDisposable
{
    private const string ModelKey = "model", SizeKey = "image_size", MeanKey = "pixel_mean", DeviationKey = "pixel_deviation", SettingsKey = "hpcbn_settings";

    /// <summary>DataParallel puts this before every name.</summary>
    private const string Wrapper = "module.";

    /// <summary>Counts the batches of training, which nothing here needs; files may have it or not.</summary>
    private const string Counter = ".num_batches_tracked";

    private readonly SafetensorsFile _file;
    private readonly string _prefix;
    private readonly PyTorchLayout _layout;

    private PyTorchWeights(SafetensorsFile file, string network, PyTorchLayout layout)
    {
        _file = file;
        _layout = layout;
        _prefix = file.Tensors.Count > 0 && file.Tensors.All(t => t.Name.StartsWith(Wrapper, StringComparison.Ordinal)) ? Wrapper : "";
        Network = network;
        PixelMean = Channels(MeanKey) ?? layout.PixelMean;
        PixelDeviation = Channels(DeviationKey) ?? layout.PixelDeviation;
        ImageSize = !file.Metadata.TryGetValue(SizeKey, out string? size) ? layout.ImageSize
            : int.TryParse(size, NumberStyles.None, CultureInfo.InvariantCulture, out int side) && side is > 0 and <= 8192 ? side
            : throw new UserErrorException($"'{Path}' says that its '{SizeKey}' is '{UserErrorException.Excerpt(size)}'; expected a number of pixels, 1 to 8192. Use another file, or take that entry out of its metadata.");
    }

    /// <summary>The catalogue's names of the networks whose weights can be read and written.</summary>
    public static IReadOnlyList<string> Networks { get; } = [.. PyTorchLayout.All.SelectMany(l => l.Networks)];

    /// <summary>Name of the network.</summary>
    public string Network { get; }

    /// <summary>Classes that the file's classifier tells apart.</summary>
    /// <exception cref="PyTorchWeightsException">It has no classifier.</exception>
    public int Classes
    {
        get
        {
            string name = $"{_prefix}{_layout.Layers[^1].Theirs}.weight";
            return _file.Contains(name) && _file[name].Extents is [> 1 and <= int.MaxValue, _, ..]
                ? (int)_file[name].Extents[0]
                : throw new PyTorchWeightsException(Path, Network, [new(name, "[classes, features]", _file.Contains(name) ? _file[name].ToString() : "nothing")]);
        }
    }

    /// <summary>The file.</summary>
    public string Path => _file.Path;

    /// <summary>The file has the weights of an auxiliary classifier.</summary>
    public bool HasAuxiliaryHeads => _layout.Auxiliary.Length > 0 && _file.Tensors.Any(t => t.Name.StartsWith(_prefix + _layout.Auxiliary, StringComparison.Ordinal));

    /// <summary>Where the published weights of this network come from, modules that halve the image pool without padding, rounded up.</summary>
    public bool UnpaddedPools => _layout.UnpaddedPools;

    /// <summary>Rows and columns of the images: what the file says, or the size of the published weights.</summary>
    public int ImageSize { get; }

    /// <summary>Mean of R, G, B to subtract from pixel values of 0 to 255: what the file says, or that of the published weights.</summary>
    public IReadOnlyList<float> PixelMean { get; }

    /// <summary>Deviation of R, G, B to divide the difference by: what the file says, or that of the published weights.</summary>
    public IReadOnlyList<float> PixelDeviation { get; }

    /// <summary>Names of the classes, where the file says them.</summary>
    public IReadOnlyList<string> ClassNames => _file.Metadata.TryGetValue(ClassNameList.Key, out string? text) ? ClassNameList.Read(text) : [];

    /// <summary>What <see cref="PyTorchOptions.Settings"/> was when the file was written; empty for files of other programs.</summary>
    public string Settings => _file.Metadata.GetValueOrDefault(SettingsKey, "");

    /// <summary>Opens a file.</summary>
    /// <param name="path">A safetensors file.</param>
    /// <param name="network">The catalogue's name of the network; null for what the file says, as those written here do.</param>
    /// <exception cref="DamagedFileException">The file is not a safetensors file, or is cut short.</exception>
    /// <exception cref="UserErrorException">The file cannot be read, the network is not said, or its layers have no names in PyTorch's programs.</exception>
    public static PyTorchWeights Open(string path, string? network = null)
    {
        ArgumentNullException.ThrowIfNull(path);
        SafetensorsFile file = SafetensorsFile.Open(path);
        try
        {
            if (file.Metadata.GetValueOrDefault("format") is { } format && format.StartsWith("hpcbn", StringComparison.Ordinal))
            {
                throw new UserErrorException($"'{path}' is a checkpoint of hpcbn, which needs no import.");
            }

            string name = network ?? file.Metadata.GetValueOrDefault(ModelKey) ?? throw new UserErrorException(
                $"'{path}' does not say which network its weights are of; name it: {string.Join(", ", Networks)}.");
            return new PyTorchWeights(file, name, PyTorchLayout.Get(name));
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>The parameters and running statistics of a network, in single precision whatever they are in the file.</summary>
    /// <param name="network">A network of that name; with an auxiliary head, where that is to be read too.</param>
    /// <exception cref="PyTorchWeightsException">The file lacks tensors, has some of other shapes, or too many; lists all.</exception>
    public NetworkState Read(Network network)
    {
        NetworkShapes shapes = network.Infer(1, Math.Max(network.MinimumImageSize, _layout.ImageSize), Math.Max(network.MinimumImageSize, _layout.ImageSize));
        List<PyTorchProblem> problems = [];
        HashSet<string> known = new(StringComparer.Ordinal);
        var state = new NetworkState();
        foreach (NetworkParameter parameter in shapes.Parameters)
        {
            string name = NameOf(_layout, parameter);
            string? bias = parameter.Spec.Name == "running_mean" && Convolution(parameter.Node) is { } before ? $"{_layout.NameOf(before) ?? before.Name}.bias" : null;
            known.Add($"{_prefix}{bias}");
            if (Read(name, parameter.Spec.Shape, parameter.Node.Layer is BatchNormLayer or FullyConnectedLayer || parameter.Spec.Name == "bias", problems, known) is not { } values)
            {
                continue;
            }

            if (_layout.Bgr && ChannelOrder.IsFirst(parameter))
            {
                ChannelOrder.Exchange(values, parameter.Spec.Shape);
            }

            if (bias is not null && _file.Contains(_prefix + bias) && Read(bias, parameter.Spec.Shape, true, problems, known) is { } added)
            {
                // It goes into the mean that is subtracted: exactly where it is 0, as in what is written here.
                for (int i = 0; i < values.Length; i++)
                {
                    values[i] -= added[i];
                }
            }

            state.Take(parameter.Name, parameter.Spec.Shape, values);
        }

        foreach (SafetensorsTensor extra in _file.Tensors.Where(t => !known.Contains(t.Name) && !IsPassedOver(t.Name, network)))
        {
            problems.Add(new PyTorchProblem(UserErrorException.Excerpt(extra.Name), "nothing", UserErrorException.Excerpt(extra.ToString())));
        }

        return problems.Count == 0 ? state : throw new PyTorchWeightsException(Path, network.Name, problems);
    }

    /// <summary>Writes the weights of a network; the file is complete or not there. Values are those of the state, bit for bit.</summary>
    /// <returns>Tensors of the file.</returns>
    /// <exception cref="UserErrorException">PyTorch's programs have no names for the network or one of its layers, or the state is another network's.</exception>
    public static int Write(string path, Network network, NetworkState state, PyTorchOptions options)
    {
        ArgumentNullException.ThrowIfNull(path);
        ArgumentNullException.ThrowIfNull(network);
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(options);
        PyTorchLayout layout = PyTorchLayout.Get(network.Name);
        NetworkShapes shapes = network.Infer(1, options.ImageSize, options.ImageSize);
        string[] nameless = [.. shapes.Parameters.Select(p => p.Node).Distinct().Where(n => layout.NameOf(n) is null || n.Layer is BatchNormLayer { PerActivation: true }).Select(n => $"'{n.Name}'")];
        if (nameless.Length > 0)
        {
            throw new UserErrorException($"PyTorch's programs have no place for these layers of {network.Name}: {string.Join(", ", nameless)}. Write it as ONNX instead.");
        }

        List<(SafetensorsTensor Tensor, float[] Values)> tensors = [];
        foreach (NetworkParameter parameter in shapes.Parameters)
        {
            float[] values = state.Get(parameter.Name, parameter.Spec.Shape).ToArray();
            if (layout.Bgr && ChannelOrder.IsFirst(parameter))
            {
                ChannelOrder.Exchange(values, parameter.Spec.Shape);
            }

            bool flat = parameter.Node.Layer is BatchNormLayer or FullyConnectedLayer || parameter.Spec.Name == "bias";
            tensors.Add((new SafetensorsTensor(NameOf(layout, parameter), "F32", Extents(parameter.Spec.Shape, flat)), values));
            if (layout.ConvolutionBias && parameter.Node.Layer is ConvolutionLayer { Bias: false, OutputChannels: int outputs })
            {
                tensors.Add((new SafetensorsTensor($"{layout.NameOf(parameter.Node)}.bias", "F32", [outputs]), new float[outputs]));
            }
        }

        OutputFile.Replace(path, temporary => SafetensorsFile.Write(
            temporary, [.. tensors.Select(t => t.Tensor)], Metadata(network, layout, options), (i, bytes) => MemoryMarshal.AsBytes<float>(tensors[i].Values).CopyTo(bytes)));
        return tensors.Count;
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    /// <summary>The values of a tensor; null, and a problem, where it is not as it should be.</summary>
    private float[]? Read(string name, Shape shape, bool flat, List<PyTorchProblem> problems, HashSet<string> known)
    {
        name = _prefix + name;
        known.Add(name);
        long[] expected = Extents(shape, flat);
        string text = FormattableString.Invariant($"[{string.Join(", ", expected)}]");
        if (!_file.Contains(name))
        {
            problems.Add(new PyTorchProblem(name, text, "nothing"));
            return null;
        }

        // The oldest files of bn-inception have vectors of two extents, the first of them 1.
        SafetensorsTensor tensor = _file[name];
        IReadOnlyList<long> extents = expected.Length == 1 && tensor.Extents is [1, _] ? [tensor.Extents[1]] : tensor.Extents;
        if (!extents.SequenceEqual(expected) || tensor.DataType is not ("F32" or "F64" or "F16" or "BF16"))
        {
            problems.Add(new PyTorchProblem(name, $"{(extents.SequenceEqual(expected) ? "floating-point numbers " : "")}{text}", UserErrorException.Excerpt(tensor.ToString())));
            return null;
        }

        float[] values = new float[shape.Count];
        _file.Read(name, values);
        if (FiniteCheck.Describe(values) is { } found)
        {
            problems.Add(new PyTorchProblem(name, "finite numbers", found));
            return null;
        }

        if (name.EndsWith(".running_var", StringComparison.Ordinal) && Array.FindIndex(values, v => v < 0) is >= 0 and int place)
        {
            problems.Add(new PyTorchProblem(name, "no negative variance", FormattableString.Invariant($"{values[place]} as its value number {place}")));
            return null;
        }

        return values;
    }

    private bool IsPassedOver(string name, Network network) =>
        name.EndsWith(Counter, StringComparison.Ordinal)
        || (_layout.Auxiliary.Length > 0 && network.Losses.Count == 1 && name.StartsWith(_prefix + _layout.Auxiliary, StringComparison.Ordinal));

    private float[]? Channels(string key)
    {
        if (!_file.Metadata.TryGetValue(key, out string? text))
        {
            return null;
        }

        float[] values = [.. text.Split(',').Select(t => float.TryParse(t, NumberStyles.Float, CultureInfo.InvariantCulture, out float value) ? value : float.NaN)];
        return values.Length is 1 or 3 && values.All(v => float.IsFinite(v) && (v > 0 || key == MeanKey))
            ? values
            : throw new UserErrorException($"'{Path}' says that its '{key}' is '{UserErrorException.Excerpt(text)}'; expected one number{(key == MeanKey ? "" : " above 0")} or three, separated by commas. Use another file, or take that entry out of its metadata.");
    }

    private static IEnumerable<KeyValuePair<string, string>> Metadata(Network network, PyTorchLayout layout, PyTorchOptions options)
    {
        // "format" is what PyTorch's own readers look for; the words after it are Cadene's and timm's, in the order of the file's channels.
        yield return new("format", "pt");
        yield return new("input_space", layout.Bgr ? "BGR" : "RGB");
        yield return new("input_size", FormattableString.Invariant($"[3, {options.ImageSize}, {options.ImageSize}]"));
        yield return new("input_range", "[0, 255]");
        yield return new("mean", $"[{Join(layout.Bgr ? options.PixelMean.Reverse() : options.PixelMean, ", ")}]");
        yield return new("std", $"[{Join(layout.Bgr ? options.PixelDeviation.Reverse() : options.PixelDeviation, ", ")}]");
        yield return new("num_classes", network.Classes.ToString(CultureInfo.InvariantCulture));
        yield return new(ModelKey, network.Name);
        yield return new(SizeKey, options.ImageSize.ToString(CultureInfo.InvariantCulture));
        yield return new(MeanKey, Join(options.PixelMean, ","));
        yield return new(DeviationKey, Join(options.PixelDeviation, ","));
        if (options.Settings.Length > 0)
        {
            yield return new(SettingsKey, options.Settings);
        }

        if (options.ClassNames.Count > 0)
        {
            yield return new(ClassNameList.Key, ClassNameList.Write(options.ClassNames));
        }

        static string Join(IEnumerable<float> values, string separator) => string.Join(separator, values.Select(v => v.ToString(CultureInfo.InvariantCulture)));
    }

    /// <summary>The name of a parameter of ours in the file, without what is before all of them.</summary>
    private static string NameOf(PyTorchLayout layout, NetworkParameter parameter)
    {
        string suffix = parameter.Spec.Name switch
        {
            "weights" or "scale" => "weight",
            "bias" or "shift" => "bias",
            "running_variance" => "running_var",
            string other => other,
        };
        return $"{layout.NameOf(parameter.Node) ?? parameter.Node.Name}.{suffix}";
    }

    private static long[] Extents(Shape shape, bool flat) => !flat ? [shape.N, shape.C, shape.H, shape.W]
        : shape is { N: 1, Area: 1 } ? [shape.C] : [shape.N, shape.ImageCount];

    /// <summary>The convolution without a bias that a batch normalization reads.</summary>
    private static Node? Convolution(Node batchNorm) => batchNorm.Inputs[0] is { Layer: ConvolutionLayer { Bias: false } } node ? node : null;
}
