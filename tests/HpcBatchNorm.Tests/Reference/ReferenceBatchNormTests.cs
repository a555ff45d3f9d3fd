using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using static HpcBatchNorm.Tests.Reference.ReferenceRun;

namespace HpcBatchNorm.Tests.Reference;

/// <summary>Numbers worked out by hand, finite differences, aliases and slices. The paper's identities are in <see cref="BatchNormIdentityTests"/>.</summary>
public sealed class ReferenceBatchNormTests
{
    /// <summary>Statistics, per activation, ReLU, residual, dst kept for the mask (with ReLU alone both ways; with a residual it must be).</summary>
    public static TheoryData<BatchNormStatistics, bool, bool, bool, bool> Variants { get; } =
    [
        .. from statistics in Enum.GetValues<BatchNormStatistics>()
           from perActivation in new[] { false, true }
           from fused in new[] { (false, false, false), (false, true, false), (true, false, false), (true, false, true), (true, true, true) }
           select new TheoryDataRow<BatchNormStatistics, bool, bool, bool, bool>(statistics, perActivation, fused.Item1, fused.Item2, fused.Item3),
    ];

    private static readonly BatchNormSpec Small = new(new Shape(2, 1, 1, 2), Epsilon: 4);

    [Fact]
    public void Forward_BatchStatistics_MatchHandComputation()
    {
        // x = 1, 3 | 5, 7: mean 4, biased variance (9+1+1+9)/4 = 5, sqrt(5 + 4) = 3, xhat = -1, -1/3, 1/3, 1; y = 3*xhat + 10.
        // Running, a = 1/4: mean 0.75*8 + 0.25*4 = 7; variance 0.75*2 + 0.25*(5 * 4/3) = 19/6.
        BatchNormCase c = new(Small, averagingFactor: 0.25f);
        using ReferenceRun run = new(c.Forward);
        run[c.Src] = [1, 3, 5, 7];
        run[c.Scale] = [3];
        run[c.Shift] = [10];
        run[c.RunningMean!] = [8];
        run[c.RunningVariance!] = [2];
        run.Execute();
        AssertEqual([7, 9, 11, 13], run[c.Dst]);
        AssertEqual([4], run[c.Mean]);
        AssertEqual([5], run[c.Variance]);
        AssertEqual([7], run[c.RunningMean!]);
        AssertEqual([19.0 / 6], run[c.RunningVariance!]);
    }

    [Fact]
    public void Backward_BatchStatistics_MatchesHandComputation()
    {
        // As above with g = 1, 0, 0, 0: dx_i = scale/3 * (g_i - mean(g) - xhat_i * mean(g*xhat)), mean(g) = 1/4, mean(g*xhat) = -1/4.
        BatchNormCase c = new(Small);
        using ReferenceRun run = new(c.Forward, c.Backward);
        run[c.Src] = [1, 3, 5, 7];
        run[c.Scale] = [3];
        run[c.Shift] = [10];
        run[c.DiffDst] = [1, 0, 0, 0];
        run.Execute();
        AssertEqual([1.0 / 2, -1.0 / 3, -1.0 / 6, 0], run[c.DiffSrc]);
        AssertEqual([-1], run[c.DiffScale]);
        AssertEqual([1], run[c.DiffShift]);
    }

    [Fact]
    public void Backward_TwoContributions_IsThatOfTheirSum()
    {
        // As above, g = 1, 0, 0, 0 in two parts.
        BatchNormCase c = new(Small with { Residual = true });
        Tensor second = Float64("second", c.DiffDst.Shape);
        using ReferenceRun run = new(c.Forward, c.Backward with { SecondDiffDst = second });
        run[c.Src] = [1, 3, 5, 7];
        run[c.Scale] = [3];
        run[c.Shift] = [10];
        run[c.DiffDst] = [3, 1, -2, 0];
        run[second] = [-2, -1, 2, 0];
        run.Execute();
        AssertEqual([1.0 / 2, -1.0 / 3, -1.0 / 6, 0], run[c.DiffSrc]);
        AssertEqual([-1], run[c.DiffScale]);
        AssertEqual([1], run[c.DiffShift]);
        Assert.Equal([1, 0, 0, 0], run[c.DiffResidual!]);
    }

