using HpcBatchNorm.Layers;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Interchange;

/// <content>Add, Sub, Mul, Div: sums of activations, and factors and offsets, which fold into the layer before them.</content>
internal sealed partial class OnnxImporter
{
    private OnnxMeaning Arithmetic(OnnxNode node)
    {
        if (node.Inputs.Count != 2)
        {
            throw new UserErrorException($"it has {node.Inputs.Count} inputs; expected two");
        }

        OnnxMeaning left = Get(node.Inputs[0]), right = Get(node.Inputs[1]);
        if (left is OnnxUnknown || right is OnnxUnknown)
        {
            return OnnxUnknown.Value;
        }

        bool swapped = left is OnnxConstant;
        (OnnxMeaning value, OnnxMeaning other) = swapped ? (right, left) : (left, right);
        if (other is not OnnxConstant constant)
        {
            return node.Operator == "Add" ? Sum(node) : throw new UserErrorException("it combines two computed values; only sums of these are known, and products with constants");
        }

        if (swapped && node.Operator == "Div")
        {
            throw new UserErrorException("it divides a constant by a computed value, for which there is no layer");
        }

        if (value is OnnxImages images)
        {
            double[] values = OfImages(constant.Tensor, images.ChannelsLast);
            (double Factor, double Offset)[] map = [.. values.Select(v => Map(node.Operator, v, swapped))];
            return new OnnxImages(
                [.. images.Factors.Zip(map, (f, m) => f * m.Factor)], [.. images.Offsets.Zip(map, (o, m) => o * m.Factor + m.Offset)], images.ChannelsLast, IsChanged: true);
        }

        return value switch
        {
            OnnxActivation or OnnxEnd => Affine(node, Plain(node.Inputs[swapped ? 1 : 0])!, constant.Tensor, swapped),
            _ => throw new UserErrorException("it computes with constants alone, or with shapes; only values that come from the images are known"),
        };
    }

    /// <summary>x -> factor * x + offset.</summary>
    private static (double Factor, double Offset) Map(string type, double constant, bool swapped) => type switch
    {
        "Add" => (1, constant),
        "Sub" => swapped ? (-1, constant) : (1, -constant),
        "Mul" => (constant, 0),
        _ => (1 / constant, 0),
    };

    /// <summary>
    /// A factor and an offset per channel or per element. Where nothing else reads the layer before, they become part of it: of the weights and bias of a
    /// convolution, of the scale and shift of a batch normalization. Elsewhere they are a batch normalization that changes nothing else.
    /// </summary>
    private OnnxActivation Affine(OnnxNode node, OnnxActivation value, OnnxTensor constant, bool swapped)
    {
        OnnxLayer layer = value.Layer;
        (float[] values, bool perActivation) = Spread(constant, value);
        (double Factor, double Offset)[] map = [.. values.Select(v => Map(node.Operator, v, swapped))];
        if (map.Any(m => !double.IsFinite(m.Factor) || !double.IsFinite(m.Offset)))
        {
            throw new UserErrorException($"its constant '{constant.Name}' has values that give no numbers");
        }

        if (value.Sole && layer.Layer is BatchNormLayer batchNorm && (batchNorm.PerActivation || !perActivation))
        {
            int each = batchNorm.PerActivation && !perActivation ? layer.Shape.Area : 1;
            float[] scale = layer.Parameters["scale"], shift = layer.Parameters["shift"];
            for (int i = 0; i < scale.Length; i++)
            {
                (double factor, double offset) = map[i / each];
                (scale[i], shift[i]) = ((float)(scale[i] * factor), (float)(shift[i] * factor + offset));
            }

            return value;
        }

        if (value.Sole && layer.Layer is IAffineLayer && !perActivation)
        {
            FoldIntoWeights(layer, map);
            return value;
        }

        _notes.Add($"'{node.Name}' ({node.Operator}) became a batch normalization with the running mean 0 and variance 1, which computes the same; in training it normalises.");
        const float Epsilon = 1e-5f;
        return Add(
            new BatchNormLayer(Epsilon, PerActivation: perActivation), [value], value.IsMatrix,
            ("scale", Array.ConvertAll(map, m => (float)m.Factor)), ("shift", Array.ConvertAll(map, m => (float)m.Offset)), ("running_mean", new float[map.Length]),
            ("running_variance", [.. Enumerable.Repeat(1 - Epsilon, map.Length)]));
    }

    private static void FoldIntoWeights(OnnxLayer layer, (double Factor, double Offset)[] map)
    {
        float[] weights = layer.Parameters["weights"];
        int row = weights.Length / map.Length;
        if (layer.Layer is IAffineLayer { Bias: false })
        {
            if (map.All(m => m.Offset == 0))
            {
                FoldFactors();
                return;
            }

            layer.Layer = layer.Layer is ConvolutionLayer convolution ? convolution with { Bias = true } : (FullyConnectedLayer)layer.Layer with { Bias = true };
            layer.Parameters["bias"] = new float[map.Length];
        }

        FoldFactors();
        float[] bias = layer.Parameters["bias"];
        for (int o = 0; o < bias.Length; o++)
        {
            bias[o] = (float)(bias[o] * map[o].Factor + map[o].Offset);
        }

        void FoldFactors()
        {
            for (int i = 0; i < weights.Length; i++)
            {
                weights[i] = (float)(weights[i] * map[i / row].Factor);
            }
        }
    }

    /// <summary>A constant as one value per channel, or per element of an image, of what it is combined with.</summary>
    private static (float[] Values, bool PerActivation) Spread(OnnxTensor constant, OnnxActivation value)
    {
        Shape shape = value.Layer.Shape;
        int rank = value.IsMatrix ? 2 : 4;
        long[] own = value.IsMatrix ? [1, shape.ImageCount] : [1, shape.C, shape.H, shape.W];
        long[] extents = [.. Enumerable.Repeat(1L, Math.Max(0, rank - constant.Extents.Count)), .. constant.Extents];
        if (constant.TryScalar(out float single) && extents.Length == rank)
        {
            return ([.. Enumerable.Repeat(single, shape.C)], false);
        }

        if (extents.Length == rank && extents.AsSpan().SequenceEqual(own))
        {
            return (constant.ReadSingles(), shape.Area > 1);
        }

        return !value.IsMatrix && extents.Length == 4 && extents.AsSpan().SequenceEqual([1L, shape.C, 1, 1])
            ? (constant.ReadSingles(), false)
            : throw new UserErrorException(
                $"its constant '{constant.Name}' is {constant.Description} beside {(value.IsMatrix ? $"{shape.ImageCount} features" : $"{shape}")}; only one number, one per channel or one per element is known");
    }
}
