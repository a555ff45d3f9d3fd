using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Cudnn;

/// <summary>
/// What every backend must do, asked of the cudnn backend without a GPU: all hard cases, on the stub. It shows that the kernels compute what they should,
/// that every call is made with the right arguments, and that nothing relies on when the device does its work; not how fast, nor what real cuDNN does.
/// </summary>
[Collection(StubDevice.Collection)]
public sealed class StubContractTests
{
    private static readonly ReferenceBackend Reference = new();


    [Fact]
    public void HardCases_OnTheStub_MatchTheReference()
    {
        using Backend backend = StubDevice.Create();
        AssertAllPass(backend, HardCases.For(backend.Traits));
    }

    [Fact]
    public void HardCases_ThreadsAndBlocksInReverse_MatchTheReference()
    {
        using Backend backend = StubDevice.Create();
        StubDevice.Set("thread_order", 1);
        AssertAllPass(backend, HardCases.For(backend.Traits).Where(c => c.Kind == InputKind.Random));
    }

    [Fact]
    public void HardCases_WithTheLibrarysBatchNorm_MatchTheReference()
    {
        using Backend backend = StubDevice.Create(new BackendOptions { BatchNormAlgorithm = BatchNormAlgorithm.Library });
        AssertAllPass(backend, HardCases.For(backend.Traits).Where(c => c.Name.StartsWith("batch-norm/", StringComparison.Ordinal)));
    }

    private static void AssertAllPass(Backend backend, IEnumerable<VerificationCase> cases)
    {
        List<string> failures = [];
        int count = 0;
        foreach (VerificationCase c in cases)
        {
            CaseResult result = Verifier.Run(backend, Reference, c);
            count++;
            if (!result.Passed)
            {
                failures.Add(result.Describe());
            }
        }

        Assert.True(failures.Count == 0, $"{failures.Count} of {count} cases failed; the stub says '{StubDevice.Problem}'\n{string.Join('\n', failures.Take(8))}");
        Assert.True(count > 0);
        Assert.Equal("", StubDevice.Problem);
    }
}
