using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Tests.Cudnn;

/// <summary>What the cudnn backend must do, on whatever it runs: the stub (<see cref="StubTests"/>) or a GPU (<see cref="DeviceTests"/>).</summary>
public abstract partial class CudnnTests
{
    private protected static readonly ReferenceBackend Reference = new();

    [Theory]
    [InlineData(Precision.Fp32)]
    [InlineData(Precision.Bf16)]
    [Trait("Category", "Slow")]
    public void HardCases_MatchTheReference(Precision precision) => HardCasesMatchTheReference(precision);

    [Theory]
    [InlineData(Precision.Tf32)]
    [InlineData(Precision.Fp16)]
    [Trait("Category", "Slow")]
    [Trait("Category", "Nightly")]
    public void HardCases_InTheOtherPrecisions_MatchTheReference(Precision precision) => HardCasesMatchTheReference(precision);

    private void HardCasesMatchTheReference(Precision precision)
    {
        using Backend backend = Create();
        Assert.SkipUnless(backend.Supports(precision, out string reason), reason);

        // All that differs from fp32 in tf32 is what is multiplied.
        AssertAllPass(backend, HardCases.For(backend.Traits, precision).Where(c => precision != Precision.Tf32 || IsProduct(c)));
        AssertClean();
    }

    [Fact]
    public void BatchNorm_OfTheLibrary_MatchesTheReference()
    {
        using Backend backend = Create(new BackendOptions { BatchNormAlgorithm = BatchNormAlgorithm.Library });
        AssertAllPass(backend, HardCases.For(backend.Traits).Where(c => c.Name.StartsWith("batch-norm/", StringComparison.Ordinal)));
    }

    /// <summary>A grid has 65535 layers at most, and per activation each position is one.</summary>
    [Theory]
    [InlineData(BatchNormAlgorithm.Native, false)]
    [InlineData(BatchNormAlgorithm.Native, true)]
    [InlineData(BatchNormAlgorithm.Library, false)]
    public void BatchNorm_PerActivationOfALargeImage_MatchesTheReference(BatchNormAlgorithm algorithm, bool renormalize)
    {
        using Backend backend = Create(new BackendOptions { BatchNormAlgorithm = algorithm });

        // cuDNN keeps 1/sqrt(variance + epsilon) alone, in which the variance of two almost equal values is lost: more images, and no such pair.
        BatchNormSpec spec = new(algorithm == BatchNormAlgorithm.Library ? new(6, 1, 257, 256) : new(2, 3, 257, 256), PerActivation: true, Relu: true);
        BatchNormForm? form = renormalize ? new() { Renormalization = new(MaximumR: 2, MaximumD: 1, Start: 0, EndR: 0, EndD: 0) } : null;
        AssertAllPass(backend, [new CaseBuilder("batch-norm/per-activation-large", InputKind.Random).BatchNorm(spec, form).Build()]);
    }

