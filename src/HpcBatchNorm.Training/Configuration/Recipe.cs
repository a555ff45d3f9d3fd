using System.Reflection;

namespace HpcBatchNorm.Training;

/// <summary>The recipes that come with the library: YAML files of settings with their reasons, one per network of the paper and a few of ours.</summary>
public static class RecipeCatalog
{
    private const string Prefix = "HpcBatchNorm.Training.Recipes.";
    private const string Suffix = ".yaml";

    private static readonly Assembly Library = typeof(RecipeCatalog).Assembly;

    /// <summary>Names of all recipes, sorted.</summary>
    public static IReadOnlyList<string> Names { get; } =
    [
        .. Library.GetManifestResourceNames()
            .Where(n => n.StartsWith(Prefix, StringComparison.Ordinal) && n.EndsWith(Suffix, StringComparison.Ordinal))
            .Select(n => n[Prefix.Length..^Suffix.Length])
            .Order(StringComparer.Ordinal),
    ];

    /// <summary>The recipe's YAML with its comments.</summary>
    /// <exception cref="UserErrorException">There is no recipe of that name; the message suggests the nearest.</exception>
    public static string Text(string name)
    {
        using Stream? stream = Library.GetManifestResourceStream(Prefix + name + Suffix);
        if (stream is null)
        {
            throw new UserErrorException(
                $"There is no recipe '{name}'{NearestName.Hint(name, Names)} Recipes are {string.Join(", ", Names)}; a file's name must end in .yaml.");
        }

        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }

    /// <summary>The recipe that goes with a network when none is named.</summary>
    public static string DefaultFor(string model) => model switch
    {
        "inception" => "inception",
        "inception-tiny" => "quick",
        "mnist-mlp" => "mnist",
        "inception-v3" => "inception-v3",
        _ when model.StartsWith("resnet-", StringComparison.Ordinal) => "resnet",
        _ => "bn-x5",
    };

    /// <summary>The settings of a recipe by name, or of a file when the name ends in <c>.yaml</c> or <c>.yml</c>.</summary>
    internal static IReadOnlyList<ConfigEntry> Read(string nameOrFile)
    {
        if (nameOrFile.EndsWith(".yaml", StringComparison.OrdinalIgnoreCase) || nameOrFile.EndsWith(".yml", StringComparison.OrdinalIgnoreCase))
        {
            return ConfigFile.Read(nameOrFile);
        }

        using var reader = new StringReader(Text(nameOrFile));
        return ConfigFile.Parse(reader, $"recipe {nameOrFile}");
    }
}
