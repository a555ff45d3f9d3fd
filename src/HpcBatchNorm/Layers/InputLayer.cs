using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>The images: <paramref name="Channels"/> channels of any size.</summary>
public sealed record InputLayer(int Channels) : Layer
{
    internal const string TypeName = "input";

    /// <inheritdoc/>
    public override string Type => TypeName;

    /// <inheritdoc/>
    public override int MinimumInputs => 0;

    /// <inheritdoc/>
    public override int MaximumInputs => 0;

    /// <inheritdoc/>
    public override string Description => $"input, {Channels} channels";

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => inputs[0];

    internal static InputLayer Read(LayerReader reader) => new(reader.Whole("channels"));

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
        writer.Write("channels", Channels);
    }

    internal override void LowerTraining(ITrainingLowering lowering) => Prepare(lowering);

    internal override void LowerInference(IInferenceLowering lowering) => Prepare(lowering);

    internal override OnnxValue WriteOnnx(OnnxWriter writer) => writer.Images();

    /// <summary>Pixels to normalised values.</summary>
    private static void Prepare(ILowering lowering)
    {
        ImagePreparation images = lowering.PrepareImages();
        lowering.Emit(new PrepareInput(lowering.Name, images.Pixels, lowering.NewValue(TensorLayout.Plain), images.Mean, images.InverseDeviation) { IsConvolvedOnly = images.IsConvolvedOnly });
    }
}
