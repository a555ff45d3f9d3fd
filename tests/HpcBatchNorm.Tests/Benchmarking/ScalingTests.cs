using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Tests.Benchmarking;

/// <summary>Predictions of steps on more nodes and threads: the truth is worked out by hand.</summary>
public sealed class ScalingTests
{
    /// <summary>A link of 1 GB of values a second, without latency.</summary>
    private static readonly NodeLink Gigabyte = new(8 / NodeLink.Payload, 0);

    /// <summary>Two buckets of 0.1 and 0.4 GB, ready after 0.2 and 0.7 s of a step of 1 s whose backward pass takes 0.9 s.</summary>
    private static readonly ScalingModel Model = new(1, 0.9, [(0.2, 100_000_000), (0.7, 400_000_000)], 0);

    [Theory]
    [InlineData(1, 1, 0, 1)]
    [InlineData(2, 1.2, 0.5, 0.6)] // 2 * 1/2 of the bytes: 0.1 s from 0.2 on, 0.4 s from 0.7 to 1.1, of which the last 0.2 are waited for
    [InlineData(4, 1.4, 0.75, 0.35 / 0.75)] // 2 * 3/4: 0.15 s from 0.2 on, 0.6 s from 0.7 to 1.3
    public void Predict_BucketsTakeTheLinkInTurn(int nodes, double step, double communication, double hidden)
    {
        ScalingPrediction p = Model.Predict(nodes, Gigabyte);
        Assert.Equal((step, communication), (p.StepSeconds, p.CommunicationSeconds), Close);
        Assert.Equal((hidden, 1 / step), (p.HiddenShare, p.Efficiency), Close);
    }

    [Fact]
    public void Predict_LatencyAndHandling_CountForEachBucket()
    {
        // Two messages in a row of 50 ms each, and 1 ns a byte: 0.1 + 0.1 + 0.1 s, then 0.4 + 0.1 + 0.4 s from 0.7 on.
        ScalingPrediction p = (Model with { HandlingSecondsPerByte = 1e-9 }).Predict(2, Gigabyte with { LatencySeconds = 0.05 });
        Assert.Equal((1.7, 1.2), (p.StepSeconds, p.CommunicationSeconds), Close);
    }

    /// <summary>A slow link keeps the second bucket waiting for the first.</summary>
    [Fact]
    public void Predict_BusyLink_DelaysWhatComesLater()
    {
        // Ten times as slow: 1 s from 0.2 on, 4 s from 1.2 on.
        Assert.Equal(1 + 5.2 - 0.9, Model.Predict(2, new NodeLink(Gigabyte.Gbits / 10, 0)).StepSeconds, 1e-9);
    }

    /// <summary>A long link is waited for twice, not twice for every bucket: the second one's messages travel while the first one's do.</summary>
    [Fact]
    public void Predict_LongLink_IsSharedByMessagesOnTheirWay()
    {
        // Both ready after 0.2 s. Sent from 0.2 and 0.25 on, there at 1.25 and 1.3; answered from then on, there at 2.3 and 2.35.
        ScalingPrediction p = (Model with { Buckets = [(0.2, 100_000_000), (0.2, 100_000_000)] }).Predict(2, Gigabyte with { LatencySeconds = 1 });
        Assert.Equal((1 + 2.35 - 0.9, 2.15), (p.StepSeconds, p.CommunicationSeconds), Close);
    }

