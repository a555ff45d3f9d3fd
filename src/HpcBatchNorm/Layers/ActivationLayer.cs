using System.Text.Json;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>An element-wise nonlinearity.</summary>
public sealed record ActivationLayer(ActivationKind Function) : Layer
{
    /// <summary>The nonlinearity's own name: <c>relu</c>, and <c>hard_swish</c> for HardSwish.</summary>
    public override string Type => TypeName(Function);

    /// <inheritdoc/>
    public override string Description => Function.ToString().ToLowerInvariant();

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => inputs[0];

    internal static string TypeName(ActivationKind function) => JsonNamingPolicy.SnakeCaseLower.ConvertName(function.ToString());

    internal static Func<LayerReader, Layer> ReadAs(ActivationKind function) => _ => new ActivationLayer(function);

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
    }

    internal override void LowerTraining(ITrainingLowering lowering)
    {
        Tensor src = lowering.Input(), dst = lowering.InPlaceOrNew();
        lowering.Emit(new ActivationForward(lowering.Name, Function, src, dst));
        lowering.Backward(() =>
        {
            Tensor diffDst = lowering.Gradient;
            lowering.Contribute(0, src.Layout, diffSrc => new ActivationBackward(lowering.Name, Function, dst, diffDst, diffSrc), diffDst);
        });
    }

    internal override void LowerInference(IInferenceLowering lowering) =>
        lowering.Emit(new ActivationForward(lowering.Name, Function, lowering.Input(), lowering.InPlaceOrNew()));

    internal override OnnxValue WriteOnnx(OnnxWriter writer)
    {
        OnnxValue src = writer.Input();
        string type = Function switch
        {
            ActivationKind.Relu => "Relu",
            ActivationKind.Sigmoid => "Sigmoid",
            ActivationKind.Tanh => "Tanh",
            _ => throw new NotSupportedException($"ONNX export has no form for the layer '{writer.Name}' ({Description})."),
        };
        return src with { Name = writer.Node(type, [src.Name]) };
    }
}
