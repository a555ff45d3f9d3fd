using HpcBatchNorm.Interchange;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;

namespace HpcBatchNorm.Training;

/// <summary>What an export is written as.</summary>
internal enum ExportFormat
{
    /// <summary>The network with its parameters, for programs that compute.</summary>
    Onnx,

    /// <summary>The parameters under PyTorch's names (<see cref="PyTorchWeights"/>), for programs that have the network.</summary>
    Safetensors,
}

/// <summary>An export of a checkpoint's network, or of a network with its initial parameters, as ONNX, or of its parameters as safetensors.</summary>
internal sealed record ExportRequest
{
    /// <summary>Mean and deviation where none are set (<see cref="Planning.PlanOptions.PixelMean"/>).</summary>
    private const float UsualPixel = 128;

    /// <summary>The checkpoint, whose weight averages are taken where it has them; null for the initial parameters of the model that <see cref="Flags"/> name.</summary>
    public string? Checkpoint { get; init; }

    /// <summary>Settings that replace the checkpoint's or the defaults, by name: <c>image-size</c>, <c>model</c>, <c>seed</c>, ...</summary>
    public IReadOnlyList<(string Name, string Value)> Flags { get; init; } = [];

    /// <summary>Classes of a network without a checkpoint.</summary>
    public int Classes { get; init; } = 1000;

    /// <summary>What to write.</summary>
    public ExportFormat Format { get; init; }

    /// <inheritdoc cref="OnnxOptions.Fold"/>
    public bool Fold { get; init; }

    /// <inheritdoc cref="OnnxOptions.Input"/>
    public OnnxInput Input { get; init; }

    /// <summary>The file to write.</summary>
    public required string Output { get; init; }

    /// <summary>Exports.</summary>
    /// <exception cref="UserErrorException">The checkpoint cannot be used, or neither it nor a model is named.</exception>
    public ExportResult Run()
    {
        OutputFile.Check(Output);
        using Checkpoint? checkpoint = Checkpoint is string path ? Training.Checkpoint.Open(path) : null;
        if (checkpoint is not null && Path.GetFullPath(checkpoint.Path) == Path.GetFullPath(Output))
        {
            throw new UserErrorException($"'{Output}' is the checkpoint that is exported, which would be lost. Name another file to write.");
        }

        RunConfig config = checkpoint is not null ? EvaluationSetup.Configure(checkpoint, Flags) : Configure();
        IReadOnlyList<string> classes = checkpoint?.Info.ClassNames ?? [];
        Network network = checkpoint is not null && !Flags.Any(f => TrainingSettings.Find(f.Name).Group == SettingGroup.Network)
            ? checkpoint.ReadNetwork()
            : NetworkSource.Resolve(config.Model, config.Network with { Classes = checkpoint is not null ? classes.Count : Classes });
        if (classes.Count > 0)
        {
            NetworkClasses.Check(network, classes.Count, checkpoint!.Path, config.ImageSize);
        }

        NetworkShapes shapes = network.Infer(1, config.ImageSize, config.ImageSize);
        NetworkState state = checkpoint?.ReadNetworkState(shapes, network.Name) ?? NetworkState.Initial(shapes, config.Optimizer.Seed);
        if (Format == ExportFormat.Safetensors)
        {
            int tensors = PyTorchWeights.Write(Output, network, state, new PyTorchOptions
            {
                ImageSize = config.ImageSize,
                PixelMean = config.Optimizer.PixelMean ?? [UsualPixel],
                PixelDeviation = config.Optimizer.PixelDeviation ?? [UsualPixel],
                ClassNames = classes,
                Settings = NetworkSettings(config),
            });
            return new ExportResult(Output, network.Name, config.ImageSize, tensors, new FileInfo(Output).Length);
        }

        int nodes = OnnxModel.Write(Output, network, state, new OnnxOptions
        {
            Height = config.ImageSize,
            Width = config.ImageSize,
            Input = Input,
            Fold = Fold,
            PixelMean = config.Optimizer.PixelMean,
            PixelDeviation = config.Optimizer.PixelDeviation,
            ClassNames = classes,
        });
        return new ExportResult(Output, network.Name, config.ImageSize, nodes, new FileInfo(Output).Length);
    }

    /// <summary>The options of the network that are not at their defaults, as text that <see cref="TrainingConfigBuilder.AddYaml"/> reads.</summary>
    private static string NetworkSettings(RunConfig config) => string.Concat(TrainingSettings.All
        .Where(s => s.Group == SettingGroup.Network && s.Name is not ("model" or "initial-checkpoint" or "reset-classifier"))
        .Where(s => s.Name == "unpadded-pools" || !s.IsDefault(config))
        .Select(s => $"{s.Name}: {s.Get(config)}\n"));

    private RunConfig Configure()
    {
        if (!Flags.Any(f => f.Name == "model"))
        {
            throw new UserErrorException("Nothing to export: name a checkpoint, or set model (a name or a .json file) for a network with its initial parameters.");
        }

        var builder = new TrainingConfigBuilder();
        foreach ((string name, string value) in Flags)
        {
            builder.Set(name, value);
        }

        return builder.Config;
    }
}

/// <summary>What <see cref="ExportRequest"/> wrote.</summary>
/// <param name="Path">The file.</param>
/// <param name="Model">Name of the network.</param>
/// <param name="ImageSize">Side of the images it takes.</param>
/// <param name="Parts">Nodes of the graph, or tensors of the file.</param>
/// <param name="Bytes">Size of the file.</param>
internal sealed record ExportResult(string Path, string Model, int ImageSize, int Parts, long Bytes);
