using System.Diagnostics;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Training;

/// <summary>
/// Trains a network on images: steps, evaluations, checkpoints, metrics. A run that is stopped and resumed gives the same parameters, momenta and
/// statistics, bit for bit, as one that was not: the data order is sought by step, and all random numbers are functions of (seed, step). One thread; the
/// steps themselves allocate nothing.
/// </summary>
/// <param name="network">Any network; it has as many outputs as there are classes.</param>
/// <param name="training">The images to train on.</param>
/// <param name="validation">The images to evaluate on, of the same classes; null for no evaluations.</param>
/// <param name="config">
/// How to train. Its model, network options and data path are not looked at: the arguments before stand for them. Everything the run writes goes to the
/// folder <see cref="RunConfig.Output"/>, which must be set.
/// </param>
/// <param name="observer">Told how it goes; may stop the run. Null for nobody.</param>
/// <param name="sinks">Keep something of the run besides its metrics; none when null.</param>
public sealed class Trainer(
    Network network, IImageSource training, IImageSource? validation, RunConfig config, ITrainingObserver? observer = null,
    IReadOnlyList<RunSinkFactory>? sinks = null)
{
    private RunConfig _config = config;
    private ITrainingObserver _observer = observer ?? new Nobody();

    /// <summary>The checkpoint to go on from, which stays the caller's; null for a new run.</summary>
    public Checkpoint? Resume { get; init; }

    /// <summary>Where to compute, which stays the caller's; null for the one that the configuration names.</summary>
    public Backend? Backend { get; init; }

    /// <summary>
    /// The processes that train together, which stay the caller's: every one of them makes a trainer with the same arguments and calls <see cref="Run(CancellationToken)"/>. The first one writes
    /// the run's files, tells observer and sinks, and its result has the evaluations.
    /// </summary>
    public Communicator Ranks { get; init; } = Communicator.Alone;

    /// <summary>True to begin a run again in a folder whose checkpoints are all damaged; they are kept aside.</summary>
    public bool BeginsAgain { get; init; }

    /// <summary>When the work on the run began, which its time limit counts from: a time stamp of <see cref="Stopwatch"/>.</summary>
    internal long Started { get; init; } = Stopwatch.GetTimestamp();

    /// <summary>
    /// True when the configuration's model is what the network was made of, so that the run's files keep it; otherwise they say the network's own name.
    /// </summary>
    internal bool ModelNamesNetwork { get; init; }

    /// <summary>Trains until the last step, or until <paramref name="cancellationToken"/> is cancelled or the observer asks for the end: then the state is saved first.</summary>
    /// <exception cref="UserErrorException">Images, network, settings or checkpoint do not fit together; the message says what to change.</exception>
    public TrainingResult Run(CancellationToken cancellationToken = default)
    {
        _observer = Ranks.Rank == 0 ? _observer : new Nobody();
        DataPosition position = Ranks.Together(Prepare);
        Placement? placement = Ranks.Size > 1 ? Placement.Of(Ranks) : null;
        if (Backend is not null)
        {
            return Run(Backend, position, placement, cancellationToken);
        }

        // A continued run computes with the same algorithms as before.
        BackendOptions options = _config.BackendOptions with { TuningFile = Path.Combine(_config.Output, "algorithms.json") };
        if (placement is not null && options.Threads == 0 && string.IsNullOrEmpty(Environment.GetEnvironmentVariable("OMP_NUM_THREADS")))
        {
            options = options with { Threads = placement.Share };
        }

        options = options with { Device = Ranks.LocalRank };
        using Backend backend = Ranks.Together(() => Backends.Backend.Create(_config.Backend, options));
        return Run(backend, position, placement, cancellationToken);
    }

    /// <summary>Completes the configuration and checks what can be checked before anything is made.</summary>
    private DataPosition Prepare()
    {
        _config = _config with
        {
            Model = ModelNamesNetwork ? _config.Model : network.Name,
            Output = RunFolder(),
            Optimizer = _config.Optimizer with { Ranks = Ranks.Size, Rank = Ranks.Rank },
        };
        TrainingSettings.Validate(_config);
        CheckClasses();
        return Position();
    }

    /// <summary>What a run would be: its sizes, memory and learning rates, from a plan with its kernels but without memory. Nothing is trained or written.</summary>
    /// <exception cref="UserErrorException">Images, network and settings do not fit together; the message says what to change.</exception>
    internal IReadOnlyList<(string Name, string Value)> Outline()
    {
        TrainingSettings.Validate(_config);
        CheckClasses();
        DataPosition position = Position();
        long stepsPerEpoch = position.StepsPerEpoch;
        long first = Resume?.Info.Step ?? 0, total = TotalSteps(position);
        using Backend? own = Backend is null ? Backends.Backend.Create(_config.Backend, _config.BackendOptions) : null;
        Backend backend = Backend ?? own!;
        var freezing = new BatchNormFreezing(_config, stepsPerEpoch);
        using var prepared = new PreparedPlan(backend, TrainingSession.PlanFor(backend.Traits, network, freezing.OptionsAt(_config.Optimizer, position.DataStep(first))));
        var schedule = new LearningRateSchedule(_config, stepsPerEpoch, Math.Max(1, position.DataStep(total)));
        const int Parts = 10;
        string[] rates = [.. Enumerable.Range(0, Parts + 1).Select(i => (total - 1) * i / Parts).Distinct().Select(step => FormattableString.Invariant($"{schedule.At(position.DataStep(step)):0.####e+0} at {step}"))];
        return
        [
            .. TrainingFacts.Of(_config, network, prepared, training, validation),
            ("", FormattableString.Invariant($"{prepared.StateBytes / 1e6:0} MB of it for the state, {prepared.ArenaBytes / 1e6:0} MB for a step; a checkpoint takes {prepared.Plan.State.Sum(s => s.Tensor.Bytes) / 1e6:0.#} MB")),
            ("learning rate", schedule.Description),
            ("", string.Join(", ", rates)),
            ("steps", FormattableString.Invariant($"{total} of {_config.ImagesPerStep} images, {position.Epoch(total):0.##} epochs of {stepsPerEpoch} steps")
                + (first > 0 ? FormattableString.Invariant($"; going on after step {first}") : "")),
            .. TrainingFacts.Of(_config, network, freezing),
        ];
    }

    /// <summary>Where in the images the run begins: at the first one, or where the checkpoint left off.</summary>
    private DataPosition Position()
    {
        long stepsPerEpoch = training.Count / _config.ImagesPerStep;
        if (stepsPerEpoch == 0)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{training.Source}' has {training.Count} training images, fewer than the {_config.ImagesPerStep} of a step; choose a smaller batch-size{(_config.Optimizer.Accumulate > 1 ? " or accumulate" : "")}{(Ranks.Size > 1 ? ", or fewer ranks" : "")}."));
        }

        if (Resume is { Info.Images: > 0 and int before } && before != training.Count)
        {
            _observer.Note(FormattableString.Invariant(
                $"warning: '{training.Source}' has {training.Count} training images, it had {before}: they are in another order from here on, so that of this epoch some are seen twice and others not."));
        }

        return Resume is null ? new DataPosition(stepsPerEpoch, 0) : DataPosition.Continue(Resume, _config, training.Count, _observer.Note);
    }

    private long TotalSteps(DataPosition position) =>
        _config.Steps > 0 ? _config.Steps : position.Offset + Math.Max(1, (long)Math.Round(_config.Epochs * position.StepsPerEpoch));

    private TrainingResult Run(Backend backend, DataPosition position, Placement? placement, CancellationToken stop)
    {
        ICollectives? before = backend.Collectives;
        backend.Collectives = Ranks.Collectives;
        try
        {
            return RunConnected(backend, position, placement, stop);
        }
        finally
        {
            backend.Collectives = before;
        }
    }

    private TrainingResult RunConnected(Backend backend, DataPosition position, Placement? placement, CancellationToken stop)
    {
        long totalSteps = TotalSteps(position);
        var freezing = new BatchNormFreezing(_config, position.StepsPerEpoch);
        using TrainingSession session = Ranks.Together(() => MakeSession(backend, freezing.OptionsAt(_config.Optimizer, position.DataStep(Resume?.Info.Step ?? 0))));
        Fingerprint.Compare(Ranks, _config, session, training, validation);
        Ranks.Timeout = _config.RankTimeout;
        using TrainingLoop loop = Ranks.Together(() => new TrainingLoop(
            _config, _observer, network, session, training, validation, position, totalSteps, Resume, sinks ?? [], Started, Ranks, placement));
        return loop.Run(stop);
    }

    /// <summary>The session with the state that the run begins or goes on with.</summary>
    private TrainingSession MakeSession(Backend backend, TrainingOptions options)
    {
        var session = new TrainingSession(backend, network, options);
        try
        {
            SetState(session);
            return session;
        }
        catch
        {
            session.Dispose();
            throw;
        }
    }

    private void SetState(TrainingSession session)
    {
        if (Resume is not null)
        {
            Resume.Restore(network.Name, [.. session.State.Select(s => s.Tensor)], session.Write, _observer.Note);
            if (session.LossScale is not null && Resume.Info.LossScale is not null)
            {
                session.LossScale = Resume.Info.LossScale;
            }
        }
        else if (_config.InitialCheckpoint.Length > 0)
        {
            InitialWeights.Load(session, _config, training.ClassNames, _observer.Note);
        }
    }

    /// <summary>The run's folder: everything the run writes is in it.</summary>
    private string RunFolder()
    {
        if (_config.Output.Length == 0)
        {
            throw new UserErrorException("A run writes its metrics and checkpoints to a folder of its own. Set output to the folder's path.");
        }

        string checkpoints = RunDirectory.CheckpointFolder(_config.Output);
        if (Resume is not null || !CheckpointStore.Any(checkpoints) || (BeginsAgain && !CheckpointStore.AnyNotDamaged(checkpoints)))
        {
            return _config.Output;
        }

        throw new UserErrorException($"'{_config.Output}' already holds a run. Set output to another folder, or resume '{_config.Output}'.");
    }

    private void CheckClasses()
    {
        NetworkClasses.Check(network, training.ClassCount, training.Source, _config.ImageSize);
        if (validation is not null && !training.ClassNames.SequenceEqual(validation.ClassNames))
        {
            string odd = training.ClassNames.Except(validation.ClassNames).Concat(validation.ClassNames.Except(training.ClassNames))
                .FirstOrDefault("their order");
            throw new UserErrorException(FormattableString.Invariant(
                $"'{training.Source}': training has {training.ClassCount} classes, validation {validation.ClassCount}; '{odd}' is only in one of them."));
        }

        if (validation is { Count: < 1 })
        {
            throw new UserErrorException($"'{validation.Source}' has no images to evaluate on. Give the trainer other validation images, or none (null).");
        }

        IReadOnlyList<string>? before = Resume?.Info.ClassNames;
        if (before is not null && !before.SequenceEqual(training.ClassNames))
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{Resume!.Path}' was trained on {before.Count} other classes than the {training.ClassCount} of '{training.Source}'. Set data to the data set of that run."));
        }
    }

    private sealed class Nobody : ITrainingObserver;
}
