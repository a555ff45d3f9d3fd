using System.Globalization;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Training;

/// <summary>
/// An import of another program's model as a checkpoint: of an ONNX model, with its network as a network file beside it, or of the weights of a network of the
/// catalogue in a safetensors file with PyTorch's names.
/// </summary>
internal sealed record ImportRequest
{
    /// <summary>The ONNX or safetensors file.</summary>
    public required string Model { get; init; }

    /// <summary>The checkpoint to write. The network of an ONNX model goes to a file of the same name that ends in <c>.json</c>.</summary>
    public required string Output { get; init; }

    /// <summary>Name of the network that weights are of; null for the one that the file says.</summary>
    public string? Network { get; init; }

    /// <summary>A file with the names of the classes, one a line, in the order of the model's output; null for those in the model, or <c>0</c>, <c>1</c>, ... where it has none.</summary>
    public string? ClassNames { get; init; }

    /// <summary>Name of the ONNX graph's value that is the output; its only output when null.</summary>
    public string? OutputName { get; init; }

    /// <inheritdoc cref="OnnxImportOptions.Bgr"/>
    public bool Bgr { get; init; }

    /// <summary>
    /// Settings that the model does not say, by name: <c>image-size</c>, <c>pixel-mean</c>, <c>pixel-deviation</c>; others that the checkpoint is to remember, such
    /// as <c>crop-fraction</c>; of weights also those of the network, such as <c>unpadded-pools</c>.
    /// </summary>
    public IReadOnlyList<(string Name, string Value)> Flags { get; init; } = [];

    /// <summary>Imports.</summary>
    /// <exception cref="OnnxImportException">The model has nodes that no layer can stand for; lists all of them.</exception>
    /// <exception cref="PyTorchWeightsException">The weights are of another network; lists all tensors that differ.</exception>
    /// <exception cref="UserErrorException">A file cannot be read or written, the images are not square, or there are more or fewer names than classes.</exception>
    public ImportResult Run()
    {
        OutputFile.Check(Output);
        if (Path.GetFullPath(Model) == Path.GetFullPath(Output))
        {
            throw new UserErrorException($"'{Output}' is the file that is imported, which would be lost. Name another file to write.");
        }

        return Path.GetExtension(Model).ToLowerInvariant() switch
        {
            ".safetensors" => ImportWeights(),
            ".pth" or ".pt" or ".bin" or ".ckpt" or ".tar" => throw new UserErrorException(
                $"'{Model}' holds Python objects, which only PyTorch can read. Write its tensors as safetensors with PyTorch; docs/import.md has the three lines."),
            ".json" => throw new UserErrorException(
                $"'{Model}' is no model; the index of weights that are spread over several files cannot be read. Write them as one safetensors file; docs/import.md has the lines."),
            _ => ImportModel(),
        };
    }

    private ImportResult ImportModel()
    {
        if (Network is not null)
        {
            throw new UserErrorException($"'{Model}' brings its own network: a network is named only for weights, in a file that ends in .safetensors.");
        }

        string networkFile = Path.ChangeExtension(Output, ".json");
        if (Path.GetFullPath(networkFile) == Path.GetFullPath(Output))
        {
            throw new UserErrorException($"'{Output}' is where the network goes, which would take the place of the checkpoint. Name the checkpoint otherwise: '{Path.ChangeExtension(Output, ".safetensors")}'.");
        }

        OutputFile.Check(networkFile);
        TrainingConfigBuilder builder = Settings(new TrainingConfigBuilder());
        if (Flags.FirstOrDefault(f => TrainingSettings.Find(f.Name).Group == SettingGroup.Network).Name is { } ofNetwork)
        {
            throw new UserErrorException($"'{Model}' brings its own network: {ofNetwork} has no meaning for it.");
        }

        ImportedModel model = OnnxImport.Read(Model, new OnnxImportOptions
        {
            Name = Path.GetFileNameWithoutExtension(Model),
            ImageSize = builder.IsSet("image-size") ? builder.Config.ImageSize : 0,
            PixelMean = builder.IsSet("pixel-mean") ? builder.Config.Optimizer.PixelMean : null,
            PixelDeviation = builder.IsSet("pixel-deviation") ? builder.Config.Optimizer.PixelDeviation : null,
            Output = OutputName,
            Bgr = Bgr,
        });
        if (model.Height != model.Width)
        {
            throw new UserErrorException($"'{Model}' is for images of {model.Height}x{model.Width}; checkpoints are of square ones. Set image-size if it takes any.");
        }

        RunConfig config = builder.Config with
        {
            Name = model.Network.Name,
            Model = networkFile,
            Optimizer = builder.Config.Optimizer with
            {
                Height = model.Height,
                Width = model.Width,
                PixelMean = model.PixelMean,
                PixelDeviation = model.PixelDeviation,
            },
        };
        ImportResult result = Save(config, model.Network, model.State, model.ClassNames) with { NetworkFile = networkFile, Values = model.Output, Notes = model.Notes };
        OutputFile.WriteText(networkFile, model.Network.ToJson());
        return result;
    }

