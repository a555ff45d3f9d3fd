using HpcBatchNorm.Backends;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Benchmarks;

/// <summary>Layers of BN-Inception at 224 pixels, taken by name from its training plan: one of each kind that costs time.</summary>
internal static class BnInceptionLayers
{
    /// <summary>Stem 7x7/2, stem 3x3, a module's 3x3, its 1x1s as one, a stride-2 3x3, a 3x3 on the smallest map.</summary>
    public static IEnumerable<string> Convolutions =>
        ["conv1/conv", "conv2/conv", "inception_3a/3x3/conv", "inception_4a/parallel_1x1", "inception_4e/3x3/conv", "inception_5a/3x3/conv"];

    /// <summary>Batch normalizations on a large map, a middle one that is a slice of a concatenation, and a small one.</summary>
    public static IEnumerable<string> BatchNorms => ["conv2/bn", "inception_3a/3x3/bn", "inception_5a/3x3/bn"];

    /// <summary>The layer's operations, forward and backward, as the verification sees them.</summary>
    public static VerificationCase Case(string layer, int batch, BackendTraits traits)
    {
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
        Plan plan = TrainingSession.PlanFor(traits, network, new TrainingOptions { Batch = batch });
        return LayerCases.FromOperations(plan.Operations.Where(o => o.Name == layer), traits, "--network bn-inception").Single();
    }
}
