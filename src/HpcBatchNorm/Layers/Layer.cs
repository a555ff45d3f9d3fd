using HpcBatchNorm.Operations;
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
/// A layer as pure data. It knows its output shape and its parameters for given input shapes; it has no memory and names no backend.
/// </summary>
public abstract record Layer
{
    /// <summary>What it is, in a few words, for tables: <c>convolution 3x3/2, 192</c>.</summary>
    public abstract string Description { get; }

    /// <summary>The output's shape. Throws <see cref="ArgumentException"/> naming the layer when the inputs do not fit.</summary>
    public abstract Shape Infer(string name, IReadOnlyList<Shape> inputs);

    /// <summary>The persistent tensors for these input shapes.</summary>
    public virtual IReadOnlyList<ParameterSpec> Parameters(IReadOnlyList<Shape> inputs) => [];

    /// <summary>Multiply-adds of one forward pass.</summary>
    public virtual long MultiplyAdds(IReadOnlyList<Shape> inputs) => 0;
}

/// <summary>The images: <paramref name="Channels"/> channels of any size.</summary>
public sealed record InputLayer(int Channels) : Layer
{
    /// <inheritdoc/>
    public override string Description => $"input, {Channels} channels";

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => inputs[0];
}

/// <summary>A convolution with a square kernel, one stride and equal padding on all sides.</summary>
public sealed record ConvolutionLayer(int OutputChannels, int Kernel, Initializer Initializer, int Stride = 1, int Pad = 0, int Groups = 1, bool Bias = false) : Layer
{
    /// <inheritdoc/>
    public override string Description =>
        $"convolution {Kernel}x{Kernel}{(Stride > 1 ? $"/{Stride}" : "")}, {OutputChannels}{(Groups > 1 ? $", {Groups} groups" : "")}{(Bias ? ", bias" : "")}";

    /// <summary>True for a dense 1x1 convolution at every position: it mixes channels only.</summary>
    public bool IsPointwise => Kernel == 1 && Stride == 1 && Pad == 0 && Groups == 1;

    /// <summary>The operation for an input of this shape.</summary>
    public ConvolutionSpec Spec(Shape src) => ConvolutionSpec.Square(src, OutputChannels, Kernel, Stride, Pad, Groups, Bias);

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        ConvolutionSpec spec = Spec(inputs[0]);
        spec.Validate(name);
        return spec.Dst;
    }

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters(IReadOnlyList<Shape> inputs)
    {
        ConvolutionSpec spec = Spec(inputs[0]);
        var weights = new ParameterSpec("weights", spec.Weights, ParameterKind.Weights, Initializer);
        return Bias ? [weights, new ParameterSpec("bias", spec.BiasShape, ParameterKind.ScaleShiftBias, Initializer.Constant(0))] : [weights];
    }

    /// <inheritdoc/>
    public override long MultiplyAdds(IReadOnlyList<Shape> inputs) => Spec(inputs[0]).Flops / 2;
}

/// <summary>Batch normalization, convolutional or per activation. Initially scale 1, shift 0, running mean 0, running variance 1.</summary>
public sealed record BatchNormLayer(float Epsilon = 1e-5f, float AveragingFactor = 0.1f, bool PerActivation = false, float InitialScale = 1f) : Layer
{
    /// <inheritdoc/>
    public override string Description => PerActivation ? "batch norm per activation" : "batch norm";

    /// <summary>The operation for an input of this shape.</summary>
    public BatchNormSpec Spec(Shape src, bool relu = false) => new(src, Epsilon, PerActivation, relu);

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        Spec(inputs[0]).Validate(name);
        return inputs[0];
    }

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters(IReadOnlyList<Shape> inputs)
    {
        Shape shape = Spec(inputs[0]).Parameters;
        return
        [
            new ParameterSpec("scale", shape, ParameterKind.ScaleShiftBias, Initializer.Constant(InitialScale)),
            new ParameterSpec("shift", shape, ParameterKind.ScaleShiftBias, Initializer.Constant(0)),
            new ParameterSpec("running_mean", shape, ParameterKind.RunningStatistic, Initializer.Constant(0)),
            new ParameterSpec("running_variance", shape, ParameterKind.RunningStatistic, Initializer.Constant(1)),
        ];
    }
}

