using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>An element-wise nonlinearity.</summary>
public sealed record ActivationLayer(ActivationKind Function) : Layer
{
    /// <summary>The nonlinearity's own name: <c>relu</c>, <c>hardswish</c>.</summary>
    public override string Type => TypeName(Function);

    /// <inheritdoc/>
    public override string Description => Function.Name();

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => inputs[0];

    internal static string TypeName(ActivationKind function) => function.Name();

    internal static Func<LayerReader, Layer> ReadAs(ActivationKind function) => _ => new ActivationLayer(function);

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
    }

    internal override void LowerTraining(ITrainingLowering lowering)
    {
        bool readsSrc = Function.GradientReadsSrc();
        Tensor src = lowering.Input(), dst = readsSrc ? lowering.NewValue(src.Layout) : lowering.InPlaceOrNew();
        lowering.Emit(new ActivationForward(lowering.Name, Function, src, dst));
        lowering.Backward(() =>
        {
            Tensor diffDst = lowering.Gradient, kept = readsSrc ? lowering.ForBackward(0, src) : src;
            lowering.Contribute(0, src.Layout, diffSrc => ActivationBackward.Of(lowering.Name, Function, kept, dst, diffDst, diffSrc), diffDst);
        });
    }

    internal override void LowerInference(IInferenceLowering lowering) =>
        lowering.Emit(new ActivationForward(lowering.Name, Function, lowering.Input(), lowering.InPlaceOrNew()));

    internal override OnnxValue WriteOnnx(OnnxWriter writer)
    {
        OnnxValue value = writer.Input();
        string src = value.Name;
        return value with
        {
            Name = Function switch
            {
                ActivationKind.Relu => writer.Node("Relu", [src]),
                ActivationKind.Sigmoid => writer.Node("Sigmoid", [src]),
                ActivationKind.Tanh => writer.Node("Tanh", [src]),
                ActivationKind.HardSwish => writer.Node("HardSwish", [src]),
                ActivationKind.Silu => writer.Node("Mul", [src, writer.Inner("sigmoid", "Sigmoid", [src])]),
                ActivationKind.Gelu => WriteGelu(writer, src),
                _ => throw ActivationKinds.Unknown(Function, "the functions of the ONNX export"),
            },
        };
    }

    /// <summary>An operator of its own from operator set 20 on.</summary>
    private static string WriteGelu(OnnxWriter writer, string src)
    {
        string Scalar(string name, float value) => writer.Constant(name, [], [value]);
        string argument = writer.Inner("argument", "Mul", [src, Scalar("root_half", MathF.Sqrt(0.5f))]);
        string distribution = writer.Inner("twice_distribution", "Add", [writer.Inner("erf", "Erf", [argument]), Scalar("one", 1)]);
        return writer.Node("Mul", [writer.Inner("half", "Mul", [src, Scalar("half", 0.5f)]), distribution]);
    }
}
