using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification.Benchmarking;

/// <summary>How a kind of operation takes more threads.</summary>
/// <param name="Operation">The kind; <c>all</c> for the whole step.</param>
/// <param name="OneThreadSeconds">All operations of the kind on one thread.</param>
/// <param name="SeveralThreadsSeconds">The same on several.</param>
/// <param name="SerialShare">
/// What of the time on one thread did not become shorter, as Karp and Flatt (1990) measure it: (1/speed-up - 1/threads) / (1 - 1/threads). Below 0 where
/// several threads are more than so many times as fast (caches).
/// </param>
/// <param name="Imbalance">
/// For each number of threads asked for: the time of the thread with the most units of work over the mean, by counting units; 1 where all have as many.
/// </param>
/// <param name="Speedup">For each of them: the predicted speed-up over one thread, of serial share and imbalance.</param>
internal sealed record ThreadScalingRow(
    string Operation, double OneThreadSeconds, double SeveralThreadsSeconds, double SerialShare, IReadOnlyList<double> Imbalance, IReadOnlyList<double> Speedup);

/// <summary>
/// What more threads than this machine has would bring: the serial share of each kind of operation from one thread beside several, and how evenly its units of
/// work divide among more. It knows nothing of memory, which more cores than channels wait for, nor of nodes of it.
/// </summary>
internal static class ThreadScaling
{
    /// <summary>The table: a row for each kind, those that take longest first, and one for all.</summary>
    /// <param name="operations">The plan's operations, in the order of the rows.</param>
    /// <param name="one">Each operation's seconds on one thread.</param>
    /// <param name="several">The same on <paramref name="threads"/> threads, 2 or more.</param>
    /// <param name="threads">How many.</param>
    /// <param name="predicted">Numbers of threads to predict for.</param>
    /// <param name="channelBlock">Channels that lie together.</param>
    public static IReadOnlyList<ThreadScalingRow> Of(
        IReadOnlyList<Operation> operations, IReadOnlyList<double> one, IReadOnlyList<double> several, int threads, IReadOnlyList<int> predicted, int channelBlock)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(threads, 2);
        double[] total = new double[predicted.Count];
        List<ThreadScalingRow> rows = [];
        foreach (IGrouping<string, int> kind in Enumerable.Range(0, operations.Count).GroupBy(i => operations[i].Kind))
        {
            double seconds = kind.Sum(i => one[i]), serial = SerialShare(seconds, kind.Sum(i => several[i]), threads);
            double[] imbalance = [.. predicted.Select(p => kind.Sum(i => one[i] * Imbalance(Units(operations[i], channelBlock), p)) / seconds)];
            double[] takes = [.. predicted.Select((p, k) => seconds * Math.Min(1, Math.Max(0, serial) + ((1 - Math.Max(0, serial)) * imbalance[k] / p)))];
            for (int k = 0; k < total.Length; k++)
            {
                total[k] += takes[k];
            }

            rows.Add(new ThreadScalingRow(kind.Key, seconds, kind.Sum(i => several[i]), serial, imbalance, [.. takes.Select(t => seconds / t)]));
        }

        double all = one.Sum();
        return
        [
            .. rows.OrderByDescending(r => r.OneThreadSeconds),
            new ThreadScalingRow(
                "all", all, several.Sum(), SerialShare(all, several.Sum(), threads), [.. predicted.Select((_, k) => rows.Sum(r => r.OneThreadSeconds * r.Imbalance[k]) / all)],
                [.. total.Select(t => all / t)]),
        ];
    }

    /// <summary>Karp and Flatt's experimentally determined serial fraction.</summary>
    public static double SerialShare(double one, double several, int threads) => ((several / one) - (1.0 / threads)) / (1 - (1.0 / threads));

    /// <summary>The most units that one of <paramref name="threads"/> threads gets, over the mean.</summary>
    public static double Imbalance(long units, int threads) => (double)((units + threads - 1) / threads) * threads / units;

    /// <summary>
    /// Units of work that an operation is shared out in, as its kernels' loops are cut: images, blocks of channels, rows. What is cut by elements has as many
    /// units as elements.
    /// </summary>
    public static long Units(Operation operation, int channelBlock)
    {
        long Blocks(int channels) => (channels + channelBlock - 1) / channelBlock;
        long Planes(Shape shape) => shape.N * Blocks(shape.C);
        return operation switch
        {
            ConvolutionForward o => Planes(o.Spec.Dst) * o.Spec.Dst.H,
            ConvolutionBackwardData o => Planes(o.Spec.Src) * o.Spec.Src.H,

            // Blocks of filters, each over some of the images, whose parts are added at the end.
            ConvolutionBackwardWeights o => Blocks(o.Spec.OutputChannels) * Blocks(o.Spec.Src.C) * o.Spec.Src.N,
            BatchNormForward o => Planes(o.Spec.Src),
            BatchNormBackward o => Planes(o.Spec.Src),
            PoolingForward o => Pieces(Planes(o.Spec.Dst), o.Spec.Dst.H),
            PoolingBackward o => Pieces(Planes(o.Spec.Src), o.Spec.Src.H),
            InnerProductForward o => o.Spec.Src.N * Blocks(o.Spec.Dst.C),
            InnerProductBackwardData o => o.Spec.Src.N * Blocks(o.Spec.Src.C),
            InnerProductBackwardWeights o => Blocks(o.Spec.Dst.C) * Blocks(o.Spec.Src.C),
            SoftmaxCrossEntropy or Softmax or PrepareInput => operation.Writes.First().Shape.N,
            SgdUpdate or AdamUpdate or ClipGradients or AccumulateGradients or UpdateAverage or ConvertParameters => operation.Writes.Max(t => t.Shape.Count),
            _ => Math.Max(1, Planes(operation.Writes.First().Shape)),
        };

        // Bands of rows where there are few planes (native/kernels/pooling.inl).
        static long Pieces(long planes, int height) => planes * Math.Max(1, Math.Min((256 + planes - 1) / planes, (height + 3) / 4));
    }
}
