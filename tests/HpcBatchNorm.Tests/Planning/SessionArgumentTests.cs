using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;

namespace HpcBatchNorm.Tests.Planning;

/// <summary>What a program gives a session that cannot be: refused by name, before anything is changed.</summary>
public class SessionArgumentTests
{
    private const int Batch = 2, Size = 16, Classes = 5;

    private static readonly TrainingOptions Training = new() { Batch = Batch, Height = Size, Width = Size };
    private static readonly InferenceOptions Inference = new() { Batch = Batch, Height = Size, Width = Size };

    private static Network Network { get; } = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes });

    [Theory]
    [InlineData(0, float.NaN, false, "The learning rate of step 0 is NaN; expected a finite number of 0 or more.")]
    [InlineData(3, -0.1f, false, "The learning rate of step 3 is -0.1;")]
    [InlineData(3, float.PositiveInfinity, true, "The learning rate of step 3 is Infinity;")]
    [InlineData(-1, 0.1f, false, "The step is below 0;")]
    [InlineData(-1, 0.1f, true, "The step is below 0;")]
    public void Step_ThatCannotBe_ThrowsAndLeavesEveryParameter(long step, float learningRate, bool mixed, string expected)
    {
        using Backend backend = Backend.Create("reference");
        using var session = new TrainingSession(backend, Network, Training with { Algorithm = OptimizerAlgorithm.AdamW, Mixup = mixed ? 0.2f : 0 });
        float[][] before = State(session);
        (byte[] pixels, int[] labels) = (new byte[Batch * Size * Size * 3], new int[Batch]);
        var context = new StepContext(step, learningRate);

        ArgumentOutOfRangeException error = Assert.Throws<ArgumentOutOfRangeException>(
            () => mixed ? session.Step(pixels, new MixedLabels(labels, labels, [1, 1]), context) : session.Step(pixels, labels, context));

        Assert.Equal("context", error.ParamName);
        Assert.StartsWith(expected, error.Message, StringComparison.Ordinal);
        Assert.Equal(before, State(session));
    }

    [Theory]
    [InlineData(float.NaN)]
    [InlineData(-0.5f)]
    [InlineData(1.5f)]
    public void Step_MixedByAWeightThatIsNoShare_Throws(float weight)
    {
        using Backend backend = Backend.Create("reference");
        using var session = new TrainingSession(backend, Network, Training with { Mixup = 0.2f });
        float[][] before = State(session);
        int[] labels = [1, 2];
        ArgumentOutOfRangeException error = Assert.Throws<ArgumentOutOfRangeException>(
            () => session.Step(new byte[Batch * Size * Size * 3], new MixedLabels(labels, labels, [1, weight]), new StepContext(0, 0.1f)));
        Assert.StartsWith(FormattableString.Invariant($"The first label of image 1 has the weight {weight};"), error.Message, StringComparison.Ordinal);
        Assert.Equal(before, State(session));
    }

    public static TheoryData<string, TrainingOptions> Options() => new()
    {
        { nameof(TrainingOptions.Mu), Training with { Mu = float.NaN } },
        { nameof(TrainingOptions.Mu), Training with { Mu = -0.9f } },
        { nameof(TrainingOptions.WeightDecay), Training with { WeightDecay = float.NaN } },
        { nameof(TrainingOptions.WeightDecay), Training with { WeightDecay = -1e-4f } },
        { nameof(TrainingOptions.WeightDecay), Training with { WeightDecay = float.PositiveInfinity } },
        { nameof(TrainingOptions.ClipNorm), Training with { ClipNorm = float.NaN } },
        { nameof(TrainingOptions.ClipNorm), Training with { ClipNorm = -1 } },
        { nameof(TrainingOptions.AverageDecay), Training with { AverageDecay = float.NaN } },
        { nameof(TrainingOptions.AverageDecay), Training with { AverageDecay = 1 } },
        { nameof(TrainingOptions.LabelSmoothing), Training with { LabelSmoothing = 1.5f } },
        { nameof(TrainingOptions.BinaryTargetThreshold), Training with { BinaryTargetThreshold = float.NaN } },
        { nameof(TrainingOptions.Mixup), Training with { Mixup = float.NaN } },
        { nameof(TrainingOptions.Cutmix), Training with { Cutmix = -1 } },
        { nameof(TrainingOptions.MixProbability), Training with { MixProbability = 2 } },
        { nameof(TrainingOptions.CutmixShare), Training with { CutmixShare = float.NaN } },
        { nameof(TrainingOptions.LossScale), Training with { LossScale = 0 } },
        { nameof(TrainingOptions.LossScaleGrowth), Training with { LossScaleGrowth = -1 } },
        { nameof(TrainingOptions.GhostBatch), Training with { GhostBatch = -1 } },
        { nameof(PlanOptions.PixelMean), Training with { PixelMean = [1, float.NaN, 1] } },
        { nameof(PlanOptions.PixelDeviation), Training with { PixelDeviation = [0] } },
    };

    [Theory]
    [MemberData(nameof(Options))]
    public void Options_WithANumberThatCannotBe_AreRefusedByName(string name, TrainingOptions options)
    {
        using Backend backend = Backend.Create("reference");
        ArgumentOutOfRangeException error = Assert.Throws<ArgumentOutOfRangeException>(() => new TrainingSession(backend, Network, options));
        Assert.Equal(name, error.ParamName);
        Assert.Contains("; expected ", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void InferenceOptions_WithADeviationOfZero_AreRefused()
    {
        using Backend backend = Backend.Create("reference");
        NetworkState state = NetworkState.Initial(Network.Infer(1, Size, Size), seed: 1);
        Assert.Equal("PixelDeviation", Assert.Throws<ArgumentOutOfRangeException>(() => new ForwardSession(backend, Network, Inference with { PixelDeviation = [1, 0, 1] }, state)).ParamName);
    }

    [Fact]
    public void Null_IsNamed()
    {
        using Backend backend = Backend.Create("reference");
        NetworkState state = NetworkState.Initial(Network.Infer(1, Size, Size), seed: 1);
        using var forward = new ForwardSession(backend, Network, Inference, state);
        float[] values = new float[Batch * Classes];
        (string Name, Action Call)[] calls =
        [
            ("backend", () => _ = new ForwardSession(null!, Network, Inference, state)),
            ("network", () => _ = new ForwardSession(backend, null!, Inference, state)),
            ("options", () => _ = new ForwardSession(backend, Network, null!, state)),
            ("state", () => _ = new ForwardSession(backend, Network, Inference, null!)),
            ("layer", () => forward.Forward(new byte[Batch * Size * Size * 3], null!, values)),
            ("tensor", () => forward.Read(null!, values)),
            ("tensor", () => forward.Write(null!, values)),
            ("backend", () => _ = new TrainingSession(null!, Network, Training)),
            ("network", () => _ = new TrainingSession(backend, null!, Training)),
            ("options", () => _ = new TrainingSession(backend, Network, null!)),
        ];
        Assert.All(calls, call => Assert.Equal(call.Name, Assert.Throws<ArgumentNullException>(call.Call).ParamName));
    }

    private static float[][] State(TrainingSession session) => [.. session.State.Select(entry =>
    {
        float[] values = new float[entry.Tensor.Shape.Count];
        session.Read(entry.Tensor, values);
        return values;
    })];
}
