using System.Collections;
using System.Globalization;
using System.Reflection;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>Every property of a configuration has a setting that is kept, hashed where it decides numbers, and seen by what the run is made of.</summary>
public class SettingsTests
{
    /// <summary>Properties without a setting of their own, and why.</summary>
    private static readonly Dictionary<string, string> WithoutSetting = new()
    {
        ["Network.Classes"] = "the data set's",
        ["Optimizer.Width"] = "images are square: image-size is the height too",
        ["Optimizer.Rank"] = "which of the processes this is",
        ["BackendOptions.Device"] = "which of its machine's processes this is",
        ["BackendOptions.TuningFile"] = "a file of the run's folder",
    };

    /// <summary>Properties that do not decide a run's numbers, rounding aside; all others enter the hash.</summary>
    private static readonly HashSet<string> NotHashed =
    [
        "Name", "Data", "OnBadImage", "Backend", "Workers", "LoaderTimeout", "RankTimeout", "EvalEvery", "CheckpointEvery", "CheckpointTime", "MaxTime", "Keep", "LogEvery", "Output",
        "Optimizer.Precision", "Optimizer.LossScale", "Optimizer.LossScaleGrowth", "Optimizer.RecomputeBatchNorm", "Optimizer.DisabledFusions",
        "BackendOptions.Threads", "BackendOptions.ConvolutionAlgorithm", "BackendOptions.BatchNormAlgorithm", "BackendOptions.LibraryRelu", "BackendOptions.RecordSteps",
    ];

    /// <summary>Settings that only the trainer itself, or a running session (the first loss scale), looks at; the tests of those change them.</summary>
    private static readonly HashSet<string> SeenInTheRun =
        ["data", "initial-checkpoint", "reset-classifier", "epochs", "steps", "eval-every", "patience", "checkpoint-every", "checkpoint-time", "max-time", "keep", "log-every", "output", "loss-scale", "rank-timeout"];

    /// <summary>Values for settings whose other value cannot be guessed, and what must be set besides for a setting to matter.</summary>
    private static readonly Dictionary<string, (string? Value, (string Name, string Value)[] Besides)> Flips = new()
    {
        ["model"] = ("mnist-mlp", []),
        ["width"] = (null, [("model", "bn-inception"), ("image-size", "64")]),
        ["separable-first-convolution"] = (null, [("model", "bn-inception"), ("image-size", "64")]),
        ["lrn"] = ("true", [("model", "bn-inception"), ("image-size", "64")]),
        ["activation"] = ("sigmoid", []),
        ["batch-norm"] = ("false", []),
        ["dropout"] = ("0.5", []),
        ["epsilon"] = ("0.001", []),
        ["schedule"] = ("cosine", []),
        ["label-smoothing"] = ("0.1", []),
        ["average-decay"] = ("0.9", []),
        ["photometric"] = ("0.5", []),
        ["precision"] = ("bf16", []),
        ["per-activation-norm"] = (null, [("model", "bn-inception"), ("image-size", "64")]),
        ["auxiliary-heads"] = (null, [("model", "bn-inception"), ("image-size", "224")]),
        ["average-includes-padding"] = (null, [("model", "bn-inception"), ("image-size", "64")]),
        ["unpadded-pools"] = (null, [("model", "bn-inception"), ("image-size", "64")]),
        ["hidden-layers"] = (null, [("model", "mnist-mlp"), ("image-size", "28")]),
        ["hidden-units"] = (null, [("model", "mnist-mlp"), ("image-size", "28")]),
        ["initial-deviation"] = (null, [("model", "mnist-mlp"), ("image-size", "28")]),
        ["decay-rate"] = (null, [("schedule", "exponential")]),
        ["decay-epochs"] = (null, [("schedule", "exponential")]),
        ["schedule-epochs"] = ("1000", []),
        ["final-learning-rate-fraction"] = (null, [("schedule", "span")]),
        ["milestones"] = ("3", [("schedule", "step")]),
        ["gamma"] = (null, [("schedule", "step"), ("milestones", "3")]),
        ["minimum-learning-rate"] = ("0.0001", [("schedule", "cosine")]),
        ["warmup-learning-rate"] = (null, [("warmup-epochs", "2")]),
        ["warmup-form"] = ("pytorch", [("warmup-epochs", "2")]),
        ["momentum-form"] = ("pytorch", []),
        ["optimizer"] = ("adamw", []),
        ["cycle-epochs"] = ("2", [("schedule", "cosine")]),
        ["cycle-multiplier"] = (null, [("schedule", "cosine"), ("cycle-epochs", "2")]),
        ["cycle-decay"] = ("0.5", [("schedule", "cosine"), ("cycle-epochs", "2")]),
        ["bce-target-threshold"] = ("0.2", [("loss", "bce")]),
        ["auto-augment"] = ("trivial", []),
        ["rand-operations"] = (null, [("auto-augment", "rand")]),
        ["rand-magnitude"] = ("3", [("auto-augment", "rand")]),
        ["rand-deviation"] = (null, [("auto-augment", "rand")]),
        ["mixup"] = ("0.2", []),
        ["cutmix"] = ("1", []),
        ["mix-probability"] = ("0.5", [("mixup", "0.2")]),
        ["cutmix-share"] = (null, [("mixup", "0.2"), ("cutmix", "1")]),
        ["beta1"] = (null, [("optimizer", "adamw")]),
        ["beta2"] = (null, [("optimizer", "adamw")]),
        ["optimizer-epsilon"] = ("0.001", [("optimizer", "lamb")]),
        ["no-decay"] = ("conv1/conv", []),
        ["rate-factors"] = ("*=0.1,fc=1", []),
        ["freeze"] = ("conv1/*", []),
        ["freeze-scale-and-shift"] = (null, [("freeze-bn", "true")]),
        ["ghost-batch"] = ("4", []),
        ["sync-bn"] = (null, [("ranks", "2")]),
        ["gradient-wire"] = (null, [("ranks", "2")]),
        ["renorm-r-max"] = (null, [("batch-renorm", "true")]),
        ["renorm-d-max"] = (null, [("batch-renorm", "true")]),
        ["renorm-start"] = (null, [("batch-renorm", "true")]),
        ["renorm-r-steps"] = (null, [("batch-renorm", "true")]),
        ["renorm-d-steps"] = (null, [("batch-renorm", "true")]),
        ["pixel-mean"] = ("120,121,122", []),
        ["pixel-deviation"] = ("60", []),
        ["loss-scale-growth"] = (null, [("precision", "fp16")]),
        ["no-fuse"] = ("bn-relu", []),
        ["name"] = ("other", []),
    };

