using System.Diagnostics;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification.Benchmarking;

/// <summary>What connects two nodes.</summary>
/// <param name="Gbits">Its rate, in 10^9 bits per second each way.</param>
/// <param name="LatencySeconds">From a message's sending to its arrival, whatever its length.</param>
internal sealed record NodeLink(double Gbits, double LatencySeconds)
{
    /// <summary>What is left of a rate for values: frames of 1538 bytes on the wire carry 1448 of a TCP stream.</summary>
    public const double Payload = 1448.0 / 1538;

    /// <summary>
    /// Latency unless told otherwise: a message over TCP, and half of the longest moment for which a rank whose exchanges stand still leaves the processor to the
    /// computation (0.1 ms).
    /// </summary>
    public const double UsualLatency = 80e-6;

    /// <summary>Bytes of values per second.</summary>
    public double BytesPerSecond => Gbits * 1e9 / 8 * Payload;
}

/// <summary>A step of data-parallel training, predicted.</summary>
/// <param name="Nodes">Nodes, of one rank each.</param>
/// <param name="StepSeconds">A step.</param>
/// <param name="CommunicationSeconds">Time in which averages are under way.</param>
/// <param name="HiddenShare">The share of it that the computation does not wait for.</param>
/// <param name="Efficiency">Images per second of all, over those of as many nodes by themselves.</param>
internal sealed record ScalingPrediction(int Nodes, double StepSeconds, double CommunicationSeconds, double HiddenShare, double Efficiency);

/// <summary>
/// What a step takes on several nodes, from what one node was measured to take. The plan for ranks says which gradients are sent off together and after which
/// operation. A bucket of b bytes is a reduce-scatter and an all-gather: 2(n-1)/n b bytes each way, two messages in a row, and three passes of the processor over the
/// bytes; buckets share the link and the processor, and their messages travel at the same time. Left out: nodes that differ in speed, which all wait for, switches that are shared, and processor time
/// that sending takes from computing.
/// </summary>
/// <param name="StepSeconds">A step on one node, which averages nothing.</param>
/// <param name="BackwardSeconds">When in it the averages must be there.</param>
/// <param name="Buckets">When in it each bucket is ready, and its bytes.</param>
/// <param name="HandlingSecondsPerByte">Time of the processor for a byte that is averaged.</param>
internal sealed record ScalingModel(double StepSeconds, double BackwardSeconds, IReadOnlyList<(double Ready, long Bytes)> Buckets, double HandlingSecondsPerByte)
{
    /// <summary>Bytes that a rank averages in a step.</summary>
    public long Bytes => Buckets.Sum(b => b.Bytes);

    /// <summary>The model of a measured training step.</summary>
    /// <param name="measured">The step on one node.</param>
    /// <param name="plan">The plan of the same step for several ranks.</param>
    /// <param name="handling">Time of the processor for a byte that is averaged.</param>
    public static ScalingModel Of(BenchmarkResult measured, Plan plan, double handling)
    {
        // Operations are timed one by one, which takes longer than a step as a whole.
        double scale = measured.MedianSeconds / measured.Rows.Sum(r => r.Seconds), time = 0;
        double? backward = null;
        List<(double, long)> buckets = [];
        int row = 0;
        foreach (Operation operation in plan.Operations)
        {
            if (operation is AllReduceStart start)
            {
                buckets.Add((time, start.Tensors.Sum(t => t.Bytes)));
            }
            else if (operation is AllReduceFinish)
            {
                backward ??= time;
            }
            else
            {
                BenchmarkRow timed = measured.Rows[row++];
                if (timed.Operation != operation.Kind || timed.Name != operation.Name)
                {
                    throw new InvalidOperationException($"The plan for ranks has {operation.Kind} '{operation.Name}' where {timed.Operation} '{timed.Name}' was timed.");
                }

                time += timed.Seconds * scale;
            }
        }

        return new ScalingModel(measured.MedianSeconds, backward ?? time, buckets, handling);
    }

    /// <summary>A step on <paramref name="nodes"/> nodes.</summary>
    public ScalingPrediction Predict(int nodes, NodeLink link)
    {
        if (nodes == 1)
        {
            return new ScalingPrediction(1, StepSeconds, 0, 1, 1);
        }

        // Stages of a bucket: copied together, sent in parts, added, sent to all, copied back. Odd ones take the link, even ones the processor, each one at a time
        // and in the order in which they come; a message that is on its way keeps the link from nobody.
        var next = new PriorityQueue<(int Bucket, int Stage), (double Time, int Bucket)>(Buckets.Select((b, k) => ((k, 0), (b.Ready, k))));
        double[] free = new double[2];
        double last = 0, busy = 0;
        while (next.TryDequeue(out (int Bucket, int Stage) at, out (double Time, int Bucket) since))
        {
            long bytes = Buckets[at.Bucket].Bytes;
            int what = at.Stage % 2;
            double takes = what == 1 ? (nodes - 1.0) / nodes * bytes / link.BytesPerSecond : bytes * HandlingSecondsPerByte / 3;
            free[what] = Math.Max(free[what], since.Time) + takes;
            double end = free[what] + (what == 1 ? link.LatencySeconds : 0);
            busy += Math.Max(0, end - Math.Max(last, since.Time));
            last = Math.Max(last, end);
            if (at.Stage < 4)
            {
                next.Enqueue((at.Bucket, at.Stage + 1), (end, at.Bucket));
            }
        }

        double waited = Math.Max(0, last - BackwardSeconds), step = StepSeconds + waited;
        return new ScalingPrediction(nodes, step, busy, busy > 0 ? Math.Clamp(1 - (waited / busy), 0, 1) : 1, StepSeconds / step);
    }

    /// <summary>Measures what a byte costs on this processor: values are copied together, added in double, and copied back.</summary>
    public static double MeasureHandling()
    {
        const int Count = 1 << 20;
        float[] values = new float[Count], other = new float[Count], together = new float[Count];
        double best = double.PositiveInfinity;
        for (int run = 0; run < 5; run++)
        {
            long start = Stopwatch.GetTimestamp();
            values.CopyTo(together, 0);
            for (int i = 0; i < Count; i++)
            {
                together[i] = (float)(((double)together[i] + other[i]) / 2);
            }

            together.CopyTo(values, 0);
            best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalSeconds);
        }

        return best / (Count * DataType.Float32.Bytes());
    }
}
