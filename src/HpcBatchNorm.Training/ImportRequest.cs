using System.Globalization;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Training;

/// <summary>An import of an ONNX model as a checkpoint, and of its network as a network file beside it.</summary>
internal sealed record ImportRequest
{
    /// <summary>The ONNX file.</summary>
    public required string Model { get; init; }

    /// <summary>The checkpoint to write. The network goes to a file of the same name that ends in <c>.json</c>.</summary>
    public required string Output { get; init; }

    /// <summary>A file with the names of the classes, one a line, in the order of the model's output; null for those in the model, or <c>0</c>, <c>1</c>, ... where it has none.</summary>
    public string? ClassNames { get; init; }

    /// <summary>Name of the graph's value that is the output; its only output when null.</summary>
    public string? OutputName { get; init; }

    /// <summary>Settings that the model does not say, by name: <c>image-size</c>, <c>pixel-mean</c>, <c>pixel-deviation</c>; and others that the checkpoint is to remember, such as <c>crop-fraction</c>.</summary>
    public IReadOnlyList<(string Name, string Value)> Flags { get; init; } = [];

    /// <summary>Imports.</summary>
    /// <exception cref="OnnxImportException">The model has nodes that no layer can stand for; lists all of them.</exception>
    /// <exception cref="UserErrorException">A file cannot be read or written, the images are not square, or there are more or fewer names than classes.</exception>
    public ImportResult Run()
    {
        string networkFile = Path.ChangeExtension(Output, ".json");
        OutputFile.Check(Output);
        OutputFile.Check(networkFile);
        var builder = new TrainingConfigBuilder();
        foreach ((string name, string value) in Flags)
        {
            builder.Set(name, value);
        }

        ImportedModel model = OnnxImport.Read(Model, new OnnxImportOptions
        {
            Name = Path.GetFileNameWithoutExtension(Model),
            ImageSize = builder.IsSet("image-size") ? builder.Config.ImageSize : 0,
            PixelMean = builder.IsSet("pixel-mean") ? builder.Config.Optimizer.PixelMean : null,
            PixelDeviation = builder.IsSet("pixel-deviation") ? builder.Config.Optimizer.PixelDeviation : null,
            Output = OutputName,
        });
        if (model.Height != model.Width)
        {
            throw new UserErrorException($"'{Model}' is for images of {model.Height}x{model.Width}; checkpoints are of square ones. Set image-size if it takes any.");
        }

        Network network = model.Network;
        IReadOnlyList<string> classes = ClassNames is string file ? ReadNames(file)
            : model.ClassNames.Count > 0 ? model.ClassNames
            : [.. Enumerable.Range(0, network.Classes).Select(i => i.ToString(CultureInfo.InvariantCulture))];
        if (classes.Count != network.Classes)
        {
            throw new UserErrorException($"'{ClassNames}' names {classes.Count} classes, '{Model}' tells {network.Classes} apart. Write one name a line, in the order of the model's output.");
        }

        RunConfig config = builder.Config with
        {
            Name = network.Name,
            Model = networkFile,
            Optimizer = builder.Config.Optimizer with
            {
                Height = model.Height,
                Width = model.Width,
                PixelMean = model.PixelMean,
                PixelDeviation = model.PixelDeviation,
            },
        };
        NetworkShapes shapes = network.Infer(1, model.Height, model.Width);
        string json = network.ToJson();
        Checkpoint.Save(
            Output, [.. shapes.Parameters.Select(p => new Tensor(p.Name, p.Spec.Shape, p.Spec.Kind == Layers.ParameterKind.RunningStatistic ? TensorRole.RunningStatistic : TensorRole.Parameter))],
            (tensor, values) => model.State.Get(tensor.Name, tensor.Shape).CopyTo(values),
            new CheckpointInfo
            {
                Step = 0,
                StepsPerEpoch = 1,
                ImagesPerStep = config.ImagesPerStep,
                Model = network.Name,
                Network = json,
                Config = TrainingConfigBuilder.ToYaml(config),
                ConfigHash = TrainingSettings.Hash(config),
                ClassNames = classes,
            });
        OutputFile.WriteText(networkFile, json);
        return new ImportResult(Output, networkFile, model, shapes.ParameterCount);
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
/// <param name="Path">The checkpoint.</param>
/// <param name="NetworkFile">The network's file.</param>
/// <param name="Model">What was read.</param>
/// <param name="Parameters">Learned values.</param>
internal sealed record ImportResult(string Path, string NetworkFile, ImportedModel Model, long Parameters);
