using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Tests.Distributed;

/// <summary>R ranks with batches of B make the steps of one process with a batch of R*B: the truth is the session without ranks.</summary>
public class RankSessionTests
{
    private const int Batch = 4, Steps = 10, Size = 8;
    private const float Rate = 0.01f;

    public static TheoryData<string> Backends => [.. Backend.Probe().Where(p => p.Available && p.Name != "cudnn").Select(p => p.Name)];

    public static TheoryData<string, int, int> Cases
    {
        get
        {
            TheoryData<string, int, int> cases = [];
            foreach (var (name, ranks, accumulate) in Backend.Probe().Where(p => p.Available && p.Name != "cudnn").SelectMany(p => p.Name == "reference" ? new[] { (p.Name, 2, 3) } : [(p.Name, 3, 1), (p.Name, 2, 3)]))
            {
                cases.Add(name, ranks, accumulate);
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void WithoutBatchNorm_EqualsOneProcessWithTheWholeBatch(string backend, int ranks, int accumulate)
    {
        TrainingOptions options = Options(accumulate) with { ClipNorm = 1, AverageDecay = 0.5f };
        AssertClose(
            Train(backend, Network(batchNorm: false), options with { Batch = ranks * Batch }, 1, Communicator.Alone),
            TrainRanks(backend, Network(batchNorm: false), options, ranks), 1e-5, momenta: backend == "reference");
    }

    /// <summary>Running statistics differ by definition: groups of one process update them one after the other, ranks at once.</summary>
    [Theory]
    [MemberData(nameof(Cases))]
    public void WithBatchNorm_EqualsOneProcessWithGhostBatches(string backend, int ranks, int accumulate)
    {
        TrainingOptions options = Options(accumulate);
        AssertClose(
            Train(backend, Network(batchNorm: true), options with { Batch = ranks * Batch, GhostBatch = Batch }, 1, Communicator.Alone),
            TrainRanks(backend, Network(batchNorm: true), options, ranks), 1e-5, name => !name.Contains("running", StringComparison.Ordinal), momenta: backend == "reference");
    }

    /// <summary>
    /// Running statistics too: they are those of the joined batches. Where sums are made in single precision, they may lie four times as far apart as
    /// the same process lies from itself when it has the images of a batch in another order: the largest of three orders, for one alone may happen to move little.
    /// </summary>
    [Theory]
    [MemberData(nameof(Cases))]
    public void WithSyncBatchNorm_EqualsOneProcessWithTheWholeBatch(string backend, int ranks, int accumulate)
    {
        TrainingOptions options = Options(accumulate) with { SyncBatchNorm = true, RecomputeBatchNorm = true }, whole = options with { Batch = ranks * Batch };
        Dictionary<string, float[]> alone = Train(backend, Network(batchNorm: true), whole, 1, Communicator.Alone), joined = TrainRanks(backend, Network(batchNorm: true), options, ranks);
        double moved = 0;
        for (int turned = 1; turned <= (backend == "reference" ? 0 : 3); turned++)
        {
            Dictionary<string, float[]> other = Train(backend, Network(batchNorm: true), whole, 1, Communicator.Alone, turned: turned);
            moved = new[] { moved, Distance(alone, other, "running_mean"), Distance(alone, other, "running_variance") }.Max();
        }

        static bool IsRunning(string name) => name.Contains("running", StringComparison.Ordinal);
        AssertClose(alone, joined, 1e-5, name => !IsRunning(name), momenta: backend == "reference");
        AssertClose(alone, joined, Math.Clamp(4 * moved, 1e-5, 1e-4), IsRunning);
    }

    /// <summary>
    /// Gradients that travel as bfloat16: after one step momenta are gradients, rounded twice to 8 bits, each time by half a unit of at most 2^-8 of the value. Statistics and the
    /// loss travel as they are.
    /// </summary>
    [Theory]
    [MemberData(nameof(Backends))]
    public void NarrowGradients_AreRoundedTwice_AndNothingElseIs(string backend)
    {
        TrainingOptions options = Options(1);
        Dictionary<string, float[]> wide = ThreadRanks.Run(2, c => Train(backend, Network(batchNorm: true), options, 2, c, steps: 1))[0];
        Dictionary<string, float[]>[] narrow = ThreadRanks.Run(2, c => Train(backend, Network(batchNorm: true), options with { NarrowGradients = true }, 2, c, steps: 1));
        Assert.InRange(Distance(wide, narrow[0], "momentum"), 1e-4, 1.0 / (1 << 8));
        Assert.All(wide.Keys.Where(n => n.Contains("running", StringComparison.Ordinal)), n => Assert.Equal(wide[n], narrow[0][n]));
        Assert.All(narrow[0], t => Assert.Equal(t.Value, narrow[1][t.Key]));
    }

    /// <summary>
    /// Why momenta are compared in double only: in single they differ by some parts in a thousand, with batches of 4 images. That is the rounding of statistics of a few values,
    /// and no mistake of the ranks: the same process that has the images of each batch in another order ends as far away.
    /// </summary>
    [Fact]
    public void MomentaInSingle_DifferByNoMoreThanAnotherOrderOfTheImagesMoves()
    {
        const string Backend = "onednn";
        Assert.SkipUnless(Backends.Any(b => b.Data == Backend), "the backend onednn cannot be used here");
        TrainingOptions options = Options(1), whole = options with { Batch = 3 * Batch, GhostBatch = Batch };
        Dictionary<string, float[]> alone = Train(Backend, Network(batchNorm: true), whole, 1, Communicator.Alone);
        Dictionary<string, float[]> other = Train(Backend, Network(batchNorm: true), whole, 1, Communicator.Alone, turned: 1);
        Dictionary<string, float[]> ranks = TrainRanks(Backend, Network(batchNorm: true), options, 3);
        double moved = Distance(alone, other, "momentum"), apart = Distance(alone, ranks, "momentum");
        Assert.True(moved > 1e-5, FormattableString.Invariant($"momenta move by {moved:g3} only: compare them with that tolerance"));
        Assert.True(apart <= 4 * moved, FormattableString.Invariant($"momenta are {apart:g3} apart, another order of the images moves them by {moved:g3}"));
    }

    /// <summary>Four ranks in groups of two: those of one process with ghost batches of two ranks' images. Running statistics differ as with ghost batches, and are the same on all.</summary>
    [Theory]
    [MemberData(nameof(Backends))]
    public void WithSyncBatchNormOfGroups_EqualsOneProcessWithGhostBatches(string backend)
    {
        TrainingOptions options = Options(1) with { Batch = 2, SyncBatchNorm = true, SyncBatchNormRanks = 2 };
        Dictionary<string, float[]>[] ranks = ThreadRanks.Run(4, c => Train(backend, Network(batchNorm: true), options, 4, c, steps: 2));
        AssertClose(
            Train(backend, Network(batchNorm: true), options with { Batch = 8, GhostBatch = 4, SyncBatchNorm = false, SyncBatchNormRanks = 0 }, 1, Communicator.Alone, steps: 2),
            ranks[0], 1e-5, name => !name.Contains("running", StringComparison.Ordinal), momenta: backend == "reference");
        Assert.All(ranks[0], t => Assert.Equal(t.Value, ranks[3][t.Key]));
    }

    /// <summary>The mean over ranks of each rank's running statistics, of one step from 0 and 1 with the factor f: f times the mean of the batches' statistics.</summary>
    [Theory]
    [MemberData(nameof(Backends))]
    public void RunningStatistics_AreTheMeanOverRanks_AndStateIsTheSameOnAll(string backend)
    {
        Dictionary<string, float[]>[] alone = [.. Enumerable.Range(0, 2).Select(r => Train(backend, Network(batchNorm: true), Options(1), 1, Communicator.Alone, part: r, parts: 2, steps: 1))];
        Dictionary<string, float[]>[] together = ThreadRanks.Run(2, c => Train(backend, Network(batchNorm: true), Options(1), 2, c, steps: 1));

        Assert.All(together[0], t => Assert.Equal(t.Value, together[1][t.Key]));
        string[] names = [.. together[0].Keys.Where(n => n.Contains("running", StringComparison.Ordinal))];
        Assert.NotEmpty(names);
        Assert.All(names, n => Assert.All(together[0][n].Select((v, i) => (v, i)), x => Assert.Equal((alone[0][n][x.i] + alone[1][n][x.i]) / 2, x.v, 1e-6)));
        Assert.NotEqual(alone[0][names[0]], alone[1][names[0]]);
    }

    [Theory]
    [MemberData(nameof(Backends))]
    public void LossThatIsNotFiniteOnOneRank_IsSoOnAll_AndNobodyUpdates(string backend)
    {
        (float Loss, bool Same)[] results = ThreadRanks.Run(2, c =>
        {
            using Backend one = Backend.Create(backend, new BackendOptions { Threads = 1 });
            one.Collectives = c.Collectives;
            using var session = new TrainingSession(one, Network(batchNorm: false), Options(1) with { Ranks = 2, Rank = c.Rank });
            StateTensor last = session.State.Last(s => s.Tensor.Role == TensorRole.Parameter);
            float[] weights = new float[last.Tensor.Shape.Count];
            session.Read(last.Tensor, weights);
            if (c.Rank == 1)
            {
                session.Write(last.Tensor, Array.ConvertAll(weights, _ => float.PositiveInfinity));
            }

            NetworkState before = session.ReadNetworkState();
            float loss = session.Step(Pixels(0, Batch, 0, 0), Labels(0, Batch, 0, 0), new StepContext(0, 0.1f));
            NetworkState after = session.ReadNetworkState();
            StateTensor first = session.State[0];
            return (loss, before.Get(first.Source.Name, first.Tensor.Shape).SequenceEqual(after.Get(first.Source.Name, first.Tensor.Shape)));
        });

        Assert.All(results, r => Assert.False(float.IsFinite(r.Loss)));
        Assert.All(results, r => Assert.True(r.Same));
    }

    [Fact]
    public void Plan_SendsGradientsDuringTheBackwardPass_AndWaitsBeforeTheUpdate()
    {
        using Backend reference = Backend.Create("reference");
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions { Classes = 1000 });
        Plan plan = TrainingSession.PlanFor(reference.Traits, network, new TrainingOptions { Batch = 2, Height = 64, Width = 64, Ranks = 2 });

        int[] starts = [.. Positions<AllReduceStart>(plan)], finishes = [.. Positions<AllReduceFinish>(plan)];
        int lastBackward = Positions<ConvolutionBackwardWeights>(plan).Max();
        Assert.InRange(starts.Length, 4, 20);
        Assert.Equal(starts.Length, finishes.Length);
        Assert.True(starts[0] < lastBackward / 1.5, "The first bucket leaves in the first half of the backward pass.");
        Assert.All(finishes, f => Assert.InRange(f, lastBackward, plan.UpdateStart - 1));
        Assert.Single(starts, s => s > lastBackward);

        // Every gradient once, every running statistic once, and the loss.
        Tensor[] sent = [.. plan.Operations.OfType<AllReduceStart>().SelectMany(s => s.Tensors)];
        Assert.Equal(sent.Length, sent.Distinct().Count());
        Tensor[] updated = [.. plan.Operations.OfType<SgdUpdate>().SelectMany(s => s.Gradients)];
        Assert.Equal(updated.ToHashSet(), sent.Where(t => t.Role == TensorRole.ParameterGradient).ToHashSet());
        Assert.Equal(plan.State.Count(s => s.Tensor.Role == TensorRole.RunningStatistic), sent.Count(t => t.Role == TensorRole.RunningStatistic));
        Assert.Contains(plan.Loss!, sent);
    }

    [Fact]
    public void Plan_OfOneRank_HasNothingOfIt()
    {
        using Backend reference = Backend.Create("reference");
        Plan plan = TrainingSession.PlanFor(reference.Traits, Network(batchNorm: true), Options(2));
        Assert.DoesNotContain(plan.Operations, o => o is AllReduceStart or AllReduceFinish);
    }

    /// <summary>Without ReLU, whose flips would make differences of rounding visible ones.</summary>
    internal static Network Network(bool batchNorm) =>
        NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10, BatchNorm = batchNorm, Dropout = 0, Activation = ActivationKind.Sigmoid });

