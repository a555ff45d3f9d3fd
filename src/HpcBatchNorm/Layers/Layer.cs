using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>What a parameter is, for weight decay and for counting.</summary>
public enum ParameterKind
{
    /// <summary>Weights of a convolution or a fully connected layer: decayed.</summary>
    Weights,

    /// <summary>Bias, scale or shift: learned, not decayed unless asked.</summary>
    ScaleShiftBias,

    /// <summary>Running mean or running variance: kept, not learned.</summary>
    RunningStatistic,
}

/// <summary>A persistent tensor of a layer: its name within the layer, shape, kind and initial values.</summary>
public sealed record ParameterSpec(string Name, Shape Shape, ParameterKind Kind, Initializer Initializer);

/// <summary>
/// A layer as pure data. It knows its output shape and its parameters for given input shapes; it has no memory and names no backend. All that is
/// special about a kind of layer stands in its own file: what it computes, how training, inference, ONNX and network files have it.
/// </summary>
public abstract record Layer
{
    private protected Layer()
    {
    }

    /// <summary>The word for this kind of layer in network files: <c>convolution</c> (<see cref="LayerTypes"/>).</summary>
    public abstract string Type { get; }

    /// <summary>The fewest inputs it takes.</summary>
    public virtual int MinimumInputs => 1;

    /// <summary>The most inputs it takes.</summary>
    public virtual int MaximumInputs => 1;

    /// <summary>What it is, in a few words, for tables: <c>convolution 3x3/2, 192</c>.</summary>
    public abstract string Description { get; }

    /// <summary>The output's shape. Throws <see cref="ArgumentException"/> naming the layer when the inputs do not fit.</summary>
    public abstract Shape Infer(string name, IReadOnlyList<Shape> inputs);

    /// <summary>The persistent tensors for these input shapes.</summary>
    public virtual IReadOnlyList<ParameterSpec> Parameters(IReadOnlyList<Shape> inputs) => [];

    /// <summary>Multiply-adds of one forward pass.</summary>
    public virtual long MultiplyAdds(IReadOnlyList<Shape> inputs) => 0;

    /// <summary>Writes the attributes that the layer's reader takes, those with their usual values left out.</summary>
    protected internal abstract void WriteAttributes(LayerWriter writer);

    /// <summary>True when the layer's backward pass reads its own output, so that nothing may overwrite that.</summary>
    internal virtual bool BackwardReadsDst => true;

    /// <summary>Emits the forward pass of training, and says how its backward pass is emitted.</summary>
    internal abstract void LowerTraining(ITrainingLowering lowering);

    /// <summary>Emits inference.</summary>
    internal abstract void LowerInference(IInferenceLowering lowering);

    /// <summary>Writes the inference form as ONNX nodes and returns the last one's value.</summary>
    /// <exception cref="NotSupportedException">ONNX has no form for the layer.</exception>
    internal abstract OnnxValue WriteOnnx(OnnxWriter writer);
}

/// <summary>
/// A layer whose output channel o is bias[o] + weights[o] times its input: a batch normalization behind it multiplies rows of weights, and so folds into it.
/// </summary>
internal interface IAffineLayer
{
    bool Bias { get; }

    /// <summary>Weights, and a bias that begins with 0 where there is one.</summary>
    static IReadOnlyList<ParameterSpec> ParametersOf(Shape weights, Shape? bias, Initializer initializer)
    {
        var matrix = new ParameterSpec("weights", weights, ParameterKind.Weights, initializer);
        return bias is { } shape ? [matrix, new ParameterSpec("bias", shape, ParameterKind.ScaleShiftBias, Initializer.Constant(0))] : [matrix];
    }

    /// <summary>The tensors of training: the weights as they are multiplied, the bias, and their gradients.</summary>
    static (Tensor Weights, Tensor? Bias, Tensor DiffWeights, Tensor? DiffBias) Learn(ITrainingLowering lowering, bool hasBias)
    {
        Tensor weights = lowering.Multiplied(lowering.Learn("weights", TensorLayout.Opaque, out Tensor diffWeights));
        Tensor? diffBias = null;
        Tensor? bias = hasBias ? lowering.Learn("bias", TensorLayout.Plain, out diffBias) : null;
        return (weights, bias, diffWeights, diffBias);
    }
}
