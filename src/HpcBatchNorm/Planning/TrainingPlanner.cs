using HpcBatchNorm.Backends;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <summary>
/// Plans a training step: forward pass, losses, backward pass in reverse order, clipping, optimizer, weight averaging. This file emits the forward
/// pass and the update; <c>TrainingPlanner.Backward.cs</c> the backward pass.
/// </summary>
internal sealed partial class TrainingPlanner : PlanBuilder
{
    private readonly TrainingOptions _options;
    private readonly Tensor? _lossScale;
    private readonly Dictionary<Node, Action> _backward = [];
    private readonly List<(Tensor Parameter, Tensor Gradient, ParameterKind Kind, bool Frozen)> _learned = [];
    private readonly List<(Tensor Parameter, Tensor Copy)> _copies = [];
    private readonly Dictionary<Tensor, Tensor> _sums = new(ReferenceEqualityComparer.Instance);
    private Tensor? _labels;
    private Tensor? _loss;
    private Tensor? _probabilities;
    private uint _dropouts;

    private TrainingPlanner(Network network, TrainingOptions options, BackendTraits traits)
        : base(network, options, traits, network.Nodes)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(options.Accumulate, 1);
        _options = options;
        _lossScale = options.Precision == Precision.Fp16 ? new Tensor("loss_scale", UpdateLossScale.State, TensorRole.LossScale) : null;
        FindGradientNeeds();
        FindParallelConvolutions();
    }

    public static Plan Plan(Network network, TrainingOptions options, BackendTraits traits) => new TrainingPlanner(network, options, traits).Build();

    private Plan Build()
    {
        PlaceInConcats(input => Traits.BatchNormTakesSlices && BatchNormBehind(input) is not null);
        Tensor? pixels = null;
        foreach (Node node in Nodes)
        {
            if (node.Layer is InputLayer)
            {
                pixels = EmitInput(node);
            }
            else if (_parallel.TryGetValue(node, out ParallelConvolution? parallel))
            {
                if (node == parallel.First)
                {
                    EmitParallel(parallel);
                }
            }
            else if (!(HasValue(node) && node.Layer is ActivationLayer))
            {
                EmitForward(node);
            }
        }

        foreach (Node node in Nodes.Reverse())
        {
            if (_backward.TryGetValue(node, out Action? emit))
            {
                int first = Operations.Count;
                emit();
                EmitAccumulation(first);
            }
        }

        int updateStart = Operations.Count;
        EmitUpdate();
        if (_copies.Count > 0)
        {
            updateStart++;
            Operations.Insert(0, new ConvertParameters("weights", [.. _copies.Select(c => c.Parameter)], [.. _copies.Select(c => c.Copy)]));
        }

        return Finish(updateStart, pixels!, _labels, _loss, _probabilities!, _lossScale);
    }

    private void EmitForward(Node node)
    {
        Tensor src = Value(node.Inputs[0]);
        switch (node.Layer)
        {
            case ConvolutionLayer layer:
                EmitConvolution(node, layer, src);
                break;
            case FullyConnectedLayer layer:
                EmitFullyConnected(node, layer, src);
                break;
            case BatchNormLayer layer:
                EmitBatchNorm(node, layer, src);
                break;
            case ActivationLayer layer:
                EmitActivation(node, layer, src);
                break;
            case PoolingLayer layer:
                EmitPooling(node, layer.Spec(src.Shape), src);
                break;
            case GlobalAveragePoolingLayer:
                EmitPooling(node, PoolingSpec.GlobalAverage(src.Shape), src);
                break;
            case LrnLayer layer:
                EmitLrn(node, layer.Spec(src.Shape), InLayout(src, TensorLayout.Blocked));
                break;
            case DropoutLayer layer:
                EmitDropout(node, new DropoutSpec(src.Shape, layer.Ratio, _options.Seed, RandomPurpose.Dropout + _dropouts++), src);
                break;
            case ConcatLayer:
                EmitConcat(node);
                _backward[node] = () => BackwardConcat(node);
                break;
            case SumLayer:
                Tensor[] srcs = [.. node.Inputs.Select(i => InLayout(Value(i), src.Layout))];
                Emit(new Sum(node.Name, srcs, NewValue(node, src.Layout)));
                _backward[node] = () => BackwardSum(node);
                break;
            case SoftmaxLossLayer layer:
                EmitLoss(node, layer, AsLogits(src));
                break;
            case CustomLayer layer:
                EmitCustom(node, layer);
                break;
            default:
                throw new NotSupportedException($"The planner has no training for the layer '{node.Name}' ({node.Layer.Description}).");
        }
    }

    private void EmitConvolution(Node node, ConvolutionLayer layer, Tensor src)
    {
        // The first convolution reads the prepared images as they are; all others read the backend's own layout.
        src = node.Inputs[0] == Network.Input ? src : InLayout(src, TensorLayout.Blocked);
        ConvolutionSpec spec = layer.Spec(src.Shape);
        Tensor weights = Multiplied(Learn(node, "weights", TensorLayout.Opaque, out Tensor diffWeights));
        Tensor? diffBias = null;
        Tensor? bias = layer.Bias ? Learn(node, "bias", TensorLayout.Plain, out diffBias) : null;
        Emit(new ConvolutionForward(node.Name, spec, src, weights, bias, NewValue(node, TensorLayout.Blocked)));
        _backward[node] = () =>
        {
            Tensor diffDst = Gradient(node);
            Emit(new ConvolutionBackwardWeights(node.Name, spec, ForBackward(node.Inputs[0], src), diffDst, diffWeights, diffBias));
            Contribute(node.Inputs[0], TensorLayout.Blocked, diffSrc => new ConvolutionBackwardData(node.Name, spec, diffDst, weights, diffSrc));
        };
    }

    private void EmitFullyConnected(Node node, FullyConnectedLayer layer, Tensor src)
    {
        src = InLayout(src, TensorLayout.Plain);
        InnerProductSpec spec = layer.Spec(src.Shape);
        Tensor weights = Multiplied(Learn(node, "weights", TensorLayout.Opaque, out Tensor diffWeights));
        Tensor? diffBias = null;
        Tensor? bias = layer.Bias ? Learn(node, "bias", TensorLayout.Plain, out diffBias) : null;
        Emit(new InnerProductForward(node.Name, spec, src, weights, bias, NewValue(node, TensorLayout.Plain)));
        _backward[node] = () =>
        {
            Tensor diffDst = Gradient(node);
            Emit(new InnerProductBackwardWeights(node.Name, spec, src, diffDst, diffWeights, diffBias));
            Contribute(node.Inputs[0], TensorLayout.Plain, diffSrc => new InnerProductBackwardData(node.Name, spec, diffDst, weights, diffSrc));
        };
    }

    private void EmitBatchNorm(Node node, BatchNormLayer layer, Tensor src)
    {
        Node? relu = FusableRelu(node, Fusion.BatchNormRelu);
        if (relu is not null)
        {
            Count(Fusion.BatchNormRelu);
        }

        Node output = relu ?? node;
        BatchNormSpec spec = layer.Spec(src.Shape, relu is not null);
        BatchNormStatistics statistics = _options.FrozenStatistics ? BatchNormStatistics.Running : BatchNormStatistics.Batch;
        Tensor scale = Learn(node, "scale", src.Layout, out Tensor diffScale);
        Tensor shift = Learn(node, "shift", src.Layout, out Tensor diffShift);
        Tensor runningMean = AddState(node, "running_mean", src.Layout);
        Tensor runningVariance = AddState(node, "running_variance", src.Layout);
        bool batch = statistics == BatchNormStatistics.Batch, renormalize = batch && _options.BatchRenormalize;
        spec = spec with { GhostBatch = batch ? _options.GhostBatch : 0 };
        Tensor? Statistic(string name, bool wanted) => wanted ? new Tensor($"{node.Name}.{name}", spec.Statistics, TensorRole.BatchStatistic, src.Layout) : null;
        Tensor? mean = Statistic("mean", batch), variance = Statistic("variance", batch), r = Statistic("r", renormalize), d = Statistic("d", renormalize);
        Tensor dst = NewValue(output, src.Layout);
        SetValue(node, dst);
        _normalizations[output] = new BatchNormForward(
            node.Name, spec, statistics, src, scale, shift, null, dst, mean, variance, runningMean, runningVariance, layer.AveragingFactor,
            renormalize ? PerPass(_options.Renormalization) : null, r, d);
        Emit(_normalizations[output]);
        _backward[output] = () =>
        {
            // What a convolution or fully connected layer put out is not needed for its own gradient: ours may overwrite it.
            Node input = node.Inputs[0];
            bool overwrites = OnlyConsumer(input) is not null && input.Layer is ConvolutionLayer or FullyConnectedLayer && !src.IsSlice;
            Tensor diffDst = Gradient(output);
            BatchNormStatistics backward = _options.ConstantStatistics ? BatchNormStatistics.Running : statistics;
            Operation Backward(Tensor diffSrc) => new BatchNormBackward(
                node.Name, spec, backward, src, null, diffDst, scale, shift, mean ?? runningMean, variance ?? runningVariance, diffSrc, diffScale, diffShift, null, r, d);
            if (_needGradient.Contains(input))
            {
                Contribute(input, src.Layout, Backward, overwrites ? src : null);
            }
            else
            {
                // Scale and shift learn even where nothing before them does.
                Emit(Backward(new Tensor($"{input.Name}.diff", src.Shape, TensorRole.Gradient, src.Layout, ActivationType)));
            }
        };
    }

    /// <summary>Limits in passes instead of steps, which is what operations count (<see cref="TrainingSession.Step"/>).</summary>
    private BatchRenormalization PerPass(BatchRenormalization limits) => limits with
    {
        Start = limits.Start * _options.Accumulate,
        EndR = limits.EndR * _options.Accumulate,
        EndD = limits.EndD * _options.Accumulate,
    };

    private void EmitActivation(Node node, ActivationLayer layer, Tensor src)
    {
        // The backward pass of these layers does not need their output, so the nonlinearity may overwrite it; its own needs only dst.
        Node input = node.Inputs[0];
        bool overwritable = OnlyConsumer(input) is not null && input.Layer is ConvolutionLayer or FullyConnectedLayer or BatchNormLayer;
        Tensor dst = InPlaceOrNew(node, src, overwritable);
        Emit(new ActivationForward(node.Name, layer.Function, src, dst));
        _backward[node] = () =>
        {
            Tensor diffDst = Gradient(node);
            Contribute(input, src.Layout, diffSrc => new ActivationBackward(node.Name, layer.Function, dst, diffDst, diffSrc), diffDst);
        };
    }

    private void EmitPooling(Node node, PoolingSpec spec, Tensor src)
    {
        src = InLayout(src, TensorLayout.Blocked);
        Tensor? workspace = spec.Kind == PoolingKind.Max
            ? new Tensor($"{node.Name}.workspace", spec.Dst, TensorRole.Workspace, TensorLayout.Opaque, DataType.UInt8) : null;
        Emit(new PoolingForward(node.Name, spec, src, NewValue(node, TensorLayout.Blocked), workspace));
        _backward[node] = () =>
        {
            Tensor diffDst = Gradient(node);
            Contribute(node.Inputs[0], TensorLayout.Blocked, diffSrc => new PoolingBackward(node.Name, spec, diffDst, workspace, diffSrc));
        };
    }

    private void EmitLrn(Node node, LrnSpec spec, Tensor src)
    {
        var workspace = new Tensor($"{node.Name}.workspace", spec.Src, TensorRole.Workspace, TensorLayout.Opaque, DataType.UInt8);
        Emit(new LrnForward(node.Name, spec, src, NewValue(node, TensorLayout.Blocked), workspace));
        _backward[node] = () =>
        {
            Tensor diffDst = Gradient(node);
            Contribute(node.Inputs[0], TensorLayout.Blocked, diffSrc => new LrnBackward(node.Name, spec, src, diffDst, workspace, diffSrc));
        };
    }

    private void EmitDropout(Node node, DropoutSpec spec, Tensor src)
    {
        Emit(new Dropout(node.Name, spec, src, NewValue(node, src.Layout)));
        _backward[node] = () =>
        {
            Tensor diffDst = Gradient(node);
            Contribute(node.Inputs[0], src.Layout, diffSrc => new Dropout(node.Name, spec, diffDst, diffSrc, Backward: true), diffDst);
        };
    }

    private void EmitLoss(Node node, SoftmaxLossLayer layer, Tensor logits)
    {
        _labels ??= new Tensor("labels", Shape.Matrix(logits.Shape.N, 1), TensorRole.Label, TensorLayout.Plain, DataType.Int32);
        string prefix = node == Network.Loss ? "" : $"{node.Name}.";
        var probabilities = new Tensor($"{prefix}probabilities", logits.Shape, TensorRole.Result);
        var loss = new Tensor($"{prefix}loss", Shape.Vector(1), TensorRole.Result);
        if (node == Network.Loss)
        {
            (_loss, _probabilities) = (loss, probabilities);
        }

        Contribute(
            node.Inputs[0], TensorLayout.Plain,
            diffLogits => new SoftmaxCrossEntropy(node.Name, logits, _labels, probabilities, loss, diffLogits, _options.LabelSmoothing, layer.Weight, _lossScale));
    }

    private Tensor Learn(Node node, string name, TensorLayout layout, out Tensor gradient)
    {
        Tensor parameter = AddState(node, name, layout);
        bool frozen = node.Layer is BatchNormLayer && _options.FrozenStatistics && _options.FrozenScaleAndShift;
        gradient = Learn(parameter, State[^1].Source.Spec.Kind, frozen);
        return parameter;
    }

    /// <summary>
    /// Adds the parameter gradients that operations from <paramref name="first"/> on write to their sums at once, so that a gradient's own memory is free
    /// again: the sums take the room that all gradients together took.
    /// </summary>
    private void EmitAccumulation(int first)
    {
        Tensor[] gradients = [.. Operations.Skip(first).SelectMany(o => o.Writes).Where(_sums.ContainsKey)];
        if (gradients.Length > 0)
        {
            Emit(new AccumulateGradients(Operations[first].Name, gradients, [.. gradients.Select(g => _sums[g])], _options.Accumulate));
        }
    }

    /// <summary>What convolutions and fully connected layers multiply: the weights, or a copy in the activations' 16-bit type.</summary>
    private Tensor Multiplied(Tensor weights)
    {
        if (!ActivationType.IsNarrow())
        {
            return weights;
        }

        var copy = new Tensor($"{weights.Name} ({ActivationType.ToString().ToLowerInvariant()})", weights.Shape, TensorRole.ParameterCopy, weights.Layout, ActivationType);
        _copies.Add((weights, copy));
        return copy;
    }

    /// <summary>Has the optimizer update a parameter, unless it is frozen; returns the tensor its gradient is wanted in.</summary>
    private Tensor Learn(Tensor parameter, ParameterKind kind, bool frozen = false)
    {
        var gradient = new Tensor($"{parameter.Name}.diff", parameter.Shape, TensorRole.ParameterGradient, parameter.Layout) { LayoutLike = Like(parameter) };
        Tensor learnedFrom = gradient;
        if (_options.Accumulate > 1 && !frozen)
        {
            learnedFrom = new Tensor($"{gradient.Name}.mean", parameter.Shape, TensorRole.GradientSum, parameter.Layout) { LayoutLike = Like(parameter) };
            _sums.Add(gradient, learnedFrom);
        }

        _learned.Add((parameter, learnedFrom, kind, frozen));
        return gradient;
    }

    private static Tensor? Like(Tensor parameter) => parameter.Layout == TensorLayout.Opaque ? parameter : null;

    private void EmitUpdate()
    {
        Tensor? gradientScale = null;
        Tensor[] gradients = [.. _learned.Where(l => !l.Frozen).Select(l => l.Gradient)];
        if (_lossScale is not null)
        {
            gradientScale = new Tensor("gradient_unscale", Shape.Vector(1), TensorRole.Result);
            Emit(new UpdateLossScale("loss_scale", gradients, _lossScale, gradientScale, _options.LossScaleGrowth));
        }

        if (_options.ClipNorm > 0)
        {
            Tensor? unscale = gradientScale;
            gradientScale = new Tensor("gradient_scale", Shape.Vector(1), TensorRole.Result);
            var norm = new Tensor("gradient_norm", Shape.Vector(1), TensorRole.Result);
            Emit(new ClipGradients("clip", gradients, gradientScale, norm, _options.ClipNorm, unscale));
        }

        StateTensor[] persistent = [.. State];
        foreach (ParameterKind kind in new[] { ParameterKind.Weights, ParameterKind.ScaleShiftBias })
        {
            var group = _learned.Where(l => l.Kind == kind).ToArray();
            if (group.Length == 0)
            {
                continue;
            }

            List<Tensor> momenta = [];
            foreach ((Tensor parameter, _, _, bool frozen) in group)
            {
                // What is frozen keeps its momentum in the state: checkpoints are the same, and learning can go on later.
                Tensor momentum = AddTwin(persistent, parameter, TensorRole.Momentum);
                if (!frozen)
                {
                    momenta.Add(momentum);
                }
            }

            group = [.. group.Where(g => !g.Frozen)];
            if (group.Length == 0)
            {
                continue;
            }

            float decay = kind == ParameterKind.Weights || _options.DecayScaleAndShift ? _options.WeightDecay : 0;
            Emit(new SgdUpdate(
                kind == ParameterKind.Weights ? "sgd/weights" : "sgd/scale_shift_bias", [.. group.Select(g => g.Parameter)], [.. group.Select(g => g.Gradient)],
                momenta, gradientScale, _options.Mu, _options.Nesterov, decay, _lossScale));
        }

        if (_options.AverageDecay > 0)
        {
            Tensor[] sources = [.. persistent.Select(s => s.Tensor.Root).Distinct()];
            Emit(new UpdateAverage("average", sources, [.. sources.Select(s => AddTwin(persistent, s, TensorRole.Average))], _options.AverageDecay));
        }
    }

    /// <summary>A persistent tensor that accompanies another, laid out as it is: under <c>name.momentum</c> or <c>name.average</c> of each layer it belongs to.</summary>
    private Tensor AddTwin(StateTensor[] persistent, Tensor tensor, TensorRole role)
    {
        string suffix = role.ToString().ToLowerInvariant();
        var twin = new Tensor($"{tensor.Name}.{suffix}", tensor.Shape, role, tensor.Layout) { LayoutLike = Like(tensor) };
        foreach (StateTensor entry in persistent.Where(s => s.Tensor.Root == tensor))
        {
            Tensor part = entry.Tensor;
            State.Add(new StateTensor(part.IsRows ? twin.Rows($"{part.Name}.{suffix}", part.RowOffset, part.Shape.N) : twin, entry.Source));
        }

        return twin;
    }
}
