using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;

namespace HpcBatchNorm.Verification.Benchmarking;

/// <summary>A network to time on a backend, after its results were compared with the reference's.</summary>
internal sealed record BenchmarkRequest
{
    /// <summary>Smallest image and batch that verification uses: all layers and all operations, in seconds instead of minutes.</summary>
    private const int VerificationBatch = 2;

    /// <summary>Name of a network of <see cref="NetworkCatalog"/>, or a JSON file that describes one.</summary>
    public string Network { get; init; } = "bn-inception";

    /// <summary>Options of the network, where it is one of the catalogue.</summary>
    public NetworkOptions NetworkOptions { get; init; } = new();

    /// <summary>What to time: a <see cref="TrainingOptions"/> or an <see cref="InferenceOptions"/>, with batch and image size.</summary>
    public required PlanOptions Options { get; init; }

    /// <summary>Steps timed as a whole, and as many profiled.</summary>
    public int Steps { get; init; } = 7;

    /// <summary>
    /// Compares the same plan on small images with the reference: every buffer of every operation. Throws when one differs by more than its bound.
    /// </summary>
    /// <exception cref="UserErrorException">The backend's results are wrong; nothing should be timed.</exception>
    public CaseResult Verify(Backend backend)
    {
        Network network = NetworkSource.Resolve(Network, NetworkOptions);
        int size = Math.Max(network.MinimumImageSize, Math.Min(Options.Height, 64));
        PlanOptions small = Options with { Batch = VerificationBatch, Height = size, Width = size };
        using var reference = Backend.Create("reference");
        CaseResult result = NetworkVerifier.Step(backend, reference, network, small, $"--network {Network} --image-size {size}");
        return result.Passed ? result : throw new UserErrorException($"Not timed, as it differs from the reference. {result.Describe()}");
    }

    /// <summary>Times it.</summary>
    public BenchmarkResult Run(Backend backend) => SessionBenchmark.Run(backend, NetworkSource.Resolve(Network, NetworkOptions), Options, Steps);

    /// <summary>What a training step that was timed would be on several nodes.</summary>
    public ScalingModel ModelNodes(Backend backend, BenchmarkResult measured) =>
        ScalingModel.Of(measured, PlanFor(backend, (TrainingOptions)Options with { Ranks = 2 }), ScalingModel.MeasureHandling());

    /// <summary>What it would be on more threads.</summary>
    /// <param name="backend">The backend that it was timed on.</param>
    /// <param name="one">On one thread.</param>
    /// <param name="several">On <paramref name="threads"/> threads.</param>
    /// <param name="threads">2 or more.</param>
    /// <param name="predicted">Numbers of threads to predict for.</param>
    public IReadOnlyList<ThreadScalingRow> ModelThreads(Backend backend, BenchmarkResult one, BenchmarkResult several, int threads, IReadOnlyList<int> predicted) =>
        ThreadScaling.Of(
            PlanFor(backend, (TrainingOptions)Options).Operations, [.. one.Rows.Select(r => r.Seconds)], [.. several.Rows.Select(r => r.Seconds)], threads, predicted,
            backend.Traits.ChannelBlock);

    private Plan PlanFor(Backend backend, TrainingOptions options) => TrainingSession.PlanFor(backend.Traits, NetworkSource.Resolve(Network, NetworkOptions), options);
}