/// <summary>An element-wise nonlinearity.</summary>
public sealed record ActivationLayer(ActivationKind Function) : Layer
{
    /// <inheritdoc/>
    public override string Description => Function.Name();

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => inputs[0];
}

/// <summary>Pooling with a square window; <paramref name="Ceil"/> rounds the output size up.</summary>
public sealed record PoolingLayer(PoolingKind Kind, int Kernel, int Stride, int Pad = 0, bool Ceil = false) : Layer
{
    /// <inheritdoc/>
    public override string Description => $"{(Kind == PoolingKind.Max ? "max" : "average")} pooling {Kernel}x{Kernel}{(Stride > 1 ? $"/{Stride}" : "")}";

    /// <summary>The operation for an input of this shape.</summary>
    public PoolingSpec Spec(Shape src) => PoolingSpec.Square(src, Kind, Kernel, Stride, Pad, Ceil);

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        PoolingSpec spec = Spec(inputs[0]);
        spec.Validate(name);
        return spec.Dst;
    }
}

/// <summary>The mean over all positions of each channel.</summary>
public sealed record GlobalAveragePoolingLayer : Layer
{
    /// <inheritdoc/>
    public override string Description => "global average pooling";

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => PoolingSpec.GlobalAverage(inputs[0]).Dst;
}

/// <summary>Local response normalization across channels.</summary>
public sealed record LrnLayer(int Size = 5, float Alpha = 1e-4f, float Beta = 0.75f, float K = 1f) : Layer
{
    /// <inheritdoc/>
    public override string Description => $"local response normalization, {Size} channels";

    /// <summary>The operation for an input of this shape.</summary>
    public LrnSpec Spec(Shape src) => new(src, Size, Alpha, Beta, K);

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        Spec(inputs[0]).Validate(name);
        return inputs[0];
    }
}

/// <summary>Dropout; the identity at inference.</summary>
public sealed record DropoutLayer(float Ratio) : Layer
{
    /// <inheritdoc/>
    public override string Description => FormattableString.Invariant($"dropout {Ratio:P0}").Replace(" %", "%", StringComparison.Ordinal);

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs)
    {
        new DropoutSpec(inputs[0], Ratio, 0, 0).Validate(name);
        return inputs[0];
    }
}

/// <summary>A fully connected layer over all elements of an image.</summary>
public sealed record FullyConnectedLayer(int Outputs, Initializer Initializer, bool Bias = true) : Layer
{
    /// <inheritdoc/>
    public override string Description => $"fully connected, {Outputs}";

    /// <summary>The operation for an input of this shape.</summary>
    public InnerProductSpec Spec(Shape src) => new(src, Outputs, Bias);

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
        var weights = new ParameterSpec("weights", spec.Weights, ParameterKind.Weights, Initializer);
        return Bias ? [weights, new ParameterSpec("bias", spec.BiasShape, ParameterKind.ScaleShiftBias, Initializer.Constant(0))] : [weights];
    }

    /// <inheritdoc/>
    public override long MultiplyAdds(IReadOnlyList<Shape> inputs) => Spec(inputs[0]).Flops / 2;
}

/// <summary>Concatenation along channels.</summary>
public sealed record ConcatLayer : Layer
{
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
}

/// <summary>Element-wise sum.</summary>
public sealed record SumLayer : Layer
{
    /// <inheritdoc/>
    public override string Description => "sum";

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
}

/// <summary>Softmax and cross-entropy against the labels; the network's loss is the sum over its heads, each times its weight.</summary>
public sealed record SoftmaxLossLayer(float Weight = 1f) : Layer
{
    /// <inheritdoc/>
    public override string Description => Weight == 1f ? "softmax loss" : FormattableString.Invariant($"softmax loss, weight {Weight}");

    /// <inheritdoc/>
    public override Shape Infer(string name, IReadOnlyList<Shape> inputs) => inputs[0];
}
