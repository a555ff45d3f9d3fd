using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <content>What a layer says to the planner of training, carried out for one node.</content>
internal sealed partial class TrainingPlanner
{
    /// <summary>What all batch normalizations of the plan have in common.</summary>
    private static TrainingNormalization NormalizationOf(TrainingOptions options)
    {
        BatchNormStatistics statistics = options.FrozenStatistics ? BatchNormStatistics.Running : BatchNormStatistics.Batch;
        bool batch = statistics == BatchNormStatistics.Batch;
        BatchRenormalization limits = options.Renormalization;

        // Limits in passes instead of steps, which is what operations count (TrainingSession.Step).
        BatchRenormalization? renormalization = !batch || !options.BatchRenormalize ? null : limits with
        {
            Start = limits.Start * options.Accumulate,
            EndR = limits.EndR * options.Accumulate,
            EndD = limits.EndD * options.Accumulate,
        };
        return new TrainingNormalization(
            statistics, options.ConstantStatistics ? BatchNormStatistics.Running : statistics, batch ? options.GhostBatch : 0, renormalization,
            options.FrozenStatistics && options.FrozenScaleAndShift,
            batch && options.SyncBatchNorm && Math.Min(options.Ranks, options.SyncBatchNormRanks == 0 ? options.Ranks : options.SyncBatchNormRanks) > 1,
            options.SyncBatchNormRanks);
    }

    // Values that are their producers' inputs, with what their one reader, a convolution, does to them.
    private readonly Dictionary<Node, SourceNormalization> _normalizedOnReading = [];

    /// <summary>
    /// True when nothing but one convolution reads the value of <paramref name="output"/>, a batch normalization's, and its kernels normalize what they read. A map of
    /// one position is normalized by other kernels and saves nothing.
    /// </summary>
    private bool NormalizesWhileReading(Node output, in BatchNormSpec spec) =>
        Uses(Fusion.BatchNormConvolution) && Traits.Normalizes(ActivationType)
        && OnlyConsumer(output) is { Layer: ConvolutionLayer } reader && !_parallel.ContainsKey(reader)
        && !spec.PerActivation && !spec.Residual && spec.GhostBatch == 0 && spec.Src.Area > 1
        && _normalization is { Statistics: BatchNormStatistics.Batch, BackwardStatistics: BatchNormStatistics.Batch, Renormalization: null, Synchronized: false };

    private LossTensors NewLoss(Node node, Shape logits)
    {
        _labels ??= new Tensor("labels", Shape.Matrix(logits.N, 1), TensorRole.Label, TensorLayout.Plain, DataType.Int32);
        if (_options.MixesLabels && _secondLabels is null)
        {
            _secondLabels = new Tensor("second_labels", _labels.Shape, TensorRole.Label, TensorLayout.Plain, DataType.Int32);
            _labelWeights = new Tensor("label_weights", _labels.Shape, TensorRole.Label);
        }

        string prefix = node == Network.Loss ? "" : $"{node.Name}.";
        var probabilities = new Tensor($"{prefix}probabilities", logits, TensorRole.Result);
        var loss = new Tensor($"{prefix}loss", Shape.Vector(1), TensorRole.Result);
        if (node == Network.Loss)
        {
            (_loss, _probabilities) = (loss, probabilities);
        }

        return new LossTensors(_labels, probabilities, loss, _options.LabelSmoothing, _lossScale)
        {
            SecondLabels = _secondLabels,
            LabelWeights = _labelWeights,
            Binary = _options.BinaryLoss,
            TargetThreshold = _options.BinaryTargetThreshold,
        };
    }

    private sealed class Lowering(TrainingPlanner planner, Node node) : NodeLowering(planner, node), ITrainingLowering
    {
        public TrainingNormalization Normalization => planner._normalization;

        public bool InputIsOverwritable => planner.MayOverwrite(Node.Inputs[0]);

        public Tensor Gradient => planner.Gradient(Output);

        public Tensor? SecondGradient => planner._second.GetValueOrDefault(Output);

        public override Tensor AddState(string parameter, TensorLayout layout) => planner.AddState(Node, parameter, layout);

        public bool Learns => planner.Learns(Node);

        public Tensor Learn(string parameter, TensorLayout layout, out Tensor gradient, bool frozen = false)
        {
            Tensor tensor = AddState(parameter, layout);
            gradient = planner.Learn(tensor, planner.State[^1].Source, frozen);
            return tensor;
        }

        public Tensor Multiplied(Tensor weights) => planner.Multiplied(weights);

        public void Backward(Action emit)
        {
            planner._backward[Output] = emit;
            if (Residual is not null && planner._needGradient.Contains(Residual))
            {
                planner._takesTwo.Add(Output);
            }
        }

        public void Contribute(int input, TensorLayout layout, Func<Tensor, Operation> operation, Tensor? overwrite = null, bool always = false) =>
            planner.Contribute(Node.Inputs[input], layout, operation, planner.OrNothing(overwrite, Output), always);

        public void ContributeWithResidual(TensorLayout layout, Func<Tensor, Tensor?, Operation> operation, Tensor? overwrite)
        {
            Contribution? residual = Residual is null ? null : planner.Place(Residual, layout, planner.OrNothing(Gradient, Output));
            Contribute(0, layout, diffSrc => operation(diffSrc, residual?.Target), overwrite, always: true);
            residual?.Finish?.Invoke();
        }

        public void PassGradient(int input) => planner.PassGradient(Node, Node.Inputs[input]);

        public void SetGradient(int input, Tensor gradient) => planner.SetGradient(Node.Inputs[input], gradient);

        public Tensor ForBackward(int input, Tensor src) => planner.ForBackward(Node.Inputs[input], src);

        public void EmitRepeatable(BatchNormForward operation)
        {
            if (operation.Residual is null && operation.Dst is not null)
            {
                planner._normalizations[Output] = operation; // else the backward pass needs the value itself
            }

            Emit(operation);
        }

        public SourceNormalization? InputNormalization => planner._normalizedOnReading.GetValueOrDefault(Node.Inputs[0]);

        public bool FuseWithConvolution(BatchNormSpec spec)
        {
            bool fuses = planner.NormalizesWhileReading(Output, spec);
            if (fuses)
            {
                planner.Count(Fusion.BatchNormConvolution);
            }

            return fuses;
        }

        public void PassNormalization(SourceNormalization normalization)
        {
            planner._normalizedOnReading[Output] = normalization;
            Cover(Input());
        }

        public DropoutSpec NewDropout(Shape src, float ratio) => new(src, ratio, planner._options.Seed, planner.NextDropout());

        public LossTensors NewLoss(Shape logits) => planner.NewLoss(Node, logits);
    }
}
