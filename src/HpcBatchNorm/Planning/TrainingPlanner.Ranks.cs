using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <content>
/// What several ranks add to a step: means over all of them. Gradients are averaged in buckets, in the order in which the backward pass makes them, so that
/// the first ones travel while the others are computed; the last bucket takes the running statistics and the loss with it. After it every rank has the
/// same state, and knows the loss of all images: a loss that is not finite on one rank is so on all, and all leave the update out.
/// </content>
internal sealed partial class TrainingPlanner
{
    /// <summary>
    /// Values of a bucket that is sent off: an eighth of all, so that most of them travel during the backward pass, but no less than 256 KB, where a message's
    /// latency would count, and no more than 8 MB.
    /// </summary>
    private const long SmallestBucket = 1 << 16, LargestBucket = 1 << 21;

    private readonly List<Tensor> _bucket = [];
    private readonly List<AllReduceStart> _averages = [];

    private long BucketValues => Math.Clamp(_learned.Sum(l => l.Parameter.Shape.Count) / 8, SmallestBucket, LargestBucket);

    private bool HasRanks => _options.Ranks > 1;

    /// <summary>True where gradients can be sent off as they are made: with several micro-batches only their sum is worth sending.</summary>
    private bool Overlaps => HasRanks && _options.Accumulate == 1;

    /// <summary>Parameter gradients that operations from <paramref name="first"/> on write go to the bucket; a full one is sent off.</summary>
    private void CollectGradients(int first)
    {
        if (!Overlaps)
        {
            return;
        }

        foreach (Tensor tensor in Operations.Skip(first).SelectMany(o => o.Writes).Where(t => t.Role == TensorRole.ParameterGradient).ToArray())
        {
            if (_learned.Exists(l => l.Gradient == tensor && !l.Rule.Frozen) && !_bucket.Contains(tensor))
            {
                _bucket.Add(tensor);
            }
        }

        if (_bucket.Sum(t => t.Shape.Count) >= BucketValues)
        {
            SendBucket("gradients");
        }
    }

    /// <summary>The end of a pass: what is still to be sent, and the wait for all of it. With micro-batches it is the loss alone.</summary>
    private void EmitPassAverage()
    {
        if (!HasRanks)
        {
            return;
        }

        SendNarrowGradients();
        if (Overlaps)
        {
            _bucket.AddRange(RunningStatistics());
        }

        _bucket.Add(_loss!);
        SendBucket(Overlaps && !_options.NarrowGradients ? "gradients" : "loss");
        FinishAverages();
    }

    /// <summary>The beginning of the update after several micro-batches.</summary>
    private void EmitUpdateAverage()
    {
        if (!HasRanks || Overlaps)
        {
            return;
        }

        foreach (Tensor sum in _learned.Where(l => !l.Rule.Frozen).Select(l => l.Gradient).Reverse())
        {
            _bucket.Add(sum);
            if (_bucket.Sum(t => t.Shape.Count) >= BucketValues)
            {
                SendBucket("gradients");
            }
        }

        SendNarrowGradients();
        _bucket.AddRange(RunningStatistics());
        SendBucket("gradients");
        FinishAverages();
    }

    /// <summary>
    /// What each rank has averaged over its own batches becomes the mean over all. Where it does not change, or follows from the batches of all, there is nothing to do.
    /// </summary>
    private IEnumerable<Tensor> RunningStatistics() => _normalization.Statistics == BatchNormStatistics.Batch && !JoinsAllRanks
        ? State.Where(s => s.Tensor.Role == TensorRole.RunningStatistic).Select(s => s.Tensor.Root).Distinct()
        : [];

    private bool JoinsAllRanks => _normalization.Synchronized && (_normalization.SynchronizedRanks == 0 || _normalization.SynchronizedRanks == _options.Ranks);

    /// <summary>What travels rounded goes before what does not.</summary>
    private void SendNarrowGradients()
    {
        if (_options.NarrowGradients)
        {
            SendBucket("gradients");
        }
    }

    private void SendBucket(string what)
    {
        if (_bucket.Count > 0)
        {
            var start = new AllReduceStart(FormattableString.Invariant($"all-reduce {_averages.Count} ({what})"), [.. _bucket])
            {
                Narrow = _options.NarrowGradients && _bucket.TrueForAll(t => t.Role is TensorRole.ParameterGradient or TensorRole.GradientSum),
            };
            Emit(start);
            _averages.Add(start);
            _bucket.Clear();
        }
    }

    private void FinishAverages()
    {
        foreach (AllReduceStart start in _averages.Where(a => !Operations.OfType<AllReduceFinish>().Any(f => f.Start == a)).ToArray())
        {
            Emit(new AllReduceFinish(start));
        }
    }

    /// <summary>The stream of a layer's dropout, another one on every rank: the same masks on different images would be half as random.</summary>
    private uint NextDropout() => RandomPurpose.Dropout + _dropouts++ + ((uint)_options.Rank << 8);
}
