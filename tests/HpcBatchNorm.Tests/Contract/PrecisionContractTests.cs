using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tests.Cli;
using HpcBatchNorm.Tests.Native;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Verification;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Tests.Contract;

/// <summary>Whole networks in bf16 on onednn: every buffer of a step, no slow code, inference, and processors without bf16.</summary>
public sealed class PrecisionContractTests
{
    public static TheoryData<string, int, NetworkOptions> Networks => new()
    {
        { "inception-tiny", 32, new NetworkOptions { Dropout = 0.1f, PerActivationLast = true } },
        { "mnist-mlp", 28, new NetworkOptions() },
    };

    public static TheoryData<string, int, NetworkOptions> LargeNetworks => new()
    {
        { "bn-inception", 48, new NetworkOptions() },
        { "inception", 64, new NetworkOptions { AuxiliaryHeads = true } },
        { "resnet-50", 64, new NetworkOptions() },
    };

    [Theory]
    [MemberData(nameof(Networks))]
    [Trait("Category", "Slow")]
    public void TrainingStep_InBf16_EveryBuffer_AgreesWithTheReference(string name, int size, NetworkOptions network) => VerifyStep(name, size, network);

    [Theory]
    [MemberData(nameof(LargeNetworks))]
    [Trait("Category", "Nightly")]
    public void TrainingStep_OfALargeNetworkInBf16_EveryBuffer_AgreesWithTheReference(string name, int size, NetworkOptions network) => VerifyStep(name, size, network);

    [Fact]
    [Trait("Category", "Nightly")]
    public void Inference_OfResNet50InBf16_EveryBuffer_AgreesWithTheReference()
    {
        using Backend backend = OneDnn.Create();
        using var reference = new ReferenceBackend();
        var options = new InferenceOptions { Batch = 2, Height = 64, Width = 64, Precision = Precision.Bf16 };

        CaseResult result = NetworkVerifier.Step(
            backend, reference, NetworkCatalog.Create("resnet-50", new NetworkOptions { Classes = 20 }), options, "--network resnet-50 --image-size 64");

        Assert.True(result.Passed, result.Describe());
    }

    [Fact]
    public void Kernels_OfBnInceptionInBf16_AreNoReferenceCode()
    {
        using Backend backend = OneDnn.Create();
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
        foreach (Plan plan in new[]
        {
            TrainingSession.PlanFor(backend.Traits, network, new TrainingOptions { Batch = 2, Precision = Precision.Bf16 }),
            ForwardSession.PlanFor(backend.Traits, network, new InferenceOptions { Batch = 2, Precision = Precision.Bf16 }),
        })
        {
            using var prepared = new PreparedPlan(backend, plan);
            Assert.DoesNotContain(prepared.Kernels, k => k.Implementation.Contains("ref", StringComparison.Ordinal));
        }
    }

    [Fact]
    public void Arena_OfBnInceptionInBf16_IsHalfOfThatInSingle()
    {
        using Backend backend = OneDnn.Create();
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
        long Arena(Precision precision)
        {
            using var prepared = new PreparedPlan(backend, TrainingSession.PlanFor(backend.Traits, network, new TrainingOptions { Batch = 8, Precision = precision }));
            return prepared.ArenaBytes;
        }

        // For SSE oneDNN computes more of it, on copies in single precision.
        Assert.InRange((double)Arena(Precision.Bf16) / Arena(Precision.Fp32), 0.4, backend.Description.Contains(", SSE", StringComparison.Ordinal) ? 0.7 : 0.65);
    }

    [Theory]
    [InlineData("inception-tiny")]
    [InlineData("mnist-mlp")]
    public void Inference_InBf16FromSingleParameters_AgreesWithSingle(string name)
    {
        using Backend backend = OneDnn.Create();
        using var reference = new ReferenceBackend();
        Network network = NetworkCatalog.Create(name, new NetworkOptions { Classes = 10 });
        var options = new InferenceOptions { Batch = 4, Height = 32, Width = 32 };
        byte[] pixels = new byte[4 * 32 * 32 * network.InputChannels];
        new Random(1).NextBytes(pixels);
        using var training = new TrainingSession(backend, network, new TrainingOptions { Batch = 4, Height = 32, Width = 32, Precision = Precision.Bf16 });
        for (int step = 0; step < 5; step++)
        {
            training.Step(pixels, [1, 2, 3, 4], new StepContext(step, 0.01f));
        }

        NetworkState state = training.ReadNetworkState();
        using var fast = new ForwardSession(backend, network, options with { Precision = Precision.Bf16 }, state);
        using var exact = new ForwardSession(reference, network, options, state);
        float[] actual = new float[40], expected = new float[40];
        fast.Forward(pixels, actual);
        exact.Forward(pixels, expected);

        // Some ten layers, each rounding its weights and its output by at most 2^-8 of them, on logits of the order of 1.
        for (int i = 0; i < actual.Length; i++)
        {
            Assert.Equal(expected[i], actual[i], 0.04f);
        }

        Assert.NotEqual(expected, actual);
    }

