using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <summary>
/// Batch normalization with constant statistics is an affine map (<see cref="BatchNormLayer.Affine"/>; Algorithm 2, line 11), and so folds into the layer
/// before it. Computed in double.
/// </summary>
internal static class BatchNormFolding
{
    /// <summary>True for a batch normalization with one factor per output channel of the convolution or fully connected layer before it.</summary>
    public static bool IsFoldable(Node batchNorm, NetworkShapes shapes) =>
        batchNorm.Layer is BatchNormLayer bn && batchNorm.Inputs[0].Layer is IAffineLayer && (!bn.PerActivation || shapes[batchNorm].Area == 1);

    /// <summary>
    /// Weights and bias of <paramref name="layer"/> with <paramref name="batchNorm"/> folded into them: weights' = factor * weights,
    /// bias' = offset + factor * bias.
    /// </summary>
    public static (float[] Weights, float[] Bias) Fold(Node layer, Node batchNorm, Shape weightsShape, NetworkState state)
    {
        var channels = Shape.Vector(weightsShape.N);
        bool hasBias = layer.Layer is IAffineLayer { Bias: true };
        ReadOnlySpan<float> bias = hasBias ? state.Get($"{layer.Name}.bias", channels) : new float[channels.C];
        (double[] factors, double[] offsets) = Affine(batchNorm, channels, state);
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

    private static (double[] Factors, double[] Offsets) Affine(Node batchNorm, Shape parameters, NetworkState state)
    {
        ReadOnlySpan<float> Get(string name) => state.Get($"{batchNorm.Name}.{name}", parameters);
        return ((BatchNormLayer)batchNorm.Layer).Affine(Get("scale"), Get("shift"), Get("running_mean"), Get("running_variance"));
    }
}
