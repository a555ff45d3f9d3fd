using BenchmarkDotNet.Attributes;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Benchmarks;

/// <summary>Convolution layers of BN-Inception, each direction alone.</summary>
public class ConvolutionBenchmarks : OperationBenchmarks
{
    /// <summary>Names of the layers.</summary>
    public static IEnumerable<string> Layers => BnInceptionLayers.Convolutions;

    /// <summary>The layer, by its name in the network.</summary>
    [ParamsSource(nameof(Layers))]
    public string Layer { get; set; } = "";

    [GlobalSetup(Target = nameof(Forward))]
    public void PrepareForward() => Prepare<ConvolutionForward>(Layer);

    [GlobalSetup(Target = nameof(BackwardData))]
    public void PrepareBackwardData() => Prepare<ConvolutionBackwardData>(Layer);

    [GlobalSetup(Target = nameof(BackwardWeights))]
    public void PrepareBackwardWeights() => Prepare<ConvolutionBackwardWeights>(Layer);

    [Benchmark]
    public void Forward() => Execute();

    /// <summary>The first convolution has none: nothing needs the gradient of the images.</summary>
    [Benchmark]
    public void BackwardData() => Execute();

    [Benchmark]
    public void BackwardWeights() => Execute();
}
