using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Benchmarking;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Cudnn;

/// <summary>What the cudnn backend must do, on whatever it runs: the stub (<see cref="StubTests"/>) or a GPU (<see cref="DeviceTests"/>).</summary>
public abstract class CudnnTests
{
    private protected static readonly ReferenceBackend Reference = new();

    [Theory]
    [InlineData(Precision.Fp32)]
    [InlineData(Precision.Tf32)]
    [InlineData(Precision.Bf16)]
    [InlineData(Precision.Fp16)]
    [Trait("Category", "Slow")]
    public void HardCases_MatchTheReference(Precision precision)
    {
        using Backend backend = Create();
        Assert.SkipUnless(backend.Supports(precision, out string reason), reason);

        // All that differs from fp32 in tf32 is what is multiplied.
        AssertAllPass(backend, HardCases.For(backend.Traits, precision).Where(c => precision != Precision.Tf32 || IsProduct(c)));
    }

    [Fact]
    public void BatchNorm_OfTheLibrary_MatchesTheReference()
    {
        using Backend backend = Create(new BackendOptions { BatchNormAlgorithm = BatchNormAlgorithm.Library });
        AssertAllPass(backend, HardCases.For(backend.Traits).Where(c => c.Name.StartsWith("batch-norm/", StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData(Precision.Fp32)]
    [InlineData(Precision.Bf16)]
    [Trait("Category", "Slow")]
    public void TrainingStep_EveryBuffer_AgreesWithTheReference(Precision precision)
    {
        using Backend backend = Create();
        var training = new TrainingOptions { Batch = 2, Height = 32, Width = 32, WeightDecay = 1e-4f, LabelSmoothing = 0.1f, AverageDecay = 0.9f, Precision = precision };
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
    public void Steps_AsOneRecording_GiveTheBitsOfKernelByKernel()
    {
        float[] recorded = Losses(new BackendOptions(), out string description);
        float[] plain = Losses(new BackendOptions { RecordSteps = false }, out _);
        Assert.Equal(plain, recorded);
        Assert.Equal(plain.Length, plain.Distinct().Count());
        Assert.Contains("one CUDA graph", description, StringComparison.Ordinal);
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

    private protected static TrainingSession SmallSession(Backend backend) => new(
        backend, NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10, Dropout = 0.1f }),
        new TrainingOptions { Batch = 4, Height = 16, Width = 16, ClipNorm = 1, AverageDecay = 0.9f });

    private float[] Losses(BackendOptions options, out string description)
    {
        using Backend backend = Create(options);
        using TrainingSession session = SmallSession(backend);
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

    private string[] Implementations(BackendOptions options)
    {
        using Backend backend = Create(options);
        using TrainingSession session = SmallSession(backend);
        session.Execute(default);
        return [.. session.Prepared.Kernels.Select(k => k.Implementation)];
    }
}
