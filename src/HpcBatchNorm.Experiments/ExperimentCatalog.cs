namespace HpcBatchNorm.Experiments;

/// <summary>The experiments this library knows by name, in the paper's order.</summary>
internal static class ExperimentCatalog
{
    /// <summary>All of them.</summary>
    public static IReadOnlyList<Experiment> All { get; } =
    [
        new MnistExperiment(),
        new LearningRateExperiment(),
        new InitializationExperiment(),
        new DeepSigmoidExperiment(),
        new DropoutExperiment(),
        new ShufflingExperiment(),
        new PopulationExperiment(),
        new GradientExperiment(),
        new ScaleExperiment(),
        new ImageNetVariants(),
        new EnsembleExperiment(),
        new OverfitExperiment(),
    ];

    /// <summary>The experiment of a name.</summary>
    /// <exception cref="UserErrorException">There is none; the message says which there are, and which was probably meant.</exception>
    public static Experiment Create(string name)
    {
        string[] names = [.. All.Select(e => e.Name)];
        string hint = NearestName.Hint(name, names);
        return All.FirstOrDefault(e => e.Name == name) ?? throw new UserErrorException(
            $"There is no experiment '{name}'{(hint.Length == 0 ? "." : hint)} Known: {string.Join(", ", names)}.");
    }
}
