using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>
/// The recipes of the paper, every setting of every one of them, against one table of what the paper says and what we chose where it says nothing. Settings that are
/// in no row have the default, which docs/settings.md pins.
/// </summary>
public sealed class RecipeFactsTests
{
    private static readonly (string Name, string Value)[] Inception =
    [
        ("model", "inception"), ("learning-rate", "0.0015"), ("batch-size", "32"), ("dropout", "0.4"), ("lrn", "true"), ("activation", "relu"),
        ("epochs", "774"), // 31.0 million steps of 32 of 1,281,167 images
        ("image-size", "224"), ("separable-first-convolution", "false"), ("auxiliary-heads", "false"),
        ("schedule", "auto"), ("decay-rate", "0.96"), ("decay-epochs", "8"), ("schedule-epochs", "774"), ("final-learning-rate-fraction", "0.0199"),
        ("momentum", "0.9"), ("nesterov", "false"), ("momentum-form", "sutskever"), ("weight-decay", "0.0002"), ("decay-scale-and-shift", "false"),
        ("shuffle", "fixed"), ("photometric", "1"), ("min-area", "0.08"), ("mirror", "true"), ("crop-fraction", "0.875"),
    ];

    private static readonly (string Name, string Value)[] Baseline =
    [
        .. Inception, ("model", "bn-inception"), ("epochs", "332"), // 13.3 million steps
        ("schedule-epochs", "332"), ("final-learning-rate-fraction", "0.188"), ("epsilon", "1E-05"), ("averaging-factor", "0.01"),
    ];

    /// <summary>The seven changes of section 4.2.1, in its order.</summary>
    private static readonly (string Name, string Value)[] TimesFive =
    [
        .. Baseline, ("learning-rate", "0.0075"), ("dropout", "0"), ("weight-decay", "4E-05"), ("decay-epochs", "1.3333333333333333"), ("lrn", "false"), ("shuffle", "global"), ("photometric", "0.3"),
        ("epochs", "80"), ("schedule-epochs", "80"), ("final-learning-rate-fraction", "0.086"),
    ];

    private static readonly (string Name, string Value)[] TimesThirty =
        [.. TimesFive, ("learning-rate", "0.045"), ("epochs", "150"), ("schedule-epochs", "150"), ("final-learning-rate-fraction", "0.0103")]; // 6 million steps

    private static readonly (string Name, string Value)[] Mnist =
    [
        ("model", "mnist-mlp"), ("batch-size", "60"), ("epochs", "50"), ("image-size", "28"), ("binarize", "true"), ("learning-rate", "0.5"), ("schedule", "constant"), ("momentum", "0"),
        ("weight-decay", "0"), ("averaging-factor", "0.01"), ("shuffle", "global"), ("min-area", "1"), ("mirror", "false"), ("photometric", "0"), ("crop-fraction", "1"),
        ("hidden-layers", "3"), ("hidden-units", "100"),
    ];

    private static readonly Dictionary<string, (string Name, string Value)[]> Facts = new()
    {
        ["inception"] = Inception,
        ["bn-baseline"] = Baseline,
        ["bn-x5"] = TimesFive,
        ["bn-x30"] = TimesThirty,
        ["bn-x5-sigmoid"] = [.. TimesFive, ("activation", "sigmoid")],
        ["bn-x30-e1"] = Member(1, "1", "0.05", "false"),
        ["bn-x30-e2"] = Member(2, "1", "0.1", "false"),
        ["bn-x30-e3"] = Member(3, "1.5", "0", "false"),
        ["bn-x30-e4"] = Member(4, "1.5", "0.05", "false"),
        ["bn-x30-e5"] = Member(5, "1", "0.05", "true"),
        ["bn-x30-e6"] = Member(6, "1.5", "0.1", "true"),
        ["mnist"] = Mnist,
    };

    /// <summary>Words that say where a value is from.</summary>
    private static readonly string[] Sources = ["paper", "our choice", "GoogLeNet", "as BN-x30", "the whole run", "the same", "every 8 epochs"];

    public static TheoryData<string> Recipes() => [.. Facts.Keys];

    [Theory]
    [MemberData(nameof(Recipes))]
    public void EverySetting_IsTheTables(string recipe)
    {
        RunConfig config = new TrainingConfigBuilder().AddRecipe(recipe).Config;
        Dictionary<string, string> expected = TrainingSettings.All.ToDictionary(s => s.Name, s => s.Get(TrainingSettings.Defaults));
        foreach ((string name, string value) in Facts[recipe].Append(("name", recipe)))
        {
            expected[TrainingSettings.Find(name).Name] = value;
        }

        Assert.All(TrainingSettings.All, s => Assert.Equal($"{s.Name}: {expected[s.Name]}", $"{s.Name}: {s.Get(config)}"));
    }

    /// <summary>What the paper itself says of its own numbers: ratios and step counts.</summary>
    [Fact]
    public void Table_IsThePapers()
    {
        double Of(string recipe, string name) => double.Parse(Facts[recipe].Last(f => f.Name == name).Value, System.Globalization.CultureInfo.InvariantCulture);
        const double StepsPerEpoch = 1_281_167 / 32.0;

        Assert.Equal([31.0, 13.3, 6.0], new[] { "inception", "bn-baseline", "bn-x30" }.Select(r => Math.Round(Of(r, "epochs") * StepsPerEpoch / 1e6, 1)));
        Assert.Equal([1, 5, 30], new[] { "bn-baseline", "bn-x5", "bn-x30" }.Select(r => Math.Round(Of(r, "learning-rate") / Of("inception", "learning-rate"), 6)));
        Assert.Equal(6, Of("inception", "decay-epochs") / Of("bn-x5", "decay-epochs"), 9);
        Assert.Equal(5, Of("inception", "weight-decay") / Of("bn-x5", "weight-decay"), 9);
        Assert.Equal(50_000, Of("mnist", "epochs") * 60_000 / Of("mnist", "batch-size"));
    }

    [Theory]
    [MemberData(nameof(Recipes))]
    public void EveryLine_SaysWhoseValueItIs(string recipe)
    {
        string[] lines = [.. RecipeCatalog.Text(recipe).Split('\n').Where(l => l.Length > 0 && l[0] != '#' && !l.StartsWith("recipe:", StringComparison.Ordinal) && !l.StartsWith("name:", StringComparison.Ordinal))];

        Assert.NotEmpty(lines);
        Assert.All(lines, line => Assert.Contains(Sources, source => line.IndexOf('#', StringComparison.Ordinal) is > 0 and var at && line[at..].Contains(source, StringComparison.Ordinal)));
    }

    /// <summary>The variants are networks of section 4.2.2; 4.2.1 lists the changes, 4.2.3 the ensemble.</summary>
    [Theory]
    [InlineData("inception", "4.2.2")]
    [InlineData("bn-baseline", "4.2.2")]
    [InlineData("bn-x5", "4.2.2")]
    [InlineData("bn-x5-sigmoid", "4.2.2")]
    [InlineData("bn-x30", "4.2.2")]
    [InlineData("bn-x30-e3", "4.2.3")]
    [InlineData("mnist", "4.1")]
    public void Head_CitesTheSection(string recipe, string section) => Assert.Contains(section, RecipeCatalog.Text(recipe).Split('\n')[0], StringComparison.Ordinal);

    private static (string, string)[] Member(int number, string scale, string dropout, string perActivation) =>
    [
        .. TimesThirty, ("seed", number.ToString(System.Globalization.CultureInfo.InvariantCulture)), ("initial-weight-scale", scale), ("dropout", dropout), ("per-activation-norm", perActivation),
    ];
}
