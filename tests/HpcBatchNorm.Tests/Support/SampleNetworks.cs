using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Support;

/// <summary>Networks made with the public builder: one with every kind of layer, and any graph that a list of numbers says.</summary>
internal static class SampleNetworks
{
    /// <summary>
    /// Every kind of layer, convolution and pooling in forms that no network of the catalogue has: kernels, strides, dilation and padding that differ by
    /// direction and side, groups, a sum, two heads.
    /// </summary>
    public static Network EveryLayer(int classes)
    {
        var b = new NetworkBuilder("every-layer");
        Node x = b.Input(3);
        x = b.Convolution("stem", x, 16, kernel: (3, 5), stride: (1, 2), pad: (1, 0, 2, 3));
        x = b.BatchNorm("stem/bn", x, epsilon: 1e-3f, averagingFactor: 0.2f);
        x = b.Relu("stem/relu", x);
        x = b.MaxPooling("pool1", x, kernel: (3, 2), stride: (2, 1), pad: (1, 0), ceil: true);
        x = b.LocalResponseNorm("lrn", x, size: 3, alpha: 2e-4f, beta: 0.5f, k: 2);

        Node dilated = b.Convolution("a/dilated", x, 16, kernel: 3, pad: 2, dilation: 2);
        dilated = b.Relu("a/relu", b.BatchNorm("a/bn", dilated));
        Node grouped = b.Convolution("b/grouped", x, 32, kernel: (1, 3), pad: (0, 1), groups: 4, bias: true, initializer: Initializer.Gaussian(0.2));
        grouped = b.Sigmoid("b/sigmoid", grouped);
        Node depthwise = b.Tanh("c/tanh", b.Convolution("c/depthwise", x, 16, kernel: (3, 1), pad: (2, 0, 0, 0), groups: 16));
        Node pooled = b.Relu("d/relu", b.BatchNorm("d/bn", b.Convolution("d/1x1", b.AveragePooling("d/pool", x, 3, stride: 1, pad: 1, includePadding: true), 16, 1)));
        Node joined = b.Concatenation("joined", dilated, grouped, depthwise, pooled);

        Node block = b.BatchNorm("block/bn1", b.Convolution("block/conv1", joined, 80, 3, stride: 2, pad: 1, initializer: Initializer.FanIn(1)));
        block = b.BatchNorm("block/bn2", b.Convolution("block/conv2", b.Relu("block/relu1", block), 80, 3, pad: 1), initialScale: 0.5f);
        Node shortcut = b.BatchNorm("block/shortcut/bn", b.Convolution("block/shortcut", joined, 80, 1, stride: 2));
        x = b.Relu("block/relu2", b.Sum("block/sum", block, shortcut));

        Node head = b.AveragePooling("head/pool", joined, (4, 3), stride: (3, 2), pad: (0, 1));
        head = b.Activation("head/act", b.BatchNorm("head/bn", b.FullyConnected("head/fc1", head, 24, bias: false), perActivation: true), ActivationKind.Relu);
        b.Loss(b.FullyConnected("head/fc2", head, classes), weight: 0.3f, name: "head/loss");

        x = b.Dropout("dropout", b.GlobalAveragePooling("pool2", x), 0.25f);
        b.Loss(b.FullyConnected("fc", x, classes, initializer: Initializer.FanIn(1)));
        return b.Build();
    }

    /// <summary>
    /// A graph for images of 9x9 made of steps: what layer, on which of the values so far, and a number for its attributes. A step whose layer does not
    /// fit is left out; what nothing reads at the end is pooled, concatenated and classified.
    /// </summary>
    public static Network Random(IReadOnlyList<(int Kind, int Pick, int Number)> steps)
    {
        var b = new NetworkBuilder("random");
        Node input = b.Input(1 + steps.Count % 3);
        Dictionary<Node, Shape> shapes = new() { [input] = new Shape(2, 1 + steps.Count % 3, 9, 9) };
        List<Node> nodes = [input];
        for (int i = 0; i < steps.Count; i++)
        {
            (int kind, int pick, int number) = steps[i];
            Node src = nodes[pick % nodes.Count], other = nodes[number % nodes.Count];
            Layer layer = Make(kind, shapes[src].C, number);
            Node[] inputs = layer.MinimumInputs == 2 ? [src, other] : [src];
            try
            {
                Shape shape = layer.Infer("step", [.. inputs.Select(n => shapes[n])]);
                Node node = b.Add($"step{i}", layer, inputs);
                shapes[node] = shape;
                nodes.Add(node);
            }
            catch (ArgumentException)
            {
                // does not fit: other shapes, or a window larger than the image
            }
        }

        Node[] ends = [.. nodes.Where(n => !nodes.Exists(o => o.Inputs.Contains(n))).Select(n => b.GlobalAveragePooling($"{n.Name}/pool", n))];
        Node features = ends.Length == 1 ? ends[0] : b.Concatenation("features", ends);
        b.Loss(b.FullyConnected("fc", features, 4));
        return b.Build(9);
    }

    private static Layer Make(int kind, int channels, int n)
    {
        int One(int values) => n / 7 % values;
        return kind switch
        {
            0 => new ConvolutionLayer(8, (1 + n % 3, 1 + One(3)), stride: (1 + n % 2, 1), pad: (n % 3, One(2), One(3), n % 2), dilation: (1, 1 + n % 2), bias: n % 5 == 0),
            1 => new ConvolutionLayer(channels * (1 + n % 2), 3, Initializer.Gaussian(0.25), pad: 1, groups: channels),
            2 => new ConvolutionLayer(16, 1),
            3 => new BatchNormLayer(PerActivation: n % 7 == 0, Epsilon: n % 2 == 0 ? 1e-5f : 1e-3f),
            4 or 5 => new ActivationLayer(Enum.GetValues<ActivationKind>()[n % Enum.GetValues<ActivationKind>().Length]),
            6 => new PoolingLayer((PoolingKind)(n % 3), (2 + One(2), 2 + n % 2), (1 + n % 2, 1), (One(2), n % 2), ceil: n % 4 == 0),
            7 => new PoolingLayer((PoolingKind)(n % 3), 3, 1, 1),
            8 => new LrnLayer(n % 2 == 0 ? 3 : 5),
            9 => new DropoutLayer(n % 4 * 0.25f),
            10 => new ConcatLayer(),
            11 => new SumLayer(),
            12 => new FullyConnectedLayer(8, n % 2 == 0),
            _ => new GlobalAveragePoolingLayer(),
        };
    }
}
