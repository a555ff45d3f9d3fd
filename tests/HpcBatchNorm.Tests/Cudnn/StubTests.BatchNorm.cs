using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Cudnn;

/// <content>Batch normalization in one launch, whose blocks wait for one another, and in two.</content>
public sealed partial class StubTests
{
    /// <summary>
    /// In one launch, in two where the device has no cooperative launches, in two where it does not hold all blocks at a time, and in one whose blocks and
    /// threads run in the other order: the sums are merged in one order, so the bits are the same.
    /// </summary>
    [Theory]
    [InlineData(Precision.Fp32)]
    [InlineData(Precision.Bf16)]
    public void BatchNorm_InOneLaunch_GivesTheBitsOfTwo(Precision precision)
    {
        (double[] Values, long Cooperative) Run(string name, long value)
        {
            AlwaysSet = (name, value);
            try
            {
                long before = StubDevice.Calls("cuLaunchCooperativeKernel");
                double[] values = NormalizedBothWays(precision);
                return (values, StubDevice.Calls("cuLaunchCooperativeKernel") - before);
            }
            finally
            {
                AlwaysSet = null;
            }
        }

        (double[] one, long launches) = Run("multiprocessors", 4);
        Assert.Equal(4, launches);
        Assert.DoesNotContain(one, double.IsNaN);
        (double[] two, launches) = Run("cooperative", 0);
        Assert.Equal(0, launches);
        Assert.Equal(two, one);
        (double[] few, launches) = Run("resident_blocks", 1);
        Assert.Equal(0, launches);
        Assert.Equal(two, few);
        (double[] reversed, launches) = Run("thread_order", 1);
        Assert.Equal(4, launches);
        Assert.Equal(two, reversed);
    }

    [Fact]
    public void BatchNorm_WithoutCooperativeLaunches_MatchesTheReference()
    {
        AlwaysSet = ("cooperative", 0);
        try
        {
            using Backend backend = Create();
            long before = StubDevice.Calls("cuLaunchCooperativeKernel");
            AssertAllPass(backend, HardCases.For(backend.Traits).Where(c => c.Name.StartsWith("batch-norm/", StringComparison.Ordinal) && c.Kind == InputKind.Random));
            Assert.Equal(before, StubDevice.Calls("cuLaunchCooperativeKernel"));
        }
        finally
        {
            AlwaysSet = null;
        }
    }

    /// <summary>A barrier without the promise that all blocks run would hang on a device that is busy; the stand-in says so.</summary>
    [Fact]
    public void BatchNorm_WhoseBlocksWaitInAnOrdinaryLaunch_IsFound()
    {
        AlwaysSet = ("deny_cooperation", 1);
        try
        {
            NormalizedBothWays(Precision.Fp32, clean: false);
            Assert.Contains("only a cooperative launch promises", StubDevice.Problem, StringComparison.Ordinal);
        }
        finally
        {
            AlwaysSet = null;
            StubDevice.Reset();
        }
    }

    /// <summary>What both directions leave, of 24 channels on 3072 positions: several blocks share the columns. Run twice: the barriers are used again.</summary>
    private double[] NormalizedBothWays(Precision precision, bool clean = true)
    {
        using Backend backend = Create();
        BatchNormSpec spec = new(new(12, 24, 16, 16), Relu: true);
        DataType type = precision.ActivationType();
        Tensor Activation(string name, TensorRole role = TensorRole.Activation) => new(name, spec.Src, role, TensorLayout.Blocked, type);
        Tensor Statistic(string name, TensorRole role) => new(name, spec.Parameters, role);
        BatchNormForward forward = new("bn", spec)
        {
            Src = Activation("src"),
            Dst = Activation("dst"),
            Scale = Statistic("scale", TensorRole.Parameter),
            Shift = Statistic("shift", TensorRole.Parameter),
            Mean = Statistic("mean", TensorRole.BatchStatistic),
            Variance = Statistic("variance", TensorRole.BatchStatistic),
            RunningMean = Statistic("runningMean", TensorRole.RunningStatistic),
            RunningVariance = Statistic("runningVariance", TensorRole.RunningStatistic),
            AveragingFactor = 0.1f,
        };
        BatchNormBackward backward = new("bn", spec)
        {
            Src = forward.Src,
            Dst = null,
            Scale = forward.Scale,
            Shift = forward.Shift,
            Mean = forward.Mean,
            Variance = forward.Variance,
            DiffDst = Activation("diffDst", TensorRole.Gradient),
            DiffSrc = Activation("diffSrc", TensorRole.Gradient),
            DiffScale = Statistic("diffScale", TensorRole.ParameterGradient),
            DiffShift = Statistic("diffShift", TensorRole.ParameterGradient),
        };
        using var runner = new OperationRunner(backend, precision, forward, backward);
        Random random = new(1);
        foreach (Tensor tensor in new[] { forward.Src, forward.Scale, forward.Shift, forward.RunningMean, forward.RunningVariance, backward.DiffDst })
        {
            runner.Write(tensor, (double[])[.. Enumerable.Range(0, (int)tensor.Shape.Count).Select(_ => random.NextDouble() + 0.5)]);
        }

        runner.Execute();
        runner.Execute();
        double[] values =
        [
            .. new[] { forward.Dst, forward.Mean, forward.Variance, forward.RunningMean, forward.RunningVariance, backward.DiffSrc, backward.DiffScale, backward.DiffShift }
                .SelectMany(runner.ReadDouble),
        ];
        if (clean)
        {
            AssertClean();
        }

        return values;
    }
}
