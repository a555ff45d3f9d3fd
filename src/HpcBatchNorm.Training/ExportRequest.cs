using HpcBatchNorm.Interchange;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;

namespace HpcBatchNorm.Training;

/// <summary>An export of a checkpoint's network, or of a network with its initial parameters, as ONNX.</summary>
internal sealed record ExportRequest
{
    /// <summary>The checkpoint, whose weight averages are taken where it has them; null for the initial parameters of the model that <see cref="Flags"/> name.</summary>
    public string? Checkpoint { get; init; }

    /// <summary>Settings that replace the checkpoint's or the defaults, by name: <c>image-size</c>, <c>model</c>, <c>seed</c>, ...</summary>
    public IReadOnlyList<(string Name, string Value)> Flags { get; init; } = [];

    /// <summary>Classes of a network without a checkpoint.</summary>
    public int Classes { get; init; } = 1000;

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
/// <param name="Nodes">Nodes of the graph.</param>
/// <param name="Bytes">Size of the file.</param>
internal sealed record ExportResult(string Path, string Model, int ImageSize, int Nodes, long Bytes);
