using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Cudnn;
using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Models;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;

namespace HpcBatchNorm.Tests.Cudnn;

/// <content>Averages over ranks: a plan for two ranks on a communicator of one, over which a mean changes nothing.</content>
public abstract partial class CudnnTests
{
    private const int RankedSize = 8;

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void AveragesOfOneRank_GiveTheBitsOfNone_AlsoInARecording(bool recorded)
    {
        string folder = Directory.CreateTempSubdirectory("hbn-tuning").FullName;
        var options = new BackendOptions { TuningFile = Path.Combine(folder, "algorithms.json"), RecordSteps = recorded };
        float[] expected = StepsOfRanks(options, ranks: 1, out _);
        float[] actual = StepsOfRanks(options, ranks: 2, out string description);
        Directory.Delete(folder, recursive: true);
        Assert.Equal(expected, actual);
        Assert.Equal(recorded, description.Contains("one CUDA graph", StringComparison.Ordinal));
        AssertClean();
    }

    /// <summary>The losses of six steps and the state after them.</summary>
    private protected float[] StepsOfRanks(BackendOptions options, int ranks, out string description, float rate = 0.05f)
    {
        using Backend backend = Create(options);
        Assert.SkipUnless(LibrariesOf(backend).Nccl.Usable, $"{LibrariesOf(backend).Nccl}");
        backend.Collectives = new OneRank();
        using TrainingSession session = RankedSession(backend, Small with { Ranks = ranks }, batchNorm: true);
        List<float> values = [];
        for (int step = 0; step < 6; step++)
        {
            values.Add(StepOf(session, step, rate));
        }

        foreach (StateTensor state in session.State)
        {
            float[] tensor = new float[state.Tensor.Shape.Count];
            session.Read(state.Tensor, tensor);
            values.AddRange(tensor);
        }

        description = session.Recorded?.Description ?? "";
        return [.. values];
    }

    /// <summary>A session of layers that take a stand-in no time.</summary>
    private protected static TrainingSession RankedSession(Backend backend, TrainingOptions options, bool batchNorm) => new(
        backend, NetworkCatalog.Create("mnist-mlp", new NetworkOptions { Classes = 10, HiddenLayers = 2, HiddenUnits = 16, BatchNorm = batchNorm, Dropout = 0 }),
        options with { Height = RankedSize, Width = RankedSize });

    private protected static float StepOf(TrainingSession session, int step, float rate)
    {
        byte[] pixels = new byte[4 * RankedSize * RankedSize];
        new Random(step).NextBytes(pixels);
        return session.Step(pixels, [1, 2, 3, step % 10], new StepContext(step, rate));
    }

    private protected static CudaLibraries LibrariesOf(Backend backend) => ((CudnnBackend)backend).Libraries!;

    /// <summary>A process that is connected to no others.</summary>
    private protected sealed class OneRank : ICollectives
    {
        public int Rank => 0;

        public int Ranks => 1;

        public ICollectiveMean CreateMean(IReadOnlyList<HostValues> pieces, bool narrow) => throw new NotSupportedException("Tensors of a GPU are averaged there.");

        public void AllGather(ReadOnlySpan<double> mine, Span<double> all, int members) => mine.CopyTo(all);
    }
}
