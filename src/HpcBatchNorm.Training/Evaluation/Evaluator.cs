using System.Diagnostics;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Training.Evaluation;

/// <summary>Told each image's class probabilities, averaged over its views and the members of an ensemble.</summary>
/// <param name="image">Index of the image in the data set.</param>
/// <param name="label">Its class.</param>
/// <param name="probabilities">One value per class; valid during the call.</param>
public delegate void PredictionHandler(int image, int label, ReadOnlySpan<double> probabilities);

/// <summary>
/// Accuracy over every image of a data set exactly once, the last partial batch included. Class probabilities are averaged over the views of an image
/// and over the members of an ensemble (section 4.2.3). With running statistics, the default, batch normalization is folded (Algorithm 2) and an image's
/// result depends on it alone. With batch statistics it depends on its neighbours: on the batch size and the order of the images; the last partial
/// batch is normalised by its own images.
/// </summary>
/// <param name="backend">Where the networks run.</param>
/// <param name="dataset">The images.</param>
/// <param name="loaderOptions">Images per batch, and their views.</param>
/// <param name="sessionOptions">
/// Views per forward pass, a divisor of the views of a batch, and how they are normalised; <see cref="Checkpoint.Evaluate"/> takes both from a checkpoint.
/// </param>
/// <exception cref="ArgumentException">The batches do not fit, or batch statistics are asked for with several views.</exception>
public sealed class Evaluator(Backend backend, IImageSource dataset, LoaderOptions loaderOptions, InferenceOptions sessionOptions)
{
    private readonly int _views = loaderOptions.BatchSize * loaderOptions.Crops % sessionOptions.Batch == 0
        ? loaderOptions.BatchSize * loaderOptions.Crops
        : throw new ArgumentException(FormattableString.Invariant(
            $"The session's batch of {sessionOptions.Batch} does not divide the {loaderOptions.BatchSize} x {loaderOptions.Crops} views of a loaded batch."));

    /// <summary>Which of the networks' classes stand for the data set's; null when they are the same.</summary>
    public ClassMap? Classes { get; init; }

    /// <summary>Told every image's probabilities; may be null.</summary>
    public PredictionHandler? OnPrediction { get; init; }

    /// <summary>
    /// Processes that share the images; each calls <see cref="Run(IReadOnlyList{EnsembleMember}, IProgress{EvaluationProgress}?, CancellationToken)"/>. The first one counts
    /// for all and has the result; the others' results are empty.
    /// </summary>
    internal Communicator Ranks { get; init; } = Communicator.Alone;