    public static TheoryData<string> Properties() => [.. Leaves(typeof(RunConfig)).Select(p => string.Join('.', p.Select(q => q.Name))).Except(WithoutSetting.Keys)];

    public static TheoryData<string> Settings() => [.. TrainingSettings.All.Select(s => s.Name).Except(SeenInTheRun)];

    [Theory]
    [MemberData(nameof(Properties))]
    public void Property_HasASettingIsKeptAndHashed(string path)
    {
        PropertyInfo[] property = Leaves(typeof(RunConfig)).Single(p => string.Join('.', p.Select(q => q.Name)) == path);
        RunConfig changed = (RunConfig)Change(TrainingSettings.Defaults, property);

        Setting setting = Assert.Single(TrainingSettings.All, s => !s.IsDefault(changed));

        RunConfig again = new TrainingConfigBuilder().AddYaml(TrainingConfigBuilder.ToYaml(changed), "test").Config;
        Assert.Equal(setting.InFiles ? Value(changed, property) : Value(TrainingSettings.Defaults, property), Value(again, property));
        Assert.Equal(!NotHashed.Contains(path), TrainingSettings.Hash(changed) != TrainingSettings.Hash(TrainingSettings.Defaults));
    }

    [Fact]
    public void WithoutSetting_NamesPropertiesThatExist() =>
        Assert.Empty(WithoutSetting.Keys.Concat(NotHashed).Except(Leaves(typeof(RunConfig)).Select(p => string.Join('.', p.Select(q => q.Name)))));

    [Theory]
    [MemberData(nameof(Settings))]
    public void Setting_IsSeenByTheRun(string name)
    {
        Setting setting = TrainingSettings.Find(name);
        (string? value, (string Name, string Value)[] besides) = Flips.GetValueOrDefault(name, (null, []));
        var builder = new TrainingConfigBuilder();
        foreach ((string beside, string text) in besides.Prepend(("batch-size", "8")).Prepend(("image-size", "32")).Prepend(("model", "inception-tiny")))
        {
            builder.Set(beside, text);
        }

        string before = Effects(builder.Config);
        builder.Set(name, value ?? Other(setting, builder.Config));

        Assert.NotEqual(before, Effects(builder.Config));
    }

