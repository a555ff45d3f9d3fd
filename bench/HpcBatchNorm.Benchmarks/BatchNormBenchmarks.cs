using BenchmarkDotNet.Attributes;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Benchmarks;

/// <summary>Batch normalization with batch statistics and fused ReLU, as in training.</summary>
public class BatchNormBenchmarks : OperationBenchmarks
{
    /// <summary>Names of the layers.</summary>
    public static IEnumerable<string> Layers => BnInceptionLayers.BatchNorms;

    /// <summary>The layer, by its name in the network.</summary>
    [ParamsSource(nameof(Layers))]
    public string Layer { get; set; } = "";

    [GlobalSetup(Target = nameof(Forward))]
    public void PrepareForward() => Prepare<BatchNormForward>(Layer);

    [GlobalSetup(Target = nameof(Backward))]
    public void PrepareBackward() => Prepare<BatchNormBackward>(Layer);

    [Benchmark]
    public void Forward() => Execute();

    [Benchmark]
    public void Backward() => Execute();
}
