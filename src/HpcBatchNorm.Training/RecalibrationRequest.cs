using System.Diagnostics;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Training;

/// <summary>
/// Replaces a checkpoint's running statistics by population statistics (<see cref="PopulationStatistics"/>, Algorithm 2), in a new checkpoint. Everything
/// not said is taken from the checkpoint's configuration: the mini-batches are those of its training, of the same size, varied and ordered in the same way.
/// </summary>
internal sealed record RecalibrationRequest
{
    /// <summary>The checkpoint; it is not changed.</summary>
    public required string Checkpoint { get; init; }

    /// <summary>Settings that replace the checkpoint's, by name: <c>data</c>, <c>batch-size</c>, <c>backend</c>, ...</summary>
    public IReadOnlyList<(string Name, string Value)> Flags { get; init; } = [];

    /// <summary>Mini-batches to average over. The paper gives no number; some thousand images are known to suffice (Wu and Johnson 2021).</summary>
    public int Batches { get; init; } = 200;

    /// <summary>The new checkpoint; empty means beside the old one, with <c>-population</c> after its name.</summary>
    public string Output { get; init; } = "";

    /// <summary>Measure the accuracy on the validation images before and after.</summary>
    public bool Evaluate { get; init; } = true;

    /// <summary>Computes the statistics and writes the new checkpoint.</summary>
    /// <param name="note">Told what is used and found.</param>
    /// <param name="batchDone">Told how many batches are done, after each; may be null.</param>
    /// <param name="progress">Told how the two evaluations go; may be null.</param>
    /// <param name="stop">Cancels between batches; no file is written then.</param>
    /// <exception cref="UserErrorException">The checkpoint or the data set cannot be used, or they do not fit together.</exception>
    public RecalibrationResult Run(
        Action<string> note, Action<int>? batchDone = null, Action<EvaluationProgress>? progress = null, CancellationToken stop = default)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(Batches);
        using Checkpoint checkpoint = Training.Checkpoint.Open(Checkpoint);
        string output = NewPath(checkpoint.Path);
        RunConfig config = EvaluationSetup.Configure(checkpoint, Flags);
        using ImageDataset train = EvaluationSetup.Open(config, DatasetSplit.Train, note);
        EnsembleMember member = checkpoint.ReadMember(train, config.ImageSize);
        using Backend backend = Backend.Create(config.Backend, config.BackendOptions);
        note(FormattableString.Invariant(
            $"{train.Source}: {Batches} batches of {config.BatchSize} training images, {config.ImageSize} px, {backend.Name}: {backend.Description}"));

        using ImageDataset? validation = Evaluate ? EvaluationSetup.Open(config, DatasetSplit.Validation, note) : null;
        EvaluationResult? before = Measure(member);
        long start = Stopwatch.GetTimestamp();
        NetworkState state = Compute(backend, config, train, member, batchDone, stop);
        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        EvaluationResult? after = Measure(member with { State = state });
        checkpoint.SaveCopy(output, state);
        return new RecalibrationResult(output, Batches, (long)Batches * config.BatchSize, seconds, before, after);

        EvaluationResult? Measure(EnsembleMember measured) => validation is null ? null
            : new Evaluator(backend, validation, EvaluationSetup.Loading(config, measured.Network), EvaluationSetup.Session(config))
                .Run([measured], progress is null ? null : new Told<EvaluationProgress>(progress), stop);
    }

    private NetworkState Compute(
        Backend backend, RunConfig config, ImageDataset train, EnsembleMember member, Action<int>? batchDone, CancellationToken stop)
    {
        InferenceOptions options = EvaluationSetup.Session(config) with { PixelMean = member.PixelMean, PixelDeviation = member.PixelDeviation };
        using var statistics = new PopulationStatistics(backend, member.Network, options, member.State);
        using var loader = new BatchLoader(train, TrainingSetup.Loading(config, member.Network) with { EndStep = Batches });
        for (int i = 1; i <= Batches; i++)
        {
            using Batch batch = loader.Next(stop);
            stop.ThrowIfCancellationRequested();
            statistics.Add(batch.Pixels);
            batchDone?.Invoke(i);
        }

        return statistics.ToState();
    }

    private string NewPath(string checkpoint)
    {
        string path = Output.Length > 0
            ? Output
            : Path.Combine(Path.GetDirectoryName(checkpoint) ?? "", $"{Path.GetFileNameWithoutExtension(checkpoint)}-population.safetensors");
        if (Path.GetFullPath(path) == Path.GetFullPath(checkpoint))
        {
            throw new UserErrorException($"'{path}' is the checkpoint itself, which is kept as it is; name another output.");
        }

        OutputFile.Check(path);
        return path;
    }
}

/// <summary>What a recalibration leaves behind.</summary>
/// <param name="Checkpoint">The new checkpoint.</param>
/// <param name="Batches">Mini-batches averaged over.</param>
/// <param name="Images">Images in them.</param>
/// <param name="Seconds">Time the statistics took, without the evaluations.</param>
/// <param name="Before">Accuracy with the running statistics; null when it was not asked for.</param>
/// <param name="After">Accuracy with the population statistics; null when it was not asked for.</param>
internal sealed record RecalibrationResult(string Checkpoint, int Batches, long Images, double Seconds, EvaluationResult? Before, EvaluationResult? After);
