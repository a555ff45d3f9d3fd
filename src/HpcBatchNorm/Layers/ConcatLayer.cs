using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>Concatenation along channels.</summary>
public sealed record ConcatLayer : Layer
{
    internal const string TypeName = "concatenation";

    /// <inheritdoc/>
    public override string Type => TypeName;

    /// <inheritdoc/>
    public override int MinimumInputs => 2;

    /// <inheritdoc/>
    public override int MaximumInputs => int.MaxValue;

    /// <inheritdoc/>
    public override string Description => "concatenation";

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        foreach (Shape input in inputs)
        {
            if (input.WithChannels(1) != inputs[0].WithChannels(1))
            {
                throw new ArgumentException($"Concatenation '{name}': inputs of {input} and {inputs[0]} differ in more than channels.");
            }
        }

        return inputs[0].WithChannels(inputs.Sum(i => i.C));
    }

    internal static ConcatLayer Read(LayerReader _) => new();

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
    }

    internal override void LowerTraining(ITrainingLowering lowering)
    {
        Join(lowering);
        lowering.Backward(() =>
        {
            Tensor diffDst = lowering.Gradient;
            int offset = 0;
            for (int i = 0; i < lowering.InputCount; i++)
            {
                int channels = lowering.Input(i).Shape.C;
                Tensor slice = diffDst.Slice($"{lowering.InputName(i)}.diff", offset, channels);
                if (lowering.IsPlaced(i))
                {
                    lowering.SetGradient(i, slice);
                }
                else
                {
                    string name = $"{lowering.Name}/{lowering.InputName(i)}.diff";
                    lowering.Contribute(i, diffDst.Layout, diffSrc => new Copy(name, slice, diffSrc));
                }

                offset += channels;
            }
        });
    }

    internal override void LowerInference(IInferenceLowering lowering) => Join(lowering);

    internal override OnnxValue WriteOnnx(OnnxWriter writer)
    {
        string[] inputs = [.. Enumerable.Range(0, writer.InputCount).Select(i => writer.Input(i).Name)];
        return writer.Input() with { Name = writer.Node("Concat", inputs, ("axis", 1L)) };
    }

    /// <summary>Copies the inputs that are not already in place.</summary>
    private static void Join(ILowering lowering)
    {
        Tensor dst = lowering.Value(TensorLayout.Blocked);
        int offset = 0;
        for (int i = 0; i < lowering.InputCount; i++)
        {
            Tensor src = lowering.Input(i);
            if (!lowering.IsPlaced(i))
            {
                src = lowering.InLayout(src, TensorLayout.Blocked);
                lowering.Emit(new Copy($"{lowering.Name}/{lowering.InputName(i)}", src, dst.Slice($"{lowering.Name}[{offset}]", offset, src.Shape.C)));
            }

            offset += src.Shape.C;
        }
    }
}
