using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <summary>
/// Batch normalization with constant statistics is an affine map, x -> factor * x + offset with factor = scale / sqrt(variance + epsilon) and
/// offset = shift - mean * factor (Algorithm 2, line 11), and so folds into the layer before it. Computed in double.
/// </summary>
internal static class BatchNormFolding
{
    /// <summary>True for a batch normalization with one factor per output channel of the convolution or fully connected layer before it.</summary>
    public static bool IsFoldable(Node batchNorm, NetworkShapes shapes) =>
        batchNorm.Layer is BatchNormLayer bn && batchNorm.Inputs[0].Layer is ConvolutionLayer or FullyConnectedLayer
        && (!bn.PerActivation || shapes[batchNorm].Area == 1);

    /// <summary>Factor and offset of every element of <paramref name="parameters"/>.</summary>
    public static (float[] Factors, float[] Offsets) Affine(Node batchNorm, Shape parameters, NetworkState state)
    {
        (double[] factors, double[] offsets) = AffineInDouble(batchNorm, parameters, state);
        return (Array.ConvertAll(factors, f => (float)f), Array.ConvertAll(offsets, o => (float)o));
    }

    /// <summary>
    /// Weights and bias of <paramref name="layer"/> with <paramref name="batchNorm"/> folded into them: weights' = factor * weights,
    /// bias' = offset + factor * bias.
    /// </summary>
    public static (float[] Weights, float[] Bias) Fold(Node layer, Node batchNorm, Shape weightsShape, NetworkState state)
    {
        var channels = Shape.Vector(weightsShape.N);
        bool hasBias = layer.Layer is ConvolutionLayer { Bias: true } or FullyConnectedLayer { Bias: true };
        ReadOnlySpan<float> bias = hasBias ? state.Get($"{layer.Name}.bias", channels) : new float[channels.C];
        (double[] factors, double[] offsets) = AffineInDouble(batchNorm, channels, state);
        float[] weights = state.Get($"{layer.Name}.weights", weightsShape).ToArray();
        float[] folded = new float[channels.C];
        int rowLength = weightsShape.ImageCount;
        for (int o = 0; o < channels.C; o++)
        {
            foreach (ref float weight in weights.AsSpan(o * rowLength, rowLength))
            {
                weight = (float)(weight * factors[o]);
            }

            folded[o] = (float)(offsets[o] + bias[o] * factors[o]);
        }

        return (weights, folded);
    }

    private static (double[] Factors, double[] Offsets) AffineInDouble(Node batchNorm, Shape parameters, NetworkState state)
    {
        string name = batchNorm.Name;
        float epsilon = ((BatchNormLayer)batchNorm.Layer).Epsilon;
        ReadOnlySpan<float> scale = state.Get($"{name}.scale", parameters);
        ReadOnlySpan<float> shift = state.Get($"{name}.shift", parameters);
        ReadOnlySpan<float> mean = state.Get($"{name}.running_mean", parameters);
        ReadOnlySpan<float> variance = state.Get($"{name}.running_variance", parameters);
        double[] factors = new double[scale.Length], offsets = new double[scale.Length];
        for (int i = 0; i < factors.Length; i++)
        {
            factors[i] = scale[i] / Math.Sqrt((double)variance[i] + epsilon);
            offsets[i] = shift[i] - mean[i] * factors[i];
        }

        return (factors, offsets);
    }
}
