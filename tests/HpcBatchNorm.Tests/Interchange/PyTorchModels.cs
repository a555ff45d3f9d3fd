using System.Buffers.Binary;
using System.Globalization;
using HpcBatchNorm.Interchange;

namespace HpcBatchNorm.Tests.Interchange;

/// <summary>
/// Networks written down a second time, from the modules of torchvision and of Cadene's pretrainedmodels, with made-up weights: each once as an ONNX graph, for
/// ONNX Runtime, and once as the tensors of a file under those programs' names. Nothing here knows of this library's networks or of its table of names.
/// The graph's input are pixels of 0 to 255, R, G, B; what the programs do to them before the network is the graph's first nodes.
/// </summary>
internal sealed class PyTorchModels
{
    public const int Classes = 7;

    private readonly Random _random = new(5);

    private PyTorchModels(int size) => Graph = new OnnxGraphs(17, 3, size, size);

    public OnnxGraphs Graph { get; }

    /// <summary>What torch.save would write: names, types, extents and values, in the order of the modules.</summary>
    public List<(string Name, string Type, long[] Extents, float[] Values)> Tensors { get; } = [];

    public static PyTorchModels Create(string network, int size) => network switch
    {
        "bn-inception" => new PyTorchModels(size).BnInception(),
        "resnet-18" => new PyTorchModels(size).ResNet([2, 2, 2, 2], bottleneck: false),
        "resnet-50" => new PyTorchModels(size).ResNet([3, 4, 6, 3], bottleneck: true),
        "inception-v3" => new PyTorchModels(size).InceptionV3(),
        _ => throw new ArgumentException(network),
    };

    /// <summary>Writes the tensors as a safetensors file, in the types that they say.</summary>
    public static void Write(string path, IReadOnlyList<(string Name, string Type, long[] Extents, float[] Values)> tensors, params IEnumerable<KeyValuePair<string, string>> metadata) =>
        SafetensorsFile.Write(path, [.. tensors.Select(t => new SafetensorsTensor(t.Name, t.Type, t.Extents))], metadata, (i, bytes) =>
        {
            (_, string type, _, float[] values) = tensors[i];
            for (int k = 0; k < values.Length; k++)
            {
                switch (type)
                {
                    case "F32": BinaryPrimitives.WriteSingleLittleEndian(bytes[(4 * k)..], values[k]); break;
                    case "F64": BinaryPrimitives.WriteDoubleLittleEndian(bytes[(8 * k)..], values[k]); break;
                    case "F16": BinaryPrimitives.WriteHalfLittleEndian(bytes[(2 * k)..], (Half)values[k]); break;
                    case "BF16": BinaryPrimitives.WriteUInt16LittleEndian(bytes[(2 * k)..], (ushort)(BitConverter.SingleToUInt32Bits(values[k]) >> 16)); break;
                    case "I64": BinaryPrimitives.WriteInt64LittleEndian(bytes[(8 * k)..], (long)values[k]); break;
                    default: throw new ArgumentException(type);
                }
            }
        });

    /// <summary>pretrainedmodels/models/bninception.py: the widths are those of its module list, the input is B, G, R less 104, 117, 128.</summary>
    private PyTorchModels BnInception()
    {
        string x = Graph.Node("Gather", ["images", Graph.Wholes(2, 1, 0)], ("axis", 1));
        x = Graph.Node("Sub", [x, Graph.Floats([1, 3, 1, 1], 104, 117, 128)]);
        x = Cadene("conv1_7x7_s2", x, 64, 3, 7, 2, 3, 15_000);
        x = Pool(x, "MaxPool", 3, 2, 0, ceil: true);
        x = Cadene("conv2_3x3_reduce", x, 64, 64, 1);
        x = Cadene("conv2_3x3", x, 192, 64, 3, 1, 1);
        x = Pool(x, "MaxPool", 3, 2, 0, ceil: true);
        int width = 192;
        foreach (string row in new[]
                 {
                     "3a 64 64 64 64 96 32", "3b 64 64 96 64 96 64", "3c 0 128 160 64 96 0", "4a 224 64 96 96 128 128", "4b 192 96 128 96 128 128", "4c 160 128 160 128 160 128",
                     "4d 96 128 192 160 192 128", "4e 0 128 192 192 256 0", "5a 352 192 320 160 224 128", "5b 352 192 320 192 224 128",
                 })
        {
            string[] fields = row.Split(' ');
            int[] n = [.. fields[1..].Select(f => int.Parse(f, CultureInfo.InvariantCulture))];
            string m = $"inception_{fields[0]}";
            int stride = n[0] == 0 ? 2 : 1;
            List<string> branches = n[0] > 0 ? [Cadene($"{m}_1x1", x, n[0], width, 1)] : [];
            branches.Add(Cadene($"{m}_3x3", Cadene($"{m}_3x3_reduce", x, n[1], width, 1), n[2], n[1], 3, stride, 1));
            string doubled = Cadene($"{m}_double_3x3_1", Cadene($"{m}_double_3x3_reduce", x, n[3], width, 1), n[4], n[3], 3, 1, 1);
            branches.Add(Cadene($"{m}_double_3x3_2", doubled, n[4], n[4], 3, stride, 1));
            branches.Add(stride == 2 ? Pool(x, "MaxPool", 3, 2, 0, ceil: true)
                : Cadene($"{m}_pool_proj", Pool(x, fields[0] == "5b" ? "MaxPool" : "AveragePool", 3, 1, 1), n[5], width, 1));
            x = Graph.Node("Concat", branches, ("axis", 1));
            width = n[2] + n[4] + (stride == 2 ? width : n[0] + n[5]);
        }

        return Finish("last_linear", x, 1024);
    }

