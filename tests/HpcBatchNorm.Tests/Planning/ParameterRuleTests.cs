using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Native;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Planning;

/// <summary>What is said of some parameters by their names: rates, decay, freezing; and the optimizers that go with them.</summary>
public sealed class ParameterRuleTests
{
    private const int Batch = 4;
    private const int Size = 8;
    private static readonly Network Tiny = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 5 });

    public static TheoryData<string, OptimizerAlgorithm> All =>
        new MatrixTheoryData<string, OptimizerAlgorithm>(["reference", "onednn"], Enum.GetValues<OptimizerAlgorithm>());

    [Fact]
    public void Freeze_OfLeadingLayers_PlansNoBackwardPassOfThem()
    {
        string[] leading = ["conv1/*", "inception_3*"];
        Plan whole = PlanFor(Options()), frozen = PlanFor(Options() with { Frozen = leading });
        static string[] Backward(Plan plan) => [.. plan.Operations.OfType<ConvolutionBackwardWeights>().Select(o => o.Name)];
        bool IsLeading(string name) => leading.Any(p => name.StartsWith(p.TrimEnd('*'), StringComparison.Ordinal));

        Assert.Contains(Backward(whole), IsLeading);
        Assert.DoesNotContain(Backward(frozen), IsLeading);
        Assert.DoesNotContain(frozen.Operations.OfType<BatchNormBackward>(), o => IsLeading(o.Name));
        Assert.Equal(Backward(whole).Where(n => !IsLeading(n)), Backward(frozen));
        Assert.Equal(whole.State.Select(s => s.Tensor.Name), frozen.State.Select(s => s.Tensor.Name)); // a checkpoint is the same
    }

    [Theory]
    [MemberData(nameof(All))]
    public void Freeze_LeavesTheNamedAloneAndTheOthersAsTheyWouldBe(string name, OptimizerAlgorithm algorithm)
    {
        // One step: the gradients are those of the whole network, so what is not frozen moves as without freezing.
        // Direct convolutions: Winograd's rounding, divided by the smallest gradients, is above the tolerance.
        using Backend backend = Create(name, ConvolutionAlgorithm.Direct);
        TrainingOptions options = Options() with { Algorithm = algorithm, Accumulate = 2, OptimizerEpsilon = 0.01f }; // an epsilon above the rounding of gradients
        using TrainingSession whole = new(backend, Tiny, options), frozen = new(backend, Tiny, options with { Frozen = ["conv?/*", "*.shift", "inception_4*/1x1*"] });
        Dictionary<string, float[]> before = whole.State.ToDictionary(s => s.Tensor.Name, s => Values(whole, s.Tensor));
        (byte[] pixels, int[] labels) = Images(2 * Batch);
        Assert.Equal(whole.Step(pixels, labels, new StepContext(0, 0.1f)), frozen.Step(pixels, labels, new StepContext(0, 0.1f)), 1e-5f);

        Dictionary<string, float[]> plain = whole.State.ToDictionary(s => s.Tensor.Name, s => Values(whole, s.Tensor));
        Assert.Equal(before.Keys.Order(), frozen.State.Select(s => s.Tensor.Name).Order());
        foreach (StateTensor s in frozen.State)
        {
            float[] values = Values(frozen, s.Tensor), expected = plain[s.Tensor.Name];
            string parameter = s.Source.Name;
            bool named = parameter.StartsWith("conv", StringComparison.Ordinal) || parameter.EndsWith(".shift", StringComparison.Ordinal)
                || (parameter.StartsWith("inception_4", StringComparison.Ordinal) && parameter.Contains("/1x1", StringComparison.Ordinal));
            if (s.Tensor.Role == TensorRole.Parameter)
            {
                Assert.Equal(named, before[s.Tensor.Name].SequenceEqual(values));
            }

            if (!named && s.Tensor.Role != TensorRole.RunningStatistic)
            {
                double scale = Math.Max(1e-6, expected.Max(Math.Abs)) * 1e-4;
                Assert.All(expected.Zip(values), pair => Assert.Equal(pair.First, pair.Second, scale));
            }
        }
    }

    [Fact]
    public void RateFactor_MultipliesTheStepOfTheNamed()
    {
        using var backend = new ReferenceBackend();
        using TrainingSession whole = new(backend, Tiny, Options()), varied = new(backend, Tiny, Options() with { RateFactors = [new("*", 0.5f), new("fc", 2)] });
        float[][] before = [.. whole.State.Select(s => Values(whole, s.Tensor))];
        (byte[] pixels, int[] labels) = Images(Batch);
        whole.Step(pixels, labels, new StepContext(0, 0.1f));
        varied.Step(pixels, labels, new StepContext(0, 0.1f));

        for (int i = 0; i < before.Length; i++)
        {
            if (whole.State[i].Tensor.Role == TensorRole.Parameter)
            {
                double factor = whole.State[i].Source.Node.Name == "fc" ? 2 : 0.5;
                float[] plain = Values(whole, whole.State[i].Tensor), changed = Values(varied, varied.State[i].Tensor);
                Assert.All(before[i], (w, e) => Assert.Equal(factor * (plain[e] - w), changed[e] - w, 2e-7)); // two roundings of weights below 1
            }
        }
    }

    /// <summary>Weights and biases by default, fewer where patterns say so: one update for all that share rate and decay.</summary>
    [Fact]
    public void NoDecay_IsTheDecayOfTheUpdatesAndNothingElse()
    {
        float[] Decays(TrainingOptions options, string parameter) =>
            [.. PlanFor(options).Operations.OfType<SgdUpdate>().Where(o => o.Parameters.Any(p => p.Name == parameter)).Select(o => o.WeightDecay)];
        TrainingOptions plain = Options() with { WeightDecay = 0.25f }, all = plain with { DecayScaleAndShift = true }, some = all with { WithoutDecay = ["*.bias", "conv1/*"] };

        Assert.Equal([0.25f], Decays(plain, "fc.weights"));
        Assert.Equal([0f], Decays(plain, "fc.bias"));
        Assert.Equal([0f], Decays(plain, "conv1/bn.shift"));
        Assert.Equal([0.25f], Decays(all, "fc.bias"));
        Assert.Equal([0f], Decays(some, "fc.bias"));
        Assert.Equal([0f], Decays(some, "conv1/conv.weights"));
        Assert.Equal([0.25f], Decays(some, "fc.weights"));
        Assert.Equal(PlanFor(plain).State.Select(s => s.Tensor.Name), PlanFor(some).State.Select(s => s.Tensor.Name));
    }

    [Fact]
    public void Names_ThatFitNothingOrEverything_AreRefused()
    {
        static string Message(TrainingOptions options) => Assert.Throws<UserErrorException>(() => PlanFor(options)).Message;
        Assert.Contains("freeze: no layer or parameter of the network is named 'conv1/con', did you mean 'conv1/conv'?", Message(Options() with { Frozen = ["conv1/con"] }), StringComparison.Ordinal);
        Assert.Contains("no-decay: no layer or parameter of the network is named 'zzzzzzzzzzzzzzzz*'; the first is", Message(Options() with { WithoutDecay = ["zzzzzzzzzzzzzzzz*"] }), StringComparison.Ordinal);
        Assert.Contains("rate-factors: no layer", Message(Options() with { RateFactors = [new("Fc", 1)] }), StringComparison.Ordinal);
        Assert.Contains("freeze: '*' names every parameter", Message(Options() with { Frozen = ["*"] }), StringComparison.Ordinal);
    }

    /// <summary>LAMB's norms are of a layer's weights, so what is computed together is updated apart, and the step is the same with and without fusion.</summary>
    [Fact]
    public void Lamb_NormsAreThoseOfEachLayer()
    {
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions { Classes = 5 });
        TrainingOptions options = Options() with { Height = 64, Width = 64, WeightDecay = 0.01f };
        BackendTraits traits = new(8, BatchNormTakesSlices: true, BatchNormVariants: true, LossScaling: true);
        Plan sgd = TrainingSession.PlanFor(traits, network, options), lamb = TrainingSession.PlanFor(traits, network, options with { Algorithm = OptimizerAlgorithm.Lamb });

        Assert.True(sgd.Fusions.ContainsKey(Fusion.ParallelConvolution));
        Assert.False(lamb.Fusions.ContainsKey(Fusion.ParallelConvolution));
        AdamUpdate[] updates = [.. lamb.Operations.OfType<AdamUpdate>()];
        Assert.Equal([true, false], updates.Select(o => o.TrustRatio)); // what does not decay takes AdamW's step, as in timm
        Assert.DoesNotContain(updates.SelectMany(o => o.Parameters), p => p.Name.Contains("parallel", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData(OptimizerAlgorithm.AdamW)]
    [InlineData(OptimizerAlgorithm.Lamb)]
    public void Step_IsThatOfTheReference(OptimizerAlgorithm algorithm)
    {
        using Backend backend = Create("onednn"), reference = Create("reference");
        TrainingOptions options = Options() with { Algorithm = algorithm, WeightDecay = 0.05f, ClipNorm = 1, RateFactors = [new("fc", 10)], OptimizerEpsilon = 1e-3f };
        CaseResult result = NetworkVerifier.Step(backend, reference, Tiny, options, "--network inception-tiny");
        Assert.True(result.Passed, result.Describe());
    }

    private static Plan PlanFor(TrainingOptions options) =>
        TrainingSession.PlanFor(new BackendTraits(8, BatchNormTakesSlices: true, BatchNormVariants: true, LossScaling: true), Tiny, options);

    private static Backend Create(string name, ConvolutionAlgorithm algorithm = ConvolutionAlgorithm.Auto) =>
        name == "onednn" ? OneDnn.Create(new BackendOptions { ConvolutionAlgorithm = algorithm }) : Backend.Create(name);

    private static TrainingOptions Options() => new() { Batch = Batch, Height = Size, Width = Size, Seed = 3 };

    private static (byte[] Pixels, int[] Labels) Images(int count)
    {
        var random = new RandomSequence(5, 77);
        byte[] pixels = new byte[count * Size * Size * 3];
        for (int i = 0; i < pixels.Length; i++)
        {
            pixels[i] = (byte)random.NextBelow(256);
        }

        return (pixels, [.. Enumerable.Range(0, count).Select(i => i * 3 % 5)]);
    }

    private static float[] Values(TrainingSession session, Tensor tensor)
    {
        float[] values = new float[tensor.Shape.Count];
        session.Read(tensor, values);
        return values;
    }
}
