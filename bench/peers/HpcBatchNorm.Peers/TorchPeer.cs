using HpcBatchNorm.Backends;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using TorchSharp;
using TorchSharp.Modules;
using F = TorchSharp.torch.nn.functional;
using Tensor = TorchSharp.torch.Tensor;

namespace HpcBatchNorm.Peers;

/// <summary>What <see cref="TorchPeer"/> does.</summary>
internal sealed record TorchSettings(bool Training, bool Bf16, bool ChannelsLast, int Batch, int ImageSize, int Threads);

/// <summary>
/// A network of our catalogue in TorchSharp: the same layers, shapes, epsilon, padding and initial parameters; SGD with momentum. Rectifiers work in place,
/// sums go into a batch normalization's output, and every value is let go after its last use, as Python would. In bf16 the weights of convolutions and classifier are bfloat16 without single-precision
/// masters: less work than ours does. Its images are normalised beforehand; ours start from bytes.
/// </summary>
internal sealed class TorchPeer : IDisposable
{
    private const int Classes = 1000, VerificationSize = 64, VerificationBatch = 2;

    private readonly TorchSettings _settings;
    private readonly Network _network;
    private readonly NetworkState _state;
    private readonly Dictionary<string, Tensor> _tensors = [];
    private readonly Dictionary<Node, int> _uses;
    private readonly IReadOnlyList<Node> _nodes;
    private readonly torch.optim.Optimizer _optimizer;
    private readonly Tensor _images, _labels;

    public TorchPeer(string network, TorchSettings settings)
    {
        torch.set_num_threads(settings.Threads);
        _settings = settings;
        _network = NetworkCatalog.Create(network, new NetworkOptions { Classes = Classes });
        _nodes = _network.Ancestors(_network.Loss.Inputs[0]);
        _uses = _nodes.SelectMany(n => n.Inputs).GroupBy(i => i).ToDictionary(g => g.Key, g => g.Count());
        NetworkShapes shapes = _network.Infer(1, settings.ImageSize, settings.ImageSize);
        _state = NetworkState.Initial(shapes, seed: 1);
        List<Parameter> learned = [];
        foreach (NetworkParameter parameter in shapes.Parameters)
        {
            HpcBatchNorm.Tensors.Shape shape = parameter.Spec.Shape;
            long[] extents = parameter.Spec.Name != "weights" ? [shape.C]
                : parameter.Node.Layer is FullyConnectedLayer ? [shape.N, shape.ImageCount] : [shape.N, shape.C, shape.H, shape.W];
            Tensor values = torch.tensor(_state.Get(parameter.Name, shape).ToArray(), extents);
            values = parameter.Spec.Name == "weights" || (parameter.Spec.Name == "bias") ? InLayout(Narrow(values)) : values;
            if (parameter.Spec.Kind == ParameterKind.RunningStatistic)
            {
                _tensors[parameter.Name] = values;
            }
            else
            {
                var learn = new Parameter(values, requires_grad: true);
                learned.Add(learn);
                _tensors[parameter.Name] = learn;
            }
        }

        _optimizer = torch.optim.SGD(learned, 0.001, momentum: 0.9);
        _images = InLayout(Narrow(torch.rand(settings.Batch, _network.InputChannels, settings.ImageSize, settings.ImageSize) * 2 - 1));
        _labels = torch.randint(Classes, settings.Batch, dtype: torch.ScalarType.Int64);
    }

    public string Version { get; } = FormattableString.Invariant($"TorchSharp {typeof(torch).Assembly.GetName().Version?.ToString(3)}");

    /// <summary>
    /// Compares class probabilities of small images with our reference backend's, so that what is timed is known to be the same network. Returns the largest
    /// relative difference.
    /// </summary>
    /// <exception cref="InvalidOperationException">They differ.</exception>
    public double Verify()
    {
        if (_network.MinimumImageSize > VerificationSize)
        {
            throw new InvalidOperationException($"{_network.Name} needs larger images than {VerificationSize} pixels.");
        }

        byte[] pixels = new byte[VerificationBatch * VerificationSize * VerificationSize * _network.InputChannels];
        new Random(1).NextBytes(pixels);
        float[] expected = new float[VerificationBatch * Classes];
        using (Backend reference = Backend.Create("reference"))
        using (var session = new ForwardSession(
            reference, _network, new InferenceOptions { Batch = VerificationBatch, Height = VerificationSize, Width = VerificationSize }, _state))
        {
            session.Forward(pixels, expected);
        }

        using DisposeScope scope = torch.NewDisposeScope();
        using IDisposable inference = torch.inference_mode(true);
        Tensor bytes = torch.tensor(pixels, [VerificationBatch, VerificationSize, VerificationSize, _network.InputChannels]).to(torch.ScalarType.Float32);
        Tensor images = InLayout(Narrow(((bytes - 128) / 128).permute(0, 3, 1, 2).contiguous()));
        float[] found = [.. F.softmax(Logits(images, training: false), 1).data<float>()];
        double largest = expected.Zip(found, (e, f) => Math.Abs(f / e - 1.0)).Max();
        double allowed = _settings.Bf16 ? 0.2 : 1e-3;
        return largest <= allowed
            ? largest
            : throw new InvalidOperationException(FormattableString.Invariant($"TorchSharp's probabilities differ by {largest:g3} of their size; at most {allowed} is expected. Not timed."));
    }

