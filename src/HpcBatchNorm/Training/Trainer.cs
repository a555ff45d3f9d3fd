using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;

namespace HpcBatchNorm.Training;

/// <summary>
/// Trains a network from a prepared run: steps, evaluations, checkpoints, metrics and the report. A run that is stopped and resumed gives the same
/// parameters, momenta and statistics, bit for bit, as one that was not: the data order is sought by step, and all random numbers are functions of
/// (seed, step). One thread; the steps themselves allocate nothing.
/// </summary>
public sealed class Trainer(PreparedRun run, ITrainingObserver observer)
{
    private readonly TrainingConfig _config = run.Config;

    /// <summary>Trains until the last step, or until <paramref name="stop"/> is cancelled: then the state is saved first.</summary>
    /// <exception cref="UserErrorException">Data, network, settings or checkpoint do not fit together; the message says what to change.</exception>
    public TrainingResult Run(CancellationToken stop = default)
    {
        if (_config.Data.Length == 0)
        {
            _config.Data = SampleData.Ensure(observer.Note);
        }

        _config.Data = Path.GetFullPath(_config.Data);
        var indexing = new Notes(observer);
        using ImageDataset train = ImageDataset.Open(_config.Data, DatasetSplit.Train, indexing);
        using ImageDataset validation = ImageDataset.Open(_config.Data, DatasetSplit.Validation, indexing);
        CheckClasses(train, validation);
        Network network = NetworkCatalog.Create(_config.Model, _config.Network with { Classes = train.ClassCount });
        long stepsPerEpoch = train.Count / _config.ImagesPerStep;
        if (stepsPerEpoch == 0)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{train.Source}' has {train.Count} training images, fewer than the {_config.ImagesPerStep} of a step; choose a smaller batch-size{(_config.Optimizer.Accumulate > 1 ? " or accumulate" : "")}."));
        }

        long totalSteps = _config.Steps > 0 ? _config.Steps : Math.Max(1, (long)Math.Round(_config.Epochs * stepsPerEpoch));

        // A continued run computes with the same algorithms as before.
        using Backend backend = Backend.Create(_config.Backend, _config.BackendOptions with { TuningFile = Path.Combine(_config.Output, "algorithms.json") });
        var freezing = new BatchNormFreezing(_config, stepsPerEpoch);
        using var session = new TrainingSession(backend, network, freezing.OptionsAt(SessionOptions(), run.Checkpoint?.Info.Step ?? 0));
        if (run.Checkpoint is Checkpoint checkpoint)
        {
            checkpoint.Restore(_config.Model, [.. session.State.Select(s => s.Tensor)], session.Write);
        }
        else if (_config.InitialCheckpoint.Length > 0)
        {
            InitialWeights.Load(session, _config, train.ClassNames, observer.Note);
        }

        using var loop = new TrainingLoop(_config, observer, network, session, train, validation, stepsPerEpoch, totalSteps, run.Checkpoint);
        return loop.Run(stop);
    }

    private TrainingOptions SessionOptions() => _config.Optimizer with
    {
        Batch = _config.BatchSize,
        Height = _config.ImageSize,
        Width = _config.ImageSize,
        Seed = unchecked((ulong)_config.Seed),
    };

    private void CheckClasses(ImageDataset train, ImageDataset validation)
    {
        if (!train.ClassNames.SequenceEqual(validation.ClassNames))
        {
            string odd = train.ClassNames.Except(validation.ClassNames).Concat(validation.ClassNames.Except(train.ClassNames)).First();
            throw new UserErrorException(FormattableString.Invariant(
                $"'{_config.Data}': training has {train.ClassCount} classes, validation {validation.ClassCount}; '{odd}' is only in one of them."));
        }

        IReadOnlyList<string>? before = run.Checkpoint?.Info.ClassNames;
        if (before is not null && !before.SequenceEqual(train.ClassNames))
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{run.Checkpoint!.Path}' was trained on {before.Count} other classes than the {train.ClassCount} of '{_config.Data}'. Give the data set of that run with --data."));
        }
    }

    private sealed class Notes(ITrainingObserver observer) : IProgress<string>
    {
        public void Report(string value) => observer.Note(value);
    }
}