    internal static TrainingOptions Options(int accumulate) =>
        new() { Batch = Batch, Height = Size, Width = Size, Accumulate = accumulate, WeightDecay = 1e-4f, Seed = 3 };

    internal static Dictionary<string, float[]> TrainRanks(string backend, Network network, TrainingOptions options, int ranks) =>
        ThreadRanks.Run(ranks, c => Train(backend, network, options, ranks, c))[0];

    /// <summary>
    /// Ten steps; the images of a step lie so that rank r's passes are the r-th group of each of the one process's passes. Each group of <see cref="Batch"/> images
    /// is turned by that many places: another order of the same sums.
    /// </summary>
    private static Dictionary<string, float[]> Train(
        string name, Network network, TrainingOptions options, int ranks, Communicator communicator, int part = -1, int parts = 1, int steps = 0, int turned = 0)
    {
        steps = steps > 0 ? steps : name == "reference" ? 2 : Steps; // double precision needs no ten to show a mistake, and has no time for them
        using Backend backend = Backend.Create(name, new BackendOptions { Threads = 1 });
        backend.Collectives = communicator.Collectives;
        using var session = new TrainingSession(backend, network, options with { Ranks = ranks, Rank = communicator.Rank });
        int groups = ranks > 1 ? ranks : parts, group = part >= 0 ? part : communicator.Rank, width = options.Batch;
        for (int step = 0; step < steps; step++)
        {
            byte[] pixels = [];
            int[] labels = [];
            for (int k = 0; k < options.Accumulate; k++)
            {
                int first = (k * groups + group) * width;
                pixels = [.. pixels, .. Pixels(step, width, first, turned)];
                labels = [.. labels, .. Labels(step, width, first, turned)];
            }

            session.Step(pixels, labels, new StepContext(step, Rate));
        }

        return session.State.ToDictionary(s => s.Tensor.Name, s =>
        {
            float[] values = new float[s.Tensor.Shape.Count];
            session.Read(s.Tensor, values);
            return values;
        });
    }