    /// <summary>
    /// Hashes of recipes as they were before settings were added; <c>resume auto</c> finds runs by them. Those of inception, bn-baseline and bn-x30 changed when their shortened
    /// schedules were made to end where the whole ones do.
    /// </summary>
    [Theory]
    [InlineData("", "ca7765a9a51008f2")]
    [InlineData("bn-baseline", "a5bf504e119fbb90")]
    [InlineData("bn-x30", "e698e098877753c5")]
    [InlineData("bn-x30-e6", "cb8c41b1060b07bd")]
    [InlineData("bn-x5", "f8f9119d2d5fe41d")]
    [InlineData("bn-x5-sigmoid", "8f448da5e1d442c6")]
    [InlineData("inception", "3d7bd14547bb9b25")]
    [InlineData("mnist", "9e9548b68cbe0eb7")]
    [InlineData("quick", "687c81860f1c3493")]
    public void Hash_OfAnUnchangedConfiguration_Stays(string recipe, string hash)
    {
        var builder = new TrainingConfigBuilder();
        Assert.Equal(hash, TrainingSettings.Hash(recipe.Length == 0 ? builder.Config : builder.AddRecipe(recipe).Config));
    }

    [Fact]
    public void Yaml_WithoutTheNewSettings_IsReadAsTheirDefaults()
    {
        string[] added = [.. TrainingSettings.All.Where(s => s.HashedWhereChanged).Select(s => s.Name), "record-steps", "library-relu"];
        RunConfig config = new TrainingConfigBuilder().AddRecipe("mnist").Config;
        string old = string.Join('\n', TrainingConfigBuilder.ToYaml(config).Split('\n').Where(line => !added.Contains(line.Split(':')[0])));

        RunConfig again = new TrainingConfigBuilder().AddYaml(old, "test").Config;

        Assert.Contains("pixel-mean", added);
        Assert.All(TrainingSettings.All, s => Assert.Equal(s.Get(config), s.Get(again)));
    }