    /// <summary>torchvision/models/resnet.py: BasicBlock and Bottleneck, the stride on the 3x3 convolution; the transforms of its weights.</summary>
    private PyTorchModels ResNet(int[] blocks, bool bottleneck)
    {
        string x = ImageNet();
        x = Relu(Norm("bn1", Conv("conv1", x, 64, 3, 7, 7, 2, 3, 3), 64, 1));
        x = Pool(x, "MaxPool", 3, 2, 1);
        int inputs = 64;
        for (int layer = 1; layer <= 4; layer++)
        {
            int planes = 32 << layer, outputs = bottleneck ? 4 * planes : planes;
            for (int block = 0; block < blocks[layer - 1]; block++)
            {
                string name = $"layer{layer}.{block}", identity = x;
                int stride = layer > 1 && block == 0 ? 2 : 1;
                string y = bottleneck
                    ? Relu(Norm($"{name}.bn1", Conv($"{name}.conv1", x, planes, inputs, 1, 1, 1, 0, 0), planes, 1))
                    : Relu(Norm($"{name}.bn1", Conv($"{name}.conv1", x, planes, inputs, 3, 3, stride, 1, 1), planes, 1));
                y = bottleneck
                    ? Relu(Norm($"{name}.bn2", Conv($"{name}.conv2", y, planes, planes, 3, 3, stride, 1, 1), planes, 1))
                    : Norm($"{name}.bn2", Conv($"{name}.conv2", y, planes, planes, 3, 3, 1, 1, 1), planes, 4);
                y = bottleneck ? Norm($"{name}.bn3", Conv($"{name}.conv3", y, outputs, planes, 1, 1, 1, 0, 0), outputs, 4) : y;
                if (stride != 1 || inputs != outputs)
                {
                    identity = Norm($"{name}.downsample.1", Conv($"{name}.downsample.0", x, outputs, inputs, 1, 1, stride, 0, 0), outputs, 1);
                }

                x = Relu(Graph.Node("Add", [y, identity]));
                inputs = outputs;
            }
        }

        return Finish("fc", x, inputs);
    }

