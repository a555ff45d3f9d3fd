using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Cudnn;

/// <content>Inference: convolutions that write into their concatenation, and that compute bias and ReLU too.</content>
public abstract partial class CudnnTests
{
    private protected const string WithRelu = "with ReLU";

    /// <summary>
    /// The stand-in refuses what the documentation of cudnnConvolutionBiasActivationForward does, so that a plan which is not refused has a bias of dst's type,
    /// a residual that lies as dst does, and a ReLU that drops NaN.
    /// </summary>
    [Theory]
    [InlineData(false, Precision.Fp32)]
    [InlineData(false, Precision.Bf16)]
    [InlineData(true, Precision.Fp32)]
    [InlineData(true, Precision.Bf16)]
    public void Inference_OfAFoldedNetwork_AgreesWithTheReference(bool libraryRelu, Precision precision)
    {
        using Backend backend = Create(new BackendOptions { LibraryRelu = libraryRelu });
        Assert.Equal(libraryRelu, FoldedNetwork(backend, precision).Any(i => i.Contains(WithRelu, StringComparison.Ordinal)));
    }

    [Fact]
    public void Convolutions_WithBiasResidualAndReluInOneCall_MatchTheReference()
    {
        using Backend backend = Create(new BackendOptions { LibraryRelu = true });
        VerificationCase[] cases = [.. HardCases.For(backend.Traits).Where(c => c.Kind == InputKind.Random && c.Name.StartsWith("convolution/residual-bias-relu", StringComparison.Ordinal))];
        Assert.True(cases.Length > 1);
        foreach (VerificationCase c in cases)
        {
            CaseResult result = Verifier.Run(backend, Reference, c);
            Assert.True(result.Passed, result.Describe());
            Assert.All(result.Tensors, t => Assert.EndsWith(WithRelu, t.Implementation, StringComparison.Ordinal));
        }

        AssertClean();
    }

    /// <summary>All buffers of a small Inception network, whose folded convolutions end in concatenations; the implementations of its kernels.</summary>
    private protected string[] FoldedNetwork(Backend backend, Precision precision)
    {
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10 });
        var options = new InferenceOptions { Batch = 2, Height = 32, Width = 32, Precision = precision };
        CaseResult result = NetworkVerifier.Step(backend, Reference, network, options, "--network inception-tiny");
        Assert.True(result.Passed, result.Describe());
        AssertClean();
        return [.. result.Tensors.Select(t => t.Implementation)];
    }
}
