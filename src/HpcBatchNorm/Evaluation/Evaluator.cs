using System.Diagnostics;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;

namespace HpcBatchNorm.Evaluation;

/// <summary>A network with its parameters and statistics. Several form an ensemble.</summary>
public sealed record EnsembleMember(Network Network, NetworkState State);

/// <summary>
/// Accuracy over every image of a data set exactly once, the last partial batch included. Class probabilities are averaged over the crops of an image
/// and over the members of an ensemble (section 4.2.3); batch normalization is folded (Algorithm 2), so an image's result depends on it alone.
/// </summary>
public sealed class Evaluator(Backend backend, ImageDataset dataset, LoaderOptions loaderOptions, InferenceOptions sessionOptions)
{
    private const int Top = 5;

    /// <summary>Evaluates one network or an ensemble.</summary>
    /// <param name="members">Networks for the same classes.</param>
    /// <param name="sharedArena">Memory of a session that is idle meanwhile, or null.</param>
    /// <param name="progress">Told images done and images in all, after every batch; may be null.</param>
    /// <param name="stop">Cancels between batches.</param>
    /// <exception cref="UserErrorException">No image could be read, or an image could not and the policy is to fail.</exception>
    public EvaluationResult Run(
        IReadOnlyList<EnsembleMember> members, DeviceMemory? sharedArena = null, Action<long, long>? progress = null, CancellationToken stop = default)
    {
        long start = Stopwatch.GetTimestamp();
        var sessions = new List<InferenceSession>();
        using var loader = new BatchLoader(dataset, loaderOptions);
        try
        {
            foreach (EnsembleMember member in members)
            {
                // Members run one after the other, so all use the first one's memory.
                sessions.Add(new InferenceSession(backend, member.Network, sessionOptions, member.State, sessions.Count == 0 ? sharedArena : sessions[0].Arena));
            }

            int classes = sessions[0].Plan.Probabilities.Shape.C;
            var score = new Score(classes, loaderOptions.Crops * members.Count);
            float[] probabilities = new float[sessionOptions.Batch * classes];
            float[] sum = new float[members.Count > 1 ? probabilities.Length : 0];
            for (int i = 0; i < loader.BatchesPerEpoch; i++)
            {
                using Batch batch = loader.Next(stop);
                stop.ThrowIfCancellationRequested();
                score.Add(batch, Forward(sessions, batch, probabilities, sum), classes);
                progress?.Invoke(score.Images, dataset.Count);
            }

            return score.Result(dataset, Stopwatch.GetElapsedTime(start).TotalSeconds);
        }
        finally
        {
            foreach (InferenceSession session in sessions)
            {
                session.Dispose();
            }
        }
    }

    /// <summary>The sum of all members' probabilities.</summary>
    private static ReadOnlySpan<float> Forward(List<InferenceSession> sessions, Batch batch, float[] probabilities, float[] sum)
    {
        sessions[0].Forward(batch.Pixels, probabilities);
        if (sessions.Count == 1)
        {
            return probabilities;
        }

        probabilities.CopyTo(sum, 0);
        foreach (InferenceSession session in sessions.Skip(1))
        {
            session.Forward(batch.Pixels, probabilities);
            for (int i = 0; i < sum.Length; i++)
            {
                sum[i] += probabilities[i];
            }
        }

        return sum;
    }

    /// <summary>Adds up the views of each image, which are adjacent, and counts when all are there.</summary>
    private sealed class Score(int classes, int views)
    {
        private readonly double[] _sum = new double[classes];
        private int _image = -1;
        private int _label;
        private long _top1, _topK;
        private double _loss;

        public long Images { get; private set; }

        public void Add(Batch batch, ReadOnlySpan<float> probabilities, int classes)
        {
            for (int i = 0; i < batch.Count; i++)
            {
                if (batch.Indices[i] != _image)
                {
                    Count();
                    (_image, _label) = (batch.Indices[i], batch.Labels[i]);
                }

                ReadOnlySpan<float> row = probabilities.Slice(i * classes, classes);
                for (int c = 0; c < classes; c++)
                {
                    _sum[c] += row[c];
                }
            }
        }

        public EvaluationResult Result(ImageDataset dataset, double seconds)
        {
            Count();
            return Images > 0
                ? new EvaluationResult(Images, (double)_top1 / Images, (double)_topK / Images, _loss / Images, seconds)
                : throw new UserErrorException($"'{dataset.Source}': none of {dataset.Count} images could be read.");
        }

        private void Count()
        {
            if (_image < 0)
            {
                return;
            }

            // The label's rank: classes that are more probable, and of equally probable ones those before it.
            int rank = 0;
            double own = _sum[_label];
            for (int c = 0; c < _sum.Length; c++)
            {
                rank += _sum[c] > own || (_sum[c] == own && c < _label) ? 1 : 0;
            }

            Images++;
            _top1 += rank == 0 ? 1 : 0;
            _topK += rank < Top ? 1 : 0;
            _loss -= Math.Log(Math.Max(own / views, float.Epsilon));
            Array.Clear(_sum);
            _image = -1;
        }
    }
}
