using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>Batch normalization, convolutional or per activation. Initially scale 1, shift 0, running mean 0, running variance 1.</summary>
public sealed record BatchNormLayer(float Epsilon = 1e-5f, float AveragingFactor = 0.1f, bool PerActivation = false, float InitialScale = 1f) : Layer
{
    internal const string TypeName = "batch_norm";

    /// <inheritdoc/>
    public override string Type => TypeName;

    /// <inheritdoc/>
    public override string Description => PerActivation ? "batch norm per activation" : "batch norm";

    /// <inheritdoc/>
    internal override bool BackwardReadsDst => false;

    /// <summary>The operation for an input of this shape.</summary>
    internal BatchNormSpec Spec(Shape src, bool relu = false) => new(src, Epsilon, PerActivation, relu);

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        Spec(inputs[0]).Validate(name);
        if (!(AveragingFactor >= 0 && AveragingFactor <= 1) || !float.IsFinite(InitialScale))
        {
            throw new ArgumentException(FormattableString.Invariant(
                $"Batch normalization '{name}': the averaging factor is {AveragingFactor} and the initial scale {InitialScale}; the former must be in [0, 1], the latter finite."));
        }

        return inputs[0];
    }

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters(IReadOnlyList<Shape> inputs)
    {
        Shape shape = Spec(inputs[0]).Parameters;
        return
        [
            new ParameterSpec("scale", shape, ParameterKind.ScaleShiftBias, Initializer.Constant(InitialScale)),
            new ParameterSpec("shift", shape, ParameterKind.ScaleShiftBias, Initializer.Constant(0)),
            new ParameterSpec("running_mean", shape, ParameterKind.RunningStatistic, Initializer.Constant(0)),
            new ParameterSpec("running_variance", shape, ParameterKind.RunningStatistic, Initializer.Constant(1)),
        ];
    }

    internal static BatchNormLayer Read(LayerReader reader) => new(
        reader.Real("epsilon", 1e-5f), reader.Real("averaging_factor", 0.1f), reader.Flag("per_activation", false), reader.Real("initial_scale", 1));

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
        writer.Write("epsilon", Epsilon, unless: 1e-5f);
        writer.Write("averaging_factor", AveragingFactor, unless: 0.1f);
        writer.Write("per_activation", PerActivation, unless: false);
        writer.Write("initial_scale", InitialScale, unless: 1);
    }

    /// <summary>
    /// Normalization with constant statistics as an affine map, x -> factor * x + offset with factor = scale / sqrt(variance + epsilon) (<see cref="BatchNormSpec.InverseDeviation"/>) and
    /// offset = shift - mean * factor (Algorithm 2, line 11). Computed in double.
    /// </summary>
    internal (double[] Factors, double[] Offsets) Affine(ReadOnlySpan<float> scale, ReadOnlySpan<float> shift, ReadOnlySpan<float> mean, ReadOnlySpan<float> variance)
    {
        double[] factors = new double[scale.Length], offsets = new double[scale.Length];
        BatchNormSpec spec = Spec(Shape.Vector(scale.Length));
        for (int i = 0; i < factors.Length; i++)
        {
            factors[i] = scale[i] * spec.InverseDeviation(variance[i]);
            offsets[i] = shift[i] - mean[i] * factors[i];
        }

        return (factors, offsets);
    }

    internal override void LowerTraining(ITrainingLowering lowering)
    {
        Tensor src = lowering.Input();
        TensorLayout layout = src.Layout;
        TrainingNormalization training = lowering.Normalization;
        Tensor? residual = lowering.FuseResidual(layout);
        bool relu = residual is not null || lowering.FuseReluWithBatchNorm();
        BatchNormSpec spec = Spec(src.Shape, relu) with { Residual = residual is not null, GhostBatch = training.GhostBatch };
        Tensor scale = lowering.Learn("scale", layout, out Tensor diffScale, training.FrozenScaleAndShift);
        Tensor shift = lowering.Learn("shift", layout, out Tensor diffShift, training.FrozenScaleAndShift);
        Tensor runningMean = lowering.AddState("running_mean", layout), runningVariance = lowering.AddState("running_variance", layout);
        bool batch = training.Statistics == BatchNormStatistics.Batch, renormalize = training.Renormalization is not null;
        Tensor? mean = Statistic(lowering, "mean", spec, layout, batch), variance = Statistic(lowering, "variance", spec, layout, batch);
        Tensor? r = Statistic(lowering, "r", spec, layout, renormalize), d = Statistic(lowering, "d", spec, layout, renormalize);
        bool onReading = layout == TensorLayout.Blocked && lowering.FuseWithConvolution(spec);
        if (onReading)
        {
            lowering.PassNormalization(new SourceNormalization(spec, scale, shift, mean!, variance!));
        }

        Tensor? dst = onReading ? null : lowering.NewValue(layout);
        lowering.EmitRepeatable(new BatchNormForward(lowering.Name, spec)
        {
            Src = src,
            Dst = dst,
            Scale = scale,
            Shift = shift,
            Residual = residual,
            Statistics = training.Statistics,
            Mean = mean,
            Variance = variance,
            RunningMean = runningMean,
            RunningVariance = runningVariance,
            AveragingFactor = AveragingFactor,
            Renormalization = training.Renormalization,
            Synchronized = training.Synchronized,
            SynchronizedRanks = training.SynchronizedRanks,
            R = r,
            D = d,
        });
        lowering.Backward(() =>
        {
            // Scale and shift learn even where nothing before them does. With a residual the ReLU's mask cannot be computed again from src.
            Tensor diffDst = lowering.Gradient;
            lowering.ContributeWithResidual(
                layout,
                (diffSrc, diffResidual) => new BatchNormBackward(lowering.Name, spec)
                {
                    Src = src,
                    Dst = residual is null ? null : dst,
                    Scale = scale,
                    Shift = shift,
                    Statistics = training.BackwardStatistics,
                    Mean = mean ?? runningMean,
                    Variance = variance ?? runningVariance,
                    DiffDst = diffDst,
                    SecondDiffDst = lowering.SecondGradient,
                    DiffSrc = diffSrc,
                    DiffScale = diffScale,
                    DiffShift = diffShift,
                    DiffResidual = diffResidual,
                    Synchronized = training.Synchronized,
                    SynchronizedRanks = training.SynchronizedRanks,
                    R = r,
                    D = d,
                },
                lowering.InputIsOverwritable ? src : null);
        });
    }

    internal override void LowerInference(IInferenceLowering lowering)
    {
        Tensor src = lowering.Input();
        TensorLayout layout = src.Layout;
        bool batch = lowering.Statistics == BatchNormStatistics.Batch;
        Tensor? residual = lowering.FuseResidual(layout);
        BatchNormSpec spec = Spec(src.Shape, residual is not null || lowering.FuseReluWithBatchNorm()) with { Residual = residual is not null };
        Tensor dst = lowering.NewValue(layout);

        // The new batch's weight is 1: what is left of a pass are its own statistics.
        lowering.Emit(new BatchNormForward(lowering.Name, spec)
        {
            Src = src,
            Dst = dst,
            Scale = lowering.AddState("scale", layout),
            Shift = lowering.AddState("shift", layout),
            Residual = residual,
            Statistics = lowering.Statistics,
            Mean = Statistic(lowering, "mean", spec, layout, batch),
            Variance = Statistic(lowering, "variance", spec, layout, batch),
            RunningMean = lowering.AddState("running_mean", layout),
            RunningVariance = lowering.AddState("running_variance", layout),
            AveragingFactor = 1,
        });
    }

    internal override OnnxValue WriteOnnx(OnnxWriter writer)
    {
        OnnxValue src = writer.Input();
        Shape shape = Spec(writer.InputShape()).Parameters;
        string[] names = [.. Parameters([writer.InputShape()]).Select(p => p.Name)];
        float[][] values = [.. names.Select(n => writer.Parameter(n, shape))];
        if (shape.Area == 1)
        {
            // Scale, shift, mean, variance: ONNX has them in the same order.
            string[] vectors = [.. names.Zip(values, (name, vector) => writer.Constant(name, [shape.C], vector))];
            return src with { Name = writer.Node("BatchNormalization", [src.Name, .. vectors], ("epsilon", Epsilon)) };
        }

        // ONNX normalises per channel only; per activation it is a product and a sum.
        (double[] factors, double[] offsets) = Affine(values[0], values[1], values[2], values[3]);
        long[] extents = [1, shape.C, shape.H, shape.W];
        string scaled = writer.Inner("scaled", "Mul", [src.Name, writer.Constant("factor", extents, Array.ConvertAll(factors, f => (float)f))]);
        return src with { Name = writer.Node("Add", [scaled, writer.Constant("offset", extents, Array.ConvertAll(offsets, o => (float)o))]) };
    }

    private static Tensor? Statistic(ILowering lowering, string name, BatchNormSpec spec, TensorLayout layout, bool wanted) =>
        wanted ? new Tensor($"{lowering.Name}.{name}", spec.Statistics, TensorRole.BatchStatistic, layout) : null;
}