    private ImportResult ImportWeights()
    {
        if (OutputName is not null)
        {
            throw new UserErrorException($"'{Model}' holds weights, which have no outputs to choose from; an output is named only for ONNX models.");
        }

        if (Bgr)
        {
            throw new UserErrorException($"'{Model}' holds weights of a network whose order of channels is known; it is named only for ONNX models.");
        }

        using PyTorchWeights weights = PyTorchWeights.Open(Model, Network);
        var builder = new TrainingConfigBuilder();
        if (weights.Settings.Length > 0)
        {
            builder.AddYaml(weights.Settings, $"{Model}, its settings");
        }

        Settings(builder);
        NetworkOptions options = builder.Config.Network with
        {
            Classes = weights.Classes,
            AuxiliaryHeads = builder.IsSet("auxiliary-heads") ? builder.Config.Network.AuxiliaryHeads : weights.HasAuxiliaryHeads,
            UnpaddedPools = builder.IsSet("unpadded-pools") ? builder.Config.Network.UnpaddedPools : weights.UnpaddedPools,
        };
        RunConfig config = builder.Config with { Name = weights.Network, Model = weights.Network, Network = options with { Classes = new NetworkOptions().Classes } };
        config = config with
        {
            Optimizer = config.Optimizer with
            {
                Height = builder.IsSet("image-size") ? config.ImageSize : weights.ImageSize,
                Width = builder.IsSet("image-size") ? config.ImageSize : weights.ImageSize,
                PixelMean = builder.IsSet("pixel-mean") ? config.Optimizer.PixelMean : weights.PixelMean,
                PixelDeviation = builder.IsSet("pixel-deviation") ? config.Optimizer.PixelDeviation : weights.PixelDeviation,
            },
        };
        Network network = NetworkCatalog.Create(weights.Network, options);
        List<string> notes = [];
        if (weights.HasAuxiliaryHeads && !options.AuxiliaryHeads)
        {
            notes.Add("the auxiliary classifier of the file is left out");
        }

        notes.Add($"to train on with it, give the run the same settings: {string.Join(", ", Differing(config))}");
        return Save(config, network, weights.Read(network), weights.ClassNames) with { Values = OnnxOutput.Logits, Notes = notes };
    }

    /// <summary>The settings of the network and of what happens to its images that are not at their defaults, as <c>name value</c>.</summary>
    private static IEnumerable<string> Differing(RunConfig config) => TrainingSettings.All
        .Where(s => (s.Name == "model" || !s.IsDefault(config)) && (s.Group == SettingGroup.Network || s.Name is "pixel-mean" or "pixel-deviation" or "crop-fraction"))
        .Select(s => $"{s.Name} {s.Get(config)}");

    private TrainingConfigBuilder Settings(TrainingConfigBuilder builder)
    {
        foreach ((string name, string value) in Flags)
        {
            builder.Set(name, value);
        }

        return builder;
    }

    private ImportResult Save(RunConfig config, Network network, NetworkState state, IReadOnlyList<string> ownNames)
    {
        IReadOnlyList<string> classes = ClassNames is string file ? ReadNames(file)
            : ownNames.Count > 0 ? ownNames
            : [.. Enumerable.Range(0, network.Classes).Select(i => i.ToString(CultureInfo.InvariantCulture))];
        if (classes.Count != network.Classes)
        {
            throw new UserErrorException(ClassNames is null
                ? $"'{Model}' names {classes.Count} classes but tells {network.Classes} apart. Name a file with the names of the classes, one a line, in the order of the model's output."
                : $"'{ClassNames}' names {classes.Count} classes, '{Model}' tells {network.Classes} apart. Write one name a line, in the order of the model's output.");
        }

        NetworkShapes shapes = network.Infer(1, config.ImageSize, config.ImageSize);
        Checkpoint.Save(
            Output, [.. shapes.Parameters.Select(p => new Tensor(p.Name, p.Spec.Shape, p.Spec.Kind == Layers.ParameterKind.RunningStatistic ? TensorRole.RunningStatistic : TensorRole.Parameter))],
            (tensor, values) => state.Get(tensor.Name, tensor.Shape).CopyTo(values),
            new CheckpointInfo
            {
                Step = 0,
                StepsPerEpoch = 1,
                ImagesPerStep = config.ImagesPerStep,
                Model = network.Name,
                Network = network.ToJson(),
                Config = TrainingConfigBuilder.ToYaml(config),
                ConfigHash = TrainingSettings.Hash(config),
                ClassNames = classes,
            });
        return new ImportResult
        {
            Path = Output,
            Network = network,
            ImageSize = config.ImageSize,
            PixelMean = config.Optimizer.PixelMean ?? [],
            PixelDeviation = config.Optimizer.PixelDeviation ?? [],
            Parameters = shapes.ParameterCount,
        };
    }

    private static string[] ReadNames(string path)
    {
        try
        {
            return [.. File.ReadLines(path).Select(l => l.Trim()).Where(l => l.Length > 0)];
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"The names of the classes cannot be read from '{path}': {error.Message}", error);
        }
    }
}

/// <summary>What <see cref="ImportRequest"/> wrote.</summary>
internal sealed record ImportResult
{
    /// <summary>The checkpoint.</summary>
    public required string Path { get; init; }

    /// <summary>The network's file; null for a network of the catalogue.</summary>
    public string? NetworkFile { get; init; }

    /// <summary>The network.</summary>
    public required Network Network { get; init; }

    /// <summary>Rows and columns of its images.</summary>
    public required int ImageSize { get; init; }

    /// <summary>Mean that is subtracted from pixels.</summary>
    public required IReadOnlyList<float> PixelMean { get; init; }

    /// <summary>Deviation that the difference is divided by.</summary>
    public required IReadOnlyList<float> PixelDeviation { get; init; }

    /// <summary>Learned values.</summary>
    public required long Parameters { get; init; }

    /// <summary>What the model gave before it became a network.</summary>
    public OnnxOutput Values { get; init; }

    /// <summary>What the reader of the result should know, a sentence each.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];
}