    private static byte[] Pixels(int step, int count, int first, int turned) => [.. Images(count, first, turned).SelectMany(i =>
    {
        byte[] image = new byte[Size * Size * 3];
        new Random(1000 * step + i).NextBytes(image);
        return image;
    })];

    private static int[] Labels(int step, int count, int first, int turned) => [.. Images(count, first, turned).Select(i => (7 * i + step) % 10)];

    private static IEnumerable<int> Images(int count, int first, int turned) => Enumerable.Range(first, count).Select(i => i / Batch * Batch + (i + turned) % Batch);

    private static IEnumerable<int> Positions<T>(Plan plan) => plan.Operations.Select((o, i) => (o, i)).Where(x => x.o is T).Select(x => x.i);

    /// <summary>The length of the difference over the length of what is expected, of all tensors of a kind together.</summary>
    private static double Distance(Dictionary<string, float[]> expected, Dictionary<string, float[]> actual, string kind)
    {
        IEnumerable<KeyValuePair<string, float[]>> tensors = expected.Where(e => e.Key.EndsWith(kind, StringComparison.Ordinal));
        double length = Math.Sqrt(tensors.Sum(t => t.Value.Sum(v => (double)v * v)));
        return Math.Sqrt(tensors.Sum(t => t.Value.Zip(actual[t.Key], (x, y) => ((double)x - y) * ((double)x - y)).Sum())) / length;
    }

    /// <summary>
    /// The length of the difference over the length of what is expected, of all parameters together, all running statistics and so on. Momenta are gradients alone, which
    /// statistics of a few values make sensitive to rounding (<see cref="MomentaInSingle_DifferByNoMoreThanAnotherOrderOfTheImagesMoves"/>): those of the reference
    /// count, in double.
    /// </summary>
    internal static void AssertClose(Dictionary<string, float[]> expected, Dictionary<string, float[]> actual, double relative, Func<string, bool>? only = null, bool momenta = false)
    {
        foreach (var kind in expected.Where(e => only?.Invoke(e.Key) ?? true).GroupBy(e => new[] { "momentum", "average", "running_mean", "running_variance" }.FirstOrDefault(e.Key.EndsWith) ?? "parameter").Where(k => momenta || k.Key != "momentum"))
        {
            double length = Math.Sqrt(kind.Sum(t => t.Value.Sum(v => (double)v * v)));
            double difference = Math.Sqrt(kind.Sum(t => t.Value.Zip(actual[t.Key], (x, y) => ((double)x - y) * ((double)x - y)).Sum()));
            Assert.True(difference <= relative * length, FormattableString.Invariant($"{kind.Key}: {difference:g3} of {length:g3}"));
        }
    }
}
