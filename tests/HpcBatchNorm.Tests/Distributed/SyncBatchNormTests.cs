using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Tests.Distributed;

/// <summary>Batch normalization over ranks with unequal batches: the truth is the reference on the joined batch, whose kernel knows no ranks.</summary>
public class SyncBatchNormTests
{
    public static TheoryData<string, string> Cases
    {
        get
        {
            TheoryData<string, string> cases = [];
            foreach (string backend in Backend.Probe().Where(p => p.Available && p.Name != "cudnn").Select(p => p.Name))
            {
                foreach (string form in new[] { "plain", "relu", "residual", "two gradients", "per activation", "one position", "far from zero", "one image" })
                {
                    cases.Add(backend, form);
                }
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void EqualsTheJoinedBatch(string backend, string form)
    {
        int[] images = form == "one image" ? [1, 4] : [5, 1, 2];
        Data joined = Data.Make(form, images.Sum());
        Result expected = Compute("reference", joined, Communicator.Alone);

        Result[] actual = ThreadRanks.Run(images.Length, c => Compute(backend, joined.Slice(images[..c.Rank].Sum(), images[c.Rank]), c));

        foreach (Result rank in actual)
        {
            AssertClose("mean", expected.Mean, rank.Mean, 1e-6);
            AssertClose("variance", expected.Variance, rank.Variance, 1e-6);
            AssertClose("running mean", expected.RunningMean, rank.RunningMean, 1e-6);
            AssertClose("running variance", expected.RunningVariance, rank.RunningVariance, 1e-6);
            Assert.Equal(actual[0].Mean, rank.Mean);
            Assert.Equal(actual[0].RunningVariance, rank.RunningVariance);
        }

        double tolerance = form == "far from zero" ? 2e-3 : 1e-5;
        AssertClose("dst", expected.Dst, [.. actual.SelectMany(r => r.Dst)], tolerance);
        AssertClose("diffSrc", expected.DiffSrc, [.. actual.SelectMany(r => r.DiffSrc)], tolerance);
        AssertClose("diffResidual", expected.DiffResidual, [.. actual.SelectMany(r => r.DiffResidual)], 1e-6);

        // Each rank's own: their sum is that of the joined batch.
        AssertClose("diffScale", expected.DiffScale, Sum(actual, r => r.DiffScale), tolerance);
        AssertClose("diffShift", expected.DiffShift, Sum(actual, r => r.DiffShift), 1e-5);
    }

    [Fact]
    public void Operation_WithGroupsOrRunningStatistics_IsRefused()
    {
        using Backend reference = Backend.Create("reference");
        BatchNormForward forward = Data.Make("plain", 4).Forward(synchronized: true);
        Assert.Throws<ArgumentException>(() => new OperationRunner(reference, forward with { Statistics = BatchNormStatistics.Running }));
        Assert.Contains("connected to no others", Assert.Throws<InvalidOperationException>(() => new OperationRunner(reference, forward)).Message, StringComparison.Ordinal);
    }

    private static Result Compute(string name, Data data, Communicator ranks)
    {
        using Backend backend = Backend.Create(name, new BackendOptions { Threads = 1 });
        backend.Collectives = ranks.Collectives;
        BatchNormForward forward = data.Forward(ranks.Size > 1);
        BatchNormBackward backward = data.Backward(forward, ranks.Size > 1);
        using var runner = new OperationRunner(backend, forward, backward);
        foreach ((Tensor? tensor, double[] values) in new[]
                 {
                     (forward.Src, data.Src), (forward.Residual, data.Residual), (forward.Scale, data.Scale), (forward.Shift, data.Shift),
                     (backward.DiffDst, data.DiffDst), (backward.SecondDiffDst, data.Second), (forward.RunningMean!, data.RunningMean), (forward.RunningVariance!, data.RunningVariance),
                 })
        {
            if (tensor is not null)
            {
                runner.Write(tensor, values);
            }
        }

        runner.Execute();
        double[] Read(Tensor? tensor) => tensor is null ? [] : runner.ReadDouble(tensor);
        return new Result(
            Read(forward.Mean), Read(forward.Variance), Read(forward.RunningMean), Read(forward.RunningVariance), Read(forward.Dst), Read(backward.DiffSrc),
            Read(backward.DiffResidual), Read(backward.DiffScale), Read(backward.DiffShift));
    }

    private static double[] Sum(Result[] ranks, Func<Result, double[]> of) => [.. Enumerable.Range(0, of(ranks[0]).Length).Select(i => ranks.Sum(r => of(r)[i]))];

    private static void AssertClose(string what, double[] expected, double[] actual, double relative)
    {
        Assert.Equal(expected.Length, actual.Length);
        double largest = expected.Select(Math.Abs).DefaultIfEmpty(0).Max();
        for (int i = 0; i < expected.Length; i++)
        {
            Assert.True(Math.Abs(expected[i] - actual[i]) <= relative * Math.Max(1, largest), FormattableString.Invariant($"{what}[{i}] is {actual[i]:r}, expected {expected[i]:r}"));
        }
    }

    private sealed record Result(
        double[] Mean, double[] Variance, double[] RunningMean, double[] RunningVariance, double[] Dst, double[] DiffSrc, double[] DiffResidual, double[] DiffScale, double[] DiffShift);

    private sealed record Data(
        BatchNormSpec Spec, bool Two, double[] Src, double[] Residual, double[] DiffDst, double[] Second, double[] Scale, double[] Shift, double[] RunningMean, double[] RunningVariance)
    {
        public static Data Make(string form, int images)
        {
            var random = new Random(7);
            bool residual = form is "residual" or "two gradients";
            var src = new Shape(images, 16, form == "one position" ? 1 : 5, form == "one position" ? 1 : 3);
            var spec = new BatchNormSpec(src, 1e-3f, form == "per activation", Relu: form is "relu" or "residual" or "two gradients", residual);
            double offset = form == "far from zero" ? 1000 : 0.5;
            double[] Some(long count, double centre = 0) => [.. Enumerable.Range(0, (int)count).Select(_ => (double)(float)(centre + 2 * random.NextDouble() - 1))];
            long parameters = spec.Parameters.Count;
            return new Data(
                spec, form == "two gradients", Some(src.Count, offset), Some(src.Count), Some(src.Count), Some(src.Count), Some(parameters, 1.5), Some(parameters), Some(parameters),
                Some(parameters, 2));
        }

        /// <summary>Some of the images.</summary>
        public Data Slice(int first, int count)
        {
            int image = Spec.Src.ImageCount;
            double[] Of(double[] all) => all[(first * image)..((first + count) * image)];
            return this with { Spec = Spec with { Src = Spec.Src with { N = count } }, Src = Of(Src), Residual = Of(Residual), DiffDst = Of(DiffDst), Second = Of(Second) };
        }

        public BatchNormForward Forward(bool synchronized) => new("bn", Spec)
        {
            Src = Activation("src"),
            Dst = Activation("dst"),
            Scale = Parameter("scale"),
            Shift = Parameter("shift"),
            Residual = Spec.Residual ? Activation("residual") : null,
            Mean = Parameter("mean"),
            Variance = Parameter("variance"),
            RunningMean = Parameter("running_mean"),
            RunningVariance = Parameter("running_variance"),
            AveragingFactor = 0.25f,
            Synchronized = synchronized,
        };

        public BatchNormBackward Backward(BatchNormForward forward, bool synchronized) => new("bn", Spec)
        {
            Src = forward.Src,
            Dst = Spec.Residual ? forward.Dst : null,
            Scale = forward.Scale,
            Shift = forward.Shift,
            Mean = forward.Mean!,
            Variance = forward.Variance!,
            DiffDst = Activation("diff_dst"),
            SecondDiffDst = Two ? Activation("diff_dst2") : null,
            DiffSrc = Activation("diff_src"),
            DiffScale = Parameter("diff_scale"),
            DiffShift = Parameter("diff_shift"),
            DiffResidual = Spec.Residual ? Activation("diff_residual") : null,
            Synchronized = synchronized,
        };

        private Tensor Activation(string name) => new(name, Spec.Src, TensorRole.Activation, TensorLayout.Blocked);

        private Tensor Parameter(string name) => new(name, Spec.Parameters, TensorRole.Parameter, TensorLayout.Blocked);
    }
}