    [Theory]
    [InlineData("pixel-mean", "1,2", "pixel-mean: expected one number or three, separated by commas, found '1,2'")]
    [InlineData("pixel-deviation", "0", "pixel-deviation: expected one number above 0 or three, separated by commas, found '0'")]
    [InlineData("rate-factors", "fc", "rate-factors: expected PATTERN=FACTOR, separated by commas, with factors of 0 or more, found 'fc'")]
    [InlineData("rate-factors", "fc=-1", "rate-factors: expected PATTERN=FACTOR, separated by commas, with factors of 0 or more, found 'fc=-1'")]
    [InlineData("weight-decay", "inf", "weight-decay: expected a number of at least 0, found 'inf'")]
    [InlineData("weight-decay", "Infinity", "weight-decay: expected a finite number of at least 0, found 'Infinity'")]
    [InlineData("weight-decay", "1e999", "weight-decay: expected a finite number of at least 0, found '1e999'")]
    [InlineData("learning-rate", "1e39", "learning-rate: expected a finite number of at least 0, found '1e39'")]
    [InlineData("epochs", "1e999", "epochs: expected a finite number of at least 0, found '1e999'")]
    [InlineData("learning-rate", "-Infinity", "learning-rate: expected a number of at least 0, found '-Infinity'")]
    [InlineData("max-time", "-5m", "max-time: expected a time with its unit")]
    [InlineData("batch-size", "3000000000", "batch-size: expected a whole number from 1 to 2147483647, found '3000000000'")]
    public void Set_ValueOutOfRange_IsRefused(string name, string text, string expected)
    {
        UserErrorException error = Assert.Throws<UserErrorException>(() => new TrainingConfigBuilder().Set(name, text));
        Assert.StartsWith(expected, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Set_CountsOfSteps_Have64Bits() =>
        Assert.Equal(3_000_000_000, new TrainingConfigBuilder().Set("renorm-r-steps", "3000000000").Config.Optimizer.Renormalization.EndR);

    /// <summary>What a run is made of, in words: its loaders, network, initial values, plan, evaluation, schedule, backend and folder.</summary>
    private static string Effects(RunConfig config)
    {
        Network network = NetworkCatalog.Create(config.Model, config.Network with { Classes = 10 });
        NetworkShapes shapes = network.Infer(1, config.ImageSize, config.ImageSize);
        var freezing = new BatchNormFreezing(config, 10);
        var traits = new BackendTraits(8, BatchNormTakesSlices: true, BatchNormVariants: true, LossScaling: true);
        Plan plan = TrainingSession.PlanFor(traits, network, freezing.OptionsAt(config.Optimizer, 0));
        var schedule = new LearningRateSchedule(config, 10, 100);
        List<object?> effects =
        [
            TrainingSetup.Loading(config, network),
            EvaluationSetup.Loading(config, network),
            .. ForwardSession.PlanFor(traits, network, EvaluationSetup.Session(config)).Operations.Select(Describe),
            .. plan.Operations.Select(Describe),
            .. network.Nodes.Select(n => $"{n.Name} {n.Layer}"),
            .. Enumerable.Range(0, 100).Select(step => (object)schedule.At(step)),
            BatchMixer.Description(config.Optimizer),
            freezing.Description(config.Optimizer.FrozenScaleAndShift),
            config.Backend,
            config.BackendOptions,
            RunDirectory.NewPath(config.Model, config.Name, DateTime.UnixEpoch),
        ];
        if (shapes.ParameterCount < 1_000_000)
        {
            NetworkState state = NetworkState.Initial(shapes, config.Optimizer.Seed);
            effects.AddRange(shapes.Parameters.Select(p => (object)Text(state.Get(p.Name, p.Spec.Shape)[0])));
        }

        return string.Join('\n', effects.Select(Text));
    }

    private static string Describe(Operation operation) =>
        operation.GetType().Name + string.Concat(operation.GetType().GetProperties().Where(p => p.GetIndexParameters().Length == 0).Select(p => $" {p.Name}={Text(p.GetValue(operation))}"));

    private static string Text(object? value) => value switch
    {
        null => "null",
        string text => text,
        Tensor tensor => $"{tensor.Name} {tensor.Shape} {tensor.DataType}",
        IEnumerable items => $"[{string.Join(',', items.Cast<object?>().Select(Text))}]",
        IFormattable number => number.ToString(null, CultureInfo.InvariantCulture),
        _ => value.ToString()!,
    };

    private static string Other(Setting setting, RunConfig config)
    {
        string now = setting.Get(config);
        return setting.Kind switch
        {
            SettingKind.Switch => now == "true" ? "false" : "true",
            SettingKind.Choice => setting.Choices.First(c => c != now && c != "auto"),
            SettingKind.Number when long.TryParse(now, CultureInfo.InvariantCulture, out long whole) && whole > 0 => (whole + 1).ToString(CultureInfo.InvariantCulture),
            SettingKind.Number when double.Parse(now, CultureInfo.InvariantCulture) is var real => (real == 0 ? 1 : real / 2).ToString(CultureInfo.InvariantCulture),
            _ => throw new InvalidOperationException($"{setting.Name} needs a value in {nameof(Flips)}."),
        };
    }

    /// <summary>The settable properties of a record and of the records inside it, each with the way to it.</summary>
    private static IEnumerable<PropertyInfo[]> Leaves(Type type)
    {
        foreach (PropertyInfo property in type.GetProperties().Where(p => p.CanWrite))
        {
            if (property.PropertyType.GetMethod("<Clone>$") is null)
            {
                yield return [property];
                continue;
            }

            foreach (PropertyInfo[] inner in Leaves(property.PropertyType))
            {
                yield return [property, .. inner];
            }
        }
    }

    private static string Value(object from, PropertyInfo[] way) => Text(way.Aggregate((object?)from, (at, property) => property.GetValue(at)));

    /// <summary>A copy of a record with one property, on the way through the records inside, at another value.</summary>
    private static object Change(object record, PropertyInfo[] way)
    {
        object copy = record.GetType().GetMethod("<Clone>$")!.Invoke(record, [])!;
        object? now = way[0].GetValue(record);
        way[0].SetValue(copy, way.Length > 1 ? Change(now!, way[1..]) : OtherValue(way[0], now));
        return copy;
    }

    private static object OtherValue(PropertyInfo property, object? now)
    {
        Type type = Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType;
        return (property.Name, now) switch
        {
            (nameof(RunConfig.Model), _) => "inception",
            (nameof(RunConfig.Backend), _) => "reference",
            (nameof(NetworkOptions.Width), 608) => 576,
            (nameof(NetworkOptions.Activation), _) => ActivationKind.Tanh,
            (nameof(PlanOptions.DisabledFusions), _) => new[] { "bn-relu" },
            (nameof(RunConfig.CycleMultiplier), _) => 2.0,
            (_, bool on) => !on,
            (_, int whole) => whole + 1,
            (_, long whole) => whole + 1,
            (_, ulong whole) => whole + 1,
            (_, float real) => real == 0 ? 0.5f : real / 2,
            (_, double real) => real == 0 ? 0.5 : real / 2,
            (_, TimeSpan time) => time + TimeSpan.FromMinutes(1),
            (_, Enum) => Enum.GetValues(type).Cast<object>().First(v => !v.Equals(now)),
            _ when type == typeof(bool) => true,
            _ when type == typeof(float) => 0.5f,
            _ when type == typeof(string) => Path.GetFullPath("other"),
            _ when type == typeof(IReadOnlyList<string>) => new[] { "fc", "conv*.bias" },
            _ when type == typeof(IReadOnlyList<RateFactor>) => new RateFactor[] { new("*", 0.1f), new("fc", 2) },
            _ when type == typeof(IReadOnlyList<double>) => new[] { 1.5, 2 },
            _ when type == typeof(IReadOnlyList<float>) => new[] { 1.5f, 2, 3 },
            _ => throw new InvalidOperationException($"No other value of {type} for {property.Name}."),
        };
    }
}
