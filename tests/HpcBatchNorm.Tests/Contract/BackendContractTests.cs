using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Contract;

/// <summary>
/// What every backend must do: all hard cases, element by element against the reference. The reference itself runs too, which checks that it repeats
/// its bits and writes only where it should; that its values are right is checked in Reference/.
/// </summary>
public sealed class BackendContractTests
{
    private static readonly Precision[] Precisions = [Precision.Fp32, Precision.Bf16];

    // One test of a class runs at a time, so all may share these; the process's end frees them.
    private static readonly Dictionary<string, Backend> Live = [];
    private static readonly ReferenceBackend Reference = new();

    private static readonly Lazy<Dictionary<(string Backend, Precision Precision, string Case), VerificationCase>> Cases = new(() =>
    (
        from probe in Backend.Probe()
        where probe.Available
        from precision in Precisions
        from hard in HardCases.For(Get(probe.Name).Traits, precision)
        select (probe.Name, hard)).ToDictionary(p => (p.Name, p.hard.Precision, p.hard.Name), p => p.hard));

    public static TheoryData<string, Precision, string> AvailableBackendsAndCases
    {
        get
        {
            TheoryData<string, Precision, string> rows = [];
            foreach ((string backend, Precision precision, string name) in Cases.Value.Keys)
            {
                rows.Add(backend, precision, name);
            }

            return rows;
        }
    }

    public static TheoryData<string> KnownBackends => [.. Backend.Probe().Select(p => p.Name)];

    [Theory]
    [MemberData(nameof(AvailableBackendsAndCases))]
    public void HardCase_MatchesTheReference(string backend, Precision precision, string name)
    {
        SkipUnlessSupported(backend, precision);
        CaseResult result = Verifier.Run(Get(backend), Reference, Cases.Value[(backend, precision, name)]);
        Assert.True(result.Passed, result.Describe());
    }

    /// <summary>oneDNN's own batch normalization, which keeps neither NaN in its ReLU nor 0 in a channel without spread and epsilon: there ours steps in.</summary>
    [Fact]
    public void BatchNormOfTheLibrary_NotFiniteOrWithoutSpread_MatchesTheReference()
    {
        using Backend backend = Native.OneDnn.Create(new BackendOptions { BatchNormAlgorithm = BatchNormAlgorithm.Library });
        VerificationCase[] cases =
        [
            .. HardCases.For(backend.Traits).Where(c =>
                c.Name.StartsWith("not-finite/batch-norm/", StringComparison.Ordinal) || c.Name.StartsWith("batch-norm/constant-src", StringComparison.Ordinal)),
        ];
        Assert.NotEmpty(cases);
        Assert.All(cases, c =>
        {
            CaseResult result = Verifier.Run(backend, Reference, c);
            Assert.True(result.Passed, result.Describe());
        });
    }

    /// <summary>A kernel that outlives its memory and what it holds in the native library must say so before it touches either.</summary>
    [Theory]
    [MemberData(nameof(KnownBackends))]
    public void Kernels_AfterDispose_RefuseToExecute(string name)
    {
        Assert.SkipUnless(Backend.Probe().Single(p => p.Name == name).Available, $"{name} is not here");
        string[] wanted = ["ghost-relu-odd", "renorm-relu-odd", "renorm-ghost"];
        IEnumerable<VerificationCase> all = HardCases.For(Get(name).Traits);
        VerificationCase[] cases =
        [
            .. all.DistinctBy(c => string.Join(' ', c.Operations.Select(o => o.Kind))), .. all.Where(c => wanted.Contains(c.Name.Split('/')[1])),
        ];
        Assert.All(cases, c =>
        {
            var runner = new OperationRunner(Get(name), c.Precision, c.Operations);
            Kernel[] kernels = [.. runner.Kernels];
            runner.Dispose();
            Assert.All(kernels, k => Assert.Throws<ObjectDisposedException>(() => k.Execute(default)));
        });
    }

    /// <summary>The same exception, and where a message can be given the same words, whatever computes the loss.</summary>
    [Theory]
    [InlineData(-1)]
    [InlineData(5)]
    [InlineData(int.MaxValue)]
    public void Loss_OfALabelThatIsNone_IsRefusedAlike(int label)
    {
        string[] messages =
        [
            .. Backend.Probe().Where(p => p.Available && p.Name != "cudnn").Select(p =>
            {
                Shape shape = Shape.Matrix(2, 5);
                Tensor logits = new("logits", shape, TensorRole.Activation), labels = new("labels", Shape.Matrix(2, 1), TensorRole.Label, TensorLayout.Plain, DataType.Int32);
                using var runner = new OperationRunner(Get(p.Name), new SoftmaxCrossEntropy(
                    "loss", logits, labels, new Tensor("probabilities", shape, TensorRole.Result), new Tensor("dst", Shape.Vector(1), TensorRole.Result), null, 0, 1));
                runner.Write(labels, [4, label]);
                return Assert.Throws<UserErrorException>(() => runner.Execute()).Message;
            }),
        ];
        Assert.All(messages, m => Assert.Equal(FormattableString.Invariant($"softmax cross-entropy 'loss': image 1 has the label {label}, expected 0 to 4."), m));
    }

    [Theory]
    [MemberData(nameof(KnownBackends))]
    public void Activation_ThatIsNone_IsRefusedByName(string name)
    {
        Assert.SkipUnless(Backend.Probe().Single(p => p.Name == name).Available, $"{name} is not here");
        const ActivationKind None = (ActivationKind)99;
        Tensor src = new("src", new Shape(1, 16, 2, 2), TensorRole.Activation, TensorLayout.Blocked), dst = new("dst", src.Shape, TensorRole.Activation, TensorLayout.Blocked);
        foreach (Operation operation in new Operation[] { new ActivationForward("none", None, src, dst), new ActivationBackward("none", None, src, null, dst, dst) })
        {
            var error = Assert.Throws<NotSupportedException>(() => new OperationRunner(Get(name), operation).Dispose());
            Assert.Contains("'99'", error.Message, StringComparison.Ordinal);
        }
    }

    /// <summary>An absent backend has no rows above, which nobody would see; here it is skipped with its reason, or fails where HBN_REQUIRE names it.</summary>
    [Theory]
    [MemberData(nameof(KnownBackends))]
    public void Backend_IsHereOrSaysWhyNot(string name)
    {
        BackendProbe probe = Backend.Probe().Single(p => p.Name == name);
        string[] required = (Environment.GetEnvironmentVariable("HBN_REQUIRE") ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        if (!probe.Available)
        {
            Assert.False(string.IsNullOrWhiteSpace(probe.Report), $"{name} is not available and does not say why.");
            Assert.False(required.Contains(name), $"HBN_REQUIRE names {name}, which cannot be used here: {probe.Report}");
            Assert.Skip($"{name}: {probe.Report}");
        }

        Backend backend = Get(name);
        Assert.Equal(name, backend.Name);
        Assert.True(backend.Traits.ChannelBlock >= 1);
        Assert.NotEmpty(backend.Description);
    }

    /// <summary>A precision that the backend cannot compute in on this machine keeps its rows, so that they are counted as skipped.</summary>
    private static void SkipUnlessSupported(string name, Precision precision) => Assert.SkipUnless(Get(name).Supports(precision, out string reason), reason);

    private static Backend Get(string name)
    {
        lock (Live)
        {
            return Live.TryGetValue(name, out Backend? backend) ? backend : Live[name] = Backend.Create(name);
        }
    }
}
