using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>Dropout; the identity at inference.</summary>
public sealed record DropoutLayer(float Ratio) : Layer
{
    internal const string TypeName = "dropout";

    /// <inheritdoc/>
    public override string Type => TypeName;

    /// <inheritdoc/>
    public override string Description => FormattableString.Invariant($"dropout {Ratio:P0}").Replace(" %", "%", StringComparison.Ordinal);

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        new DropoutSpec(inputs[0], Ratio, 0, 0).Validate(name);
        return inputs[0];
    }

    internal static DropoutLayer Read(LayerReader reader) => new(reader.Real("ratio"));

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
        writer.Write("ratio", Ratio);
    }

    internal override void LowerTraining(ITrainingLowering lowering)
    {
        Tensor src = lowering.Input();
        DropoutSpec spec = lowering.NewDropout(src.Shape, Ratio);
        lowering.Emit(new Dropout(lowering.Name, spec, src, lowering.NewValue(src.Layout)));
        lowering.Backward(() =>
        {
            Tensor diffDst = lowering.Gradient;
            lowering.Contribute(0, src.Layout, diffSrc => new Dropout(lowering.Name, spec, diffDst, diffSrc, Backward: true), diffDst);
        });
    }

    internal override void LowerInference(IInferenceLowering lowering) => lowering.PassInput();

    internal override OnnxValue WriteOnnx(OnnxWriter writer) => writer.Input();
}
