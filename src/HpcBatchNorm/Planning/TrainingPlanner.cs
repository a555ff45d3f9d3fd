using HpcBatchNorm.Backends;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <summary>
/// Plans a training step: forward pass, losses, backward pass in reverse order, clipping, optimizer, weight averaging. Layers say what their passes are
/// (<c>TrainingPlanner.Lowering.cs</c>); this file has the order and the update, <c>TrainingPlanner.Backward.cs</c> the gradients of values.
/// </summary>
internal sealed partial class TrainingPlanner : PlanBuilder
{
    private readonly TrainingOptions _options;
    private readonly TrainingNormalization _normalization;
    private readonly Tensor? _lossScale;
    private readonly Dictionary<Node, Action> _backward = [];
    private readonly ParameterRules _rules;
    private readonly List<LearnedParameter> _learned = [];
    private readonly List<(Tensor Parameter, Tensor Copy)> _copies = [];
    private readonly Dictionary<Tensor, Tensor> _sums = new(ReferenceEqualityComparer.Instance);
    private Tensor? _labels;
    private Tensor? _secondLabels, _labelWeights;
    private Tensor? _loss;
    private Tensor? _probabilities;
    private uint _dropouts;

    private TrainingPlanner(Network network, TrainingOptions options, BackendTraits traits)
        : base(network, options, traits, network.Nodes)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(options.Accumulate, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(options.Ranks, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)options.Rank, (uint)options.Ranks);
        _options = options;
        _normalization = NormalizationOf(options);
        _lossScale = options.Precision == Precision.Fp16 ? new Tensor("loss_scale", UpdateLossScale.State, TensorRole.LossScale) : null;
        _rules = new ParameterRules(options, Shapes.Parameters);
        FindGradientNeeds();
        FindParallelConvolutions();
    }

    public static Plan Plan(Network network, TrainingOptions options, BackendTraits traits) => new TrainingPlanner(network, options, traits).Build();

    /// <summary>In the backward pass too: the node's own does not read its value.</summary>
    protected override bool MayOverwrite(Node node) => OnlyConsumer(node) is not null && !node.Layer.BackwardReadsDst;

    private Plan Build()
    {
        PlaceInConcats(input => (Traits.BatchNormTakesSlices && BatchNormBehind(input) is not null) || PoolsIntoSlice(input));
        foreach (Node node in Nodes)
        {
            if (IsFused(node))
            {
                continue; // computed with one before it
            }

            if (!_parallel.TryGetValue(node, out ParallelConvolution? parallel))
            {
                node.Layer.LowerTraining(new Lowering(this, node));
            }
            else if (node == parallel.First)
            {
                EmitParallel(parallel);
            }
        }

        foreach (Node node in Nodes.Reverse())
        {
            // Where neither the node nor anything before it learns, there is no gradient to compute.
            if (_needGradient.Contains(node) && _backward.TryGetValue(node, out Action? emit))
            {
                int first = Operations.Count;
                emit();
                ReleaseGradient(node);
                EmitAccumulation(first);
                CollectGradients(first);
            }
        }

        EmitPassAverage();
        int updateStart = Operations.Count;
        EmitUpdate();
        if (_copies.Count > 0)
        {
            updateStart++;
            Operations.Insert(0, new ConvertParameters("weights", [.. _copies.Select(c => c.Parameter)], [.. _copies.Select(c => c.Copy)]));
        }

        Plan plan = Finish(updateStart, _labels, _loss, _probabilities!, _lossScale);
        (plan.SecondLabels, plan.LabelWeights) = (_secondLabels, _labelWeights);
        return plan;
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

    /// <summary>A tensor that the optimizer updates, the one it learns from, and how.</summary>
    private sealed record LearnedParameter(Tensor Parameter, Tensor Gradient, ParameterKind Kind, ParameterRule Rule);

    /// <summary>Has the optimizer update a parameter, unless it is frozen; returns the tensor its gradient is wanted in.</summary>
    private Tensor Learn(Tensor parameter, NetworkParameter source, bool frozen = false)
    {
        ParameterRule rule = _rules.Of(source);
        frozen |= rule.Frozen;
        Tensor gradient = RoundsGradients && source.Spec.Kind == ParameterKind.Weights
            ? new Tensor($"{parameter.Name}.diff", parameter.Shape, TensorRole.ParameterGradient, parameter.Layout, ActivationType)
            : new Tensor($"{parameter.Name}.diff", parameter.Shape, TensorRole.ParameterGradient, parameter.Layout) { LayoutLike = Like(parameter) };
        Tensor learnedFrom = gradient;
        if (_options.Accumulate > 1 && !frozen)
        {
            learnedFrom = new Tensor($"{gradient.Name}.mean", parameter.Shape, TensorRole.GradientSum, parameter.Layout) { LayoutLike = Like(parameter) };
            _sums.Add(gradient, learnedFrom);
        }

        _learned.Add(new LearnedParameter(parameter, learnedFrom, source.Spec.Kind, rule with { Frozen = frozen }));
        return gradient;
    }

    /// <summary>
    /// True where gradients of weights stay as the library rounds them until the optimizer reads them. Between ranks they travel in single precision, to be
    /// added there.
    /// </summary>
    private bool RoundsGradients => Traits.NarrowWeightGradients && ActivationType.IsNarrow() && !Overlaps;

    private static Tensor? Like(Tensor parameter) => parameter.Layout == TensorLayout.Opaque ? parameter : null;

    private void EmitUpdate()
    {
        EmitUpdateAverage();
        Tensor? gradientScale = null;
        Tensor[] gradients = [.. _learned.Where(l => !l.Rule.Frozen).Select(l => l.Gradient)];
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
            List<(LearnedParameter Learned, Tensor[] Moments)> kept = [];
            foreach (LearnedParameter learned in _learned.Where(l => l.Kind == kind))
            {
                // What is frozen keeps its momentum in the state: checkpoints are the same, and learning can go on later.
                Tensor[] moments = [.. Moments.Select(role => AddTwin(persistent, learned.Parameter, role))];
                if (!learned.Rule.Frozen)
                {
                    kept.Add((learned, moments));
                }
            }

            foreach (var group in kept.GroupBy(k => (Decay: k.Learned.Rule.Decays ? _options.WeightDecay : 0, k.Learned.Rule.RateFactor)))
            {
                EmitUpdate(kind == ParameterKind.Weights ? "weights" : "scale_shift_bias", [.. group], group.Key.Decay, group.Key.RateFactor, gradientScale);
            }
        }

        if (_options.AverageDecay > 0)
        {
            Tensor[] sources = [.. persistent.Select(s => s.Tensor.Root).Distinct()];
            Emit(new UpdateAverage("average", sources, [.. sources.Select(s => AddTwin(persistent, s, TensorRole.Average))], _options.AverageDecay));
        }
    }

    /// <summary>What the optimizer keeps of every parameter.</summary>
    private TensorRole[] Moments => _options.Algorithm == OptimizerAlgorithm.Sgd ? [TensorRole.Momentum] : [TensorRole.Momentum, TensorRole.SecondMoment];

    /// <summary>One update of all parameters that follow the same rule.</summary>
    private void EmitUpdate(string name, (LearnedParameter Learned, Tensor[] Moments)[] group, float decay, float rateFactor, Tensor? gradientScale)
    {
        Tensor[] parameters = [.. group.Select(g => g.Learned.Parameter)], gradients = [.. group.Select(g => g.Learned.Gradient)];
        Tensor[] Moment(int index) => [.. group.Select(g => g.Moments[index])];
        name = $"{_options.Algorithm.ToString().ToLowerInvariant()}/{name}";
        Emit(_options.Algorithm == OptimizerAlgorithm.Sgd
            ? new SgdUpdate(name, parameters, gradients, Moment(0), gradientScale, _options.Mu, _options.Nesterov, decay, _lossScale, _options.MomentumForm) { RateFactor = rateFactor }
            : new AdamUpdate(name, parameters, gradients, Moment(0), Moment(1), gradientScale)
            {
                Beta1 = _options.Beta1,
                Beta2 = _options.Beta2,
                Epsilon = _options.OptimizerEpsilonOrUsual,
                WeightDecay = decay,
                TrustRatio = _options.Algorithm == OptimizerAlgorithm.Lamb && decay > 0,
                RateFactor = rateFactor,
                LossScale = _lossScale,
            });
    }

    /// <summary>A persistent tensor that accompanies another, laid out as it is: under <c>name.momentum</c>, <c>name.second_moment</c> or <c>name.average</c> of each layer it belongs to.</summary>
    private Tensor AddTwin(StateTensor[] persistent, Tensor tensor, TensorRole role)
    {
        string suffix = role == TensorRole.SecondMoment ? "second_moment" : role.ToString().ToLowerInvariant();
        var twin = new Tensor($"{tensor.Name}.{suffix}", tensor.Shape, role, tensor.Layout) { LayoutLike = Like(tensor) };
        foreach (StateTensor entry in persistent.Where(s => s.Tensor.Root == tensor))
        {
            Tensor part = entry.Tensor;
            State.Add(new StateTensor(part.IsRows ? twin.Rows($"{part.Name}.{suffix}", part.RowOffset, part.Shape.N) : twin, entry.Source));
        }

        return twin;
    }
}
