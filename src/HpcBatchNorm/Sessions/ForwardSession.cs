using HpcBatchNorm.Backends;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Sessions;

/// <summary>
/// Classifies images with fixed parameters (Algorithm 2): each result depends on its image alone, unless batch statistics are asked for. Batch normalization is folded into the layer before
/// it, in double precision: weights' = weights * scale / sqrt(variance + epsilon), bias' = shift + (bias - mean) * scale / sqrt(variance + epsilon).
/// </summary>
public sealed class ForwardSession : Session
{
    /// <summary>
    /// Plans the network for inference on the backend with the given parameters and running (or population) statistics.
    /// <paramref name="sharedArena"/>, when large enough, is used for what lives within a step instead of memory of the session's own.
    /// </summary>
    /// <exception cref="ArgumentNullException">Backend, network, options or state are null.</exception>
    /// <exception cref="ArgumentException">Batch and image size do not fit the network; the message says what would.</exception>
    /// <exception cref="ArgumentOutOfRangeException">A mean or deviation of the pixels is a number that cannot be.</exception>
    /// <exception cref="UserErrorException">The state belongs to another network, or has values that are not finite.</exception>
    public ForwardSession(Backend backend, Network network, InferenceOptions options, NetworkState state, DeviceMemory? sharedArena = null)
        : this(NotNull(backend), InferencePlanner.Plan(NotNull(network), NotNull(options), backend.Traits), NotNull(state), sharedArena)
    {
    }

    /// <summary>A session on the weights of another.</summary>
    private ForwardSession(ForwardSession other)
        : base(other.Backend, other.Plan, sharedArena: null, other.Prepared.Weights)
    {
    }

    private ForwardSession(
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
    internal static Plan PlanFor(BackendTraits traits, Network network, InferenceOptions options) => InferencePlanner.Plan(network, options, traits).Plan;

    /// <summary>
    /// Another session of the same plan on the same backend, which shares this one's weights (they are constants, and stay until the last session is gone)
    /// and has activations, inputs and results of its own: so that two threads can classify at once where <see cref="Backend.ConcurrentSessions"/> allows it.
    /// Its results are the same, bit for bit. While weights are shared, no session can write them.
    /// </summary>
    /// <exception cref="InvalidOperationException">The plan normalizes with batch statistics, which each pass writes.</exception>
    public ForwardSession Share()
    {
        using UsageGuard.Scope scope = Enter();
        return Prepared.Weights is not null
            ? new ForwardSession(this)
            : throw new InvalidOperationException("A session that normalizes with batch statistics writes them in each pass; its weights cannot be shared.");
    }

    /// <summary>
    /// Class probabilities, Batch x classes, of Batch x Height x Width x Channels bytes (NHWC). For fewer images fill the rest with anything: with
    /// running statistics images do not influence one another.
    /// </summary>
    public void Forward(ReadOnlySpan<byte> pixels, Span<float> probabilities)
    {
        using UsageGuard.Scope scope = Enter();
        Write(Plan.Pixels, pixels);
        Execute(default);
        Read(Plan.Probabilities, probabilities);
    }

    /// <summary>
    /// The output of one layer for a batch, in logical NCHW order: runs the operations up to the one that computes it. A batch normalization that is
    /// folded gives its output in the place of the layer before it.
    /// </summary>
    /// <param name="pixels">Images, as for <see cref="Forward(ReadOnlySpan{byte}, Span{float})"/>.</param>
    /// <param name="layer">The layer's name: <c>hidden3/bn</c>.</param>
    /// <param name="values">One value for each of the output's elements.</param>
    /// <exception cref="ArgumentException">No operation writes that layer's output: there is no such layer, or it is computed together with the next.</exception>
    public void Forward(ReadOnlySpan<byte> pixels, string layer, Span<float> values)
    {
        ArgumentNullException.ThrowIfNull(layer);
        using UsageGuard.Scope scope = Enter();
        for (int i = 0; i < Plan.Operations.Count; i++)
        {
            if (Plan.Operations[i].Writes.FirstOrDefault(t => t.Name == $"{layer}.dst") is Tensor dst)
            {
                Write(Plan.Pixels, pixels);
                for (int done = 0; done <= i; done++)
                {
                    ExecuteOperation(done, default);
                }

                Read(dst, values);
                return;
            }
        }

        throw new ArgumentException($"No operation of this plan writes the output of a layer '{layer}'.", nameof(layer));
    }

    private void Fold(InferencePlanner.FoldedLayer layer, NetworkState state)
    {
        (float[] weights, float[] bias) = BatchNormFolding.Fold(layer.Layer, layer.BatchNorm, layer.Weights.Shape, state);
        Write(layer.Weights, weights);
        Write(layer.Bias, bias);
    }
}
