namespace HpcBatchNorm.Backends;

/// <summary>Which convolution algorithms a backend may choose from.</summary>
public enum ConvolutionAlgorithm
{
    /// <summary>The fastest: our own Winograd for convolutions 3x3 of stride 1 in fp32 where it is estimated to be the faster, direct otherwise; on cuDNN what its search finds.</summary>
    Auto,

    /// <summary>Direct convolution only.</summary>
    Direct,

    /// <summary>Our own Winograd wherever it can be, also where direct is estimated to be the faster: to measure and to test it. cuDNN takes it as <see cref="Auto"/>.</summary>
    Winograd,
}

/// <summary>Who computes batch normalization.</summary>
public enum BatchNormAlgorithm
{
    /// <summary>Our own fused kernels, which read and write concatenation slices.</summary>
    Native,

    /// <summary>The library's own primitive, where it has one that fits; kept for comparison.</summary>
    Library,
}

/// <summary>Choices made when a backend is created.</summary>
public sealed record BackendOptions
{
    /// <summary>Compute threads; 0 means one per core.</summary>
    public int Threads { get; init; }

    /// <summary>Convolution algorithms to choose from.</summary>
    public ConvolutionAlgorithm ConvolutionAlgorithm { get; init; }

    /// <summary>Who computes batch normalization.</summary>
    public BatchNormAlgorithm BatchNormAlgorithm { get; init; }

    /// <summary>
    /// Inference on cudnn: let the library add bias (and residual) and compute ReLU with its convolution, which saves a launch and two passes over the output each
    /// time. It rounds the bias to the activations' type, and makes a NaN 0, which every other kernel lets through; so not unless asked for.
    /// </summary>
    public bool LibraryRelu { get; init; }

    /// <summary>
    /// File in which a backend keeps the choices it made by timing (cudnn: convolution algorithms), so that later runs make the same and backends beside one
    /// another give the same bits. Null: <c>hpcbn/cuda/algorithms.json</c> in the user's cache folder, where there is one.
    /// </summary>
    public string? TuningFile { get; init; }

    /// <summary>
    /// Which of the GPUs that this process may use, from 0; one beyond the last counts on from the first. A <c>Trainer</c> of several ranks sets it to the rank's number on
    /// its machine, so that each has a GPU of its own, however the launcher shares them out.
    /// </summary>
    public int Device { get; init; }

    /// <summary>Let a device replay a session's kernels as one recording (cudnn: a CUDA graph) instead of taking them one by one.</summary>
    public bool RecordSteps { get; init; } = true;
}

/// <summary>Whether a backend can be used here, and the report of what was looked for, where, and found.</summary>
public sealed record BackendProbe(string Name, bool Available, string Report);
