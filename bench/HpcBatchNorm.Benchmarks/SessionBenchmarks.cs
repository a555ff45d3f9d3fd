using BenchmarkDotNet.Attributes;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Benchmarks;

/// <summary>A whole step of BN-Inception at 224 pixels: training, and classification with batch normalization folded.</summary>
[Config(typeof(WholeStepConfig))]
public class SessionBenchmarks : IDisposable
{
    private Backend? _backend;
    private Session? _session;
    private Action _step = () => { };

    /// <summary>Every backend but the reference, which would take minutes.</summary>
    public static IEnumerable<string> AvailableBackends => OperationBenchmarks.AvailableBackends.Where(b => b != "reference");

    /// <summary>Name of the backend.</summary>
    [ParamsSource(nameof(AvailableBackends))]
    public string BackendName { get; set; } = "";

    /// <summary>What the plan computes in.</summary>
    [Params(Precision.Fp32, Precision.Bf16)]
    public Precision Precision { get; set; }

    /// <summary>Images per step.</summary>
    [Params(32)]
    public int Batch { get; set; }

    [GlobalSetup(Target = nameof(Train))]
    public void PrepareTraining() => Prepare(new TrainingOptions { Batch = Batch, Precision = Precision });

    [GlobalSetup(Target = nameof(Infer))]
    public void PrepareInference() => Prepare(new InferenceOptions { Batch = Batch, Precision = Precision });

    [Benchmark]
    public void Train() => _step();

    [Benchmark]
    public void Infer() => _step();

    [GlobalCleanup]
    public void Dispose()
    {
        _session?.Dispose();
        _backend?.Dispose();
        GC.SuppressFinalize(this);
    }

    /// <summary>Operations of the direct method per step.</summary>
    internal static double Flops(string method, int batch)
    {
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
        PlanOptions options = method == nameof(Train) ? new TrainingOptions { Batch = batch } : new InferenceOptions { Batch = batch };
        Plan plan = options is TrainingOptions training
            ? TrainingSession.PlanFor(BnInceptionLayers.AnyTraits, network, training)
            : ForwardSession.PlanFor(BnInceptionLayers.AnyTraits, network, (InferenceOptions)options);
        return plan.Operations.Sum(o => (double)o.Flops);
    }

    private void Prepare(PlanOptions options)
    {
        _backend = Backend.Create(BackendName);
        MeasuredLimits.Of(_backend);
        var request = new BenchmarkRequest { Options = options };
        request.Verify(_backend);
        (_session, _step) = SessionBenchmark.Prepare(_backend, NetworkCatalog.Create(request.Network, request.NetworkOptions), options);
        SteadyState.RequireNoAllocation("a step", _step);
    }
}
