using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>A fully connected layer over all elements of an image.</summary>
public sealed record FullyConnectedLayer(int Outputs, Initializer Initializer, bool Bias = true) : Layer, IAffineLayer
{
    internal const string TypeName = "fully_connected";

    /// <inheritdoc/>
    public override string Type => TypeName;

    /// <summary>A fully connected layer with initial weights after <see cref="Initializer.He"/>.</summary>
    public FullyConnectedLayer(int outputs, bool bias = true)
        : this(outputs, Initializer.He, bias)
    {
    }

    /// <inheritdoc/>
    public override string Description => $"fully connected, {Outputs}";

    /// <inheritdoc/>
    internal override bool BackwardReadsDst => false;

    /// <summary>The operation for an input of this shape.</summary>
    internal InnerProductSpec Spec(Shape src) => new(src, Outputs, Bias);

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        InnerProductSpec spec = Spec(inputs[0]);
        spec.Validate(name);
        return spec.Dst;
    }

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters(IReadOnlyList<Shape> inputs)
    {
        InnerProductSpec spec = Spec(inputs[0]);
        return IAffineLayer.ParametersOf(spec.Weights, Bias ? spec.BiasShape : null, Initializer);
    }

    /// <inheritdoc/>
    public override long MultiplyAdds(IReadOnlyList<Shape> inputs) => Spec(inputs[0]).Flops / 2;

    internal static FullyConnectedLayer Read(LayerReader reader) => new(
        reader.Whole("outputs"), Bias: reader.Flag("bias", true), Initializer: reader.Initializer("initializer", Initializer.He));

    /// <inheritdoc/>
    protected internal override void WriteAttributes(LayerWriter writer)
    {
        writer.Write("outputs", Outputs);
        writer.Write("bias", Bias, unless: true);
        writer.Write("initializer", Initializer, unless: Initializer.He);
    }

    internal override void LowerTraining(ITrainingLowering lowering)
    {
        Tensor src = lowering.InLayout(lowering.Input(), TensorLayout.Plain);
        InnerProductSpec spec = Spec(src.Shape);
        (Tensor weights, Tensor? bias, Tensor diffWeights, Tensor? diffBias) = IAffineLayer.Learn(lowering, Bias);
        lowering.Emit(new InnerProductForward(lowering.Name, spec, src, weights, bias, lowering.NewValue(TensorLayout.Plain)));
        lowering.Backward(() =>
        {
            Tensor diffDst = lowering.Gradient;
            if (lowering.Learns)
            {
                lowering.Emit(new InnerProductBackwardWeights(lowering.Name, spec, src, diffDst, diffWeights, diffBias));
            }

            lowering.Contribute(0, TensorLayout.Plain, diffSrc => new InnerProductBackwardData(lowering.Name, spec, diffDst, weights, diffSrc));
        });
    }

    internal override void LowerInference(IInferenceLowering lowering)
    {
        Tensor src = lowering.InLayout(lowering.Input(), TensorLayout.Plain);
        (Tensor weights, Tensor? bias) = lowering.AddWeights(Bias, Outputs);
        Tensor dst = lowering.NewValue(TensorLayout.Plain);
        lowering.Emit(new InnerProductForward(lowering.Name, Spec(src.Shape) with { Bias = bias is not null }, src, weights, bias, dst));
    }

    internal override OnnxValue WriteOnnx(OnnxWriter writer)
    {
        string src = writer.Matrix();
        Shape shape = Spec(writer.InputShape()).Weights;
        IReadOnlyList<string> parameters = writer.Weights(Bias, shape, [shape.N, shape.ImageCount]);
        return new OnnxValue(writer.Node("Gemm", [src, .. parameters], ("transB", 1L)), IsMatrix: true);
    }
}