    [Fact]
    public void TrainingStep_InBf16InSteadyState_AllocatesNothing()
    {
        using Backend backend = OneDnn.Create();
        using var session = new TrainingSession(
            backend, NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10 }),
            new TrainingOptions { Batch = 4, Height = 32, Width = 32, Precision = Precision.Bf16 });
        byte[] pixels = new byte[4 * 32 * 32 * 3];
        int[] labels = new int[4];
        int step = 0;
        void Step() => session.Step(pixels, labels, new StepContext(step++, 0.01f));
        Step();

        Assert.Equal(0, ManagedAllocation.Measure(5, Step));
    }

    /// <summary>Masters, momenta and statistics are the whole state: the copies are made anew.</summary>
    [Fact]
    public void Training_InBf16FromARestoredState_ContinuesBitForBit()
    {
        using Backend backend = OneDnn.Create();
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10 });
        var options = new TrainingOptions { Batch = 4, Height = 32, Width = 32, Precision = Precision.Bf16, AverageDecay = 0.9f };
        byte[] pixels = new byte[4 * 32 * 32 * 3];
        new Random(1).NextBytes(pixels);
        using var whole = new TrainingSession(backend, network, options);
        using var resumed = new TrainingSession(backend, network, options);
        for (int step = 0; step < 3; step++)
        {
            whole.Step(pixels, [1, 2, 3, 4], new StepContext(step, 0.01f));
        }

        foreach ((StateTensor from, StateTensor to) in whole.State.Zip(resumed.State))
        {
            float[] values = new float[from.Tensor.Shape.Count];
            whole.Read(from.Tensor, values);
            resumed.Write(to.Tensor, values);
        }

        for (int step = 3; step < 6; step++)
        {
            Assert.Equal(whole.Step(pixels, [1, 2, 3, 4], new StepContext(step, 0.01f)), resumed.Step(pixels, [1, 2, 3, 4], new StepContext(step, 0.01f)));
        }
    }

    /// <summary>Real images: after 30 steps the losses of both precisions are the same curve, well below where they started.</summary>
    [Fact]
    [Trait("Category", "Slow")]
    public void Training_InBf16_FollowsTheLossesOfSingle()
    {
        const int Images = 32, Size = 32, Steps = 30;
        using ImageDataset dataset = ImageDataset.Open(RepoPaths.SharedDataOrSkip("tiny-ilsvrc2012"), DatasetSplit.Train, null);
        using var loader = new BatchLoader(dataset, LoaderOptions.ForTraining(Images, Size, seed: 5));
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = dataset.ClassCount });
        using Backend backend = OneDnn.Create();
        var options = new TrainingOptions { Batch = Images, Height = Size, Width = Size, WeightDecay = 4e-5f };
        using var single = new TrainingSession(backend, network, options);
        using var narrow = new TrainingSession(backend, network, options with { Precision = Precision.Bf16 });
        double[] expected = new double[Steps], actual = new double[Steps];
        for (int step = 0; step < Steps; step++)
        {
            using Batch batch = loader.Next(TestContext.Current.CancellationToken);
            expected[step] = single.Step(batch.PixelArray, batch.LabelArray, new StepContext(step, 0.02f));
            actual[step] = narrow.Step(batch.PixelArray, batch.LabelArray, new StepContext(step, 0.02f));
        }

        Assert.Equal(expected[0], actual[0], 0.02 * expected[0]);
        Assert.Equal(expected[^10..].Average(), actual[^10..].Average(), 0.03 * expected[^10..].Average());
        Assert.InRange(actual[^10..].Average(), 0, 0.97 * actual[..5].Average());
    }

    [Theory]
    [InlineData(Precision.Fp16)]
    [InlineData(Precision.Tf32)]
    public void Plan_InAPrecisionTheBackendLacks_SaysWhatToUseInstead(Precision precision)
    {
        using Backend backend = OneDnn.Create();
        UserErrorException error = Assert.Throws<UserErrorException>(() => new TrainingSession(
            backend, NetworkCatalog.Create("mnist-mlp", new NetworkOptions()), new TrainingOptions { Batch = 2, Height = 28, Width = 28, Precision = precision }));

        Assert.Contains($"onednn cannot compute in {precision.ToString().ToLowerInvariant()} here", error.Message, StringComparison.Ordinal);
        Assert.Contains("Use precision fp32", error.Message, StringComparison.Ordinal);
    }

    /// <summary>The instruction sets that oneDNN may use are read once per process. With AVX2 and less bf16 is stored and computed with in single precision.</summary>
    [Theory]
    [InlineData("SSE41")]
    [InlineData("AVX2")]
    [InlineData("AVX512_CORE")]
    public async Task Verify_InBf16UnderALimitedInstructionSet_Works(string isa)
    {
        using (Backend backend = OneDnn.Create())
        {
            Assert.SkipUnless(isa == "SSE41" || backend.Description.Contains("BF16", StringComparison.Ordinal), "Limits mean nothing on a CPU that is as limited.");
        }

        using HpcbnProcess process = HpcbnProcess.Start(
            Path.GetTempPath(), ["verify", "--precision", "bf16", "--case", "convolution/3x3/random"], ("ONEDNN_MAX_CPU_ISA", isa));
        Assert.Equal(0, await process.WaitForExitAsync(TestContext.Current.CancellationToken));
        await Task.Delay(100, TestContext.Current.CancellationToken);
        Assert.Contains("0 failed", process.Output, StringComparison.Ordinal);
    }

    private static void VerifyStep(string name, int size, NetworkOptions network)
    {
        using Backend backend = OneDnn.Create();
        using var reference = new ReferenceBackend();
        var training = new TrainingOptions { Batch = 2, Height = size, Width = size, WeightDecay = 1e-4f, AverageDecay = 0.9f, ClipNorm = 1, Precision = Precision.Bf16 };

        CaseResult result = NetworkVerifier.Step(backend, reference, NetworkCatalog.Create(name, network with { Classes = 20 }), training, $"--network {name} --image-size {size}");

        Assert.True(result.Passed, result.Describe());
    }
}
