using HpcBatchNorm.Backends;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <summary>Trains a network: each step takes a batch of images and labels, and updates the parameters in place.</summary>
public sealed class TrainingSession : Session
{
    private readonly float[] _loss = new float[1];

    /// <summary>Plans the network for training on the backend and sets the initial parameters from the seed.</summary>
    /// <exception cref="ArgumentException">Batch and image size do not fit the network; the message says what would.</exception>
    public TrainingSession(Backend backend, Network network, TrainingOptions options)
        : this(backend, PlanFor(backend.Traits, network, options))
    {
    }

    /// <summary>Makes a training plan live, which may have been planned for another backend's traits, and sets the initial parameters.</summary>
    public TrainingSession(Backend backend, Plan plan)
        : base(backend, plan)
    {
        Options = plan.Options as TrainingOptions ?? throw new ArgumentException("The plan is not a training plan.", nameof(plan));
        Initialize();
    }

    /// <summary>What the session was made with.</summary>
    public TrainingOptions Options { get; }

    /// <summary>Persistent tensors in plan order: parameters, running statistics, momenta, averages. A checkpoint holds exactly these.</summary>
    public IReadOnlyList<StateTensor> State => Plan.State;

    /// <summary>Plans training without making it live.</summary>
    public static Plan PlanFor(BackendTraits traits, Network network, TrainingOptions options) => TrainingPlanner.Plan(network, options, traits);

    /// <summary>
    /// One step: forward, backward, update. <paramref name="pixels"/> are Batch x Height x Width x Channels bytes (NHWC), <paramref name="labels"/> one
    /// class index per image. Returns the main head's mean loss over the batch, before the update.
    /// </summary>
    public float Step(ReadOnlySpan<byte> pixels, ReadOnlySpan<int> labels, in StepContext context)
    {
        Write(Plan.Pixels, pixels);
        Write(Plan.Labels!, labels);
        Execute(context);
        Read(Plan.Loss!, _loss);
        return _loss[0];
    }

    /// <summary>Class probabilities of the last step, Batch x classes, before its update.</summary>
    public void ReadProbabilities(Span<float> probabilities) => Read(Plan.Probabilities, probabilities);

    /// <summary>
    /// The network's parameters and running statistics on the host. With <paramref name="averages"/>, their moving averages, under the names of what
    /// they average.
    /// </summary>
    public NetworkState ReadNetworkState(bool averages = false)
    {
        if (averages && Options.AverageDecay <= 0)
        {
            throw new InvalidOperationException("This session keeps no averages; set AverageDecay.");
        }

        var state = new NetworkState();
        foreach (StateTensor entry in State)
        {
            bool wanted = averages ? entry.Tensor.Role == TensorRole.Average : entry.Tensor.Role is TensorRole.Parameter or TensorRole.RunningStatistic;
            if (wanted)
            {
                float[] values = new float[entry.Tensor.Shape.Count];
                Read(entry.Tensor, values);
                state.Set(entry.Source.Name, entry.Tensor.Shape, values);
            }
        }

        return state;
    }

    private void Initialize()
    {
        foreach (StateTensor entry in State)
        {
            float[] values = new float[entry.Tensor.Shape.Count];
            if (entry.Tensor.Role != TensorRole.Momentum)
            {
                entry.Source.Spec.Initializer.Fill(entry.Tensor.Shape, values, Options.Seed, entry.Source.Name);
            }

            Write(entry.Tensor, values);
        }
    }
}
