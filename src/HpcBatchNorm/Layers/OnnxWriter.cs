using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>A value of an ONNX graph.</summary>
/// <param name="Name">Its name.</param>
/// <param name="IsMatrix">True for batch x features, what a fully connected layer gives; false for maps, batch x channels x rows x columns.</param>
public readonly record struct OnnxValue(string Name, bool IsMatrix);

/// <summary>
/// What a layer says to write itself as ONNX (operator set 17), in the inference form and for one image size; the batch is open. One object stands for one
/// layer of a network. What a layer writes last has the layer's name.
/// </summary>
public abstract class OnnxWriter
{
    internal OnnxWriter()
    {
    }

    /// <summary>The layer's name in the network.</summary>
    public abstract string Name { get; }

    /// <summary>How many inputs the layer has.</summary>
    public abstract int InputCount { get; }

    /// <summary>An input as it is.</summary>
    public abstract OnnxValue Input(int index = 0);

    /// <summary>The shape of an input for a batch of one.</summary>
    public abstract Shape InputShape(int index = 0);

    /// <summary>An input as maps.</summary>
    /// <exception cref="NotSupportedException">It is a matrix.</exception>
    public abstract string Maps(int index = 0);

    /// <summary>An input as a matrix, flattened where it is maps.</summary>
    public abstract string Matrix(int index = 0);

    /// <summary>The values of one of the layer's parameters.</summary>
    public abstract float[] Parameter(string parameter, Shape shape);

    /// <summary>Adds a constant tensor <c>layer.name</c>, whose values are not copied, and returns its name.</summary>
    public abstract string Constant(string name, IReadOnlyList<long> extents, float[] values);

    /// <summary>Adds a node that computes the layer's value, and returns the value's name, which is the layer's.</summary>
    /// <param name="type">The operator, e.g. <c>Conv</c>.</param>
    /// <param name="inputs">Names of values and constants.</param>
    /// <param name="attributes">Attributes: <see cref="long"/>, <see cref="float"/> or an array of <see cref="long"/>.</param>
    public abstract string Node(string type, IEnumerable<string> inputs, params IEnumerable<(string Name, object Value)> attributes);

    /// <summary>Adds a node before the last one, <c>layer/name</c>, and returns its value's name.</summary>
    public abstract string Inner(string name, string type, IEnumerable<string> inputs, params IEnumerable<(string Name, object Value)> attributes);

    /// <summary>Declares the graph's input and returns the images made of it.</summary>
    internal abstract OnnxValue Images();

    /// <summary>
    /// Constants of an <see cref="IAffineLayer"/>: weights, and bias where it has one or a batch normalization folds into it. The layer's value is then the
    /// batch normalization's too.
    /// </summary>
    internal abstract IReadOnlyList<string> Weights(bool bias, Shape shape, IReadOnlyList<long> extents);

    /// <summary>Adds the node that computes the graph's output <c>probabilities</c>, with this many classes.</summary>
    internal abstract OnnxValue Probabilities(string type, IEnumerable<string> inputs, int classes, params IEnumerable<(string Name, object Value)> attributes);
}
