// A ResNet-18 for images of 32x32 pixels, from the builder to the answer for one image. Ends with 0 only when everything it claims holds.
//
// It has the 18 layers of He et al. 2015 in the form that is usual for small images: a 3x3 convolution at the beginning instead of 7x7 with a pooling
// behind it. The original has 64, 128, 256 and 512 channels; with a quarter of them it learns its four shapes on two cores in seconds. Set width to 64
// for the real one.
using System.Globalization;
using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Serving;
using OwnNetwork;

const int width = 16;

// 1. The network.
Network network = ResNet18(width, Shapes.Names.Length);
Say($"{network.Name}: {network.Infer(1, Shapes.Side, Shapes.Side).ParameterCount} parameters");
Require(ResNet18(64, 10).Infer(1, 32, 32).ParameterCount == 11_173_962, "with 64 channels and 10 classes it is the ResNet-18 of CIFAR-10, 11,173,962 parameters");

// 2. The images, and how to train. The images have the size that the network takes, so nothing is cropped: they are only mirrored and distorted in colour.
InMemoryImageSource training = Shapes.Draw(512, seed: 1), validation = Shapes.Draw(200, seed: 2);
string folder = Path.Combine(Path.GetTempPath(), $"own-network-{Guid.NewGuid():N}");
RunConfig config = RunConfig.ForWholeImages(Shapes.Side) with
{
    BatchSize = 32,
    LearningRate = 0.05f,
    Schedule = ScheduleKind.Cosine,
    Epochs = 5,
    Augmentation = AugmentationOptions.None with { Mirror = true, PhotometricStrength = 0.5 },
    Output = folder,
};

// 3. Training. The run's folder gets metrics and checkpoints.
TrainingResult result = new Trainer(network, training, validation, config).Run();
foreach (EvaluationPoint evaluation in result.Evaluations)
{
    Say($"step {evaluation.Step}: {evaluation.Top1:P1} of the validation images right");
}

Require(result.Validation!.Top1 > 0.8, string.Create(CultureInfo.InvariantCulture, $"{result.Validation.Top1:P1} are right; guessing gives 25 %"));

// 4. The network as a file of its own, for the commands that take one and for whoever wants to read it.
string file = Path.Combine(folder, "network.json");
using (FileStream stream = File.Create(file))
{
    network.WriteJson(stream);
}

using (FileStream stream = File.OpenRead(file))
{
    Require(Network.ReadJson(stream).ToJson() == network.ToJson(), "the network file says the same network");
}

// 5. The checkpoint holds all that is needed: the network, what it has learned, how images are prepared, the names of the classes.
using (Classifier classifier = Classifier.Open(result.Checkpoint))
{
    InMemoryImageSource unseen = Shapes.Draw(3, seed: 3);
    byte[] pixels = [];
    unseen.Read(2, ref pixels);
    Classification answer = await classifier.ClassifyAsync(pixels, Shapes.Side, Shapes.Side, PixelFormat.Rgb);
    Say($"a picture of a {Shapes.Names[unseen.Label(2)]} is taken for a {answer.Best.Name}, with probability {answer.Best.Probability:F3}");
    Require(answer.Best.Name == Shapes.Names[unseen.Label(2)], "the picture is recognised");
}

Directory.Delete(folder, recursive: true);
return 0;

static Network ResNet18(int width, int classes)
{
    var b = new NetworkBuilder("resnet-18-small");
    Node x = b.Input(channels: 3);
    x = b.Relu("relu1", b.BatchNorm("bn1", b.Convolution("conv1", x, width, kernel: 3, pad: 1)));
    for (int stage = 0; stage < 4; stage++)
    {
        for (int block = 0; block < 2; block++)
        {
            x = Block(b, $"layer{stage + 1}/{block}", x, width << stage, stride: stage > 0 && block == 0 ? 2 : 1);
        }
    }

    b.Loss(b.FullyConnected("fc", b.GlobalAveragePooling("pool", x), classes));
    return b.Build();
}

// Two convolutions of 3x3 and the way around them. Where the image becomes smaller, a convolution of 1x1 makes what goes around fit.
static Node Block(NetworkBuilder b, string name, Node input, int outputs, int stride)
{
    Node x = b.Convolution($"{name}/conv1", input, outputs, kernel: 3, stride: stride, pad: 1);
    x = b.Relu($"{name}/relu1", b.BatchNorm($"{name}/bn1", x));
    x = b.BatchNorm($"{name}/bn2", b.Convolution($"{name}/conv2", x, outputs, kernel: 3, pad: 1));
    Node around = stride == 1 ? input : b.BatchNorm($"{name}/around/bn", b.Convolution($"{name}/around/conv", input, outputs, kernel: 1, stride: stride));
    return b.Relu($"{name}/relu", b.Sum($"{name}/sum", x, around));
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
