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
