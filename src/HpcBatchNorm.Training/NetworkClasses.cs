using HpcBatchNorm.Networks;

namespace HpcBatchNorm.Training;

/// <summary>Whether a network's outputs are as many as the classes there are.</summary>
internal static class NetworkClasses
{
    /// <param name="network">The network.</param>
    /// <param name="classes">Classes there are.</param>
    /// <param name="source">What has these classes, for the message.</param>
    /// <param name="imageSize">Height and width of the images it gets.</param>
    /// <exception cref="UserErrorException">They differ.</exception>
    public static void Check(Network network, int classes, string source, int imageSize)
    {
        int own = network.Infer(1, imageSize, imageSize)[network.Loss.Inputs[0]].ImageCount;
        if (own != classes)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"{network.Name} tells {own} classes apart, '{source}' has {classes}. Give its last layer, '{network.Loss.Inputs[0].Name}', {classes} outputs, or take other images."));
        }
    }
}
