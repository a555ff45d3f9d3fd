using System.Text.Json;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Reporting;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Tests.Training;

/// <summary>Training and evaluation without the command: a network that nobody has a name for, images from memory.</summary>
public sealed class OwnDataTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    private const int Side = 16, Images = 24;
    private static readonly string[] Classes = ["tench, Tinca tinca", "a \"quoted\" [cat", "Bäume 猫"];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public void Run_OwnNetworkOnImagesInMemory_TrainsEvaluatesAndItsCheckpointKnowsAll()
    {
        var observer = new Watcher();
        TrainingResult result = new Trainer(OwnNetwork(), Source(1), Source(2), Config(steps: 8), observer, RunSinks.All).Run(Token);

        Assert.Equal((TrainingOutcome.Completed, 8), (result.Outcome, result.Steps));
        Assert.Equal(8, observer.Losses.Count);
        Assert.True(File.Exists(result.Report));
        using Checkpoint checkpoint = Checkpoint.Open(result.Checkpoint);
        Assert.Equal(Classes, checkpoint.Info.ClassNames);
        Assert.Equal("own", checkpoint.Info.Model);
        Assert.Equal(OwnNetwork().ToJson(), checkpoint.ReadNetwork().ToJson());

        RunConfig config = Config(steps: 8);
        using Backend backend = Backend.Create(TrainingFixture.Backend);
        EnsembleMember member = checkpoint.ReadMember(Source(2), Side);
        EvaluationResult evaluated = new Evaluator(backend, Source(2), EvaluationSetup.Loading(config, member.Network), EvaluationSetup.Session(config)).Run([member], cancellationToken: Token);
        Assert.Equal(result.Validation! with { Seconds = 0 }, evaluated with { Seconds = 0 });
    }

    [Fact]
    public void Run_WithoutValidationImages_Trains()
    {
        TrainingResult result = new Trainer(OwnNetwork(), Source(1), null, Config(steps: 3), sinks: RunSinks.All).Run(Token);
        Assert.Equal((TrainingOutcome.Completed, 3), (result.Outcome, result.Steps));
        Assert.Null(result.Validation);
        Assert.True(File.Exists(result.Checkpoint));
    }

    [Fact]
    public void Resume_OfImagesInMemory_IsExact()
    {
        Watcher whole = new(), first = new() { StopAfter = 4 }, second = new();
        TrainingResult expected = new Trainer(OwnNetwork(), Source(1), Source(2), Config(steps: 9), whole).Run(Token);
        RunConfig config = Config(steps: 9);
        TrainingResult stopped = new Trainer(OwnNetwork(), Source(1), Source(2), config, first).Run(first.Stop.Token);
        Assert.Equal((TrainingOutcome.Interrupted, 4), (stopped.Outcome, stopped.Steps));

        using Checkpoint? checkpoint = Checkpoint.OpenNewest(stopped.RunDirectory);
        TrainingResult resumed = new Trainer(OwnNetwork(), Source(1), Source(2), config, second) { Resume = checkpoint }.Run(Token);

        Assert.Equal(whole.Losses, [.. first.Losses, .. second.Losses]);
        Assert.Equal(File.ReadAllBytes(expected.Checkpoint), File.ReadAllBytes(resumed.Checkpoint));
        Assert.Equal(expected.Evaluations, resumed.Evaluations);
    }

    [Fact]
    public void Run_TheSameImagesFromAFolderAndFromMemory_LearnsTheSame()
    {
        using ImageDataset folder = ImageDataset.Open(fixture.Data, DatasetSplit.Train, cacheDirectory: null);
        ReadOnlyMemory<byte>[] files = [.. Enumerable.Range(0, folder.Count).Select(i => Read(folder, i))];
        var memory = new InMemoryImageSource(files, [.. Enumerable.Range(0, folder.Count).Select(folder.Label)], folder.ClassNames);
        Watcher one = new(), other = new();
        new Trainer(OwnNetwork(), folder, folder, Config(steps: 7), one).Run(Token);
        new Trainer(OwnNetwork(), memory, memory, Config(steps: 7), other).Run(Token);
        Assert.Equal(one.Losses, other.Losses);

        static ReadOnlyMemory<byte> Read(ImageDataset folder, int index)
        {
            byte[] buffer = [];
            int length = folder.ReadEncoded(index, ref buffer);
            return buffer.AsMemory(0, length);
        }
    }

    [Fact]
    public void Run_ThroughTheCommandsRequest_LearnsWhatTheTrainerDoes()
    {
        using var observer = new RecordingObserver();
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(fixture.NewFolder(), ("steps", "5")) }, observer);
        TrainingConfigBuilder settings = new TrainingConfigBuilder().AddRecipe("quick");
        foreach ((string name, string value) in fixture.Flags(fixture.NewFolder(), ("steps", "5")))
        {
            settings.Set(name, value);
        }

        using ImageDataset train = ImageDataset.Open(fixture.Data, DatasetSplit.Train, cacheDirectory: null);
        var own = new Watcher();
        new Trainer(NetworkCatalog.Create("inception-tiny", settings.Config.Network with { Classes = 3 }), train, null, settings.Config, own).Run(Token);
        Assert.Equal(observer.Losses, own.Losses);
    }

    [Fact]
    public void RequestStop_EndsTheRunWithItsStateSavedAndTheReasonKept()
    {
        var observer = new Watcher { RequestStopAfter = 3 };
        RunConfig config = Config(steps: 9);
        TrainingResult result = new Trainer(OwnNetwork(), Source(1), Source(2), config, observer).Run(Token);

        Assert.Equal((TrainingOutcome.StoppedEarly, 3, "enough"), (result.Outcome, result.Steps, result.StopReason));
        using Checkpoint checkpoint = Checkpoint.Open(result.Checkpoint);
        Assert.Equal(3, checkpoint.Info.Step);
        JsonElement end = Metrics(result).Last();
        Assert.Equal(("stopped_early", "enough"), (end.GetProperty("outcome").GetString(), end.GetProperty("reason").GetString()));

        // Going on gives what an undisturbed run gives.
        Watcher rest = new(), whole = new();
        new Trainer(OwnNetwork(), Source(1), Source(2), config, rest) { Resume = checkpoint }.Run(Token);
        new Trainer(OwnNetwork(), Source(1), Source(2), Config(steps: 9), whole).Run(Token);
        Assert.Equal(whole.Losses, [.. observer.Losses, .. rest.Losses]);
    }

    [Fact]
    public void AddMetric_GoesIntoTheLinesOfStepsAndEvaluations()
    {
        var observer = new Watcher { AddMetrics = true };
        TrainingResult result = new Trainer(OwnNetwork(), Source(1), Source(2), Config(steps: 6), observer, RunSinks.All).Run(Token);

        JsonElement[] lines = [.. Metrics(result)];
        Assert.Equal([2, 4, 6], lines.Where(l => Type(l) == "train").Select(l => l.GetProperty("metrics").GetProperty("own/step").GetInt32()));
        Assert.All(lines.Where(l => Type(l) == "eval"), l => Assert.Equal(JsonValueKind.Null, l.GetProperty("metrics").GetProperty("odd").ValueKind));
        Assert.DoesNotContain(lines.Where(l => Type(l) == "eval"), l => l.GetProperty("metrics").TryGetProperty("own/step", out _));
    }

    [Fact]
    public void EarlyStopping_OfARunThatLearnsNothing_StopsAfterItsPatience_AlsoWhenResumed()
    {
        // No accuracy improves by more than 1, whatever the running statistics make of a network that does not learn.
        RunConfig Idle() => Config(steps: 40) with { LearningRate = 0, EvalEvery = 0.5 };

        TrainingResult whole = new Trainer(OwnNetwork(), Source(1), Source(2), Idle(), new EarlyStopping(3, smallestImprovement: 1)).Run(Token);
        Assert.Equal((TrainingOutcome.StoppedEarly, 4), (whole.Outcome, whole.Evaluations.Count));
        Assert.Contains("top-1 accuracy has not improved in 3 evaluations since step 3", whole.StopReason, StringComparison.Ordinal);

        var first = new Watcher { StopAfter = 7 };
        RunConfig config = Idle();
        TrainingResult stopped = new Trainer(OwnNetwork(), Source(1), Source(2), config, ITrainingObserver.Combine(new EarlyStopping(3, smallestImprovement: 1), first)).Run(first.Stop.Token);
        using Checkpoint? checkpoint = Checkpoint.OpenNewest(stopped.RunDirectory);
        TrainingResult resumed = new Trainer(OwnNetwork(), Source(1), Source(2), config, new EarlyStopping(3, smallestImprovement: 1)) { Resume = checkpoint }.Run(Token);
        Assert.Equal((TrainingOutcome.Interrupted, whole.Steps), (stopped.Outcome, resumed.Steps));
        Assert.Equal(whole.StopReason, resumed.StopReason);
    }

    [Theory]
    [InlineData(3)]
    [InlineData(-1)]
    public void Evaluate_LabelOfNoClass_IsNamedWithItsImage(int label)
    {
        using Backend backend = Backend.Create(TrainingFixture.Backend);
        RunConfig config = Config(steps: 1);
        var evaluator = new Evaluator(backend, new Mislabelled(Source(2), label), EvaluationSetup.Loading(config, OwnNetwork()), EvaluationSetup.Session(config));
        var member = new EnsembleMember(OwnNetwork(), NetworkState.Initial(OwnNetwork().Infer(1, Side, Side), seed: 1));

        string message = Assert.Throws<UserErrorException>(() => evaluator.Run([member], cancellationToken: Token)).Message;

        Assert.Contains($"Image 'image 5' of 'images in memory' has the label {label}; expected 0 to 2", message, StringComparison.Ordinal);
    }

    [Fact]
    public void ValidationWithoutImages_IsRefusedBeforeTheFirstStep()
    {
        var observer = new Watcher();
        var none = new ImageRange(Source(2), 0, 0);
        string message = Assert.Throws<UserErrorException>(() => new Trainer(OwnNetwork(), Source(1), none, Config(steps: 2), observer).Run(Token)).Message;
        Assert.Contains("has no images to evaluate on", message, StringComparison.Ordinal);
        Assert.Empty(observer.Losses);

        using Backend backend = Backend.Create(TrainingFixture.Backend);
        RunConfig config = Config(steps: 1);
        var member = new EnsembleMember(OwnNetwork(), NetworkState.Initial(OwnNetwork().Infer(1, Side, Side), seed: 1));
        var evaluator = new Evaluator(backend, none, EvaluationSetup.Loading(config, OwnNetwork()), EvaluationSetup.Session(config));
        Assert.Contains("has no images to evaluate on", Assert.Throws<UserErrorException>(() => evaluator.Run([member], cancellationToken: Token)).Message, StringComparison.Ordinal);
    }

    /// <summary>What no flag and no file can say, a program can: each is refused as it would be there, and before anything is written.</summary>
    [Theory]
    [InlineData("learning-rate: expected a number of at least 0, found 'NaN'")]
    [InlineData("batch-size: expected a whole number of at least 1, found '0'")]
    [InlineData("steps: expected a whole number of at least 0, found '-1'")]
    [InlineData("epochs: expected a number of at least 0, found 'NaN'")]
    [InlineData("log-every: expected a whole number of at least 1, found '0'")]
    [InlineData("workers: expected a whole number of at least 0, found '-1'")]
    [InlineData("crop-fraction: expected a number from")]
    [InlineData("schedule: expected ")]
    [InlineData("weight-decay: expected a finite number of at least 0, found 'Infinity'")]
    [InlineData("learning-rate is 3E+38 for 1 images; for steps of ")]
    [InlineData("max-time: expected a time with its unit such as 90s, 15m, 11h45m or 2d, or as 11:45:00 or 1-12:00:00, of at most 45 days; or 0, found '-5m'")]
    [InlineData("checkpoint-time: expected a time with its unit")]
    [InlineData("rank-timeout: expected a time with its unit")]
    [InlineData("milestones: expected rising numbers above 0")]
    [InlineData("dropout: expected a number from 0 to 0.99, found 'NaN'")]
    public void Run_SettingOutOfItsRange_IsRefused(string expected)
    {
        RunConfig good = Config(steps: 2);
        RunConfig bad = expected[..expected.IndexOfAny([':', ' '])] switch
        {
            "learning-rate" when expected.Contains("3E+38", StringComparison.Ordinal) => good with { LearningRate = 3e38f, LearningRateBatch = 1 },
            "weight-decay" => good with { Optimizer = good.Optimizer with { WeightDecay = float.PositiveInfinity } },
            "max-time" => good with { MaxTime = TimeSpan.FromMinutes(-5) },
            "checkpoint-time" => good with { CheckpointTime = Timeout.InfiniteTimeSpan },
            "rank-timeout" => good with { RankTimeout = TimeSpan.MaxValue },
            "milestones" => good with { Milestones = [5, 3] },
            "dropout" => good with { Network = good.Network with { Dropout = float.NaN } },
            "learning-rate" => good with { LearningRate = float.NaN },
            "batch-size" => good with { BatchSize = 0 },
            "steps" => good with { Steps = -1 },
            "epochs" => good with { Steps = 0, Epochs = double.NaN },
            "log-every" => good with { LogEvery = 0 },
            "workers" => good with { Workers = -1 },
            "crop-fraction" => good with { CropFraction = double.NaN },
            _ => good with { Schedule = (ScheduleKind)99 },
        };

        string message = Assert.Throws<UserErrorException>(() => new Trainer(OwnNetwork(), Source(1), null, bad).Run(Token)).Message;

        Assert.Contains(expected, message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(Path.Combine(bad.Output, "checkpoints")));
    }

    /// <summary>All its parameters fit, so that nothing else would notice.</summary>
    [Fact]
    public void Resume_WithAnotherNetwork_IsRefused()
    {
        RunConfig config = Config(steps: 2);
        using Checkpoint? checkpoint = Checkpoint.Open(new Trainer(OwnNetwork(), Source(1), null, config).Run(Token).Checkpoint);
        var other = Network.FromJson(OwnNetwork().ToJson().Replace("\"own\"", "\"another\"", StringComparison.Ordinal));

        string message = Assert.Throws<UserErrorException>(() => new Trainer(other, Source(1), null, config with { Steps = 3 }) { Resume = checkpoint }.Run(Token)).Message;
        Assert.StartsWith($"The trainer's network 'another' is another than '{checkpoint.Path}' holds.", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Trainer_WithoutNetworkImagesOrSettings_NamesTheArgument()
    {
        Assert.Equal("network", Assert.Throws<ArgumentNullException>(() => new Trainer(null!, Source(1), null, Config(steps: 1))).ParamName);
        Assert.Equal("training", Assert.Throws<ArgumentNullException>(() => new Trainer(OwnNetwork(), null!, null, Config(steps: 1))).ParamName);
        Assert.Equal("config", Assert.Throws<ArgumentNullException>(() => new Trainer(OwnNetwork(), Source(1), null, null!)).ParamName);
    }

    [Fact]
    public void Run_NetworkOfOtherClasses_IsRefusedWithTheLayer()
    {
        string message = Assert.Throws<UserErrorException>(() => new Trainer(OwnNetwork(classes: 5), Source(1), null, Config(steps: 1)).Run(Token)).Message;
        Assert.Contains("own tells 5 classes apart", message, StringComparison.Ordinal);
        Assert.Contains("'fc', 3 outputs", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Checkpoint_WrittenBeforeItHeldItsNetwork_IsReadThroughTheCatalogue()
    {
        using var observer = new RecordingObserver();
        TrainingResult result = TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(fixture.NewFolder(), ("steps", "6")) }, observer);
        string old = Path.Combine(fixture.Folder, "old.safetensors");
        using (SafetensorsFile file = SafetensorsFile.Open(result.Checkpoint))
        {
            Assert.StartsWith("{", file.Metadata["network"], StringComparison.Ordinal);
            string[] names = [.. JsonDocument.Parse(file.Metadata["class_names"]).RootElement.EnumerateArray().Select(e => e.GetString()!)];
            KeyValuePair<string, string>[] metadata =
            [
                .. file.Metadata.Where(m => m.Key is not ("network" or "class_names" or "checksum")), new("class_names", string.Join(',', names)),
            ];
            SafetensorsFile.Write(old, file.Tensors, metadata, (i, bytes) => file.Read(file.Tensors[i].Name, System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(bytes)));
        }

        EvaluationResult now = new EvaluationRequest { Checkpoints = [result.Checkpoint] }.Run(_ => { }, stop: Token);
        Assert.Equal(now with { Seconds = 0 }, new EvaluationRequest { Checkpoints = [old] }.Run(_ => { }, stop: Token) with { Seconds = 0 });
        Assert.Equal(now with { Seconds = 0 }, result.Validation! with { Seconds = 0 });
        using Checkpoint checkpoint = Checkpoint.Open(old);
        Assert.Equal(("", 3), (checkpoint.Info.Network, checkpoint.Info.ClassNames.Count));
    }

    [Fact]
    public void ClassFoldersWithCommasQuotesAndUnicode_TrainResumeEvaluateRecalibrateAndExport()
    {
        string data = fixture.NewFolder();
        SampleGenerator.Write(data, new SampleOptions { Classes = 3, TrainPerClass = 8, ValidationPerClass = 3, ImageSize = 16 }, Token);
        using (ImageDataset train = ImageDataset.Open(data, DatasetSplit.Train, cacheDirectory: null), validation = ImageDataset.Open(data, DatasetSplit.Validation, cacheDirectory: null))
        {
            data = fixture.NewFolder();
            foreach ((ImageDataset set, string part) in new[] { (train, "train"), (validation, "val") })
            {
                byte[] buffer = [];
                for (int i = 0; i < set.Count; i++)
                {
                    int length = set.ReadEncoded(i, ref buffer);
                    string folder = Directory.CreateDirectory(Path.Combine(data, part, Classes[set.Label(i)])).FullName;
                    File.WriteAllBytes(Path.Combine(folder, $"{i}.jpg"), buffer.AsSpan(0, length));
                }
            }
        }

        string output = fixture.NewFolder();
        using RecordingObserver first = new() { StopAfter = 2 }, second = new();
        TrainingFixture.Run(new TrainingRequest { Recipe = "quick", Flags = fixture.Flags(output, ("data", data), ("steps", "4")) }, first);
        TrainingResult result = TrainingFixture.Run(new TrainingRequest { Resume = output }, second);
        EvaluationResult evaluated = new EvaluationRequest { Checkpoints = [result.Checkpoint] }.Run(_ => { }, stop: Token);
        Assert.Equal(result.Validation! with { Seconds = 0 }, evaluated with { Seconds = 0 });
        Assert.Equal(Classes.Order(StringComparer.Ordinal), evaluated.Classes.Select(c => c.Name));
        RecalibrationResult recalibrated = new RecalibrationRequest { Checkpoint = result.Checkpoint, Batches = 2 }.Run(_ => { }, stop: Token);
        string onnx = Path.Combine(output, "model.onnx");
        new ExportRequest { Checkpoint = recalibrated.Checkpoint, Output = onnx }.Run();
        using var session = OnnxFile.Open(onnx);
        Assert.Equal(Classes.Order(StringComparer.Ordinal), JsonSerializer.Deserialize<string[]>(session.ModelMetadata.CustomMetadataMap["class_names"])!);
    }

    internal static Network OwnNetwork(int classes = 3)
    {
        var builder = new NetworkBuilder("own");
        Node node = builder.Input(3);
        node = builder.Relu("conv/relu", builder.BatchNorm("conv/bn", builder.Convolution("conv", node, 8, kernel: 3, stride: 2, pad: 1)));
        Node wide = builder.BatchNorm("wide/bn", builder.Convolution("wide", node, 8, kernel: (1, 5), pad: (0, 2)));
        node = builder.Relu("sum/relu", builder.Sum("sum", node, wide));
        builder.Loss(builder.FullyConnected("fc", builder.GlobalAveragePooling("pool", node), classes));
        return builder.Build();
    }

    private static InMemoryImageSource Source(int seed)
    {
        byte[] pixels = new byte[Images * Side * Side * 3];
        new Random(seed).NextBytes(pixels);
        return new InMemoryImageSource(pixels, Side, Side, 3, [.. Enumerable.Range(0, Images).Select(i => i % 3)], Classes);
    }

    private RunConfig Config(long steps) => new()
    {
        Backend = TrainingFixture.Backend,
        Optimizer = new RunConfig().Optimizer with { Batch = 4, Height = Side, Width = Side },
        Steps = steps,
        Schedule = ScheduleKind.Constant,
        LearningRate = 0.05f,
        EvalEvery = 0.5,
        LogEvery = 2,
        Workers = 1,
        Output = fixture.NewFolder(),
    };

    /// <summary>A source of which one label is of no class.</summary>
    private sealed class Mislabelled(IImageSource source, int label) : IImageSource
    {
        public string Source => source.Source;

        public int Count => source.Count;

        public IReadOnlyList<string> ClassNames => source.ClassNames;

        public int Label(int index) => index == 5 ? label : source.Label(index);

        public StoredImage Read(int index, ref byte[] buffer) => source.Read(index, ref buffer);
    }

    private static IEnumerable<JsonElement> Metrics(TrainingResult result) =>
        File.ReadLines(Path.Combine(result.RunDirectory, "metrics.jsonl")).Select(line => JsonDocument.Parse(line).RootElement);

    private static string? Type(JsonElement line) => line.GetProperty("type").GetString();

    /// <summary>An observer as a user would write one.</summary>
    private sealed class Watcher : ITrainingObserver
    {
        private TrainingControl? _control;

        public List<float> Losses { get; } = [];

        public CancellationTokenSource Stop { get; } = new();

        public long StopAfter { get; init; } = -1;

        public long RequestStopAfter { get; init; } = -1;

        public bool AddMetrics { get; init; }

        public void Attached(TrainingControl control) => _control = control;

        public void Stepped(in StepReport report)
        {
            Losses.Add(report.Loss);
            if (report.Step == StopAfter)
            {
                Stop.Cancel();
            }

            if (report.Step == RequestStopAfter)
            {
                _control!.RequestStop("enough");
            }

            if (AddMetrics && report.IsLogStep)
            {
                _control!.AddMetric("own/step", report.Step);
            }
        }

        public void Evaluated(in EvaluationReport report)
        {
            if (AddMetrics)
            {
                _control!.AddMetric("odd", double.NaN);
            }
        }
    }
}
