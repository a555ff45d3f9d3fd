using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Evaluation;

/// <summary>
/// An evaluation of checkpoints on the validation images of a data set. Everything not said is taken from the first checkpoint's configuration, so
/// that a checkpoint of a run evaluates to the accuracy the run printed.
/// </summary>
public sealed record EvaluationRequest
{
    /// <summary>Checkpoints; several form an ensemble, whose class probabilities are averaged.</summary>
    public required IReadOnlyList<string> Checkpoints { get; init; }

    /// <summary>Settings that replace the checkpoint's, by name: <c>data</c>, <c>batch-size</c>, <c>backend</c>, ...</summary>
    public IReadOnlyList<(string Name, string Value)> Flags { get; init; } = [];

    /// <summary>Views per image: 1, 10 or 144.</summary>
    public int Crops { get; init; } = 1;

    /// <summary>Evaluates.</summary>
    /// <param name="note">Told what is used.</param>
    /// <param name="progress">Told images done and images in all; may be null.</param>
    /// <param name="stop">Cancels between batches.</param>
    /// <exception cref="UserErrorException">A checkpoint or the data set cannot be used, or they do not fit together.</exception>
    public EvaluationResult Run(Action<string> note, Action<long, long>? progress = null, CancellationToken stop = default)
    {
        List<Checkpoint> checkpoints = [];
        try
        {
            checkpoints.AddRange(Checkpoints.Select(Checkpoint.Open));
            TrainingConfig config = Configure(checkpoints[0]);
            if (config.Data.Length == 0)
            {
                throw new UserErrorException("The checkpoint does not say which data it was trained on; give --data.");
            }

            using ImageDataset dataset = ImageDataset.Open(config.Data, DatasetSplit.Validation, new Notes(note));
            EnsembleMember[] members = [.. checkpoints.Select(c => Member(c, config, dataset))];
            using Backend backend = Backend.Create(config.Backend, config.BackendOptions);
            note(FormattableString.Invariant(
                $"{dataset.Source}: {dataset.Count} images, {dataset.ClassCount} classes; {Crops} view(s) of {config.ImageSize} px, batch {config.BatchSize}, {backend.Name}: {backend.Description}"));
            var evaluator = new Evaluator(backend, dataset, EvaluationSetup.Loading(config, members[0].Network) with { Crops = Crops }, EvaluationSetup.Session(config));
            return evaluator.Run(members, sharedArena: null, progress, stop);
        }
        finally
        {
            checkpoints.ForEach(c => c.Dispose());
        }
    }

    private TrainingConfig Configure(Checkpoint checkpoint)
    {
        TrainingConfigBuilder builder = new TrainingConfigBuilder().AddYaml(checkpoint.Info.Config, checkpoint.Path);
        foreach ((string name, string value) in Flags)
        {
            builder.Set(name, value);
        }

        return builder.Config;
    }

    /// <summary>The network a checkpoint was trained with, which in an ensemble may differ from its neighbours'.</summary>
    private static EnsembleMember Member(Checkpoint checkpoint, TrainingConfig config, ImageDataset dataset)
    {
        IReadOnlyList<string> classes = checkpoint.Info.ClassNames;
        if (!classes.SequenceEqual(dataset.ClassNames))
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{checkpoint.Path}' knows {classes.Count} other classes ({classes[0]}, ...) than the {dataset.ClassCount} of '{dataset.Source}' ({dataset.ClassNames[0]}, ...)."));
        }

        TrainingConfig own = new TrainingConfigBuilder().AddYaml(checkpoint.Info.Config, checkpoint.Path).Config;
        Network network = NetworkCatalog.Create(own.Model, own.Network with { Classes = classes.Count });
        return new EnsembleMember(network, checkpoint.ReadNetworkState(network.Infer(1, config.ImageSize, config.ImageSize), own.Model));
    }

    private sealed class Notes(Action<string> note) : IProgress<string>
    {
        public void Report(string value) => note(value);
    }
}
