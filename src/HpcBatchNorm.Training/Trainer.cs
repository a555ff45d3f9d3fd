using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training.Checkpoints;
using HpcBatchNorm.Training.Configuration;
using HpcBatchNorm.Training.Runs;

namespace HpcBatchNorm.Training;

/// <summary>
/// Trains a network from a prepared run: steps, evaluations, checkpoints, metrics and the report. A run that is stopped and resumed gives the same
/// parameters, momenta and statistics, bit for bit, as one that was not: the data order is sought by step, and all random numbers are functions of
/// (seed, step). One thread; the steps themselves allocate nothing.
/// </summary>
/// <param name="run">What to do.</param>
/// <param name="observer">Told how it goes.</param>
/// <param name="sinks">Keep something of the run besides its metrics; none when null.</param>
public sealed class Trainer(PreparedRun run, ITrainingObserver observer, IReadOnlyList<RunSinkFactory>? sinks = null)
{
    private RunConfig _config = run.Config;

    /// <summary>Trains until the last step, or until <paramref name="stop"/> is cancelled: then the state is saved first.</summary>
    /// <exception cref="UserErrorException">Data, network, settings or checkpoint do not fit together; the message says what to change.</exception>
    public TrainingResult Run(CancellationToken stop = default)
    {
        bool grey = NetworkCatalog.Create(_config.Model, _config.Network).InputChannels == 1;
        if (_config.Data.Length == 0)
        {
            RefuseSample(grey);
            _config = _config with { Data = SampleData.Ensure(observer.Note) };
        }

        _config = _config with { Data = Path.GetFullPath(_config.Data), Output = RunFolder() };
        var indexing = new Notes(observer);
        using ImageDataset train = ImageDataset.Open(_config.Data, DatasetSplit.Train, indexing);
        using ImageDataset validation = ImageDataset.Open(_config.Data, DatasetSplit.Validation, indexing);
        CheckClasses(train, validation);
        WarnOfColours(grey, train);
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
        using var session = new TrainingSession(backend, network, freezing.OptionsAt(_config.Optimizer, run.Checkpoint?.Info.Step ?? 0));
        if (run.Checkpoint is Checkpoint checkpoint)
        {
            checkpoint.Restore(_config.Model, [.. session.State.Select(s => s.Tensor)], session.Write);
            if (session.LossScale is not null && checkpoint.Info.LossScale is not null)
            {
                session.LossScale = checkpoint.Info.LossScale;
            }
        }
        else if (_config.InitialCheckpoint.Length > 0)
        {
            InitialWeights.Load(session, _config, train.ClassNames, observer.Note);
        }

        using var loop = new TrainingLoop(_config, observer, network, session, train, validation, stepsPerEpoch, totalSteps, run.Checkpoint, sinks ?? []);
        return loop.Run(stop);
    }

    /// <summary>The run's folder: everything the run writes is in it.</summary>
    private string RunFolder()
    {
        if (_config.Output.Length == 0)
        {
            return RunDirectory.NewPath(_config, DateTime.Now);
        }

        return run.Checkpoint is not null || !CheckpointStore.Any(RunDirectory.CheckpointFolder(_config.Output))
            ? _config.Output
            : throw new UserErrorException($"'{_config.Output}' already holds a run. Set output to another folder, or resume '{_config.Output}'.");
    }

    /// <summary>The generated pictures differ in shape alone; grey or black and white they tell these networks nothing, which would stay at chance.</summary>
    private void RefuseSample(bool grey)
    {
        if (grey || _config.Binarize)
        {
            throw new UserErrorException(
                $"{_config.Model} {(_config.Binarize ? "on black and white images" : "on grey images")} learns nothing from the colour pictures that are generated where no data is set. Set data to the folder with MNIST's four files (train-images-idx3-ubyte.gz and so on, http://yann.lecun.com/exdb/mnist), or model to another network, such as inception-tiny.");
        }
    }

    private void WarnOfColours(bool grey, ImageDataset train)
    {
        if (grey && _config.Binarize && train.GreyPixels is null)
        {
            observer.Note(
                $"warning: {_config.Model} is made for MNIST's digits; '{train.Source}' ({train.Layout}) becomes grey, {_config.ImageSize} px, then black and white, which may leave little to learn. MNIST's four files as data are what it is for; binarize false keeps the shades.");
        }
    }

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
                $"'{run.Checkpoint!.Path}' was trained on {before.Count} other classes than the {train.ClassCount} of '{_config.Data}'. Set data to the data set of that run."));
        }
    }

    private sealed class Notes(ITrainingObserver observer) : IProgress<string>
    {
        public void Report(string value) => observer.Note(value);
    }
}
