using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <content>
/// <see cref="TrainingOptions.RecomputeBatchNorm"/>: what batch normalization puts out is not kept for the backward pass of the convolutions and nonlinearities that read it;
/// it is computed again there, from its input and the batch statistics, which are kept anyway. The same kernel on the same numbers gives the same bits.
/// </content>
internal sealed partial class TrainingPlanner
{
    private readonly Dictionary<Node, BatchNormForward> _normalizations = [];
    private readonly Dictionary<Node, Tensor> _recomputed = [];

    /// <summary>
    /// The value of a node as the backward pass of a consumer reads it: <paramref name="src"/> as the forward pass left it, or computed again.
    /// </summary>
    private Tensor ForBackward(Node node, Tensor src)
    {
        if (!_options.RecomputeBatchNorm || src != Value(node))
        {
            return src;
        }

        if (!_recomputed.TryGetValue(node, out Tensor? again))
        {
            again = Recompute(node, src);
            _recomputed[node] = again;
        }

        return again;
    }

    private Tensor Recompute(Node node, Tensor src)
    {
        if (_normalizations.TryGetValue(node, out BatchNormForward? normalization) && !src.IsSlice)
        {
            Tensor again = Again(src);
            EmitAgain(normalization, again);
            return again;
        }

        // A concatenation whose every channel is a batch normalization's; one that holds a pooled value too is kept.
        if (node.Layer is ConcatLayer && node.Inputs.All(i => IsPlaced(i) && _normalizations.ContainsKey(i)))
        {
            Tensor again = Again(src);
            foreach (Node input in node.Inputs)
            {
                EmitAgain(_normalizations[input], again.Slice($"{Value(input).Name} again", PlacedOffset(input), Shapes[input].C));
            }

            return again;
        }

        return src;
    }

    private static Tensor Again(Tensor src) => new($"{src.Name} again", src.Shape, TensorRole.Activation, src.Layout, src.DataType);

    private void EmitAgain(BatchNormForward forward, Tensor dst)
    {
        bool batch = forward.Statistics == BatchNormStatistics.Batch;
        Emit(forward with
        {
            Name = $"{forward.Name} again",
            Statistics = BatchNormStatistics.Running,
            Dst = dst,
            RunningMean = batch ? forward.Mean : forward.RunningMean,
            RunningVariance = batch ? forward.Variance : forward.RunningVariance,
            Mean = null,
            Variance = null,
            Renormalization = null, // r and d are read
            Synchronized = false, // mean and variance are those of all ranks already
        });
    }
}
