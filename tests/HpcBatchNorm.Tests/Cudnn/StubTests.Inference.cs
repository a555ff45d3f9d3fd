using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Cudnn;

/// <content>Inference where the library refuses what it was asked for.</content>
public sealed partial class StubTests
{
    /// <summary>Rows that lie further apart are not every engine's: it then writes dense ones, and those are copied.</summary>
    [Theory]
    [InlineData(2000)]
    [InlineData(3000)]
    public void Convolutions_IntoASliceThatTheLibraryRefuses_AreCopiedThere(int status)
    {
        using Backend backend = Create();
        StubDevice.Set("refuse_slices", status);
        foreach (string name in new[] { "convolution/3x3-slices-bias-relu/random", "convolution/bias-relu/random" })
        {
            CaseResult result = Verifier.Run(backend, Reference, HardCases.For(backend.Traits).Single(c => c.Name == name));
            Assert.True(result.Passed, result.Describe());
            Assert.All(result.Tensors, t => Assert.StartsWith("cudnn ", t.Implementation, StringComparison.Ordinal));
            Assert.All(result.Tensors, t => Assert.Equal(name.Contains("slices", StringComparison.Ordinal), t.Implementation.EndsWith("copied to its slice", StringComparison.Ordinal)));
        }

        AssertClean();
    }

    /// <summary>The plan has a 16-bit bias by then, which our own kernel does not read.</summary>
    [Theory]
    [InlineData(2000)]
    [InlineData(3000)]
    public void Inference_WhoseReluTheLibraryRefuses_AgreesWithTheReference(int status)
    {
        using Backend backend = Create(new BackendOptions { LibraryRelu = true });
        StubDevice.Set("refuse_bias", status);
        Assert.DoesNotContain(FoldedNetwork(backend, Precision.Bf16), i => i.Contains(WithRelu, StringComparison.Ordinal));
    }
}