    /// <summary>The plan of a real network: bytes are those of its parameters, the first bucket leaves in the backward pass, all must be there before the update.</summary>
    [Fact]
    public void Model_OfAPlan_HasItsBucketsWhereTheyLeave()
    {
        using Backend reference = Backend.Create("reference");
        var options = new TrainingOptions { Batch = 2, Height = 32, Width = 32 };
        var request = new BenchmarkRequest { Network = "inception-tiny", Options = options };
        Plan plan = TrainingSession.PlanFor(reference.Traits, NetworkCatalog.Create("inception-tiny", new NetworkOptions()), options);
        BenchmarkRow[] rows = [.. plan.Operations.Select(o => new BenchmarkRow(o.Name, o.Kind, "", 1, 0, 0, null))];
        var measured = new BenchmarkResult
        {
            // Half of what the operations take one by one.
            StepSeconds = [rows.Length / 2.0],
            Batch = 2,
            Rows = rows,
            Spans = [],
            OutsideShare = 0,
            AllocatedBytesPerStep = 0,
            PlannedBytes = 0,
            PeakMemoryMb = 0,
            PeakDeviceMemoryMb = null,
            Limits = null,
        };

        ScalingModel model = request.ModelNodes(reference, measured);

        long parameters = plan.State.Where(s => s.Tensor.Role == TensorRole.Parameter).Sum(s => s.Tensor.Bytes);
        long statistics = plan.State.Where(s => s.Tensor.Role == TensorRole.RunningStatistic).Sum(s => s.Tensor.Bytes);
        Assert.Equal(parameters + statistics + sizeof(float), model.Bytes);
        Assert.Equal(plan.UpdateStart / 2.0, model.BackwardSeconds);
        Assert.InRange(model.Buckets[0].Ready, model.StepSeconds * 0.3, model.StepSeconds * 0.9);
        Assert.True(model.Buckets.Zip(model.Buckets.Skip(1)).All(b => b.First.Ready <= b.Second.Ready));
        Assert.InRange(ScalingModel.MeasureHandling(), 1e-12, 1e-7);
    }

    [Theory]
    [InlineData(1, 0.5, 2, 0)]
    [InlineData(1, 1, 2, 1)]
    [InlineData(1, 0.75, 2, 0.5)]
    [InlineData(8, 2.75, 4, 0.125)] // speed-up 2.909: (0.34375 - 0.25) / 0.75
    public void SerialShare_IsKarpAndFlatts(double one, double several, int threads, double expected) =>
        Assert.Equal(expected, ThreadScaling.SerialShare(one, several, threads), 1e-12);

    [Theory]
    [InlineData(64, 16, 1)]
    [InlineData(65, 16, 5 * 16 / 65.0)]
    [InlineData(7, 64, 64 / 7.0)]
    public void Imbalance_IsOfTheThreadWithMost(long units, int threads, double expected) => Assert.Equal(expected, ThreadScaling.Imbalance(units, threads), 1e-12);

    [Fact]
    public void Threads_AddSerialShareAndImbalance()
    {
        // 4 images x 2 blocks of 16 channels are 8 units: on 16 threads half of them idle. A quarter of the time is serial.
        BatchNormForward bn = new("bn", new BatchNormSpec(new Shape(4, 32, 3, 3)))
        {
            Src = new Tensor("src", new Shape(4, 32, 3, 3), TensorRole.Activation),
            Dst = new Tensor("dst", new Shape(4, 32, 3, 3), TensorRole.Activation),
            Scale = new Tensor("scale", Shape.Vector(32), TensorRole.Parameter),
            Shift = new Tensor("shift", Shape.Vector(32), TensorRole.Parameter),
        };

        IReadOnlyList<ThreadScalingRow> rows = ThreadScaling.Of([bn], [1], [0.625], 2, [4, 16], 16);

        Assert.Equal(["batch-norm forward", "all"], rows.Select(r => r.Operation));
        Assert.Equal(0.25, rows[0].SerialShare, 1e-12);
        Assert.Equal([1, 2], rows[0].Imbalance);
        Assert.Equal(1 / (0.25 + (0.75 / 4)), rows[0].Speedup[0], 1e-12);
        Assert.Equal(1 / (0.25 + (0.75 * 2 / 16)), rows[1].Speedup[1], 1e-12);
    }

    private static bool Close((double, double) x, (double, double) y) => Math.Abs(x.Item1 - y.Item1) < 1e-9 && Math.Abs(x.Item2 - y.Item2) < 1e-9;
}
