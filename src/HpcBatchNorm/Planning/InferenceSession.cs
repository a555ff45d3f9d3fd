using HpcBatchNorm.Backends;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <summary>
/// Classifies images with fixed parameters (Algorithm 2): each result depends on its image alone, unless batch statistics are asked for. Batch normalization is folded into the layer before
/// it, in double precision: weights' = weights * scale / sqrt(variance + epsilon), bias' = shift + (bias - mean) * scale / sqrt(variance + epsilon).
/// </summary>
public sealed class InferenceSession : Session
{
    /// <summary>
    /// Plans the network for inference on the backend with the given parameters and running (or population) statistics.
    /// <paramref name="sharedArena"/> as for <see cref="Session(Backend, Plan, DeviceMemory)"/>.
    /// </summary>
    public InferenceSession(Backend backend, Network network, InferenceOptions options, NetworkState state, DeviceMemory? sharedArena = null)
        : this(backend, InferencePlanner.Plan(network, options, backend.Traits), state, sharedArena)
    {
    }

    private InferenceSession(
        Backend backend, (Plan Plan, IReadOnlyList<InferencePlanner.FoldedLayer> Folded) planned, NetworkState state, DeviceMemory? sharedArena)
        : base(backend, planned.Plan, sharedArena)
    {
        HashSet<object> folded = [];
        foreach (InferencePlanner.FoldedLayer layer in planned.Folded)
        {
            folded.Add(layer.Weights);
            folded.Add(layer.Bias);
            Fold(layer, state);
        }

        bool batchStatistics = ((InferenceOptions)planned.Plan.Options).Statistics == BatchNormStatistics.Batch;
        foreach (StateTensor entry in planned.Plan.State.Where(s => !folded.Contains(s.Tensor)))
        {
            if (batchStatistics && entry.Tensor.Role == TensorRole.RunningStatistic)
            {
                continue; // written by each pass; zero until then
            }

            Write(entry.Tensor, state.Get(entry.Source.Name, entry.Tensor.Shape));
        }
    }

    /// <summary>Plans inference without making it live.</summary>
    public static Plan PlanFor(BackendTraits traits, Network network, InferenceOptions options) => InferencePlanner.Plan(network, options, traits).Plan;

    /// <summary>
    /// Class probabilities, Batch x classes, of Batch x Height x Width x Channels bytes (NHWC). For fewer images fill the rest with anything: with
    /// running statistics images do not influence one another.
    /// </summary>
    public void Forward(ReadOnlySpan<byte> pixels, Span<float> probabilities)
    {
        Write(Plan.Pixels, pixels);
        Execute(default);
        Read(Plan.Probabilities, probabilities);
    }

    private void Fold(InferencePlanner.FoldedLayer layer, NetworkState state)
    {
        (float[] weights, float[] bias) = BatchNormFolding.Fold(layer.Layer, layer.BatchNorm, layer.Weights.Shape, state);
        Write(layer.Weights, weights);
        Write(layer.Bias, bias);
    }
}
