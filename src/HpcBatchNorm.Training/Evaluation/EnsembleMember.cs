using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Training.Checkpoints;
using HpcBatchNorm.Training.Configuration;

namespace HpcBatchNorm.Training.Evaluation;

/// <summary>A network with its parameters and statistics. Several form an ensemble.</summary>
public sealed record EnsembleMember(Network Network, NetworkState State)
{
    /// <summary>Mean of each channel's pixel values this network was trained with; null means that of the evaluation.</summary>
    public IReadOnlyList<float>? PixelMean { get; init; }

    /// <summary>Deviation of each channel's pixel values this network was trained with; null means that of the evaluation.</summary>
    public IReadOnlyList<float>? PixelDeviation { get; init; }

    /// <summary>
    /// The network a checkpoint was trained with, for images of <paramref name="imageSize"/> pixels, which need not be those of the training; with the
    /// moving averages of its parameters where the run kept them.
    /// </summary>
    /// <exception cref="UserErrorException">The checkpoint knows other classes than the data set, or its tensors do not fit its own configuration.</exception>
    public static EnsembleMember Read(Checkpoint checkpoint, IImageSource images, int imageSize)
    {
        CheckClasses(checkpoint, images.ClassNames, images.Source);
        return Read(checkpoint, imageSize);
    }

    /// <summary>As above, of classes that need not be those of any images, but must be those of the first member of an ensemble.</summary>
    internal static EnsembleMember Read(Checkpoint checkpoint, Checkpoint first, int imageSize)
    {
        CheckClasses(checkpoint, first.Info.ClassNames, first.Path);
        return Read(checkpoint, imageSize);
    }

    private static EnsembleMember Read(Checkpoint checkpoint, int imageSize)
    {
        RunConfig config = EvaluationSetup.Configure(checkpoint, []);
        Network network = checkpoint.ReadNetwork();
        NetworkState state = checkpoint.ReadNetworkState(network.Infer(1, imageSize, imageSize), network.Name);
        return new EnsembleMember(network, state) { PixelMean = config.Optimizer.PixelMean, PixelDeviation = config.Optimizer.PixelDeviation };
    }

    private static void CheckClasses(Checkpoint checkpoint, IReadOnlyList<string> wanted, string source)
    {
        IReadOnlyList<string> own = checkpoint.Info.ClassNames;
        if (own.SequenceEqual(wanted))
        {
            return;
        }

        int first = own.Zip(wanted).TakeWhile(pair => pair.First == pair.Second).Count();
        string Name(IReadOnlyList<string> names) => first < names.Count ? $"'{names[first]}'" : "nothing";
        throw new UserErrorException(FormattableString.Invariant(
            $"'{checkpoint.Path}' was trained on {own.Count} other classes than the {wanted.Count} of '{source}': class {first} is {Name(own)} in the checkpoint, {Name(wanted)} in the data. Set data to the data set of its training, or give a class map (by-name where the data has some of its classes); the members of an ensemble must all know the same classes."));
    }
}
