using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Verification;

public sealed class VerifierTests
{
    public static TheoryData<string> Backends => [.. Backend.Probe().Where(p => p.Available && p.Name is "onednn" or "reference").Select(p => p.Name)];

    /// <summary>
    /// A chunk is summed as deviations from its own first value. Where that of the second image lies far out, and the channel's first does not, an honest
    /// sum in single precision rounds at the distance of the former.
    /// </summary>
    [Theory]
    [MemberData(nameof(Backends))]
    public void BatchStatistics_ImageWhoseFirstValueLiesFarOut_AreWithinTheirBounds(string name)
    {
        VerificationCase corner = new CaseBuilder("batch-norm/corner/random", InputKind.Random, Precision.Fp32).BatchNorm(new BatchNormSpec(new Shape(2, 32, 12, 13)), new()
        {
            Src = (shape, random, values) =>
            {
                for (int i = 0; i < values.Length; i++)
                {
                    values[i] = i % shape.Area > 0 ? random.NextDouble(-0.1, 0.1) : i < shape.ImageCount ? 0 : 30;
                }
            },
        }).Build();
        using Backend backend = Backend.Create(name);
        using ReferenceBackend reference = new();
        CaseResult result = Verifier.Run(backend, reference, corner);
        Assert.True(result.Passed, result.Describe());
    }

    /// <summary>Half a unit in the last place of every result: an implementation as good as single precision allows must pass.</summary>
    [Fact]
    public void HardCases_ResultsRoundedToSingle_PassesAll()
    {
        using AlteredBackend backend = new()
        {
            After = (operation, values) =>
            {
                foreach (Tensor tensor in operation.Writes.Where(t => t.Role != TensorRole.Workspace))
                {
                    values.Change(tensor, v =>
                    {
                        for (int i = 0; i < v.Length; i++)
                        {
                            v[i] = (float)v[i];
                        }
                    });
                }
            },
        };
        using ReferenceBackend reference = new();
        VerificationReport report = Verifier.Run(backend, reference, HardCases.For(backend.Traits), null, TestContext.Current.CancellationToken);
        Assert.True(report.Failed == 0, report.Describe());
    }

    [Fact]
    public void HardCases_Names_AreUnique() =>
        Assert.Empty(HardCases.For(new BackendTraits(16, true, true, true, TrainingVariants: true)).GroupBy(c => c.Name).Where(g => g.Count() > 1).Select(g => g.Key));

    /// <summary>A new operation without a hard case would not be verified, and nobody would see.</summary>
    [Fact]
    public void HardCases_Operations_AreAllThere()
    {
        // What operations of one's own compute is their owner's; CustomLayerTests and GradientCheck look at them.
        // Averages over ranks need the other ranks: RankSessionTests and MpiTests look at those.
        IEnumerable<Type> known = typeof(Operation).Assembly.GetTypes()
            .Where(t => t.IsSubclassOf(typeof(Operation)) && !t.IsAbstract && !t.IsSubclassOf(typeof(CustomOperation)))
            .Except([typeof(AllReduceStart), typeof(AllReduceFinish)]);
        IEnumerable<Type> used = new[] { Precision.Fp32, Precision.Bf16 }.SelectMany(p => HardCases.For(new BackendTraits(16, true, true, true, TrainingVariants: true), p)).SelectMany(c => c.Operations).Select(o => o.GetType()).Distinct();
        Assert.Equal(known.Select(t => t.Name).Order(), used.Select(t => t.Name).Order());
    }
}
