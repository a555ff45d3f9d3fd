using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>Softmax and cross-entropy against the labels; the network's loss is the sum over its heads, each times its weight. Softmax at inference.</summary>
public sealed record SoftmaxLossLayer(float Weight = 1f) : Layer
{
    internal const string TypeName = "softmax_loss";

    /// <inheritdoc/>
    public override string Type => TypeName;

    /// <inheritdoc/>
    public override string Description => Weight == 1f ? "softmax loss" : FormattableString.Invariant($"softmax loss, weight {Weight}");

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        if (!(Weight > 0) || float.IsInfinity(Weight))
        {
            throw new ArgumentException(FormattableString.Invariant($"Loss '{name}': its weight is {Weight}; it must be positive and finite."));
        }

        return inputs[0].Area == 1
            ? inputs[0]
            : throw new ArgumentException(
                $"Loss '{name}': its logits are {inputs[0]}; expected one position per image (N x classes x 1 x 1). Put a fully connected layer or global average pooling before it.");
    }

    internal static SoftmaxLossLayer Read(LayerReader reader) => new(reader.Real("weight", 1));

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
        writer.Write("weight", Weight, unless: 1);
    }

    internal override void LowerTraining(ITrainingLowering lowering)
    {
        Tensor logits = lowering.AsLogits(lowering.Input());
        LossTensors loss = lowering.NewLoss(logits.Shape);
        lowering.Contribute(
            0, TensorLayout.Plain,
            diffLogits => new SoftmaxCrossEntropy(
                lowering.Name, logits, loss.Labels, loss.Probabilities, loss.Loss, diffLogits, loss.LabelSmoothing, Weight, loss.Scale)
            {
                SecondLabels = loss.SecondLabels,
                LabelWeights = loss.LabelWeights,
                Binary = loss.Binary,
                TargetThreshold = loss.TargetThreshold,
            },
            always: true); // a head that does not learn is still measured
    }

    internal override void LowerInference(IInferenceLowering lowering)
    {
        Tensor logits = lowering.AsLogits(lowering.Input());
        lowering.Emit(new Softmax(lowering.Name, logits, lowering.NewProbabilities(logits.Shape)));
    }

    internal override OnnxValue WriteOnnx(OnnxWriter writer) =>
        writer.Probabilities("Softmax", [writer.Matrix()], writer.InputShape().ImageCount, ("axis", 1L));
}
