using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Networks;

/// <summary>
/// The values of a network's parameters and running statistics on the host, by name: what inference is made from, and what a checkpoint holds.
/// Names are <c>layer.parameter</c>, values in logical NCHW order.
/// </summary>
public sealed class NetworkState
{
    private readonly Dictionary<string, (Shape Shape, float[] Values)> _tensors = new(StringComparer.Ordinal);

    /// <summary>All names, in the order they were set.</summary>
    public IReadOnlyCollection<string> Names => _tensors.Keys;

    /// <summary>The initial parameters and running statistics of a network: those a training session begins with.</summary>
    public static NetworkState Initial(NetworkShapes shapes, ulong seed)
    {
        var state = new NetworkState();
        foreach (NetworkParameter parameter in shapes.Parameters)
        {
            float[] values = new float[parameter.Spec.Shape.Count];
            parameter.Spec.Initializer.Fill(parameter.Spec.Shape, values, seed, parameter.Name);
            state.Take(parameter.Name, parameter.Spec.Shape, values);
        }

        return state;
    }

    /// <summary>Sets a tensor to a copy of the values, in logical order.</summary>
    /// <exception cref="ArgumentException">They are not as many as the shape has.</exception>
    public void Set(string name, Shape shape, ReadOnlySpan<float> values)
    {
        ArgumentNullException.ThrowIfNull(name);
        Take(name, shape, values.ToArray());
    }

    /// <summary>Sets a tensor; the array is kept, not copied.</summary>
    internal void Take(string name, Shape shape, float[] values)
    {
        if (values.Length != shape.Count)
        {
            throw new ArgumentException($"'{name}' of shape {shape} has {shape.Count} values, got {values.Length}.");
        }

        _tensors[name] = (shape, values);
    }

    /// <summary>The values of a tensor of the expected shape.</summary>
    /// <exception cref="UserErrorException">
    /// The tensor is missing or has another shape: the state belongs to another network. Or a value is infinite or NaN, of which a network makes results that
    /// look like any other; or a variance is negative.
    /// </exception>
    public ReadOnlySpan<float> Get(string name, Shape shape)
    {
        ArgumentNullException.ThrowIfNull(name);
        if (!_tensors.TryGetValue(name, out (Shape Shape, float[] Values) tensor))
        {
            throw new UserErrorException($"The state has no tensor '{name}' ({shape}); it belongs to another network or to other options.");
        }

        if (tensor.Shape == shape)
        {
            string? found = FiniteCheck.Describe(tensor.Values);
            if (found is null && name.EndsWith(".running_variance", StringComparison.Ordinal) && Array.FindIndex(tensor.Values, v => v < 0) is >= 0 and int place)
            {
                found = FormattableString.Invariant($"a variance is never negative, but its value number {place} is {tensor.Values[place]}");
            }

            return found is null
                ? tensor.Values
                : throw new UserErrorException($"The tensor '{name}' of the state cannot be used: {found}. Use the state of an earlier checkpoint.");
        }

        throw new UserErrorException(
            $"The tensor '{name}' is {tensor.Shape} in the state but {shape} in the network; it belongs to another network, width, image size or number of classes.");
    }
}
