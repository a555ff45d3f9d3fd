using HpcBatchNorm.Backends;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <summary>A persistent tensor of a plan: where its initial or loaded values come from.</summary>
/// <param name="Tensor">The tensor; rows of a larger one where several layers' weights lie together.</param>
/// <param name="Source">The network's parameter it belongs to: itself, or the one it is the momentum or average of.</param>
public sealed record StateTensor(Tensor Tensor, NetworkParameter Source);

/// <summary>
/// What the planner makes of a network: operations in order, on tensors. Data only: a session makes it live.
/// </summary>
public sealed class Plan
{
    internal Plan(
        Network network, NetworkShapes shapes, PlanOptions options, BackendTraits traits, IReadOnlyList<Operation> operations,
        IReadOnlyList<StateTensor> state, IReadOnlyDictionary<string, int> fusions, int updateStart, Tensor pixels, Tensor? labels, Tensor? loss, Tensor probabilities,
        Tensor? lossScale)
    {
        Network = network;
        Shapes = shapes;
        Options = options;
        Traits = traits;
        Operations = operations;
        State = state;
        Fusions = fusions;
        UpdateStart = updateStart;
        Pixels = pixels;
        Labels = labels;
        Loss = loss;
        Probabilities = probabilities;
        LossScale = lossScale;
        Lifetimes = FindLifetimes(operations);
    }

    /// <summary>The network that was planned.</summary>
    public Network Network { get; }

    /// <summary>Its shapes for this batch and image size.</summary>
    public NetworkShapes Shapes { get; }

    /// <summary>What it was planned for.</summary>
    public PlanOptions Options { get; }

    /// <summary>The backend traits it was planned for.</summary>
    internal BackendTraits Traits { get; }

    /// <summary>What to do, in order.</summary>
    public IReadOnlyList<Operation> Operations { get; }

    /// <summary>
    /// Number of the first operation of the update. Those before it are executed for every micro-batch, those from it on once per step; all of them at inference.
    /// </summary>
    internal int UpdateStart { get; }

    /// <summary>Persistent tensors: parameters, momenta, running statistics, averages.</summary>
    public IReadOnlyList<StateTensor> State { get; }

    /// <summary>How often each rule was applied.</summary>
    public IReadOnlyDictionary<string, int> Fusions { get; }

    /// <summary>Bytes the caller writes before a step: images, NHWC.</summary>
    public Tensor Pixels { get; }

    /// <summary>Class indices the caller writes before a training step; null at inference.</summary>
    public Tensor? Labels { get; }

    /// <summary>The second class of mixed images, which the caller writes; null where images are not mixed.</summary>
    public Tensor? SecondLabels { get; internal set; }

    /// <summary>The weight of the first class of mixed images, which the caller writes; null where images are not mixed.</summary>
    public Tensor? LabelWeights { get; internal set; }

    /// <summary>The main loss, one element; null at inference.</summary>
    public Tensor? Loss { get; }

    /// <summary>State of the loss scale (<see cref="UpdateLossScale"/>), which training in fp16 has; null otherwise.</summary>
    internal Tensor? LossScale { get; }

    /// <summary>Class probabilities of the main head, N x classes.</summary>
    public Tensor Probabilities { get; }

    /// <summary>First and last operation that touch each tensor that owns memory and does not outlive the step.</summary>
    internal IReadOnlyDictionary<Tensor, (int First, int Last)> Lifetimes { get; }

    private static Dictionary<Tensor, (int First, int Last)> FindLifetimes(IReadOnlyList<Operation> operations)
    {
        Dictionary<Tensor, (int First, int Last)> lifetimes = new(ReferenceEqualityComparer.Instance);
        for (int i = 0; i < operations.Count; i++)
        {
            foreach (Tensor tensor in operations[i].Reads.Concat(operations[i].Writes))
            {
                Tensor root = tensor.Root;
                if (root.Role is TensorRole.Activation or TensorRole.Gradient or TensorRole.ParameterGradient or TensorRole.BatchStatistic or TensorRole.Workspace)
                {
                    lifetimes[root] = (lifetimes.TryGetValue(root, out (int First, int Last) life) ? life.First : i, i);
                }
            }
        }

        return lifetimes;
    }
}
