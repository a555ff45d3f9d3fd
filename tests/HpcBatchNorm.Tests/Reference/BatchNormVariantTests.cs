using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Reference;

/// <summary>Ghost batches against separate batches; batch renormalization against its formulas, against batch normalization and against finite differences.</summary>
public sealed class BatchNormVariantTests
{
    private static readonly Shape Six = new(6, 3, 2, 2);

    [Theory]
    [InlineData(false, 2)]
    [InlineData(true, 3)]
    [InlineData(false, 1)]
    public void Ghost_ForwardAndBackward_EqualSeparateBatches(bool perActivation, int ghost)
    {
        // Per activation, single images have no variance; convolutional form with one image has four values.
        Ops whole = new(new BatchNormSpec(Six, PerActivation: perActivation, Relu: true, GhostBatch: ghost), null);
        double[] x = ReferenceRun.Random(whole.Src, 1, -2, 2), dy = ReferenceRun.Random(whole.DiffDst, 2);
        double[] scale = ReferenceRun.Random(whole.Scale, 3), shift = ReferenceRun.Random(whole.Shift, 4);
        double[] runningMean = ReferenceRun.Random(whole.RunningMean, 5), runningVariance = ReferenceRun.Random(whole.RunningVariance, 6, 0.5, 2);
        using ReferenceRun all = whole.Run(x, dy, scale, shift, runningMean, runningVariance);

        int groups = 6 / ghost, image = Six.ImageCount, parameters = scale.Length;
        double[] diffScale = new double[parameters], diffShift = new double[parameters];
        for (int g = 0; g < groups; g++)
        {
            Ops part = new(new BatchNormSpec(Six with { N = ghost }, PerActivation: perActivation, Relu: true), null);
            Range images = (g * ghost * image)..((g + 1) * ghost * image), statistics = (g * parameters)..((g + 1) * parameters);
            using ReferenceRun one = part.Run(x[images], dy[images], scale, shift, runningMean, runningVariance);
            Assert.Equal(one[part.Dst], all[whole.Dst][images]);
            Assert.Equal(one[part.DiffSrc], all[whole.DiffSrc][images]);
            Assert.Equal(one[part.Mean], all[whole.Mean][statistics]);
            Assert.Equal(one[part.Variance], all[whole.Variance][statistics]);
            (runningMean, runningVariance) = (one[part.RunningMean], one[part.RunningVariance]); // each batch goes on from the last
            double[] ofScale = one[part.DiffScale], ofShift = one[part.DiffShift];
            for (int k = 0; k < parameters; k++)
            {
                diffScale[k] += ofScale[k];
                diffShift[k] += ofShift[k];
            }
        }

        Assert.Equal(runningMean, all[whole.RunningMean]);
        Assert.Equal(runningVariance, all[whole.RunningVariance]);
        ReferenceRun.AssertEqual(diffScale, all[whole.DiffScale]);
        ReferenceRun.AssertEqual(diffShift, all[whole.DiffShift]);
    }

    [Fact]
    public void Ghost_BatchThatDoesNotDivide_IsRefused()
    {
        ArgumentException error = Assert.Throws<ArgumentException>(() => new BatchNormSpec(Six, GhostBatch: 4).Validate("bn1"));
        Assert.Contains("'bn1': 6 images do not divide into ghost batches of 4", error.Message, StringComparison.Ordinal);
    }

    // x = 1, 3: mean 2, variance 1. Running mean 1, variance 0.25, epsilon 0: sigma ratio 2, shifted by 2 deviations.
    [Theory]
    [InlineData(3, 5, 2, 2)] // within the limits
    [InlineData(1.5, 0.5, 1.5, 0.5)] // clipped
    [InlineData(1, 0, 1, 0)] // batch normalization
    public void Renormalized_OneStep_MatchesHandComputation(float maximumR, float maximumD, double r, double d)
    {
        Ops ops = new(new BatchNormSpec(new Shape(2, 1, 1, 1), Epsilon: 0), new BatchRenormalization(maximumR, maximumD, 0, 0, 0));
        using ReferenceRun run = ops.Run([1, 3], [1, 0], [4], [10], [1], [0.25]);

        Assert.Equal([r], run[ops.R!]);
        Assert.Equal([d], run[ops.D!]);
        Assert.Equal([4 * (-1 * r + d) + 10, 4 * (1 * r + d) + 10], run[ops.Dst]);
        Assert.Equal([-1 * r + d], run[ops.DiffScale]); // sum of dy * (xhat * r + d)
        Assert.Equal([1.0], run[ops.DiffShift]);
        Assert.Equal([0.9 * 1 + 0.1 * 2], run[ops.RunningMean].Select(v => Math.Round(v, 7)));
    }

