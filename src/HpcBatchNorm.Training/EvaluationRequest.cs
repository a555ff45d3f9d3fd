using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Training;

/// <summary>
/// An evaluation of checkpoints on the validation images of a data set. Everything not said is taken from the first checkpoint's configuration, so
/// that a checkpoint of a run evaluates to the accuracy the run printed.
/// </summary>
internal sealed record EvaluationRequest
{
    /// <summary>Checkpoints; several form an ensemble, whose class probabilities are averaged. They may be of different networks for the same classes.</summary>
    public required IReadOnlyList<string> Checkpoints { get; init; }

    /// <summary>Settings that replace the checkpoint's, by name: <c>data</c>, <c>batch-size</c>, <c>backend</c>, ...</summary>
    public IReadOnlyList<(string Name, string Value)> Flags { get; init; } = [];

    /// <summary>Views per image: 1, 10 or 144.</summary>
    public int Crops { get; init; } = 1;

    /// <summary>
    /// What batch normalization uses: the running (or population) statistics, as it should, or those of each batch, which only serves to show the difference
    /// and takes one view.
    /// </summary>
    public BatchNormStatistics Statistics { get; init; } = BatchNormStatistics.Running;

    /// <summary>
    /// For images of other classes than the network's: <see cref="ByName"/>, where they are some of its classes, or a file that <see cref="ClassMap.Read"/>
    /// reads. Empty when they are the same.
    /// </summary>
    public string ClassMapping { get; init; } = "";

    /// <summary>The <see cref="ClassMapping"/> of images of some of the network's classes.</summary>
    public const string ByName = "by-name";

    /// <summary>Evaluates.</summary>
    /// <param name="note">Told what is used.</param>
    /// <param name="progress">Told after every batch; may be null.</param>
    /// <param name="stop">Cancels between batches.</param>
    /// <exception cref="UserErrorException">A checkpoint or the data set cannot be used, or they do not fit together.</exception>
    public EvaluationResult Run(Action<string> note, Action<EvaluationProgress>? progress = null, CancellationToken stop = default)
    {
        if (Statistics == BatchNormStatistics.Batch && Crops > 1)
        {
            throw new UserErrorException("Batch statistics go with one crop: the views of one image are no random batch.");
        }

        List<Checkpoint> checkpoints = [];
        try
        {
            checkpoints.AddRange(Checkpoints.Select(Checkpoint.Open));
            foreach (Checkpoint found in checkpoints.Where((c, i) => c.Path != Checkpoints[i]))
            {
                note($"checkpoint {found.Path}");
            }

            RunConfig config = EvaluationSetup.Configure(checkpoints[0], Flags);
            using ImageDataset dataset = EvaluationSetup.Open(config, DatasetSplit.Validation, note);
            IReadOnlyList<string> own = checkpoints[0].Info.ClassNames;
            ClassMap? map = ClassMapping.Length == 0 ? null
                : ClassMapping == ByName ? ClassMap.ByName(own, dataset.ClassNames)
                : ClassMap.Read(ClassMapping, own, dataset.ClassNames);
            EnsembleMember[] members = [.. checkpoints.Select(c =>
                map is null ? c.ReadMember(dataset, config.ImageSize) : c.ReadMember(checkpoints[0], config.ImageSize))];
            if (Array.Find(members, m => m.Network.InputChannels != members[0].Network.InputChannels) is { } other)
            {
                throw new UserErrorException(FormattableString.Invariant(
                    $"{members[0].Network.Name} takes images of {members[0].Network.InputChannels} channels, {other.Network.Name} of {other.Network.InputChannels}; they cannot form an ensemble."));
            }

            using Backend backend = Backend.Create(config.Backend, config.BackendOptions);
            note(FormattableString.Invariant(
                $"{dataset.Source}: {dataset.Count} images, {dataset.ClassCount} classes; {Crops} view(s) of {config.ImageSize} px, batch {config.BatchSize}, {backend.Name}: {backend.Description}"));
            var evaluator = new Evaluator(
                backend, dataset, EvaluationSetup.Loading(config, members[0].Network, Crops), EvaluationSetup.Session(config, Crops) with { Statistics = Statistics })
            {
                Classes = map,
            };
            if (map is not null)
            {
                note(FormattableString.Invariant($"{map.Used} of the network's {map.NetworkClasses} classes stand for the data set's {dataset.ClassCount}; the others do not compete"));
            }

            return evaluator.Run(members, progress is null ? null : new Told<EvaluationProgress>(progress), stop);
        }
        finally
        {
            checkpoints.ForEach(c => c.Dispose());
        }
    }
}
