using HpcBatchNorm.Layers;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.CustomLayers;

/// <summary>What is wrong with a <see cref="FaultyNorm"/>.</summary>
public enum Fault
{
    None,
    WrongSign,
    MissingScale,
    MissingFactor,
    NoMeanTerm,
    NoVarianceTerm,
    LastImageOnly,
    MissingParameterGradient,
    AddedParameterGradient,
    UnsetDiffSrc,
    AddedDiffSrc,
    UnsetDst,
    UnsetSaved,
    StateInField,
    Random,
    SavedInField,
    BatchStatisticsAtInference,
    FlowThroughRunning,
    UpdateAtInference,
    Throws,
    ThrowsInBackward,
    UnknownName,
    NotFinite,
}

/// <summary>Batch normalization with a scale and no shift, with one fault at a time.</summary>
internal sealed record FaultyNorm(Fault Fault = Fault.None) : CustomLayer
{
    private float[] _kept = [];
    private int _calls;

    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => inputs[0];

    public override IReadOnlyList<ParameterSpec> Parameters(IReadOnlyList<Shape> inputs)
    {
        Shape channels = Shape.Vector(inputs[0].C);
        return
        [
            new ParameterSpec("scale", channels, ParameterKind.ScaleShiftBias, Initializer.Constant(1)),
            new ParameterSpec("running_mean", channels, ParameterKind.RunningStatistic, Initializer.Constant(0)),
            new ParameterSpec("running_deviation", channels, ParameterKind.RunningStatistic, Initializer.Constant(1)),
        ];
    }

    public override IReadOnlyList<NamedShape> Saved(IReadOnlyList<Shape> inputs) =>
        [new NamedShape("mean", Shape.Vector(inputs[0].C)), new NamedShape("deviation", Shape.Vector(inputs[0].C))];

    public override void Forward(in ForwardContext context)
    {
        Shape s = context.SrcShape();
        ReadOnlySpan<float> x = context.Src(), scale = context.Parameter("scale");
        Span<float> y = context.Dst, mean = context.Saved("mean"), deviation = context.Saved("deviation");
        bool batch = context.Statistics == BatchNormStatistics.Batch || Fault == Fault.BatchStatisticsAtInference;
        for (int c = 0; c < s.C; c++)
        {
            (float average, float spread) = batch ? Moments(x, s, c) : (context.Parameter("running_mean")[c], context.Parameter("running_deviation")[c]);
            mean[c] = average;
            if (Fault != Fault.UnsetSaved || c != 2)
            {
                deviation[c] = spread;
            }

            for (int n = 0; n < s.N; n++)
            {
                for (int i = 0; i < s.Area; i++)
                {
                    int at = (n * s.C + c) * s.Area + i;
                    if (Fault != Fault.UnsetDst || at != 5)
                    {
                        y[at] = scale[c] * ((x[at] - average) / spread);
                    }
                }
            }
        }

        context.UpdateRunning("running_mean", mean, 0.1f);
        context.UpdateRunning("running_deviation", deviation, 0.1f);
        switch (Fault)
        {
            case Fault.StateInField:
                y[0] += _calls++;
                break;
            case Fault.Random:
                y[0] += (float)System.Random.Shared.NextDouble();
                break;
            case Fault.SavedInField:
                _kept = deviation.ToArray();
                break;
            case Fault.UpdateAtInference when !context.Training:
                context.RunningStatistic("running_mean")[0] = 1;
                break;
            case Fault.Throws:
                throw new DivideByZeroException("on purpose");
            case Fault.NotFinite:
                y.Fill(float.PositiveInfinity);
                break;
        }
    }

