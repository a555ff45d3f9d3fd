using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

public sealed class DivergenceTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    private const int Batch = 4, Side = 8, Classes = 3;

    [Theory]
    [InlineData("inception_3b/double3x3a/conv.weights", float.PositiveInfinity, "inception_3b/double3x3a/conv", true)]
    [InlineData("inception_4a/1x1/bn.scale", float.NaN, "inception_4a/1x1/bn", true)]
    [InlineData("fc.weights", 3e38f, "fc", false)]
    public void Step_OneParameterPoisoned_LearnsNothingAndNamesItsLayer(string parameter, float value, string layer, bool broken)
    {
        using Backend backend = Backend.Create(TrainingFixture.Backend);
        using TrainingSession session = NewSession(backend);
        Tensor poisoned = session.State.Single(s => s.Tensor.Name == parameter).Tensor;
        float[] values = new float[poisoned.Shape.Count];
        session.Read(poisoned, values);
        values.AsSpan(0, broken ? 1 : values.Length).Fill(value);
        session.Write(poisoned, values);
        Dictionary<string, float[]> before = Learned(session);

        float loss = session.Step(Pixels(), [0, 1, 2, 0], new StepContext(0, 0.1f));
        NotFiniteOutput? found = session.FindNotFinite();

        Assert.False(float.IsFinite(loss));
        Assert.Equal(layer, found?.Layer);
        Assert.Equal(broken ? parameter : null, found!.BrokenParameter);
        Assert.InRange(found.Count, 1, found.Tensor.Shape.Count);
        Assert.All(Learned(session), tensor => Assert.Equal(before[tensor.Key], tensor.Value));
    }

    [Fact]
    public void FindNotFinite_AllFinite_IsNull()
    {
        using Backend backend = Backend.Create(TrainingFixture.Backend);
        using TrainingSession session = NewSession(backend);

        Assert.True(float.IsFinite(session.Step(Pixels(), [0, 1, 2, 0], new StepContext(0, 0.1f))));
        Assert.Null(session.FindNotFinite());
    }

    [Theory]
    [InlineData("false")]
    [InlineData("true")]
    public void Run_LearningRateOfABillion_NamesTheLayerAndKeepsOnlyGoodCheckpoints(string batchNorm)
    {
        string output = fixture.NewFolder();
        using var observer = new RecordingObserver();

        TrainingResult result = TrainingFixture.Run(
            new TrainingRequest
            {
                Recipe = "quick",
                Flags = fixture.Flags(output, ("steps", "60"), ("batch-norm", batchNorm), ("learning-rate", "1e9"), ("checkpoint-every", "1"), ("eval-every", "0"), ("keep", "60")),
            },
            observer);

        Assert.Equal(TrainingOutcome.LossNotFinite, result.Outcome);
        Assert.NotNull(result.Divergence);
        Assert.InRange(result.Divergence.Step, 2, 59);
        Assert.Contains(NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes, BatchNorm = batchNorm == "true" }).Nodes, n => n.Name == result.Divergence.Layer);
        Assert.Contains("not finite", result.Divergence.Description, StringComparison.Ordinal);
        string[] checkpoints = [.. Directory.GetFiles(Path.Combine(output, "checkpoints")).Order(StringComparer.Ordinal)];
        Assert.Equal(checkpoints[^1], Path.GetFullPath(result.Checkpoint));
        Assert.All(checkpoints, path => Assert.All(TrainingFixture.Tensors(path), t => Assert.All(t.Value, v => Assert.True(float.IsFinite(v), t.Key))));
    }

    private static TrainingSession NewSession(Backend backend) =>
        new(backend, NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = Classes }), new TrainingOptions { Batch = Batch, Height = Side, Width = Side });

    private static byte[] Pixels()
    {
        byte[] pixels = new byte[Batch * Side * Side * 3];
        new Random(1).NextBytes(pixels);
        return pixels;
    }

    private static Dictionary<string, float[]> Learned(TrainingSession session) => session.State
        .Where(s => s.Tensor.Role != TensorRole.RunningStatistic)
        .ToDictionary(s => s.Tensor.Name, s =>
        {
            float[] values = new float[s.Tensor.Shape.Count];
            session.Read(s.Tensor, values);
            return values;
        });
}
