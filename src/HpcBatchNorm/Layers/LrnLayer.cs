using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>Local response normalization across channels.</summary>
public sealed record LrnLayer(int Size = 5, float Alpha = 1e-4f, float Beta = 0.75f, float K = 1f) : Layer
{
    internal const string TypeName = "local_response_norm";

    /// <inheritdoc/>
    public override string Type => TypeName;

    /// <inheritdoc/>
    public override string Description => $"local response normalization, {Size} channels";

    /// <summary>The operation for an input of this shape.</summary>
    internal LrnSpec Spec(Shape src) => new(src, Size, Alpha, Beta, K);

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        Spec(inputs[0]).Validate(name);
        return inputs[0];
    }

    internal static LrnLayer Read(LayerReader reader) => new(
        reader.Whole("size", 5), reader.Real("alpha", 1e-4f), reader.Real("beta", 0.75f), reader.Real("k", 1));

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
        writer.Write("size", Size, unless: 5);
        writer.Write("alpha", Alpha, unless: 1e-4f);
        writer.Write("beta", Beta, unless: 0.75f);
        writer.Write("k", K, unless: 1);
    }

    internal override void LowerTraining(ITrainingLowering lowering)
    {
        Tensor src = lowering.InLayout(lowering.Input(), TensorLayout.Blocked);
        LrnSpec spec = Spec(src.Shape);
        var workspace = new Tensor($"{lowering.Name}.workspace", spec.Src, TensorRole.Workspace, TensorLayout.Opaque, DataType.UInt8);
        lowering.Emit(new LrnForward(lowering.Name, spec, src, lowering.NewValue(TensorLayout.Blocked), workspace));
        lowering.Backward(() =>
        {
            Tensor diffDst = lowering.Gradient;
            lowering.Contribute(0, TensorLayout.Blocked, diffSrc => new LrnBackward(lowering.Name, spec, src, diffDst, workspace, diffSrc));
        });
    }

    internal override void LowerInference(IInferenceLowering lowering)
    {
        Tensor src = lowering.InLayout(lowering.Input(), TensorLayout.Blocked);
        lowering.Emit(new LrnForward(lowering.Name, Spec(src.Shape), src, lowering.NewValue(TensorLayout.Blocked), null));
    }

    internal override OnnxValue WriteOnnx(OnnxWriter writer) => new(
        writer.Node("LRN", [writer.Maps()], ("size", (long)Size), ("alpha", Alpha), ("beta", Beta), ("bias", K)), IsMatrix: false);
}
