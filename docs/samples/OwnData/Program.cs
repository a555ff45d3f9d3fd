// An image source of one's own: Waves.cs computes its pictures when they are asked for. A training with it that is stopped and goes on has the same losses
// as one that was not, to the last bit. Ends with 0 only when everything it claims holds.
using System.Globalization;
using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Training;
using OwnData;

const int Steps = 60, StopAfter = 25;

string folder = Path.Combine(Path.GetTempPath(), $"own-data-{Guid.NewGuid():N}");
Network network = Build();
RunConfig config = RunConfig.ForWholeImages(Waves.Side) with
{
    BatchSize = 16,
    LearningRate = 0.05f,
    Schedule = ScheduleKind.Cosine,
    Steps = Steps,
    Augmentation = new AugmentationOptions { MinArea = 0.5 },
};
Waves training = new(320, seed: 1), validation = new(120, seed: 2);

// 1. Without a stop.
var whole = new Losses();
TrainingResult expected = new Trainer(network, training, validation, config with { Output = Path.Combine(folder, "whole") }, whole).Run();
Say($"loss {whole.All[0]:F3} after the first step, {whole.All[^1]:F3} after {expected.Steps}; {expected.Validation!.Top1:P1} of the validation images right");
Require(expected.Validation.Top1 > 0.6, "it learns: guessing gives 33 %");
Require(training.Reads >= Steps * config.BatchSize, "every picture of every step was asked of the source");

// 2. Stopped, as by Ctrl+C: the state is saved, in the middle of an epoch.
using var stop = new CancellationTokenSource();
var first = new Losses { StopAfter = StopAfter, Stop = stop };
RunConfig stopping = config with { Output = Path.Combine(folder, "stopped") };
TrainingResult stopped = new Trainer(network, training, validation, stopping, first).Run(stop.Token);
Require(stopped is { Outcome: TrainingOutcome.Interrupted, Steps: StopAfter }, $"the training stopped after {StopAfter} steps");

// 3. A new source and a new trainer, as after a restart, go on from the newest checkpoint.
using Checkpoint checkpoint = Checkpoint.OpenNewest(stopped.RunDirectory)!;
var rest = new Losses();
TrainingResult resumed = new Trainer(network, new Waves(320, seed: 1), validation, stopping, rest) { Resume = checkpoint }.Run();
Require(resumed.Steps == Steps, $"the training went on to step {Steps}");
Require(whole.All.SequenceEqual(first.All.Concat(rest.All)), string.Create(CultureInfo.InvariantCulture, $"every loss is that of the training without a stop; the last is {rest.All[^1]:R}"));
Require(File.ReadAllBytes(resumed.Checkpoint).SequenceEqual(File.ReadAllBytes(expected.Checkpoint)), "and so is the checkpoint, byte for byte");

checkpoint.Dispose();
Directory.Delete(folder, recursive: true);
return 0;

static Network Build()
{
    var b = new NetworkBuilder("waves");
    Node x = b.Input(channels: 3);
    foreach (int channels in new[] { 16, 32 })
    {
        x = b.Convolution($"conv{channels}", x, channels, kernel: 5, stride: 2, pad: 2);
        x = b.Relu($"relu{channels}", b.BatchNorm($"bn{channels}", x));
    }

    b.Loss(b.FullyConnected("fc", b.GlobalAveragePooling("pool", x), 3));
    return b.Build();
}

static void Say(FormattableString text) => Console.WriteLine(text.ToString(CultureInfo.InvariantCulture));

static void Require(bool holds, string claim)
{
    Console.WriteLine($"{(holds ? "ok" : "NOT TRUE")}: {claim}");
    if (!holds)
    {
        Environment.Exit(1);
    }
}

// Keeps the loss of every step, and stops the training when asked to.
internal sealed class Losses : ITrainingObserver
{
    public List<float> All { get; } = [];

    public long StopAfter { get; init; } = -1;

    public CancellationTokenSource? Stop { get; init; }

    public void Stepped(in StepReport report)
    {
        All.Add(report.Loss);
        if (report.Step == StopAfter)
        {
            Stop?.Cancel();
        }
    }
}