    public override void Backward(in BackwardContext context)
    {
        Shape s = context.SrcShape();
        ReadOnlySpan<float> x = context.Src(), g = context.DiffDst, scale = context.Parameter("scale"), mean = context.Saved("mean");
        ReadOnlySpan<float> deviation = Fault == Fault.SavedInField ? _kept : context.Saved("deviation");
        Span<float> diffSrc = context.DiffSrc(), diffScale = context.DiffParameter(Fault == Fault.UnknownName ? "gain" : "scale");
        if (Fault == Fault.ThrowsInBackward)
        {
            throw new DivideByZeroException("on purpose");
        }

        float m = s.N * s.Area;
        bool constants = context.Statistics == BatchNormStatistics.Running && Fault != Fault.FlowThroughRunning;
        for (int c = 0; c < s.C; c++)
        {
            float sum = 0, products = 0;
            for (int n = Fault == Fault.LastImageOnly ? s.N - 1 : 0; n < s.N; n++)
            {
                for (int i = 0; i < s.Area; i++)
                {
                    int at = (n * s.C + c) * s.Area + i;
                    sum += g[at];
                    products += g[at] * (x[at] - mean[c]) / deviation[c];
                }
            }

            switch (Fault)
            {
                case Fault.MissingParameterGradient:
                    break;
                case Fault.AddedParameterGradient:
                    diffScale[c] += products;
                    break;
                default:
                    diffScale[c] = products;
                    break;
            }

            float meanTerm = constants || Fault == Fault.NoMeanTerm ? 0 : sum / m;
            float varianceTerm = constants || Fault is Fault.NoVarianceTerm ? 0 : products / m;
            varianceTerm *= Fault == Fault.MissingFactor ? 0.5f : 1;
            float factor = (Fault == Fault.MissingScale ? 1 : scale[c]) * (Fault == Fault.WrongSign ? -1 : 1) / deviation[c];
            for (int n = 0; n < s.N - (Fault == Fault.UnsetDiffSrc ? 1 : 0); n++)
            {
                for (int i = 0; i < s.Area; i++)
                {
                    int at = (n * s.C + c) * s.Area + i;
                    float before = Fault == Fault.AddedDiffSrc ? diffSrc[at] : 0;
                    diffSrc[at] = before + factor * (g[at] - meanTerm - (x[at] - mean[c]) / deviation[c] * varianceTerm);
                }
            }
        }
    }

    private static (float Mean, float Deviation) Moments(ReadOnlySpan<float> x, Shape s, int c)
    {
        double sum = 0, squares = 0;
        for (int n = 0; n < s.N; n++)
        {
            foreach (float value in x.Slice((n * s.C + c) * s.Area, s.Area))
            {
                sum += value;
                squares += (double)value * value;
            }
        }

        double m = s.N * s.Area, mean = sum / m;
        return ((float)mean, (float)Math.Sqrt(squares / m - mean * mean + 1e-5));
    }
}

/// <summary>Two inputs and a learned number: dst = a + gate * b.</summary>
internal sealed record GatedSum : CustomLayer
{
    public override int MinimumInputs => 2;

    public override int MaximumInputs => 2;

    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) =>
        inputs[0] == inputs[1] ? inputs[0] : throw new ArgumentException($"'{name}' takes two inputs of one shape.");

    public override IReadOnlyList<ParameterSpec> Parameters(IReadOnlyList<Shape> inputs) =>
        [new ParameterSpec("gate", Shape.Vector(1), ParameterKind.Weights, Initializer.Constant(0.5f))];

    public override void Forward(in ForwardContext context)
    {
        ReadOnlySpan<float> a = context.Src(0), b = context.Src(1);
        float gate = context.Parameter("gate")[0];
        for (int i = 0; i < a.Length; i++)
        {
            context.Dst[i] = a[i] + gate * b[i];
        }
    }

    public override void Backward(in BackwardContext context)
    {
        ReadOnlySpan<float> g = context.DiffDst, b = context.Src(1);
        float gate = context.Parameter("gate")[0];
        double sum = 0;
        for (int i = 0; i < g.Length; i++)
        {
            context.DiffSrc(0)[i] = g[i];
            context.DiffSrc(1)[i] = gate * g[i];
            sum += (double)g[i] * b[i];
        }

        context.DiffParameter("gate")[0] = (float)sum;
    }
}

/// <summary>A kink at 0, no parameter, an ONNX form; with a quantum, a stair of that step.</summary>
internal sealed record LeakyRelu(float Slope = 0.1f, float Quantum = 0) : CustomLayer
{
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => inputs[0];

    public override OnnxValue ToOnnx(OnnxWriter writer) =>
        writer.Input() with { Name = writer.Node("LeakyRelu", [writer.Input().Name], ("alpha", Slope)) };

    public override void Forward(in ForwardContext context)
    {
        ReadOnlySpan<float> x = context.Src();
        for (int i = 0; i < x.Length; i++)
        {
            float y = x[i] > 0 ? x[i] : Slope * x[i];
            context.Dst[i] = Quantum > 0 ? MathF.Round(y / Quantum) * Quantum : y;
        }
    }

    public override void Backward(in BackwardContext context)
    {
        ReadOnlySpan<float> x = context.Src(), g = context.DiffDst;
        for (int i = 0; i < x.Length; i++)
        {
            context.DiffSrc()[i] = x[i] > 0 ? g[i] : Slope * g[i];
        }
    }
}
