// A layer of one's own, from the first check to a resumed training. Ends with 0 only when everything it claims holds.
using System.Globalization;
using System.Runtime.InteropServices;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification;
using OwnLayer;

const int Batch = 16, Size = 16, Classes = 4, Steps = 60;

// 1. Are its gradients right? Finite differences of Forward say so, on small shapes; Describe() names what is wrong.
GradientCheckResult check = GradientCheck.Run(new SwitchableNorm(), [new Shape(3, 4, 3, 2)]);
Console.WriteLine(check.Describe());
Require(check.Passed, "the gradients are right");

// 2. A network with it. Inside a network it is a layer like any other.
var b = new NetworkBuilder("own-layer");
Node x = b.Input(channels: 3);
x = b.Convolution("conv1", x, 16, kernel: 3, pad: 1);
x = b.Add("norm1", new SwitchableNorm(), x);
x = b.Relu("relu1", x);
x = b.MaxPooling("pool1", x, kernel: 2, stride: 2);
x = b.Convolution("conv2", x, 16, kernel: 3, pad: 1);
x = b.Add("norm2", new SwitchableNorm(), x);
x = b.Relu("relu2", x);
x = b.GlobalAveragePooling("pool2", x);
b.Loss(b.FullyConnected("fc", x, Classes));
Network network = b.Build();

// A network file can hold it, once its type is known.
SwitchableNorm.Register();
Require(Network.FromJson(network.ToJson()).Nodes.Single(n => n.Name == "norm1").Layer.Equals(new SwitchableNorm()), "a network file holds the layer");

// Managed code runs where the tensors lie in the processor's memory: on onednn and on the reference. On a GPU this line would throw, and say why.
using Backend backend = Backend.Create(Backend.Probe().Any(p => p is { Name: "onednn", Available: true }) ? "onednn" : "reference");
using Backend reference = Backend.Create("reference");
var options = new TrainingOptions { Batch = Batch, Height = Size, Width = Size, Seed = 1, WeightDecay = 1e-4f };

// 3. Does the backend do with it what the reference does, to the last bit of what the layer reads and writes?
CaseResult verified = NetworkVerifier.Step(backend, reference, network, options, "");
Console.WriteLine(verified.Describe());
Require(verified.Passed, $"a step on {backend.Name} agrees with the reference");

// 4. Train; half way, write everything that persists (parameters, momenta, running statistics, the layer's own among them) to a file.
string checkpoint = Path.Combine(Path.GetTempPath(), $"own-layer-{Guid.NewGuid():N}.safetensors");
using var session = new TrainingSession(backend, network, options);
float first = Train(session, 0, 1);
Train(session, 1, Steps / 2);
Save(session, checkpoint);
float last = Train(session, Steps / 2, Steps);
Say($"loss {first:F3} after the first step, {last:F3} after {Steps}");
Require(last < 0.5f * first, "it learns");

float[] blend = session.ReadNetworkState().Get("norm1.blend", Shape.Vector(16)).ToArray();
Say($"norm1 trusts the batch by {blend.Min(w => 1 / (1 + MathF.Exp(-w))):F3} to {blend.Max(w => 1 / (1 + MathF.Exp(-w))):F3}; it began with 0.5");
Require(blend.Any(w => w != 0), "the parameter of our own learns");

// 5. A new session, as after a restart, goes on from the file: the same bits as without the stop.
using (var resumed = new TrainingSession(backend, network, options with { Seed = 99 }))
{
    Load(resumed, checkpoint);
    float again = Train(resumed, Steps / 2, Steps);
    Require(again == last, $"the resumed training has the same loss, {again:R}");
    bool same = resumed.State.Zip(session.State).All(s => Values(resumed, s.First.Tensor).SequenceEqual(Values(session, s.Second.Tensor)));
    Require(same, "and the same state, bit for bit");
}

File.Delete(checkpoint);

// 6. Inference uses the layer's running statistics: an image's class does not depend on the others of its batch.
using var classifier = new ForwardSession(
    backend, network, new InferenceOptions { Batch = Batch, Height = Size, Width = Size }, session.ReadNetworkState());
(byte[] pixels, int[] labels) = Images(1_000_000);
float[] probabilities = new float[Batch * Classes];
classifier.Forward(pixels, probabilities);
int right = Enumerable.Range(0, Batch).Count(i => labels[i] == Array.IndexOf(probabilities, probabilities[(i * Classes)..((i + 1) * Classes)].Max(), i * Classes) % Classes);
Say($"{right} of {Batch} new images right");
Require(right > Batch / 2, "it classifies images it has not seen");
return 0;

static float Train(TrainingSession session, int from, int to)
{
    float loss = 0;
    for (int step = from; step < to; step++)
    {
        (byte[] pixels, int[] labels) = Images(step);
        loss = session.Step(pixels, labels, new StepContext(step, 0.05f));
    }

    return loss;
}

// Stripes in four directions, in random colours, with noise: a batch is a function of its number.
static (byte[] Pixels, int[] Labels) Images(int number)
{
    var random = new RandomSequence(7, stream: 0, (uint)number);
    byte[] pixels = new byte[Batch * Size * Size * 3];
    int[] labels = new int[Batch];
    for (int n = 0; n < Batch; n++)
    {
        labels[n] = (int)random.NextBelow(Classes);
        (int dx, int dy) = labels[n] switch { 0 => (1, 0), 1 => (0, 1), 2 => (1, 1), _ => (1, -1) };
        int phase = (int)random.NextBelow(4), brightness = 100 + (int)random.NextBelow(100);
        for (int i = 0; i < Size * Size * 3; i++)
        {
            int position = i / 3, stripe = (position % Size * dx + position / Size * dy + phase + 64) / 2 % 2;
            pixels[n * Size * Size * 3 + i] = (byte)Math.Clamp(brightness + (stripe == 0 ? -50 : 50) + (int)random.NextBelow(41) - 20, 0, 255);
        }
    }

    return (pixels, labels);
}

static void Save(TrainingSession session, string path)
{
    SafetensorsTensor[] tensors = [.. session.State.Select(s => new SafetensorsTensor(s.Tensor.Name, "F32", [s.Tensor.Shape.Count]))];
    SafetensorsFile.Write(path, tensors, [], (i, bytes) => session.Read(session.State[i].Tensor, MemoryMarshal.Cast<byte, float>(bytes)));
}

static void Load(TrainingSession session, string path)
{
    using SafetensorsFile file = SafetensorsFile.Open(path);
    foreach (StateTensor entry in session.State)
    {
        float[] values = new float[entry.Tensor.Shape.Count];
        file.Read(entry.Tensor.Name, values);
        session.Write(entry.Tensor, values);
    }
}

static float[] Values(TrainingSession session, Tensor tensor)
{
    float[] values = new float[tensor.Shape.Count];
    session.Read(tensor, values);
    return values;
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
