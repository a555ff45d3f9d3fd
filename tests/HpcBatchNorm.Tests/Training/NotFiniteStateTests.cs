using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

/// <summary>A parameter that is no number is found where it comes in and while it is trained, and named.</summary>
public sealed class NotFiniteStateTests
{
    private const string Parameter = "inception_4a/1x1/bn.scale";

    public static TheoryData<string> Backends => [.. Backend.Probe().Where(p => p.Available && p.Name is "onednn" or "reference").Select(p => p.Name)];

    [Theory]
    [MemberData(nameof(Backends))]
    public void State_WithOneBadValue_IsNamed(string name)
    {
        using Backend backend = Backend.Create(name);
        using TrainingSession session = NewSession(backend);
        Assert.Null(session.FindNotFiniteState());
        foreach (StateTensor entry in session.State)
        {
            float[] values = new float[entry.Tensor.Shape.Count];
            session.Read(entry.Tensor, values);
            float good = values[^1];
            foreach (float bad in new[] { float.NaN, float.NegativeInfinity })
            {
                values[^1] = bad;
                session.Write(entry.Tensor, values);
                Assert.Same(entry, session.FindNotFiniteState());
            }

            values[^1] = good;
            session.Write(entry.Tensor, values);
        }

        Assert.Null(session.FindNotFiniteState());
    }

    [Fact]
    public void ForwardSession_FromAStateWithNaN_NamesTheTensor()
    {
        using Backend backend = Backend.Create(TrainingFixture.Backend);
        using TrainingSession session = NewSession(backend);
        NetworkState state = session.ReadNetworkState();
        Shape shape = session.State.Single(s => s.Tensor.Name == Parameter).Tensor.Shape;
        float[] values = state.Get(Parameter, shape).ToArray();
        values[3] = float.NaN;
        state.Set(Parameter, shape, values);

        UserErrorException error = Assert.Throws<UserErrorException>(
            () => new ForwardSession(backend, session.Plan.Network, new InferenceOptions { Batch = 1, Height = 8, Width = 8 }, state).Dispose());

        Assert.Contains($"'{Parameter}'", error.Message, StringComparison.Ordinal);
        Assert.Contains("number 3, is NaN", error.Message, StringComparison.Ordinal);
    }

    /// <summary>It makes NaN of every answer, though it is a number itself.</summary>
    [Fact]
    public void NegativeVariance_IsRefusedByName()
    {
        using Backend backend = Backend.Create(TrainingFixture.Backend);
        using TrainingSession session = NewSession(backend);
        NetworkState state = session.ReadNetworkState();
        StateTensor variance = session.State.First(s => s.Tensor.Name.EndsWith(".running_variance", StringComparison.Ordinal));
        float[] values = state.Get(variance.Tensor.Name, variance.Tensor.Shape).ToArray();
        values[1] = -0.5f;
        state.Set(variance.Tensor.Name, variance.Tensor.Shape, values);

        UserErrorException error = Assert.Throws<UserErrorException>(
            () => new ForwardSession(backend, session.Plan.Network, new InferenceOptions { Batch = 1, Height = 8, Width = 8 }, state).Dispose());

        Assert.StartsWith($"The tensor '{variance.Tensor.Name}' of the state cannot be used: a variance is never negative, but its value number 1 is -0.5.", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Checkpoint_WithNaN_IsNotRead()
    {
        string path = Path.Combine(Directory.CreateTempSubdirectory("hbn-nan").FullName, "bad.safetensors");
        Tensor tensor = new("fc.weights", Shape.Vector(4), TensorRole.Parameter);
        Checkpoint.Save(path, [tensor], (_, values) => values[2] = float.NaN, new CheckpointInfo { Step = 1, StepsPerEpoch = 1, Model = "m", ClassNames = ["a"], Config = "", ConfigHash = "" });
        using Checkpoint checkpoint = Checkpoint.Open(path);

        UserErrorException error = Assert.Throws<UserErrorException>(() => checkpoint.Read("m", tensor, new float[4]));

        Assert.Equal($"'{path}' cannot be used: of 'fc.weights' 1 of its 4 values are not finite numbers, the first, number 2, is NaN. Use an earlier checkpoint.", error.Message);
    }

    /// <summary>Without an epsilon a channel of equal values has no deviation to divide by: it becomes its shift, folded or not.</summary>
    [Fact]
    public void NoSpreadAndNoEpsilon_GiveTheShift()
    {
        Assert.Equal(0, new BatchNormSpec(new Shape(2, 4, 1, 1), Epsilon: 0).InverseDeviation(0));
        Assert.Equal(0.5, new BatchNormSpec(new Shape(2, 4, 1, 1), Epsilon: 0).InverseDeviation(4));
        (double[] factors, double[] offsets) = new BatchNormLayer(Epsilon: 0).Affine([3f], [7f], [5f], [0f]);
        Assert.Equal((0, 7), (factors[0], offsets[0]));
    }

    [Theory]
    [InlineData(90, 90)]
    [InlineData(0, 0)]
    [InlineData(double.NaN, 0)]
    public void Duration_OfSeconds_IsThat(double seconds, double expected) => Assert.Equal(expected, StepReport.Duration(seconds).TotalSeconds);

    [Theory]
    [InlineData(1e15)]
    [InlineData(double.PositiveInfinity)]
    public void Duration_BeyondAllTime_IsTheLongest(double seconds) => Assert.Equal(TimeSpan.MaxValue, StepReport.Duration(seconds));

    [Theory]
    [InlineData(1, 2)]
    [InlineData(2, 2)]
    [InlineData(8, 4)]
    [InlineData(384, 16)]
    public void LoaderThreads_FollowTheProcessors(int processors, int expected)
    {
        Assert.Equal(expected, RunConfig.DefaultWorkers(processors));
        Assert.Equal(RunConfig.DefaultWorkers(Environment.ProcessorCount), new RunConfig().LoaderThreads);
        Assert.Equal(5, new RunConfig { Workers = 5 }.LoaderThreads);
    }

    [Fact]
    public void Loader_OnAMachineOf384Processors_TakesAThreadForEach()
    {
        (LoaderOptions.ForTraining(32, 224, 1) with { Workers = 384 }).Validate();
        new PackOptions { Workers = 384 }.Validate();
        Assert.Throws<UserErrorException>(() => (LoaderOptions.ForTraining(32, 224, 1) with { Workers = 5000 }).Validate());
    }

    private static TrainingSession NewSession(Backend backend) =>
        new(backend, NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 3 }), new TrainingOptions { Batch = 4, Height = 8, Width = 8, AverageDecay = 0.9f });
}
