using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Verification;

public sealed class NetworkVerifierTests
{
    private static readonly TrainingOptions Small = new() { Batch = 2, Height = 32, Width = 32, WeightDecay = 1e-3f, ClipNorm = 1f, AverageDecay = 0.9f };

    private static readonly TrainingOptions Digits = new() { Batch = 8, Height = 28, Width = 28, PixelMean = [128], PixelDeviation = [128] };

    private static Network Mlp => NetworkCatalog.Create("mnist-mlp", new NetworkOptions { Classes = 10, BatchNorm = true });

    private static Network Tiny => NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10 });

    [Fact]
    [Trait("Category", "Slow")]
    public void Step_ReferenceAgainstItself_ComparesEveryOperationAndPasses()
    {
        using AlteredBackend backend = new();
        using ReferenceBackend reference = new();
        CaseResult result = NetworkVerifier.Step(backend, reference, Tiny, Small, "--network inception-tiny");
        Assert.True(result.Passed, result.Describe());
        Plan plan = TrainingSession.PlanFor(backend.Traits, Tiny, Small);
        Assert.Equal(plan.Operations.Select(o => $"{o.Kind} '{o.Name}'").Distinct(), result.Tensors.Select(t => t.Operation).Distinct());
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Step_FaultInOneOperation_IsReportedThereAndNowhereElse()
    {
        Plan plan = TrainingSession.PlanFor(new BackendTraits(16, true), Tiny, Small);
        string victim = plan.Operations.OfType<BatchNormBackward>().Skip(3).First().Name;
        using AlteredBackend backend = new()
        {
            Rewrite = o => o is BatchNormBackward b && b.Name == victim ? b with { Statistics = BatchNormStatistics.Running } : o,
        };
        using ReferenceBackend reference = new();
        CaseResult result = NetworkVerifier.Step(backend, reference, Tiny, Small, "--network inception-tiny");
        Assert.Equal([$"batch-norm backward '{victim}'"], result.Tensors.Where(t => t.Failed > 0).Select(t => t.Operation).Distinct());
    }

    [Fact]
    public void Replay_ReferenceAgainstItself_HasNoError()
    {
        using ReferenceBackend backend = new(), reference = new();
        CaseResult result = NetworkVerifier.Replay(backend, reference, Mlp, Digits, "--network mnist-mlp", steps: 3);
        Assert.True(result.Passed, result.Describe());
        Assert.Equal(0, result.Worst!.Worst.Error);
    }

    [Fact]
    public void Replay_OtherMomentum_IsReported()
    {
        using AlteredBackend backend = new() { Rewrite = o => o is SgdUpdate s ? s with { Mu = s.Mu * 0.9f } : o };
        using ReferenceBackend reference = new();
        CaseResult result = NetworkVerifier.Replay(backend, reference, Mlp, Digits, "--network mnist-mlp");
        Assert.False(result.Passed);
    }
}