    [Theory]
    [InlineData(Precision.Fp32)]
    [InlineData(Precision.Bf16)]
    [InlineData(Precision.Fp16)]
    [Trait("Category", "Slow")]
    public void TrainingStep_EveryBuffer_AgreesWithTheReference(Precision precision)
    {
        using Backend backend = Create();
        var training = new TrainingOptions { Batch = 2, Height = 32, Width = 32, WeightDecay = 1e-4f, LabelSmoothing = 0.1f, AverageDecay = 0.9f, LossScale = 256, Precision = precision };
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 20, Dropout = 0.1f, PerActivationLast = true });

        CaseResult result = NetworkVerifier.Step(backend, Reference, network, training, "--network inception-tiny --image-size 32");

        Assert.True(result.Passed, result.Describe());
        AssertClean();
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void TenSteps_GiveTheLossesOfTheReference()
    {
        using Backend backend = Create();
        Network network = NetworkCatalog.Create("mnist-mlp", new NetworkOptions { Classes = 10 });
        CaseResult result = NetworkVerifier.Replay(backend, Reference, network, new TrainingOptions { Batch = 8, Height = 28, Width = 28 }, "--network mnist-mlp");
        Assert.True(result.Passed, result.Describe());
        AssertClean();
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void TrainingStep_WithGhostBatchesAndRenormalization_AgreesWithTheReference()
    {
        using Backend backend = Create();
        var training = new TrainingOptions
        {
            Batch = 4,
            Height = 16,
            Width = 16,
            GhostBatch = 2,
            BatchRenormalize = true,
            Renormalization = new(MaximumR: 2, MaximumD: 1, Start: 0, EndR: 0, EndD: 0),
        };
        CaseResult result = NetworkVerifier.Step(
            backend, Reference, NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10, PerActivationLast = true }), training, "--network inception-tiny");
        Assert.True(result.Passed, result.Describe());
        AssertClean();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Steps_AsOneRecording_GiveTheBitsOfKernelByKernel(bool renormalize)
    {
        // The limits of r and d rise with every step.
        TrainingOptions training = Small with { BatchRenormalize = renormalize, Renormalization = new(MaximumR: 2, MaximumD: 1, Start: 0, EndR: 6, EndD: 6) };

        // Two backends search by timing, each for itself; only one that knows the other's choices gives the same bits.
        string folder = Directory.CreateTempSubdirectory("hbn-tuning").FullName;
        var options = new BackendOptions { TuningFile = Path.Combine(folder, "algorithms.json") };
        float[] recorded = Losses(options, training, out string description);
        float[] plain = Losses(options with { RecordSteps = false }, training, out _);
        Directory.Delete(folder, recursive: true);
        Assert.Equal(plain, recorded);
        Assert.Equal(plain.Length, plain.Distinct().Count());
        Assert.Contains("one CUDA graph", description, StringComparison.Ordinal);
        AssertClean();
    }

    [Fact]
    public void Steps_OnStagedImages_GiveTheBitsOfPlainSteps()
    {
        const int Steps = 4;
        TrainingOptions training = Small with { Accumulate = 2 };
        using Backend backend = Create();
        using TrainingSession plain = SmallSession(backend, training), staged = SmallSession(backend, training);
        (byte[] Pixels, int[] Labels)[] batches = [.. Enumerable.Range(0, Steps).Select(i => Images(i, training.Accumulate))];
        float[] expected = [.. batches.Select((b, i) => plain.Step(b.Pixels, b.Labels, new StepContext(i, 0.02f)))];

        int next = 0;
        void StageNext()
        {
            (byte[] pixels, int[] labels) = batches[next++];
            staged.Stage(pixels, labels);

            // The loader fills its buffers anew; a transfer that read them later would bring zeros.
            pixels.AsSpan().Clear();
        }

        StageNext();
        float[] actual = [.. Enumerable.Range(0, Steps).Select(i => staged.StepStaged(new StepContext(i, 0.02f), i < Steps - 1 ? StageNext : null))];
        Assert.Equal(expected, actual);
        Assert.Equal(Steps, next);
        Assert.Throws<InvalidOperationException>(() => staged.StepStaged(default));
        AssertClean();
    }

    [Fact]
    public void LossScale_ThatOverflows_HalvesUntilStepsUpdateAgain()
    {
        using Backend backend = Create();
        Assert.SkipUnless(backend.Supports(Precision.Fp16, out string reason), reason);
        using TrainingSession session = SmallSession(backend, Small with { Precision = Precision.Fp16, LossScale = UpdateLossScale.MostScale, LossScaleGrowth = 4 });
        StateTensor weights = session.State.First(s => s.Tensor.Role == TensorRole.Parameter);
        float[] before = new float[weights.Tensor.Shape.Count], after = new float[before.Length];
        session.Read(weights.Tensor, before);

        (byte[] pixels, int[] labels) = Images(0, 1);
        float first = session.Step(pixels, labels, new StepContext(0, 0.05f));
        session.Read(weights.Tensor, after);
        Assert.True(float.IsFinite(first));
        Assert.Equal(before, after);
        Assert.Equal(new LossScale(UpdateLossScale.MostScale / 2, 0, 1), session.LossScale);

        float last = first;
        for (int step = 1; step < 16; step++)
        {
            last = session.Step(pixels, labels, new StepContext(step, 0.05f));
        }

        session.Read(weights.Tensor, after);
        Assert.NotEqual(before, after);
        Assert.True(last < first, $"the loss went from {first} to {last}");
        Assert.InRange(session.LossScale!.Value.SkippedSteps, 2, 14);
        Assert.InRange(session.LossScale.Value.Scale, 1, UpdateLossScale.MostScale / 4);
        AssertClean();
    }

    [Fact]
    public void LossScale_TakenAlong_ContinuesBitForBit()
    {
        using Backend backend = Create();
        Assert.SkipUnless(backend.Supports(Precision.Fp16, out string reason), reason);
        TrainingOptions training = Small with { Precision = Precision.Fp16, LossScale = 1 << 15, LossScaleGrowth = 3 };
        float[] Run(TrainingSession session, int from, int to) =>
            [.. Enumerable.Range(from, to - from).Select(i => session.Step(Images(i, 1).Pixels, Images(i, 1).Labels, new StepContext(i, 0.05f)))];
        using TrainingSession whole = SmallSession(backend, training), start = SmallSession(backend, training);
        float[] expected = Run(whole, 0, 6);
        float[] actual = Run(start, 0, 3);
        using TrainingSession end = start.Continue(start.Options);
        actual = [.. actual, .. Run(end, 3, 6)];
        Assert.Equal(expected, actual);
        Assert.Equal(whole.LossScale, end.LossScale);
        AssertClean();
    }

    [Fact]
    public void Limits_OfTheDevice_AreMeasured()
    {
        using Backend backend = Create();
        MachineLimits limits = backend.MeasureLimits()!;
        Assert.True(limits.Fp32Gflops > 0.01 && limits.TriadGbs > 0.001, limits.ToString());
        Assert.Equal(backend.Supports(Precision.Bf16, out _), limits.Bf16Gflops > 0);
        AssertClean();
    }

    [Fact]
    public void TrainingStep_InSteadyState_AllocatesNothing()
    {
        using Backend backend = Create();
        using TrainingSession session = SmallSession(backend);
        byte[] pixels = new byte[4 * 16 * 16 * 3];
        int[] labels = new int[4];
        int step = 0;
        void Step() => session.Step(pixels, labels, new StepContext(step++, 0.01f));
        for (int i = 0; i < 4; i++)
        {
            Step();
        }

        Assert.Equal(0, ManagedAllocation.Measure(4, Step));
    }

    [Fact]
    public void Convolutions_WithATuningFile_AreSearchedOnce()
    {
        string folder = Directory.CreateTempSubdirectory("hbn-tuning").FullName;
        var options = new BackendOptions { TuningFile = Path.Combine(folder, "algorithms.json") };
        string[] first = Implementations(options), second = Implementations(options);
        Assert.Equal(first, second);
        Assert.True(File.Exists(options.TuningFile));

        File.WriteAllText(options.TuningFile, "{ not json");
        UserErrorException error = Assert.Throws<UserErrorException>(() => Implementations(options));
        Assert.Contains("delete it", error.Message, StringComparison.Ordinal);
        Directory.Delete(folder, recursive: true);
    }

    /// <summary>The backend under test; skips where it cannot be had.</summary>
    private protected abstract Backend Create(BackendOptions? options = null);

    /// <summary>Asserts what can be known beside results.</summary>
    private protected virtual void AssertClean()
    {
    }

    private protected static bool IsProduct(VerificationCase c) =>
        c.Name.StartsWith("convolution/", StringComparison.Ordinal) || c.Name.StartsWith("inner-product/", StringComparison.Ordinal);

    private protected void AssertAllPass(Backend backend, IEnumerable<VerificationCase> cases)
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

        Assert.True(failures.Count == 0, $"{failures.Count} of {count} cases failed\n{string.Join('\n', failures.Take(8))}");
        Assert.True(count > 0);
        AssertClean();
    }

    private protected static TrainingOptions Small { get; } = new() { Batch = 4, Height = 16, Width = 16, ClipNorm = 1, AverageDecay = 0.9f };

    private protected static TrainingSession SmallSession(Backend backend, TrainingOptions? training = null) =>
        new(backend, NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10, Dropout = 0.1f }), training ?? Small);

    /// <summary>Images and labels of a step of <see cref="Small"/>.</summary>
    private protected static (byte[] Pixels, int[] Labels) Images(int seed, int accumulate)
    {
        byte[] pixels = new byte[accumulate * 4 * 16 * 16 * 3];
        new Random(seed).NextBytes(pixels);
        return (pixels, [.. Enumerable.Range(0, 4 * accumulate).Select(i => (i + seed) % 10)]);
    }

    private float[] Losses(BackendOptions options, TrainingOptions training, out string description)
    {
        using Backend backend = Create(options);
        using TrainingSession session = SmallSession(backend, training);
        byte[] pixels = new byte[4 * 16 * 16 * 3];
        float[] losses = new float[6];
        for (int step = 0; step < losses.Length; step++)
        {
            // Other images, dropout masks and learning rates every step: a recording that froze one of them would show.
            new Random(step).NextBytes(pixels);
            losses[step] = session.Step(pixels, [1, 2, 3, 4], new StepContext(step, 0.01f * (step + 1)));
        }

        description = session.Recorded?.Description ?? "";
        return losses;
    }

    private protected string[] Implementations(BackendOptions options)
    {
        using Backend backend = Create(options);
        using TrainingSession session = SmallSession(backend);
        session.Execute(default);
        return [.. session.Prepared.Kernels.Select(k => k.Implementation)];
    }
}
