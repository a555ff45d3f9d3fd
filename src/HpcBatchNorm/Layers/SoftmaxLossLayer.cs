using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>Softmax and cross-entropy against the labels; the network's loss is the sum over its heads, each times its weight. Softmax at inference.</summary>
public sealed record SoftmaxLossLayer(float Weight = 1f) : Layer
{
    /// <inheritdoc/>
    public override string Description => Weight == 1f ? "softmax loss" : FormattableString.Invariant($"softmax loss, weight {Weight}");

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => inputs[0];

    internal override void LowerTraining(ITrainingLowering lowering)
    {
        Tensor logits = lowering.AsLogits(lowering.Input());
        LossTensors loss = lowering.NewLoss(logits.Shape);
        lowering.Contribute(
            0, TensorLayout.Plain,
            diffLogits => new SoftmaxCrossEntropy(
                lowering.Name, logits, loss.Labels, loss.Probabilities, loss.Loss, diffLogits, loss.LabelSmoothing, Weight, loss.Scale));
    }

    internal override void LowerInference(IInferenceLowering lowering)
    {
        Tensor logits = lowering.AsLogits(lowering.Input());
        lowering.Emit(new Softmax(lowering.Name, logits, lowering.NewProbabilities(logits.Shape)));
    }

    internal override OnnxValue WriteOnnx(OnnxWriter writer) =>
        writer.Probabilities("Softmax", [writer.Matrix()], writer.InputShape().ImageCount, ("axis", 1L));
}
