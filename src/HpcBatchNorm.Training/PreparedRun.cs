using System.Diagnostics;
using System.Text;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Training;

/// <summary>
/// A request resolved: the configuration with the origin of every value, and the checkpoint to go on from. <see cref="Run"/> opens the data set and makes the
/// network that the configuration names, and has a <see cref="Trainer"/> do the rest.
/// </summary>
internal sealed class PreparedRun(TrainingConfigBuilder settings, Checkpoint? checkpoint) : IDisposable
{
    /// <summary>The configuration and where each value came from.</summary>
    public TrainingConfigBuilder Settings { get; } = settings;

    /// <summary>The configuration.</summary>
    public RunConfig Config => Settings.Config;

    /// <summary>The checkpoint to go on from, or null for a new run.</summary>
    public Checkpoint? Checkpoint { get; } = checkpoint;

    /// <summary>True when the run begins again where all checkpoints of an earlier start are damaged.</summary>
    internal bool BeginsAgain { get; init; }

    /// <summary>The processes that train together.</summary>
    internal Communicator Ranks { get; init; } = Communicator.Alone;

    /// <summary>Trains until the last step, or until <paramref name="stop"/> is cancelled or the observer asks for the end: then the state is saved first.</summary>
    /// <param name="observer">Told how it goes; may stop the run.</param>
    /// <param name="sinks">Keep something of the run besides its metrics; none when null.</param>
    /// <param name="stop">Ends the run.</param>
    /// <exception cref="UserErrorException">Data, network, settings or checkpoint do not fit together; the message says what to change.</exception>
    public TrainingResult Run(ITrainingObserver observer, IReadOnlyList<RunSinkFactory>? sinks = null, CancellationToken stop = default)
    {
        long started = Stopwatch.GetTimestamp();
        return WithTrainer(observer, sinks, started, trainer => trainer.Run(stop));
    }

    /// <summary>What the run would be, without training or writing anything: its sizes, memory and learning rates. A generated data set is made where none is set.</summary>
    /// <param name="observer">Told what is found on the way.</param>
    /// <exception cref="UserErrorException">Data, network, settings or checkpoint do not fit together; the message says what to change.</exception>
    public IReadOnlyList<(string Name, string Value)> Outline(ITrainingObserver observer) =>
        WithTrainer(observer, null, Stopwatch.GetTimestamp(), trainer => trainer.Outline());

    private T WithTrainer<T>(ITrainingObserver observer, IReadOnlyList<RunSinkFactory>? sinks, long started, Func<Trainer, T> use)
    {
        RunConfig config = Config;
        bool grey = MakeNetwork(config, config.Network.Classes).InputChannels == 1;
        if (config.Data.Length == 0)
        {
            RefuseSample(config, grey);
            config = config with { Data = Ranks.OneBeforeOthers(() => SampleData.Ensure(observer.Note)) };
        }

        config = config with { Data = Path.GetFullPath(config.Data) };
        var indexing = new Notes(observer);
        using ImageDataset train = Ranks.OneBeforeOthers(() => ImageDataset.Open(config.Data, DatasetSplit.Train, indexing));
        using ImageDataset validation = Ranks.OneBeforeOthers(() => ImageDataset.Open(config.Data, DatasetSplit.Validation, indexing));
        if (grey && config.Binarize && train.GreyPixels is null)
        {
            observer.Note(
                $"warning: {config.Model} is made for MNIST's digits; '{train.Source}' ({train.Layout}) becomes grey, {config.ImageSize} px, then black and white, which may leave little to learn. MNIST's four files as data are what it is for; binarize false keeps the shades.");
        }

        Network network = MakeNetwork(config, train.ClassCount);
        if (config.Output.Length == 0)
        {
            byte[] chosen = Encoding.UTF8.GetBytes(RunDirectory.NewPath(network.Name, config.Name, DateTime.Now));
            config = config with { Output = Encoding.UTF8.GetString(Ranks.Broadcast(chosen)) };
        }

        return use(new Trainer(network, train, validation, config, observer, sinks)
        {
            Resume = Checkpoint,
            ModelNamesNetwork = true,
            BeginsAgain = BeginsAgain,
            Started = started,
            Ranks = Ranks,
        });
    }

    /// <inheritdoc/>
    public void Dispose() => Checkpoint?.Dispose();

    /// <summary>
    /// The network that the configuration names. A run that goes on has the one that its checkpoint holds, whatever the catalogue or the file says now or
    /// wherever the file is, unless another one or the file is named anew.
    /// </summary>
    private Network MakeNetwork(RunConfig config, int classes)
    {
        bool held = Checkpoint is { Info.Network.Length: > 0 }, file = NetworkSource.IsFile(config.Model);
        if (held && (file ? Settings.Origin("model") != TrainingConfigBuilder.Flag : IsHeldBy(Checkpoint!, config)))
        {
            return Checkpoint!.ReadNetwork();
        }

        Network network = NetworkSource.Resolve(config.Model, config.Network with { Classes = classes });
        return !(held && file) || network.ToJson() == Checkpoint!.Info.Network ? network : throw new UserErrorException(
            $"'{config.Model}' describes another network than '{Checkpoint.Path}' holds. Begin a new run with it, or go on without naming the file.");
    }

    /// <summary>True when the checkpoint was trained with these settings of the network.</summary>
    private static bool IsHeldBy(Checkpoint checkpoint, RunConfig config)
    {
        RunConfig before = EvaluationSetup.Configure(checkpoint, []);
        return TrainingSettings.All.Where(s => s.Group == SettingGroup.Network).All(s => s.Get(before) == s.Get(config));
    }

    /// <summary>The generated pictures differ in shape alone; grey or black and white they tell these networks nothing, which would stay at chance.</summary>
    private static void RefuseSample(RunConfig config, bool grey)
    {
        if (grey || config.Binarize)
        {
            throw new UserErrorException(
                $"{config.Model} {(config.Binarize ? "on black and white images" : "on grey images")} learns nothing from the colour pictures that are generated where no data is set. Set data to the folder with MNIST's four files (train-images-idx3-ubyte.gz and so on, http://yann.lecun.com/exdb/mnist), or model to another network, such as inception-tiny.");
        }
    }

    private sealed class Notes(ITrainingObserver observer) : IProgress<string>
    {
        private readonly HashSet<string> _said = new(StringComparer.Ordinal);

        /// <summary>Training and validation images may be the same ones, of which everything is said twice.</summary>
        public void Report(string value)
        {
            if (_said.Add(value))
            {
                observer.Note(value);
            }
        }
    }
}