    [Fact]
    public void Forward_RunningStatistics_AreConstantsAndStay()
    {
        // mean 1, variance 12, sqrt(12 + 4) = 4: y = 2*(x - 1)/4 - 1 = 0.5*x - 1.5, then ReLU.
        BatchNormCase c = new(Small with { Relu = true }, BatchNormStatistics.Running);
        using ReferenceRun run = new(c.Forward);
        run[c.Src] = [1, 3, 5, 7];
        run[c.Scale] = [2];
        run[c.Shift] = [-1];
        run[c.RunningMean!] = [1];
        run[c.RunningVariance!] = [12];
        run.Execute();
        AssertEqual([0, 0, 1, 2], run[c.Dst]);
        Assert.Equal([1], run[c.RunningMean!]);
        Assert.Equal([12], run[c.RunningVariance!]);
    }

    [Fact]
    public void Forward_PerActivation_HasItsOwnStatisticsAtEveryPosition()
    {
        // Position 0 sees 1, 5 (mean 3, variance 4), position 1 sees 3, 4 (mean 3.5, variance 0.25); epsilon 0.
        // Unbiased: 4 * 2/1 = 8 and 0.5.
        BatchNormCase c = new(Small with { Epsilon = 0, PerActivation = true }, averagingFactor: 1);
        using ReferenceRun run = new(c.Forward);
        run[c.Src] = [1, 3, 5, 4];
        run[c.Scale] = [1, 10];
        run[c.Shift] = [0, 100];
        run.Execute();
        AssertEqual([-1, 90, 1, 110], run[c.Dst]);
        AssertEqual([3, 3.5], run[c.RunningMean!]);
        AssertEqual([8, 0.5], run[c.RunningVariance!]);
    }

    [Fact]
    public void Forward_ResidualAndRelu_AddsBeforeClamping()
    {
        // xhat = -1, -1/3, 1/3, 1 as above; y = max(0, 3*xhat + residual).
        BatchNormCase c = new(Small with { Relu = true, Residual = true });
        using ReferenceRun run = new(c.Forward);
        run[c.Src] = [1, 3, 5, 7];
        run[c.Scale] = [3];
        run[c.Shift] = [0];
        run[c.Residual!] = [4, 0.5, -2, -1];
        run.Execute();
        AssertEqual([1, 0, 0, 2], run[c.Dst]);
    }

    [Fact]
    public void Forward_LargeOffset_KeepsTheVariance()
    {
        // mean 1e8, values 1e8 +- 1: E[x^2] - E[x]^2 would lose everything (1e16 has no digit below 2 in double).
        BatchNormCase c = new(new BatchNormSpec(new Shape(4, 1, 1, 1), Epsilon: 0));
        using ReferenceRun run = new(c.Forward);
        run[c.Src] = [1e8 + 1, 1e8 - 1, 1e8 + 1, 1e8 - 1];
        run[c.Scale] = [1];
        run[c.Shift] = [0];
        run.Execute();
        Assert.Equal([1], run[c.Variance]);
        Assert.Equal([1, -1, 1, -1], run[c.Dst]);
    }