    [Fact]
    public void Renormalized_BelowTheRunningDeviation_IsClippedAtOneOverR()
    {
        Ops ops = new(new BatchNormSpec(new Shape(2, 1, 1, 1), Epsilon: 0), new BatchRenormalization(2, 0.25f, 0, 0, 0));
        using ReferenceRun run = ops.Run([1, 3], [1, 0], [1], [0], [12], [100]);

        Assert.Equal([0.5], run[ops.R!]);
        Assert.Equal([-0.25], run[ops.D!]); // -1 before clipping
    }

    [Fact]
    public void LimitsAt_RampsAsThePaperSays()
    {
        var limits = new BatchRenormalization();

        Assert.Equal((1, 0), limits.LimitsAt(0));
        Assert.Equal((1, 0), limits.LimitsAt(4999));
        Assert.Equal((1, 0), limits.LimitsAt(5000));
        Assert.Equal((1 + 2 * 10_000 / 35_000.0, 2.5), limits.LimitsAt(15_000));
        Assert.Equal((3, 5), limits.LimitsAt(40_000));
        Assert.Equal((3, 5), new BatchRenormalization(Start: 7, EndR: 0, EndD: 7).LimitsAt(7)); // at once
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Renormalized_WithinLimitsOfOneAndZero_IsBatchNormalizationBitForBit(bool relu)
    {
        Ops plain = new(new BatchNormSpec(Six, Relu: relu), null), renormalized = new(new BatchNormSpec(Six, Relu: relu), new BatchRenormalization(1, 0, 0, 0, 0));
        using ReferenceRun a = Random(plain), b = Random(renormalized);

        Assert.Equal(a[plain.Dst], b[renormalized.Dst]);
        Assert.Equal(a[plain.DiffSrc], b[renormalized.DiffSrc]);
        Assert.Equal(a[plain.DiffScale], b[renormalized.DiffScale]);
        Assert.Equal(a[plain.DiffShift], b[renormalized.DiffShift]);
        Assert.Equal(a[plain.RunningVariance], b[renormalized.RunningVariance]);
    }

    [Fact]
    public void Renormalized_Gradients_AgreeWithFiniteDifferencesAtConstantRAndD()
    {
        // With r and d held, the output is batch normalization with scale * r and shift + scale * d: that operation is differenced.
        Ops ops = new(new BatchNormSpec(Six), new BatchRenormalization(1.3f, 0.4f, 0, 0, 0));
        double[] x = ReferenceRun.Random(ops.Src, 1, -2, 2), dy = ReferenceRun.Random(ops.DiffDst, 2);
        double[] scale = ReferenceRun.Random(ops.Scale, 3), shift = ReferenceRun.Random(ops.Shift, 4);
        double[] runningMean = ReferenceRun.Random(ops.RunningMean, 5), runningVariance = ReferenceRun.Random(ops.RunningVariance, 6, 0.5, 2);
        using ReferenceRun run = ops.Run(x, dy, scale, shift, runningMean, runningVariance);
        double[] r = run[ops.R!], d = run[ops.D!];
        Assert.Contains(r, v => v is > 1 / 1.3f and < 1.3f); // neither all clipped nor none
        double Loss(double[] xs, double[] scales, double[] shifts)
        {
            Ops plain = new(new BatchNormSpec(Six), null);
            using ReferenceRun one = plain.Run(
                xs, dy, [.. scales.Select((v, k) => v * r[k])], [.. shifts.Select((v, k) => v + scales[k] * d[k])], runningMean, runningVariance);
            return ReferenceRun.Dot(one[plain.Dst], dy);
        }

        AssertGradient(run[ops.DiffSrc], x, v => Loss(v, scale, shift));
        AssertGradient(run[ops.DiffScale], scale, v => Loss(x, v, shift));
        AssertGradient(run[ops.DiffShift], shift, v => Loss(x, scale, v));
    }

    private static void AssertGradient(double[] gradient, double[] at, Func<double[], double> loss)
    {
        const double H = 1e-5;
        for (int i = 0; i < at.Length; i += Math.Max(1, at.Length / 5))
        {
            double[] plus = [.. at], minus = [.. at];
            plus[i] += H;
            minus[i] -= H;
            Assert.Equal((loss(plus) - loss(minus)) / (2 * H), gradient[i], 1e-7);
        }
    }

    private static ReferenceRun Random(Ops ops) => ops.Run(
        ReferenceRun.Random(ops.Src, 1, -2, 2), ReferenceRun.Random(ops.DiffDst, 2), ReferenceRun.Random(ops.Scale, 3), ReferenceRun.Random(ops.Shift, 4),
        ReferenceRun.Random(ops.RunningMean, 5), ReferenceRun.Random(ops.RunningVariance, 6, 0.5, 2));

    /// <summary>The two passes of one batch normalization in double precision.</summary>
    private sealed class Ops(BatchNormSpec spec, BatchRenormalization? renormalization)
    {
        public Tensor Src { get; } = ReferenceRun.Float64("src", spec.Src);

        public Tensor Dst { get; } = ReferenceRun.Float64("dst", spec.Src);

        public Tensor DiffDst { get; } = ReferenceRun.Float64("diffDst", spec.Src);

        public Tensor DiffSrc { get; } = ReferenceRun.Float64("diffSrc", spec.Src);

        public Tensor Scale { get; } = ReferenceRun.Float64("scale", spec.Parameters);

        public Tensor Shift { get; } = ReferenceRun.Float64("shift", spec.Parameters);

        public Tensor Mean { get; } = ReferenceRun.Float64("mean", spec.Statistics);

        public Tensor Variance { get; } = ReferenceRun.Float64("variance", spec.Statistics);

        public Tensor RunningMean { get; } = ReferenceRun.Float64("runningMean", spec.Parameters);

        public Tensor RunningVariance { get; } = ReferenceRun.Float64("runningVariance", spec.Parameters);

        public Tensor DiffScale { get; } = ReferenceRun.Float64("diffScale", spec.Parameters);

        public Tensor DiffShift { get; } = ReferenceRun.Float64("diffShift", spec.Parameters);

        public Tensor? R { get; } = renormalization is null ? null : ReferenceRun.Float64("r", spec.Statistics);

        public Tensor? D { get; } = renormalization is null ? null : ReferenceRun.Float64("d", spec.Statistics);

        public ReferenceRun Run(double[] x, double[] dy, double[] scale, double[] shift, double[] runningMean, double[] runningVariance)
        {
            ReferenceRun run = new(
                new BatchNormForward("bn", spec)
                {
                    Src = Src,
                    Dst = Dst,
                    Scale = Scale,
                    Shift = Shift,
                    Mean = Mean,
                    Variance = Variance,
                    RunningMean = RunningMean,
                    RunningVariance = RunningVariance,
                    AveragingFactor = 0.1f,
                    Renormalization = renormalization,
                    R = R,
                    D = D,
                },
                new BatchNormBackward("bn", spec)
                {
                    Src = Src,
                    Scale = Scale,
                    Shift = Shift,
                    Mean = Mean,
                    Variance = Variance,
                    DiffDst = DiffDst,
                    DiffSrc = DiffSrc,
                    DiffScale = DiffScale,
                    DiffShift = DiffShift,
                    R = R,
                    D = D,
                });
            (run[Src], run[DiffDst], run[Scale], run[Shift], run[RunningMean], run[RunningVariance]) = (x, dy, scale, shift, runningMean, runningVariance);
            run.Execute();
            return run;
        }
    }
}