    /// <summary>torchvision/models/inception.py with transform_input, as its weights are loaded; the auxiliary head's tensors are in the file, its nodes not in evaluation.</summary>
    private PyTorchModels InceptionV3()
    {
        // _transform_input: x[:, c] * (std / 0.5) + (mean - 0.5) / 0.5 of what the transforms made.
        string x = Graph.Node("Mul", [ImageNet(), Graph.Floats([1, 3, 1, 1], 0.229f / 0.5f, 0.224f / 0.5f, 0.225f / 0.5f)]);
        x = Graph.Node("Add", [x, Graph.Floats([1, 3, 1, 1], (0.485f - 0.5f) / 0.5f, (0.456f - 0.5f) / 0.5f, (0.406f - 0.5f) / 0.5f)]);
        x = Basic("Conv2d_1a_3x3", x, 32, 3, 3, 3, 2);
        x = Basic("Conv2d_2a_3x3", x, 32, 32, 3, 3);
        x = Basic("Conv2d_2b_3x3", x, 64, 32, 3, 3, 1, 1, 1);
        x = Pool(x, "MaxPool", 3, 2, 0);
        x = Basic("Conv2d_3b_1x1", x, 80, 64, 1, 1);
        x = Basic("Conv2d_4a_3x3", x, 192, 80, 3, 3);
        x = Pool(x, "MaxPool", 3, 2, 0);
        x = A("Mixed_5b", x, 192, 32);
        x = A("Mixed_5c", x, 256, 64);
        x = A("Mixed_5d", x, 288, 64);
        string three = Basic("Mixed_6a.branch3x3", x, 384, 288, 3, 3, 2);
        string twice = Basic("Mixed_6a.branch3x3dbl_2", Basic("Mixed_6a.branch3x3dbl_1", x, 64, 288, 1, 1), 96, 64, 3, 3, 1, 1, 1);
        x = Cat(three, Basic("Mixed_6a.branch3x3dbl_3", twice, 96, 96, 3, 3, 2), Pool(x, "MaxPool", 3, 2, 0));
        x = C("Mixed_6b", x, 128);
        x = C("Mixed_6c", x, 160);
        x = C("Mixed_6d", x, 160);
        x = C("Mixed_6e", x, 192);
        Basic("AuxLogits.conv0", x, 128, 768, 1, 1);
        Basic("AuxLogits.conv1", Graph.Model.Graph.Node[^1].Output[0], 768, 128, 5, 5, 1, 2, 2);
        Add("AuxLogits.fc.weight", [Classes, 768], -0.1f, 0.1f);
        Add("AuxLogits.fc.bias", [Classes], -0.1f, 0.1f);
        three = Basic("Mixed_7a.branch3x3_2", Basic("Mixed_7a.branch3x3_1", x, 192, 768, 1, 1), 320, 192, 3, 3, 2);
        string seven = Basic("Mixed_7a.branch7x7x3_2", Basic("Mixed_7a.branch7x7x3_1", x, 192, 768, 1, 1), 192, 192, 1, 7, 1, 0, 3);
        seven = Basic("Mixed_7a.branch7x7x3_4", Basic("Mixed_7a.branch7x7x3_3", seven, 192, 192, 7, 1, 1, 3, 0), 192, 192, 3, 3, 2);
        x = Cat(three, seven, Pool(x, "MaxPool", 3, 2, 0));
        x = E("Mixed_7b", x, 1280);
        x = E("Mixed_7c", x, 2048);
        return Finish("fc", x, 2048);

        string A(string m, string input, int inputs, int pool)
        {
            string five = Basic($"{m}.branch5x5_2", Basic($"{m}.branch5x5_1", input, 48, inputs, 1, 1), 64, 48, 5, 5, 1, 2, 2);
            string dbl = Basic($"{m}.branch3x3dbl_2", Basic($"{m}.branch3x3dbl_1", input, 64, inputs, 1, 1), 96, 64, 3, 3, 1, 1, 1);
            dbl = Basic($"{m}.branch3x3dbl_3", dbl, 96, 96, 3, 3, 1, 1, 1);
            return Cat(Basic($"{m}.branch1x1", input, 64, inputs, 1, 1), five, dbl, Basic($"{m}.branch_pool", Pool(input, "AveragePool", 3, 1, 1), pool, inputs, 1, 1));
        }

        string C(string m, string input, int c7)
        {
            string one = Basic($"{m}.branch7x7_2", Basic($"{m}.branch7x7_1", input, c7, 768, 1, 1), c7, c7, 1, 7, 1, 0, 3);
            string dbl = Basic($"{m}.branch7x7dbl_2", Basic($"{m}.branch7x7dbl_1", input, c7, 768, 1, 1), c7, c7, 7, 1, 1, 3, 0);
            dbl = Basic($"{m}.branch7x7dbl_4", Basic($"{m}.branch7x7dbl_3", dbl, c7, c7, 1, 7, 1, 0, 3), c7, c7, 7, 1, 1, 3, 0);
            return Cat(
                Basic($"{m}.branch1x1", input, 192, 768, 1, 1), Basic($"{m}.branch7x7_3", one, 192, c7, 7, 1, 1, 3, 0), Basic($"{m}.branch7x7dbl_5", dbl, 192, c7, 1, 7, 1, 0, 3),
                Basic($"{m}.branch_pool", Pool(input, "AveragePool", 3, 1, 1), 192, 768, 1, 1));
        }

        string E(string m, string input, int inputs)
        {
            string one = Basic($"{m}.branch3x3_1", input, 384, inputs, 1, 1);
            string dbl = Basic($"{m}.branch3x3dbl_2", Basic($"{m}.branch3x3dbl_1", input, 448, inputs, 1, 1), 384, 448, 3, 3, 1, 1, 1);
            return Cat(
                Basic($"{m}.branch1x1", input, 320, inputs, 1, 1), Basic($"{m}.branch3x3_2a", one, 384, 384, 1, 3, 1, 0, 1), Basic($"{m}.branch3x3_2b", one, 384, 384, 3, 1, 1, 1, 0),
                Basic($"{m}.branch3x3dbl_3a", dbl, 384, 384, 1, 3, 1, 0, 1), Basic($"{m}.branch3x3dbl_3b", dbl, 384, 384, 3, 1, 1, 1, 0),
                Basic($"{m}.branch_pool", Pool(input, "AveragePool", 3, 1, 1), 192, inputs, 1, 1));
        }
    }

