using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Training.Serving;

/// <summary>How a <see cref="Classifier"/> works. The defaults give the lowest latency and the least memory.</summary>
public sealed record ClassifierOptions
{
    /// <summary>Backend: <c>auto</c>, <c>onednn</c>, <c>cudnn</c> or <c>reference</c>.</summary>
    public string Backend { get; init; } = "auto";

    /// <summary>
    /// The backend's options. Where <see cref="Backends.BackendOptions.Threads"/> is 0 and there are several sessions, the cores are divided among them:
    /// more threads than cores make every session several times slower.
    /// </summary>
    public BackendOptions BackendOptions { get; init; } = new();

    /// <summary>What to compute in; null for what the network was trained in.</summary>
    public Precision? Precision { get; init; }

    /// <summary>
    /// Sessions that compute at once, each on a thread of its own; they share one copy of the weights, so that another one costs activations only. One
    /// session with all cores answers a lone request fastest; as many as there are cores answer the most requests per second when many wait. A GPU takes
    /// one session, whatever is given here.
    /// </summary>
    public int Sessions { get; init; } = 1;

    /// <summary>
    /// Images of one pass. A pass always computes this many, however few requests are waiting, so that an answer never depends on which requests came
    /// together (and is made smaller where it would: <see cref="Classifier.MaxBatch"/>); with more than 1 a lone request costs as much as a full batch. On a CPU 1 is nearly always right, on a GPU 8 or more.
    /// </summary>
    public int MaxBatch { get; init; } = 1;

    /// <summary>How long the first request of a pass waits for others when the pass is not full; 0 takes what is waiting already.</summary>
    public TimeSpan BatchingDelay { get; init; }

    /// <summary>Classes in an answer's <see cref="Classification.Top"/>, the most probable first.</summary>
    public int TopClasses { get; init; } = 5;

    /// <summary>Requests that may wait for a session; further ones wait, asynchronously, to be let in.</summary>
    public int QueueCapacity { get; init; } = 256;

    /// <summary>Images that are decoded at once; 0 for one per processor.</summary>
    public int Decoders { get; init; }

    /// <summary>Throws when an option is out of its range.</summary>
    /// <exception cref="UserErrorException">The message names the option, its range and its value.</exception>
    internal void Validate()
    {
        Check(Sessions is >= 1 and <= 1024, "number of sessions", "between 1 and 1024", Sessions);
        Check(MaxBatch is >= 1 and <= 4096, "largest batch", "between 1 and 4096", MaxBatch);
        Check(BatchingDelay >= TimeSpan.Zero && BatchingDelay <= TimeSpan.FromMinutes(1), "batching delay", "between 0 and 60 seconds", BatchingDelay.TotalSeconds);
        Check(TopClasses >= 1, "number of classes in an answer", "at least 1", TopClasses);
        Check(QueueCapacity >= 1, "capacity of the queue", "at least 1", QueueCapacity);
        Check(Decoders is >= 0 and <= 1024, "number of decoders", "between 0 (one per processor) and 1024", Decoders);
    }

    private static void Check(bool valid, string name, string range, double value)
    {
        if (!valid)
        {
            throw new UserErrorException(FormattableString.Invariant($"A classifier's {name} must be {range}; it is {value}."));
        }
    }
}