    /// <summary>Evaluates one network or an ensemble.</summary>
    /// <param name="members">Networks for the same classes.</param>
    /// <param name="progress">Told after every batch, on this thread; may be null.</param>
    /// <param name="cancellationToken">Cancels between batches.</param>
    /// <exception cref="UserErrorException">There are no images, none could be read, one could not and the policy is to fail, or a label is of no class.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public EvaluationResult Run(
        IReadOnlyList<EnsembleMember> members, IProgress<EvaluationProgress>? progress = null, CancellationToken cancellationToken = default) =>
        Run(members, sharedArena: null, progress, cancellationToken);

    /// <summary>The same, in the memory of a session that is idle meanwhile.</summary>
    internal EvaluationResult Run(
        IReadOnlyList<EnsembleMember> members, DeviceMemory? sharedArena, IProgress<EvaluationProgress>? progress, CancellationToken cancellationToken)
    {
        bool independent = sessionOptions.Statistics == BatchNormStatistics.Running;
        if (!independent && _views != sessionOptions.Batch)
        {
            throw new ArgumentException("With batch statistics the views that are normalised together must be those of one loaded batch.");
        }

        if (dataset.Count < 1)
        {
            throw new UserErrorException($"'{dataset.Source}' has no images to evaluate on.");
        }

        long start = Stopwatch.GetTimestamp();
        ImageRange mine = ImageRange.Part(dataset, Ranks.Rank, Ranks.Size);
        using BatchLoader? loader = mine.Count > 0 ? new BatchLoader(Ranks.Size > 1 ? mine : dataset, loaderOptions) : null;
        using var sessions = new SessionGroup(backend, members, sessionOptions, sharedArena);
        if (sessions.Classes != (Classes?.NetworkClasses ?? dataset.ClassCount))
        {
            throw new ArgumentException($"The networks know {sessions.Classes} classes, '{dataset.Source}' has {dataset.ClassCount}.", nameof(members));
        }

        var tally = new Tally(dataset.ClassCount);
        Tally[] own = members.Count > 1 ? [.. members.Select(_ => new Tally(dataset.ClassCount))] : [];
        double[][] probabilities = [.. members.Select(_ => new double[_views * sessions.Classes])];
        PredictionExchange? exchange = Ranks.Size > 1 ? new PredictionExchange(Ranks, dataset.ClassCount) : null;
        int batches = exchange is null ? loader!.BatchesPerEpoch : MostBatches(loader);
        for (int i = 0; i < batches; i++)
        {
            if (exchange is null)
            {
                Evaluate(loader!, CountOne);
            }
            else
            {
                exchange.Share(i < (loader?.BatchesPerEpoch ?? 0) ? Try(() => Evaluate(loader!, exchange.Add)) : null, CountOne);
            }

            if (tally.Images > 0)
            {
                progress?.Report(new EvaluationProgress(
                    tally.Images, dataset.Count, (double)tally.Top1Images / tally.Images, (double)tally.Top5Images / tally.Images,
                    Stopwatch.GetElapsedTime(start).TotalSeconds));
            }
        }

        void CountOne(int image, int label, ReadOnlySpan<double> result)
        {
            tally.Add(label, result);
            OnPrediction?.Invoke(image, label, result);
        }

        void Evaluate(BatchLoader from, PredictionHandler tell)
        {
            using Batch batch = from.Next(cancellationToken);
            cancellationToken.ThrowIfCancellationRequested();
            int views = batch.Count * loaderOptions.Crops;
            if (independent || views == _views)
            {
                sessions.Forward(batch.Pixels, views, probabilities);
            }
            else if (views > 0)
            {
                using var rest = new SessionGroup(backend, members, sessionOptions with { Batch = views }, sessions.Arena);
                rest.Forward(batch.Pixels, views, probabilities);
            }

            Average(batch, mine.First, probabilities, own, tell);
        }

        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        return Ranks.Rank > 0 ? new EvaluationResult(0, double.NaN, double.NaN, double.NaN, seconds)
            : tally.Images > 0 ? tally.Result(dataset, seconds) with { Members = [.. own.Select(t => t.Result(dataset, seconds))] }
            : throw new UserErrorException($"'{dataset.Source}': none of {dataset.Count} images could be read.");
    }

    /// <summary>The most batches that any rank has, which all exchange: who has fewer sends nothing in the last ones.</summary>
    private int MostBatches(BatchLoader? loader)
    {
        double[] all = new double[Ranks.Size];
        Ranks.AllGather([loader?.BatchesPerEpoch ?? 0], all);
        return (int)all.Max();
    }

    /// <summary>What keeps a rank from its next batch, for all ranks to know; null where nothing does.</summary>
    private static Exception? Try(Action action)
    {
        try
        {
            action();
            return null;
        }
        catch (Exception error) when (error is OperationCanceledException or UserErrorException)
        {
            return error;
        }
    }

    /// <summary>Averages over views, then over members; each member is counted by itself in <paramref name="own"/> too, where there are several.</summary>
    private void Average(Batch batch, int first, double[][] probabilities, Tally[] own, PredictionHandler tell)
    {
        int classes = probabilities[0].Length / _views, crops = loaderOptions.Crops;
        Span<double> mean = new double[classes], mapped = new double[Classes?.ImageClasses ?? 0];
        for (int image = 0; image < batch.Count; image++)
        {
            int index = (Ranks.Size > 1 ? first : 0) + batch.Indices[image];
            if (batch.Labels[image] < 0 || batch.Labels[image] >= dataset.ClassCount)
            {
                throw new UserErrorException(FormattableString.Invariant(
                    $"Image '{dataset.Name(index)}' of '{dataset.Source}' has the label {batch.Labels[image]}; expected 0 to {dataset.ClassCount - 1}, a number of one of its {dataset.ClassCount} classes."));
            }

            mean.Clear();
            for (int m = 0; m < probabilities.Length; m++)
            {
                Span<double> views = probabilities[m].AsSpan(image * crops * classes, crops * classes), ofMember = views[..classes];
                for (int c = 0; c < classes; c++)
                {
                    double sum = 0;
                    for (int i = c; i < views.Length; i += classes)
                    {
                        sum += views[i];
                    }

                    ofMember[c] = sum / crops;
                    mean[c] += ofMember[c] / probabilities.Length;
                }

                if (own.Length > 0)
                {
                    own[m].Add(batch.Labels[image], OfDataset(ofMember, mapped));
                }
            }

            tell(index, batch.Labels[image], OfDataset(mean, mapped));
        }
    }

    private ReadOnlySpan<double> OfDataset(ReadOnlySpan<double> network, Span<double> mapped)
    {
        if (Classes is null)
        {
            return network;
        }

        Classes.Apply(network, mapped);
        return mapped;
    }

    /// <summary>The members' sessions. They run one after the other, so all use the first one's memory where it is large enough.</summary>
    private sealed class SessionGroup : IDisposable
    {
        private readonly List<ForwardSession> _sessions = [];
        private readonly float[] _probabilities;

        public SessionGroup(Backend backend, IReadOnlyList<EnsembleMember> members, InferenceOptions options, DeviceMemory? sharedArena)
        {
            try
            {
                foreach (EnsembleMember member in members)
                {
                    InferenceOptions own = options with
                    {
                        PixelMean = member.PixelMean ?? options.PixelMean,
                        PixelDeviation = member.PixelDeviation ?? options.PixelDeviation,
                    };
                    _sessions.Add(new ForwardSession(backend, member.Network, own, member.State, _sessions.Count == 0 ? sharedArena : Arena));
                }
            }
            catch
            {
                Dispose();
                throw;
            }

            _probabilities = new float[_sessions[0].Plan.Probabilities.Shape.Count];
            if (_sessions.Exists(session => session.Plan.Probabilities.Shape.C != Classes))
            {
                Dispose();
                throw new ArgumentException("The members of an ensemble know different numbers of classes.", nameof(members));
            }
        }

        public int Classes => _sessions[0].Plan.Probabilities.Shape.C;

        public DeviceMemory Arena => _sessions[0].Arena;

        /// <summary>Each member's probabilities of the first <paramref name="views"/> views.</summary>
        public void Forward(ReadOnlySpan<byte> pixels, int views, double[][] probabilities)
        {
            for (int m = 0; m < _sessions.Count; m++)
            {
                ForwardSession session = _sessions[m];
                int batch = session.Plan.Pixels.Shape.N, bytes = session.Plan.Pixels.Shape.ImageCount;
                for (int view = 0; view < views; view += batch)
                {
                    session.Forward(pixels.Slice(view * bytes, batch * bytes), _probabilities);
                    Span<double> to = probabilities[m].AsSpan(view * Classes, Math.Min(batch, views - view) * Classes);
                    for (int i = 0; i < to.Length; i++)
                    {
                        to[i] = _probabilities[i];
                    }
                }
            }
        }

        public void Dispose() => _sessions.ForEach(session => session.Dispose());
    }
}
