using System.Globalization;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

public sealed class ConfigurationTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hpcbn-config").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Layers_LaterOnes_Win()
    {
        string file = WriteFile("dropout: 0.2\nbatch-size: 16\n");
        TrainingConfigBuilder builder = new TrainingConfigBuilder().AddRecipe("bn-x5").AddFile(file).Set("batch-size", "8");

        Assert.Equal(0.0075f, builder.Config.LearningRate);
        Assert.Equal(0.2f, builder.Config.Network.Dropout);
        Assert.Equal(8, builder.Config.BatchSize);
        Assert.Equal("recipe bn-x5", builder.Origin("learning-rate"));
        Assert.Equal(file + ":1", builder.Origin("dropout"));
        Assert.Equal("flag", builder.Origin("batch-size"));
        Assert.Equal("default", builder.Origin("label-smoothing"));
    }

    [Fact]
    public void Request_RecipeAskedFor_ReplacesTheFilesOwn()
    {
        string file = WriteFile("recipe: bn-x5\nbatch-size: 16\n");

        using PreparedRun own = new TrainingRequest { ConfigFile = file }.Prepare(_ => { });
        using PreparedRun other = new TrainingRequest { ConfigFile = file, Recipe = "bn-x30", Flags = [("label-smoothing", "0.1")] }.Prepare(_ => { });

        Assert.Equal((0.0075f, 16, "bn-x5"), (own.Config.LearningRate, own.Config.BatchSize, own.Config.Name));
        Assert.Equal((0.045f, 16, "bn-x30"), (other.Config.LearningRate, other.Config.BatchSize, other.Config.Name));
        Assert.Equal(0.1f, other.Config.Optimizer.LabelSmoothing);
    }

    [Fact]
    public void Recipes_DifferAsThePaperSays()
    {
        RunConfig inception = Recipe("inception"), baseline = Recipe("bn-baseline"), x5 = Recipe("bn-x5"), x30 = Recipe("bn-x30"), sigmoid = Recipe("bn-x5-sigmoid");

        // BN-Baseline is Inception with batch normalization: only the network, its options and the length may differ.
        Assert.Equal(["epochs", "model", "name", "schedule-epochs", "averaging-factor"], Differences(inception, baseline), SameSet);
        // The seven changes, each its own setting.
        Assert.Equal(["learning-rate", "dropout", "weight-decay", "decay-epochs", "lrn", "shuffle", "photometric", "name", "epochs", "schedule-epochs"],
            Differences(baseline, x5), SameSet);
        Assert.Equal(5, x5.LearningRate / inception.LearningRate, 1e-5);
        Assert.Equal(30, x30.LearningRate / inception.LearningRate, 1e-5);
        Assert.Equal(5, inception.Optimizer.WeightDecay / x5.Optimizer.WeightDecay, 1e-5);
        Assert.Equal(6, inception.DecayEpochs / x5.DecayEpochs, 1e-9);
        Assert.Equal(["learning-rate", "name", "epochs", "schedule-epochs"], Differences(x5, x30), SameSet);
        Assert.Equal(["activation", "name"], Differences(x5, sigmoid), SameSet);
        Assert.Equal(ActivationKind.Sigmoid, sigmoid.Network.Activation);
        Assert.Equal(6, RecipeCatalog.Names.Count(n => n.StartsWith("bn-x30-e", StringComparison.Ordinal)));
    }

    [Fact]
    public void EveryRecipe_IsValidAndSaysItsName() => Assert.All(RecipeCatalog.Names, name =>
    {
        RunConfig config = Recipe(name);
        Assert.Equal(name, config.Name);
        TrainingSettings.Validate(config);
    });

    [Fact]
    public void ToYaml_ReadBack_IsEqualSettingBySetting()
    {
        TrainingConfigBuilder builder = new TrainingConfigBuilder().AddRecipe("bn-x30-e6");
        builder.Set("data", "/tmp/with space/ä \"q\"").Set("no-fuse", "bn-relu,in-place").Set("learning-rate", "0.1234567").Set("seed", "-9223372036854775808");

        RunConfig again = new TrainingConfigBuilder().AddYaml(TrainingConfigBuilder.ToYaml(builder.Config, "head"), "test").Config;

        Assert.Empty(Differences(builder.Config, again));
        Assert.Equal(TrainingSettings.Hash(builder.Config), TrainingSettings.Hash(again));
    }

    [Theory]
    [InlineData("learning-rte: 1\n", "unknown setting 'learning-rte', did you mean 'learning-rate'?")]
    [InlineData("learning-rate: fast\n", "learning-rate: expected a number of at least 0, found 'fast'")]
    [InlineData("schedule: sometimes\n", "schedule: expected auto, exponential, span, step, cosine, linear or constant, found 'sometimes'")]
    [InlineData("milestones: 30,20\n", "milestones: expected rising numbers above 0, separated by commas, found '30,20'")]
    [InlineData("dropout: 1.5\n", "dropout: expected a number from 0 to 0.99, found '1.5'")]
    [InlineData("batch-size: 0\n", "batch-size: expected a whole number of at least 1, found '0'")]
    [InlineData("mirror: perhaps\n", "mirror: expected true or false, found 'perhaps'")]
    [InlineData("recipe: bn-x6\n", "There is no recipe 'bn-x6', did you mean 'bn-x5'?")]
    [InlineData("no-fuse: bn-rilu\n", "There is no fusion 'bn-rilu'")]
    [InlineData("seed: 1\nseed: 2\n", ":2: 'seed' is set twice")]
    [InlineData("seed:\n  deep: 1\n", "'seed' must be a single value")]
    [InlineData("- 1\n", "expected 'name: value' lines")]
    [InlineData("seed: [1\n", "not valid YAML")]
    public void AddFile_WrongLine_IsNamedWithItsPlace(string yaml, string expected)
    {
        string file = WriteFile(yaml);

        UserErrorException error = Assert.Throws<UserErrorException>(() => new TrainingConfigBuilder().AddFile(file));

        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.StartsWith(file + ":", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void AddFile_OnlyComments_SetsNothing() =>
        Assert.Empty(Differences(new RunConfig(), new TrainingConfigBuilder().AddFile(WriteFile("# nothing\n")).Config));

    [Fact]
    public void Settings_UnderAGermanCulture_ReadAndWriteTheSameNumbers()
    {
        CultureInfo before = CultureInfo.CurrentCulture;
        try
        {
            CultureInfo.CurrentCulture = (CultureInfo)CultureInfo.InvariantCulture.Clone();
            CultureInfo.CurrentCulture.NumberFormat.NumberDecimalSeparator = ",";
            RunConfig config = new TrainingConfigBuilder().Set("learning-rate", "0.0075").Config;
            Assert.Equal(0.0075f, config.LearningRate);
            Assert.Contains("learning-rate: 0.0075\n", TrainingConfigBuilder.ToYaml(config), StringComparison.Ordinal);
            Assert.Contains("0.0075", new LearningRateSchedule(config, 10, 100).Description, StringComparison.Ordinal);
        }
        finally
        {
            CultureInfo.CurrentCulture = before;
        }
    }

    [Fact]
    public void Hash_OnlySettingsThatDecideTheNumbers_Count()
    {
        static string HashWith(string name, string value) => TrainingSettings.Hash(new TrainingConfigBuilder().Set(name, value).Config);
        string plain = TrainingSettings.Hash(new RunConfig());

        Assert.All([("data", "x"), ("threads", "3"), ("output", "x"), ("log-every", "7"), ("keep", "9")], s => Assert.Equal(plain, HashWith(s.Item1, s.Item2)));
        Assert.All([("seed", "2"), ("steps", "9"), ("learning-rate", "0.5")], s => Assert.NotEqual(plain, HashWith(s.Item1, s.Item2)));
    }

    private static readonly IEqualityComparer<IEnumerable<string>> SameSet =
        EqualityComparer<IEnumerable<string>>.Create((a, b) => a!.Order().SequenceEqual(b!.Order()), _ => 0);

    private static RunConfig Recipe(string name) => new TrainingConfigBuilder().AddRecipe(name).Config;

    private static string[] Differences(RunConfig a, RunConfig b) =>
        [.. TrainingSettings.All.Where(s => s.Get(a) != s.Get(b)).Select(s => s.Name)];

    private string WriteFile(string yaml)
    {
        string path = Path.Combine(_folder, "config.yaml");
        File.WriteAllText(path, yaml);
        return path;
    }
}
