using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using static HpcBatchNorm.Tests.Reference.ReferenceRun;

namespace HpcBatchNorm.Tests.Reference;

/// <summary>
/// The tensors and both operations of one batch normalization, with random inputs.
/// Running statistics are there when they are the ones used, or when an averaging factor asks for their update.
/// </summary>
internal sealed class BatchNormCase
{
    public BatchNormCase(
        BatchNormSpec spec, BatchNormStatistics statistics = BatchNormStatistics.Batch, bool keepDst = false, float? averagingFactor = null,
        Func<string, Shape, Tensor>? activation = null, Func<BatchNormCase, Tensor>? diffSrc = null, bool dstOverSrc = false)
    {
        activation ??= (name, shape) => Float64(name, shape);
        bool running = statistics == BatchNormStatistics.Running || averagingFactor is not null;
        Src = activation("src", spec.Src);
        Dst = dstOverSrc ? Src.Alias("dst", TensorRole.Activation) : activation("dst", spec.Src);
        Residual = spec.Residual ? activation("residual", spec.Src) : null;
        DiffResidual = spec.Residual ? activation("diffResidual", spec.Src) : null;
        DiffDst = activation("diffDst", spec.Src);
        DiffSrc = diffSrc?.Invoke(this) ?? activation("diffSrc", spec.Src);
        Scale = Float64("scale", spec.Parameters, TensorRole.Parameter);
        Shift = Float64("shift", spec.Parameters, TensorRole.Parameter);
        Mean = Float64("mean", spec.Parameters, TensorRole.BatchStatistic);
        Variance = Float64("variance", spec.Parameters, TensorRole.BatchStatistic);
        DiffScale = Float64("diffScale", spec.Parameters, TensorRole.ParameterGradient);
        DiffShift = Float64("diffShift", spec.Parameters, TensorRole.ParameterGradient);
        if (running)
        {
            RunningMean = Float64("runningMean", spec.Parameters, TensorRole.RunningStatistic);
            RunningVariance = Float64("runningVariance", spec.Parameters, TensorRole.RunningStatistic);
        }

        bool batch = statistics == BatchNormStatistics.Batch;
        Forward = new BatchNormForward("bn", spec)
        {
            Src = Src,
            Dst = Dst,
            Scale = Scale,
            Shift = Shift,
            Residual = Residual,
            Statistics = statistics,
            Mean = batch ? Mean : null,
            Variance = batch ? Variance : null,
            RunningMean = RunningMean,
            RunningVariance = RunningVariance,
            AveragingFactor = averagingFactor ?? 0,
        };
        Backward = new BatchNormBackward("bn", spec)
        {
            Src = Src,
            Dst = keepDst ? Dst : null,
            Scale = Scale,
            Shift = Shift,
            Statistics = statistics,
            Mean = batch ? Mean : RunningMean!,
            Variance = batch ? Variance : RunningVariance!,
            DiffDst = DiffDst,
            DiffSrc = DiffSrc,
            DiffScale = DiffScale,
            DiffShift = DiffShift,
            DiffResidual = DiffResidual,
        };

        Inputs = new()
        {
            [Src] = Random(Src, 1, -2, 3),
            [Scale] = Random(Scale, 2, 0.5, 2),
            [Shift] = Random(Shift, 3, -0.5, 0.5),
        };
        if (Residual is not null)
        {
            Inputs[Residual] = Random(Residual, 4);
        }

        if (running)
        {
            Inputs[RunningMean!] = Random(RunningMean!, 5);
            Inputs[RunningVariance!] = Random(RunningVariance!, 6, 0.5, 2);
        }
    }

    public Tensor Src { get; }

    public Tensor Dst { get; }

    public Tensor? Residual { get; }

    public Tensor DiffDst { get; }

    public Tensor DiffSrc { get; }

    public Tensor? DiffResidual { get; }

    public Tensor Scale { get; }

    public Tensor Shift { get; }

    public Tensor Mean { get; }

    public Tensor Variance { get; }

    public Tensor? RunningMean { get; }

    public Tensor? RunningVariance { get; }

    public Tensor DiffScale { get; }

    public Tensor DiffShift { get; }

    public BatchNormForward Forward { get; }

    public BatchNormBackward Backward { get; }

    public Dictionary<Tensor, double[]> Inputs { get; }

    /// <summary>Runs both passes with all inputs and a random diffDst set. The caller disposes the run.</summary>
    public ReferenceRun Run()
    {
        ReferenceRun run = new(Forward, Backward);
        Set(run);
        run.Execute();
        return run;
    }

    /// <summary>Sets what both passes need.</summary>
    public void Set(ReferenceRun run)
    {
        SetInputs(run);
        run[DiffDst] = Random(DiffDst, 9);
    }

    /// <summary>Sets what the forward pass needs.</summary>
    public void SetInputs(ReferenceRun run)
    {
        foreach ((Tensor tensor, double[] values) in Inputs)
        {
            run[tensor] = values;
        }
    }

    /// <summary>Draws shifts again until no value that ReLU will see is within 0.02 of its kink, for finite differences.</summary>
    public void KeepAwayFromKink()
    {
        using ReferenceRun run = new(Forward with { Spec = Forward.Spec with { Relu = false } });
        for (uint attempt = 0; attempt < 100; attempt++)
        {
            Inputs[Shift] = Random(Shift, 100 + attempt, -0.5, 0.5);
            SetInputs(run);
            run.Execute();
            if (run[Dst].All(y => Math.Abs(y) > 0.02))
            {
                Assert.Contains(run[Dst], y => y < 0);
                Assert.Contains(run[Dst], y => y > 0);
                return;
            }
        }

        Assert.Fail("no shift keeps all outputs away from the kink");
    }
}
