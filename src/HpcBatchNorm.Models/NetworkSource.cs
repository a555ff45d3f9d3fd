using HpcBatchNorm.Networks;

namespace HpcBatchNorm.Models;

/// <summary>Where somebody's network comes from: the catalogue, by its name, or a file that describes it.</summary>
public static class NetworkSource
{
    private const string Extension = ".json";

    /// <summary>True for what <see cref="Resolve"/> takes for a file: it ends in <c>.json</c>.</summary>
    public static bool IsFile(string nameOrFile) => nameOrFile.EndsWith(Extension, StringComparison.OrdinalIgnoreCase);

    /// <summary>
    /// Makes a network of <see cref="NetworkCatalog"/> with these options, or the one that a JSON file describes, which is as it is: the options, its
    /// number of classes too, are its own.
    /// </summary>
    /// <exception cref="UserErrorException">There is no network of that name, or the file cannot be read or describes none.</exception>
    public static Network Resolve(string nameOrFile, NetworkOptions options) => IsFile(nameOrFile) ? Read(nameOrFile) : NetworkCatalog.Create(nameOrFile, options);

    /// <summary>Number of classes that a network tells apart.</summary>
    /// <param name="network">The network.</param>
    /// <param name="imageSize">Height and width of the images it is asked about.</param>
    public static int ClassesOf(Network network, int imageSize) => network.Infer(1, imageSize, imageSize)[network.Loss.Inputs[0]].ImageCount;

    /// <summary>Throws when a network has another number of outputs than a data set has classes.</summary>
    /// <param name="network">The network.</param>
    /// <param name="classes">Classes there are.</param>
    /// <param name="source">What has these classes, for the message.</param>
    /// <param name="imageSize">Height and width of the images it gets.</param>
    /// <exception cref="UserErrorException">They differ.</exception>
    public static void CheckClasses(Network network, int classes, string source, int imageSize)
    {
        int own = ClassesOf(network, imageSize);
        if (own != classes)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"{network.Name} tells {own} classes apart, '{source}' has {classes}. Give its last layer, '{network.Loss.Inputs[0].Name}', {classes} outputs, or take other images."));
        }
    }

    private static Network Read(string path)
    {
        try
        {
            return Network.FromJson(TextFile.ReadAllText(path));
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"The network's file '{path}' cannot be read: {error.Message}", error);
        }
        catch (UserErrorException error)
        {
            throw new UserErrorException($"'{path}': {error.Message}", error);
        }
    }
}
