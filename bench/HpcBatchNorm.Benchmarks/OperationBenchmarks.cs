using BenchmarkDotNet.Attributes;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Benchmarks;

/// <summary>
/// One kernel of one backend, timed alone: the kernel that a training session runs. Before it is timed, the layer runs at a small batch on this
/// backend and on the reference, and the benchmark fails unless every element is within its bound; it also fails if the kernel allocates managed memory.
/// </summary>
[Config(typeof(OperationBenchmarkConfig))]
public abstract class OperationBenchmarks : IDisposable
{
    /// <summary>Images per batch of the verification: enough for statistics over a batch, quick on the reference.</summary>
    private const int VerificationBatch = 2;

    private Backend? _backend;
    private OperationRunner? _runner;
    private Kernel? _kernel;

    /// <summary>Every backend that can be used here.</summary>
    public static IEnumerable<string> AvailableBackends => Backend.Probe().Where(p => p.Available).Select(p => p.Name);

    /// <summary>Name of the backend.</summary>
    [ParamsSource(nameof(AvailableBackends))]
    public string BackendName { get; set; } = "";

    /// <summary>What the kernel computes in.</summary>
    [Params(Precision.Fp32, Precision.Bf16)]
    public Precision Precision { get; set; }

    /// <summary>Images per batch.</summary>
    [Params(32)]
    public int Batch { get; set; }

    /// <summary>Verifies a layer, then prepares its operation of type <typeparamref name="TOperation"/> to be timed.</summary>
    protected void Prepare<TOperation>(string layer)
        where TOperation : Operation
    {
        _backend = Backend.Create(BackendName);
        MeasuredLimits.Of(_backend);
        using (Backend reference = Backend.Create("reference"))
        {
            CaseResult verified = Verifier.Run(_backend, reference, BnInceptionLayers.Case(layer, VerificationBatch, _backend.Traits, Precision));
            if (!verified.Passed)
            {
                throw new InvalidOperationException($"Not timed, as it differs from the reference. {verified.Describe()}");
            }
        }

        VerificationCase timed = BnInceptionLayers.Case(layer, Batch, _backend.Traits, Precision);
        _runner = new OperationRunner(_backend, Precision, timed.Operations);
        foreach ((Tensor tensor, TensorFill fill) in timed.Inputs)
        {
            double[] values = new double[tensor.Shape.Count];
            fill(tensor.Shape, new RandomSequence(timed.Seed, stream: 0), values);
            _runner.Write(tensor, values);
        }

        _runner.Execute();
        _kernel = _runner.Kernels.Single(k => k.Operation is TOperation);
        if (BackendName != "reference")
        {
            SteadyState.RequireNoAllocation($"{layer}, {typeof(TOperation).Name}", Execute);
        }
    }

    /// <summary>What is timed.</summary>
    protected void Execute() => _kernel!.Execute(default);

    /// <summary>Frees everything.</summary>
    [GlobalCleanup]
    public void Dispose()
    {
        _runner?.Dispose();
        _backend?.Dispose();
        GC.SuppressFinalize(this);
    }
}
