namespace HpcBatchNorm.Backends.Cudnn;

/// <content>
/// Images in 16 bits, prepared with zeros behind their channels: tensor cores multiply a multiple of eight, and cuDNN would copy the image to have them, forward
/// and for the gradient of the weights. What is left is to do the same with the weights, which are few.
/// </content>
internal sealed partial class CudnnBackend
{
    /// <summary>Channels of which tensor cores take a multiple, in 16 bits.</summary>
    private const int TensorCoreChannels = 8;

    /// <summary>Weights with zeros behind their channels, in scratch memory: its size, and what writes it.</summary>
    private readonly record struct PaddedWeights(long Bytes, CudnnLaunch Launch);

    /// <summary>The weights for as many channels as src has with its zeros, from byte <paramref name="at"/> of scratch memory on; null where src has none.</summary>
    private PaddedWeights? Padded(Problem problem, CudnnBuffer src, CudnnBuffer weights, long at)
    {
        if (src.PaddedColumns == src.Columns)
        {
            return null;
        }

        long bytes = ((long)weights.Rows * src.PaddedColumns * weights.ElementBytes + 255) & ~255L;
        return new PaddedWeights(bytes, Launch("pad_channels", problem.Type, Spread((long)weights.Rows * src.PaddedColumns), problem.Operation)
            .Address(weights).Scratch(at).Number(weights.Rows).Number(weights.Columns).Number(src.PaddedColumns).Moves(Traffic(weights) + bytes));
    }
}