    public void Step()
    {
        using DisposeScope scope = torch.NewDisposeScope();
        if (!_settings.Training)
        {
            using IDisposable inference = torch.inference_mode(true);
            Tensor probabilities = F.softmax(Logits(_images.alias(), training: false), 1);
            _ = probabilities.data<float>()[0];
            return;
        }

        _optimizer.zero_grad();
        Tensor loss = F.cross_entropy(Logits(_images.alias(), training: true), _labels);
        loss.backward();
        _optimizer.step();
        _ = loss.item<float>();
    }

    public void Dispose()
    {
        _optimizer.Dispose();
        _images.Dispose();
        _labels.Dispose();
        foreach (Tensor tensor in _tensors.Values)
        {
            tensor.Dispose();
        }
    }

    /// <summary>Single-precision logits. The images are disposed of.</summary>
    private Tensor Logits(Tensor images, bool training)
    {
        Dictionary<Node, Tensor> values = [];
        Dictionary<Node, int> left = new(_uses);
        foreach (Node node in _nodes)
        {
            if (node.Layer is InputLayer)
            {
                values[node] = images;
                continue;
            }

            Tensor[] inputs = [.. node.Inputs.Select(i => values[i])];
            values[node] = Apply(node, inputs, training);
            foreach (Node input in node.Inputs)
            {
                if (--left[input] == 0 && !ReferenceEquals(values[input], values[node]))
                {
                    values[input].Dispose();
                    values.Remove(input);
                }
            }
        }

        return values[_network.Loss.Inputs[0]].to(torch.ScalarType.Float32);
    }

    private Tensor Apply(Node node, Tensor[] inputs, bool training)
    {
        Tensor src = inputs[0];
        return node.Layer switch
        {
            ConvolutionLayer c => F.conv2d(
                src, _tensors[$"{node.Name}.weights"], c.Bias ? _tensors[$"{node.Name}.bias"] : null, strides: Pair(c.Stride), padding: Pair(node, c.Pad),
                dilation: Pair(c.Dilation), groups: c.Groups),
            FullyConnectedLayer f => F.linear(src.flatten(1), _tensors[$"{node.Name}.weights"], f.Bias ? _tensors[$"{node.Name}.bias"] : null),
            BatchNormLayer { PerActivation: false } b => F.batch_norm(
                src, _tensors[$"{node.Name}.running_mean"], _tensors[$"{node.Name}.running_variance"], _tensors[$"{node.Name}.scale"], _tensors[$"{node.Name}.shift"],
                training, b.AveragingFactor, b.Epsilon),
            ActivationLayer { Function: ActivationKind.Relu } => _uses[node.Inputs[0]] == 1 ? src.relu_() : src.relu(),
            ActivationLayer { Function: ActivationKind.Sigmoid } => src.sigmoid(),
            ActivationLayer { Function: ActivationKind.Tanh } => src.tanh(),
            ActivationLayer { Function: ActivationKind.Gelu } => F.gelu(src),
            ActivationLayer { Function: ActivationKind.Silu } => F.silu(src),
            ActivationLayer { Function: ActivationKind.HardSwish } => F.hardswish(src),
            PoolingLayer { Kind: PoolingKind.Max } p => F.max_pool2d(src, Pair(p.Kernel), Pair(p.Stride), Pair(node, p.Pad), ceil_mode: p.Ceil),
            PoolingLayer p => F.avg_pool2d(
                src, Pair(p.Kernel), Pair(p.Stride), Pair(node, p.Pad), ceil_mode: p.Ceil, count_include_pad: p.Kind == PoolingKind.AverageIncludePadding),
            GlobalAveragePoolingLayer => F.adaptive_avg_pool2d(src, 1),
            LrnLayer l => F.local_response_norm(src, l.Size, l.Alpha, l.Beta, l.K),
            DropoutLayer d => F.dropout(src, d.Ratio, training),
            ConcatLayer => torch.cat(inputs, 1),
            SumLayer => Sum(node, inputs),
            _ => throw new NotSupportedException($"The TorchSharp peer has no form for '{node.Name}' ({node.Layer.Description})."),
        };
    }

    /// <summary>As torchvision's blocks add their shortcut: into the batch normalization's output, which nobody else reads.</summary>
    private Tensor Sum(Node node, Tensor[] inputs)
    {
        int into = Array.FindIndex([.. node.Inputs], i => _uses[i] == 1 && i.Layer is BatchNormLayer);
        return inputs.Length == 2 && into >= 0 ? inputs[into].add_(inputs[1 - into]) : inputs.Skip(1).Aggregate(inputs[0], (sum, next) => sum + next);
    }

    private static long[] Pair(Extent extent) => [extent.Height, extent.Width];

    private static long[] Pair(Node node, HpcBatchNorm.Layers.Padding pad) => pad.Top == pad.Bottom && pad.Left == pad.Right
        ? [pad.Top, pad.Left]
        : throw new NotSupportedException($"The TorchSharp peer has no form for '{node.Name}': its padding {pad} differs between opposite sides.");

    private Tensor Narrow(Tensor values) => _settings.Bf16 ? values.to(torch.ScalarType.BFloat16) : values;

    /// <summary>TorchSharp has no memory formats; libtorch goes by the strides, which a transposition there and back leaves behind.</summary>
    private Tensor InLayout(Tensor values) =>
        _settings.ChannelsLast && values.dim() == 4 ? values.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) : values;
}
