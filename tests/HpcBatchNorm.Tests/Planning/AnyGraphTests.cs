using CsCheck;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Planning;

/// <summary>Plans of graphs that nobody thought of.</summary>
public class AnyGraphTests
{
    private static readonly Gen<(int Kind, int Pick, int Number)[]> Steps =
        Gen.Select(Gen.Int[0, 13], Gen.Int[0, 1000], Gen.Int[0, 1000], (k, p, n) => (k, p, n)).Array[0, 14];

    [Theory]
    [InlineData(1, true, true, true, false)]
    [InlineData(8, true, true, false, false, true)]
    [InlineData(8, false, false, false, false)]
    [InlineData(16, true, false, false, true)]
    public void Plan_AnyGraph_EveryOperationIsValidAndReadsWhatWasWritten(int block, bool slices, bool variants, bool scaling, bool poolingSlices, bool normalizes = false) => Steps.Sample(s =>
    {
        var traits = new BackendTraits(block, slices, variants, scaling, PoolingTakesSlices: poolingSlices, ConvolutionNormalizes: normalizes);
        Network network = SampleNetworks.Random(s);
        foreach (Precision precision in new[] { Precision.Fp32, Precision.Bf16 })
        {
            AssertSound(TrainingSession.PlanFor(traits, network, new TrainingOptions { Batch = 4, Height = 9, Width = 9, Precision = precision }));
            AssertSound(TrainingSession.PlanFor(
                traits, network, new TrainingOptions { Batch = 4, Height = 9, Width = 9, Precision = precision, RecomputeBatchNorm = true, Accumulate = 2 }));
            AssertSound(ForwardSession.PlanFor(traits, network, new InferenceOptions { Batch = 4, Height = 9, Width = 9, Precision = precision }));
        }
    });

    /// <summary>Without batch normalization, whose division by small deviations makes large differences of small ones; seeds are fixed for the same reason.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    public void Training_AnyGraph_IsTheSameWithAndWithoutFusions(int seed)
    {
        var random = new Random(seed);
        int[] kinds = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
        Network network = SampleNetworks.Random([.. Enumerable.Range(0, 14).Select(_ => (kinds[random.Next(kinds.Length)], random.Next(1000), random.Next(1000)))]);
        var options = new TrainingOptions { Batch = 4, Height = 9, Width = 9 };
        using var reference = new ReferenceBackend();
        using var fused = new TrainingSession(reference, network, options);
        using var plain = new TrainingSession(reference, network, options with { DisabledFusions = [.. Fusion.All.Select(f => f.Name)] });
        byte[] pixels = new byte[4 * 9 * 9 * network.InputChannels];
        for (int step = 0; step < 3; step++)
        {
            random.NextBytes(pixels);
            var context = new StepContext(step, LearningRate: 0.01f);
            Assert.Equal(plain.Step(pixels, [0, 1, 2, 3], context), fused.Step(pixels, [0, 1, 2, 3], context));
        }
    }

    private static void AssertSound(Plan plan)
    {
        HashSet<Tensor> written = new(ReferenceEqualityComparer.Instance) { plan.Pixels };
        written.UnionWith(plan.State.Select(s => s.Tensor.Root));
        written.UnionWith(plan.Operations.OfType<AccumulateGradients>().SelectMany(a => a.Sums));
        if (plan.Labels is not null)
        {
            written.Add(plan.Labels);
        }

        foreach (Operation operation in plan.Operations)
        {
            operation.Validate();
            foreach (Tensor tensor in operation.Reads.Where(t => !written.Contains(t.Root)))
            {
                // What an operation reads and writes (the moments it updates) may be its own.
                Assert.True(operation.Writes.Any(w => w.Root == tensor.Root), $"{operation.Kind} '{operation.Name}' reads '{tensor.Name}', which nothing wrote.");
            }

            written.UnionWith(operation.Writes.Select(t => t.Root));
        }

        Assert.Contains(plan.Probabilities, written);
    }
}