    [Theory]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(5)]
    public void Forward_RunningVariance_IsUnbiased(int m)
    {
        // 0, 1, .., m-1 has the sample variance m(m+1)/12.
        BatchNormCase c = new(new BatchNormSpec(new Shape(m, 1, 1, 1)), averagingFactor: 1);
        using ReferenceRun run = new(c.Forward);
        run[c.Src] = [.. Enumerable.Range(0, m).Select(i => (double)i)];
        run[c.Scale] = [1];
        run.Execute();
        AssertEqual([m * (m + 1) / 12.0], run[c.RunningVariance!]);
        AssertEqual([(m * m - 1) / 12.0], run[c.Variance]);
    }

    [Theory]
    [MemberData(nameof(Variants))]
    public void Backward_AnyVariant_MatchesFiniteDifferences(BatchNormStatistics statistics, bool perActivation, bool relu, bool residual, bool keepDst)
    {
        BatchNormSpec spec = new(new Shape(4, 2, 2, 2), Epsilon: 1e-3f, perActivation, relu, residual);
        BatchNormCase c = new(spec, statistics, keepDst);
        c.KeepAwayFromKink();
        List<(Tensor, Tensor)> gradients = [(c.Src, c.DiffSrc), (c.Scale, c.DiffScale), (c.Shift, c.DiffShift)];
        if (residual)
        {
            gradients.Add((c.Residual!, c.DiffResidual!));
        }

        GradientCheck.Verify([c.Forward], [c.Backward], c.Inputs, c.Dst, c.DiffDst, [.. gradients]);
    }

    [Theory]
    [MemberData(nameof(Variants))]
    public void Backward_DiffSrcOverSrcOrDiffDst_EqualsSeparate(BatchNormStatistics statistics, bool perActivation, bool relu, bool residual, bool keepDst)
    {
        BatchNormSpec spec = new(new Shape(3, 2, 3, 2), Epsilon: 1e-3f, perActivation, relu, residual);
        BatchNormCase separate = new(spec, statistics, keepDst);
        BatchNormCase overSrc = new(spec, statistics, keepDst, diffSrc: c => c.Src.Alias("diffSrc", TensorRole.Gradient));
        BatchNormCase overDiffDst = new(spec, statistics, keepDst, diffSrc: c => c.DiffDst.Alias("diffSrc", TensorRole.Gradient));
        using ReferenceRun expected = separate.Run(), first = overSrc.Run(), second = overDiffDst.Run();
        foreach ((ReferenceRun run, BatchNormCase c) in new[] { (first, overSrc), (second, overDiffDst) })
        {
            Assert.Equal(expected[separate.DiffSrc], run[c.DiffSrc]);
            Assert.Equal(expected[separate.DiffScale], run[c.DiffScale]);
            Assert.Equal(expected[separate.DiffShift], run[c.DiffShift]);
            if (residual)
            {
                Assert.Equal(expected[separate.DiffResidual!], run[c.DiffResidual!]);
            }
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void BothPasses_OnSlices_EqualDenseOnes(bool perActivation)
    {
        BatchNormSpec spec = new(new Shape(3, 2, 3, 2), Epsilon: 1e-3f, perActivation, Relu: true, Residual: true);
        BatchNormCase dense = new(spec, keepDst: true);
        BatchNormCase sliced = new(spec, keepDst: true,
            activation: (name, shape) => Float64("wide." + name, shape.WithChannels(7)).Slice(name, 3, shape.C));
        using ReferenceRun expected = dense.Run(), actual = sliced.Run();
        Assert.Equal(expected[dense.Dst], actual[sliced.Dst]);
        Assert.Equal(expected[dense.DiffSrc], actual[sliced.DiffSrc]);
        Assert.Equal(expected[dense.DiffResidual!], actual[sliced.DiffResidual!]);
        Assert.Equal(expected[dense.DiffScale], actual[sliced.DiffScale]);

        // The neighbours in the wider tensor are not touched.
        double[] wide = actual[sliced.Dst.Parent!];
        int area = spec.Src.Area;
        for (int i = 0; i < wide.Length; i++)
        {
            int channel = i / area % 7;
            Assert.True(channel is 3 or 4 || wide[i] == 0, $"element {i} of the wider tensor was overwritten");
        }
    }

    [Theory]
    [InlineData(BatchNormStatistics.Batch)]
    [InlineData(BatchNormStatistics.Running)]
    public void Forward_DstOverSrc_EqualsSeparate(BatchNormStatistics statistics)
    {
        BatchNormSpec spec = new(new Shape(3, 2, 3, 2), Relu: true);
        BatchNormCase separate = new(spec, statistics), inPlace = new(spec, statistics, dstOverSrc: true);
        using ReferenceRun expected = new(separate.Forward), actual = new(inPlace.Forward);
        separate.SetInputs(expected);
        inPlace.SetInputs(actual);
        expected.Execute();
        actual.Execute();
        Assert.Equal(expected[separate.Dst], actual[inPlace.Dst]);
    }

    [Fact]
    public void BothPasses_AnyThreadCount_GiveTheSameBits()
    {
        BatchNormCase c = new(new BatchNormSpec(new Shape(4, 16, 24, 24)));
        using ReferenceRun one = new(new BackendOptions { Threads = 1 }, c.Forward, c.Backward);
        using ReferenceRun five = new(new BackendOptions { Threads = 5 }, c.Forward, c.Backward);
        foreach (ReferenceRun run in new[] { one, five })
        {
            c.Set(run);
            run.Execute();
        }

        Assert.Equal(one[c.DiffSrc], five[c.DiffSrc]);
        Assert.Equal(one[c.Variance], five[c.Variance]);
    }
}
