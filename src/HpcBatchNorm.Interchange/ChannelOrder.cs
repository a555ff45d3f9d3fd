using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Interchange;

/// <summary>Images are R, G, B here. A network that was trained on B, G, R is the same network with the input channels of its first convolution exchanged.</summary>
internal static class ChannelOrder
{
    /// <summary>True for the weights of a convolution of the images.</summary>
    public static bool IsFirst(NetworkParameter parameter) =>
        parameter is { Spec.Name: "weights", Node: { Layer: ConvolutionLayer { Groups: 1 }, Inputs: [{ Layer: InputLayer { Channels: 3 } }] } };

    /// <summary>Exchanges the first and the last of three input channels.</summary>
    public static void Exchange(Span<float> weights, Shape shape)
    {
        for (int output = 0; output < shape.N; output++)
        {
            Span<float> first = weights.Slice(output * shape.ImageCount, shape.Area), last = weights.Slice(output * shape.ImageCount + 2 * shape.Area, shape.Area);
            for (int i = 0; i < first.Length; i++)
            {
                (first[i], last[i]) = (last[i], first[i]);
            }
        }
    }

    /// <summary>Exchanges them in all convolutions of the images.</summary>
    /// <exception cref="UserErrorException">Something else reads the images too.</exception>
    public static void Exchange(Network network, NetworkShapes shapes, NetworkState state, string path)
    {
        NetworkParameter[] first = [.. shapes.Parameters.Where(IsFirst)];
        if (network.Nodes.FirstOrDefault(n => n.Inputs.Contains(network.Input) && !first.Any(p => p.Node == n)) is { } other)
        {
            throw new UserErrorException(
                $"'{path}' cannot be made to take R, G, B: '{other.Name}' ({other.Layer.Description}) reads its images too. Only convolutions of three channels without groups can.");
        }

        foreach (NetworkParameter parameter in first)
        {
            float[] weights = state.Get(parameter.Name, parameter.Spec.Shape).ToArray();
            Exchange(weights, parameter.Spec.Shape);
            state.Take(parameter.Name, parameter.Spec.Shape, weights);
        }
    }
}
