using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>Element-wise sum.</summary>
public sealed record SumLayer : Layer
{
    internal const string TypeName = "sum";

    /// <inheritdoc/>
    public override string Type => TypeName;

    /// <inheritdoc/>
    public override int MinimumInputs => 2;

    /// <inheritdoc/>
    public override int MaximumInputs => int.MaxValue;

    /// <inheritdoc/>
    public override string Description => "sum";

    /// <inheritdoc/>
    internal override bool BackwardReadsDst => false;

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        foreach (Shape input in inputs)
        {
            if (input != inputs[0])
            {
                throw new ArgumentException($"Sum '{name}': inputs of {input} and {inputs[0]} differ.");
            }
        }

        return inputs[0];
    }

    internal static SumLayer Read(LayerReader _) => new();

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
    }

    internal override void LowerTraining(ITrainingLowering lowering)
    {
        Add(lowering);
        lowering.Backward(() =>
        {
            for (int i = 0; i < lowering.InputCount; i++)
            {
                lowering.PassGradient(i);
            }
        });
    }

    internal override void LowerInference(IInferenceLowering lowering) => Add(lowering);

    internal override OnnxValue WriteOnnx(OnnxWriter writer)
    {
        string[] inputs = [.. Enumerable.Range(0, writer.InputCount).Select(i => writer.Input(i).Name)];
        return writer.Input() with { Name = writer.Node("Sum", inputs) };
    }

    private static void Add(ILowering lowering)
    {
        TensorLayout layout = lowering.Input().Layout;
        Tensor[] srcs = [.. Enumerable.Range(0, lowering.InputCount).Select(i => lowering.InLayout(lowering.Input(i), layout))];
        lowering.Emit(new Sum(lowering.Name, srcs, lowering.NewValue(layout)));
    }
}
