namespace HpcBatchNorm.Training;

/// <summary>
/// Makes a <see cref="RunConfig"/> in layers, later ones winning: the defaults, a recipe, a file, single settings by name.
/// </summary>
public sealed class TrainingConfigBuilder
{
    /// <summary>The <see cref="Origin"/> of what was set by name, one by one.</summary>
    internal const string Flag = "flag";

    private const string RecipeKey = "recipe";

    private readonly Dictionary<string, string> _origins = new(StringComparer.Ordinal);

    /// <summary>The configuration so far.</summary>
    public RunConfig Config { get; private set; } = TrainingSettings.Defaults;

    /// <summary>Where a setting's value came from: <c>default</c>, <c>recipe bn-x5</c>, <c>my.yaml:3</c>, <c>flag</c>.</summary>
    internal string Origin(string name) => _origins.GetValueOrDefault(name, "default");

    /// <summary>True when some layer has set it.</summary>
    internal bool IsSet(string name) => _origins.ContainsKey(name);

    /// <summary>Lays a recipe over what is there: a name of <see cref="RecipeCatalog"/>, or a YAML file.</summary>
    public TrainingConfigBuilder AddRecipe(string nameOrFile)
    {
        string origin = $"recipe {nameOrFile}";
        Add(RecipeCatalog.Read(nameOrFile), origin);
        return Set("name", Path.GetFileNameWithoutExtension(nameOrFile), origin);
    }

    /// <summary>
    /// Lays a configuration file over what is there. Its key <c>recipe</c>, if any, is laid first, unless <paramref name="withItsRecipe"/> is false
    /// because another recipe was asked for.
    /// </summary>
    public TrainingConfigBuilder AddFile(string path, bool withItsRecipe = true)
    {
        Add([.. ConfigFile.Read(path).Where(e => withItsRecipe || e.Name != RecipeKey)], origin: null);
        return this;
    }

    /// <summary>Lays configuration text (what <see cref="ToYaml"/> wrote) over what is there.</summary>
    public TrainingConfigBuilder AddYaml(string yaml, string source)
    {
        using var reader = new StringReader(yaml);
        Add(ConfigFile.Parse(reader, source), source);
        return this;
    }

    /// <summary>Sets one setting by its name in docs/settings.md: <c>Set("learning-rate", "0.05")</c>.</summary>
    /// <exception cref="UserErrorException">There is no such setting, or the value is none of it.</exception>
    public TrainingConfigBuilder Set(string name, string value) => Set(name, value, Flag);

    internal TrainingConfigBuilder Set(string name, string value, string origin)
    {
        Setting setting = TrainingSettings.Find(name);
        Config = setting.Set(Config, value);
        _origins[setting.Name] = origin;
        return this;
    }

    /// <summary>The effective configuration as YAML that <see cref="AddFile"/> and <see cref="AddYaml"/> read.</summary>
    public static string ToYaml(RunConfig config, params IEnumerable<string> head) => ConfigFile.Write(config, head);

    private void Add(IReadOnlyList<ConfigEntry> entries, string? origin)
    {
        Dictionary<string, string> names = new(StringComparer.Ordinal);
        foreach (ConfigEntry entry in entries.OrderBy(e => e.Name == RecipeKey ? 0 : 1))
        {
            try
            {
                string name = entry.Name == RecipeKey ? RecipeKey : TrainingSettings.Find(entry.Name).Name;
                if (!names.TryAdd(name, entry.Name))
                {
                    throw new UserErrorException($"'{names[name]}' and '{entry.Name}' are names of one setting; keep one of them.");
                }

                if (entry.Name == RecipeKey)
                {
                    AddRecipe(entry.Value);
                }
                else
                {
                    Set(entry.Name, entry.Value, origin ?? entry.Where);
                }
            }
            catch (UserErrorException error)
            {
                throw new UserErrorException($"{entry.Where}: {error.Message}", error);
            }
        }
    }
}
