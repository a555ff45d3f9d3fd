// Transfer learning: a network that has learned seven directions of stripes from many pictures learns five others from a few. Ends with 0 only when
// everything it claims holds.
using System.Globalization;
using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Training;
using TransferLearning;

string folder = Path.Combine(Path.GetTempPath(), $"transfer-{Guid.NewGuid():N}");

// Mirroring would make one direction of another, so the pictures are taken as they are.
RunConfig config = RunConfig.ForWholeImages(Patterns.Side) with { BatchSize = 20, LearningRate = 0.05f, Schedule = ScheduleKind.Cosine };

// 1. The first task: seven directions, many pictures.
InMemoryImageSource many = Patterns.Draw(1400, seed: 1, 0, 2, 4, 5, 7, 9, 11);
TrainingResult pretrained = new Trainer(
    Build(many.ClassNames.Count), many, Patterns.Draw(210, seed: 2, 0, 2, 4, 5, 7, 9, 11), config with { Epochs = 6, Output = Path.Combine(folder, "first") }).Run();
Say($"first task: {pretrained.Validation!.Top1:P1} of 7 classes right after {pretrained.Steps} steps");
Require(pretrained.Validation.Top1 > 0.5, "the first task is learned");

// 2. The second task: five directions that it has never seen, 100 pictures, 15 steps. The network is the same but for its last layer, which has five outputs
// now and begins with random weights; the others begin with what the checkpoint holds. The name of the network must stay.
int[] directions = [1, 3, 6, 8, 10];
InMemoryImageSource few = Patterns.Draw(100, seed: 3, directions), validation = Patterns.Draw(300, seed: 4, directions);
RunConfig second = config with { Steps = 15, LearningRate = 0.02f };
TrainingResult transferred = new Trainer(
    Build(few.ClassNames.Count), few, validation,
    second with { InitialCheckpoint = pretrained.Checkpoint, ResetClassifier = true, Output = Path.Combine(folder, "transferred") }).Run();

// 3. The same without the first task.
TrainingResult scratch = new Trainer(Build(few.ClassNames.Count), few, validation, second with { Output = Path.Combine(folder, "scratch") }).Run();
Say($"second task, after 15 steps: {transferred.Validation!.Top1:P1} of 5 classes right, loss {transferred.Validation.Loss:F3}");
Say($"from random weights:         {scratch.Validation!.Top1:P1} of 5 classes right, loss {scratch.Validation.Loss:F3}");
Require(transferred.Validation.Top1 > 0.5, "the five classes are learned; guessing gives 20 %");
Require(transferred.Validation.Loss < 0.7 * scratch.Validation.Loss, "what it had learned before helps");

Directory.Delete(folder, recursive: true);
return 0;

static Network Build(int classes)
{
    var b = new NetworkBuilder("stripes");
    Node x = b.Input(channels: 3);
    foreach ((string name, int channels) in new[] { ("first", 16), ("second", 32), ("third", 32) })
    {
        x = b.Convolution($"{name}/conv", x, channels, kernel: 5, stride: 2, pad: 2);
        x = b.Relu($"{name}/relu", b.BatchNorm($"{name}/bn", x));
    }

    b.Loss(b.FullyConnected("fc", b.GlobalAveragePooling("pool", x), classes));
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
