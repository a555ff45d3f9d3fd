using System.Collections.Concurrent;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Layers;

/// <summary>
/// The types of layers that a network file can name, each with what makes a layer of its attributes. The library's own are there from the start;
/// a layer made elsewhere is registered once, before files with it are read.
/// </summary>
public static class LayerTypes
{
    private static readonly ConcurrentDictionary<string, Func<LayerReader, Layer>> Readers = new(
    [
        new(InputLayer.TypeName, InputLayer.Read),
        new(ConvolutionLayer.TypeName, ConvolutionLayer.Read),
        new(FullyConnectedLayer.TypeName, FullyConnectedLayer.Read),
        new(BatchNormLayer.TypeName, BatchNormLayer.Read),
        .. Enum.GetValues<ActivationKind>().Select(k => KeyValuePair.Create(ActivationLayer.TypeName(k), ActivationLayer.ReadAs(k))),
        new(PoolingLayer.MaxTypeName, PoolingLayer.ReadMax),
        new(PoolingLayer.AverageTypeName, PoolingLayer.ReadAverage),
        new(GlobalAveragePoolingLayer.TypeName, GlobalAveragePoolingLayer.Read),
        new(LrnLayer.TypeName, LrnLayer.Read),
        new(DropoutLayer.TypeName, DropoutLayer.Read),
        new(ConcatLayer.TypeName, ConcatLayer.Read),
        new(SumLayer.TypeName, SumLayer.Read),
        new(SoftmaxLossLayer.TypeName, SoftmaxLossLayer.Read),
    ], StringComparer.Ordinal);

    /// <summary>The library's own types.</summary>
    internal static IReadOnlyCollection<string> BuiltIn { get; } = [.. Readers.Keys];

    /// <summary>All types that are known now.</summary>
    public static IReadOnlyCollection<string> Known => [.. Readers.Keys.Order(StringComparer.Ordinal)];

    /// <summary>
    /// Makes a type known: <c>LayerTypes.Register("my_norm", r =&gt; new MyNormLayer(r.Real("epsilon", 1e-5f)))</c>. The layer's <see cref="Layer.Type"/> must
    /// be the same word, and its <see cref="Layer.WriteAttributes"/> write what <paramref name="read"/> reads.
    /// </summary>
    /// <exception cref="ArgumentException">The type is known already, with another reader.</exception>
    public static void Register(string type, Func<LayerReader, Layer> read)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(type);
        ArgumentNullException.ThrowIfNull(read);
        if (Readers.GetOrAdd(type, read) != read)
        {
            throw new ArgumentException($"There is a layer type '{type}' already. Give this one another word, and register each type once.", nameof(type));
        }
    }

    /// <summary>Makes a layer of its attributes.</summary>
    /// <exception cref="UserErrorException">The type is not known, or the attributes are not those it takes.</exception>
    internal static Layer Read(LayerReader reader)
    {
        if (!Readers.TryGetValue(reader.Type, out Func<LayerReader, Layer>? read))
        {
            throw new UserErrorException(
                $"Layer '{reader.Name}' has the type '{reader.Type}', which is not known{NearestName.HintOrStop(reader.Type, Known)} Known: {string.Join(", ", Known)}. " +
                "A type made elsewhere is made known with LayerTypes.Register, or by giving hpcbn the assembly that does so.");
        }

        Layer layer = read(reader);
        reader.End();
        return layer.Type == reader.Type
            ? layer
            : throw new InvalidOperationException($"The reader registered for the layer type '{reader.Type}' made a layer whose type is '{layer.Type}'; the words must be the same.");
    }

    /// <summary>Writes what <see cref="Read"/> reads.</summary>
    /// <exception cref="NotSupportedException">The type is not known, so that nothing could read it.</exception>
    internal static void Write(string name, Layer layer, LayerWriter writer)
    {
        if (!Readers.ContainsKey(layer.Type))
        {
            throw new NotSupportedException(
                $"Layer '{name}' has the type '{layer.Type}', which is not known, so that a network file with it could not be read. Make it known with LayerTypes.Register.");
        }

        layer.WriteAttributes(writer);
        writer.End();
    }
}
