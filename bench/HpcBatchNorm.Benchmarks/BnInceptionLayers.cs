using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Benchmarks;

/// <summary>Layers of BN-Inception at 224 pixels, by name, as its training plan holds them: every shape once, under the name of the first layer that has it.</summary>
internal static class BnInceptionLayers
{
    /// <summary>What plans are made for when only names and sizes are wanted.</summary>
    public static readonly BackendTraits AnyTraits = new(ChannelBlock: 1, BatchNormTakesSlices: true);

    private static readonly Dictionary<(int, BackendTraits, Precision), IReadOnlyList<VerificationCase>> Made = [];

    /// <summary>All convolutions, the parallel 1x1 ones of a module as one.</summary>
    public static IEnumerable<string> Convolutions => Names<ConvolutionForward>();

    /// <summary>All batch normalizations.</summary>
    public static IEnumerable<string> BatchNorms => Names<BatchNormForward>();

    /// <summary>The layer's operations, forward and backward, as the verification sees them.</summary>
    public static VerificationCase Case(string layer, int batch, BackendTraits traits, Precision precision)
    {
        if (!Made.TryGetValue((batch, traits, precision), out IReadOnlyList<VerificationCase>? cases))
        {
            Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
            Plan plan = TrainingSession.PlanFor(traits, network, new TrainingOptions { Batch = batch });
            Made[(batch, traits, precision)] = cases = LayerCases.FromOperations(
                plan.Operations.Where(o => o is ConvolutionForward or BatchNormForward), traits, "--network bn-inception", precision);
        }

        return cases.Single(c => c.Name == layer);
    }

    private static IEnumerable<string> Names<TOperation>()
        where TOperation : Operation
    {
        _ = Case("conv1/conv", 1, AnyTraits, Precision.Fp32);
        return Made[(1, AnyTraits, Precision.Fp32)].Where(c => c.Operations[0] is TOperation).Select(c => c.Name);
    }
}
