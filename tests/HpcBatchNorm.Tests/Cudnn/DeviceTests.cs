using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Cudnn;

/// <summary>The cudnn backend on a GPU; skipped with the load report where there is none, and failing where HBN_REQUIRE names cudnn.</summary>
public sealed class DeviceTests : CudnnTests
{
    [Theory]
    [InlineData("bn-inception", Precision.Fp32)]
    [InlineData("bn-inception", Precision.Tf32)]
    [InlineData("bn-inception", Precision.Bf16)]
    [InlineData("bn-inception", Precision.Fp16)]
    [InlineData("inception", Precision.Fp32)]
    [Trait("Category", "Slow")]
    public void TrainingStepOfTheLargeNetworks_EveryBuffer_AgreesWithTheReference(string name, Precision precision)
    {
        using Backend backend = Create();
        var training = new TrainingOptions { Batch = 2, Height = 64, Width = 64, WeightDecay = 1e-4f, LossScale = 256, Precision = precision };
        CaseResult result = NetworkVerifier.Step(
            backend, Reference, NetworkCatalog.Create(name, new NetworkOptions { Classes = 20 }), training, $"--network {name} --image-size 64 --precision {precision}");
        Assert.True(result.Passed, result.Describe());
    }

    private protected override Backend Create(BackendOptions? options = null)
    {
        BackendProbe probe = Backend.Probe().Single(p => p.Name == "cudnn");
        bool required = (Environment.GetEnvironmentVariable("HBN_REQUIRE") ?? "").Split(',', StringSplitOptions.TrimEntries).Contains("cudnn");
        Assert.SkipUnless(probe.Available || required, probe.Report);
        return Backend.Create("cudnn", options);
    }
}