    private PyTorchModels Finish(string classifier, string x, int features)
    {
        x = Graph.Node("Flatten", [Graph.Node("GlobalAveragePool", [x])], ("axis", 1));
        string weights = Add($"{classifier}.weight", [Classes, features], -1 / MathF.Sqrt(features), 1 / MathF.Sqrt(features));
        Graph.Named("Softmax", "out", [Graph.Node("Gemm", [x, weights, Add($"{classifier}.bias", [Classes], -0.1f, 0.1f)], ("transB", 1))], ("axis", 1));
        return this;
    }

    /// <summary>ToTensor and Normalize.</summary>
    private string ImageNet()
    {
        string x = Graph.Node("Div", ["images", Graph.Floats([1, 1, 1, 1], 255)]);
        return Graph.Node("Div", [Graph.Node("Sub", [x, Graph.Floats([1, 3, 1, 1], 0.485f, 0.456f, 0.406f)]), Graph.Floats([1, 3, 1, 1], 0.229f, 0.224f, 0.225f)]);
    }

    /// <summary>Conv2d with a bias that matters, BatchNorm2d, ReLU.</summary>
    private string Cadene(string name, string x, int outputs, int inputs, int kernel, int stride = 1, int pad = 0, float variance = 1)
    {
        string bias = Add($"{name}.bias", [outputs], -MathF.Sqrt(variance) / 2, MathF.Sqrt(variance) / 2);
        return Relu(Norm($"{name}_bn", Conv(name, x, outputs, inputs, kernel, kernel, stride, pad, pad, bias), outputs, variance));
    }

    /// <summary>BasicConv2d.</summary>
    private string Basic(string name, string x, int outputs, int inputs, int rows, int columns, int stride = 1, int padRows = 0, int padColumns = 0) =>
        Relu(Norm($"{name}.bn", Conv($"{name}.conv", x, outputs, inputs, rows, columns, stride, padRows, padColumns), outputs, 1, 1e-3f));

    private string Conv(string name, string x, int outputs, int inputs, int rows, int columns, int stride, int padRows, int padColumns, params string[] bias)
    {
        // Uniform with variance 2 / fan-in, so that values neither die out nor explode.
        float bound = MathF.Sqrt(6f / (inputs * rows * columns));
        string weights = Add($"{name}.weight", [outputs, inputs, rows, columns], -bound, bound);
        return Graph.Node("Conv", [x, weights, .. bias], ("strides", new[] { stride, stride }), ("pads", new[] { padRows, padColumns, padRows, padColumns }));
    }

    private string Norm(string name, string x, int channels, float variance, float epsilon = 1e-5f)
    {
        float deviation = MathF.Sqrt(variance);
        string scale = Add($"{name}.weight", [channels], 0.5f, 1.5f), shift = Add($"{name}.bias", [channels], -0.3f, 0.3f);
        string mean = Add($"{name}.running_mean", [channels], -deviation / 2, deviation / 2), spread = Add($"{name}.running_var", [channels], variance / 2, 3 * variance / 2);
        Tensors.Add(($"{name}.num_batches_tracked", "I64", [], [1234]));
        return Graph.Node("BatchNormalization", [x, scale, shift, mean, spread], ("epsilon", epsilon));
    }

    private string Relu(string x) => Graph.Node("Relu", [x]);

    private string Cat(params string[] branches) => Graph.Node("Concat", branches, ("axis", 1));

    private string Pool(string x, string type, int kernel, int stride, int pad, bool ceil = false)
    {
        (string, object)[] attributes = [("kernel_shape", new[] { kernel, kernel }), ("strides", new[] { stride, stride }), ("pads", new[] { pad, pad, pad, pad }), ("ceil_mode", ceil ? 1 : 0)];
        return Graph.Node(type, [x], type == "AveragePool" ? [.. attributes, ("count_include_pad", (object)1)] : attributes);
    }

    private string Add(string name, long[] extents, float low, float high)
    {
        float[] values = new float[extents.Aggregate(1L, (a, b) => a * b)];
        foreach (ref float value in values.AsSpan())
        {
            value = low + (high - low) * _random.NextSingle();
        }

        Tensors.Add((name, "F32", extents, values));
        return Graph.Floats(extents, values);
    }
}
