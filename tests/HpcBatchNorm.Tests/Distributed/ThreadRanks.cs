using System.Runtime.ExceptionServices;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Tests.Distributed;

/// <summary>Ranks that are threads of this process: what is planned for several ranks and how they agree, without MPI.</summary>
internal sealed class ThreadRanks : IDisposable
{
    private readonly Barrier _barrier;
    private readonly object?[] _given;

    private ThreadRanks(int ranks)
    {
        _barrier = new Barrier(ranks);
        _given = new object?[ranks];
    }

    /// <summary>Runs a body on every rank and returns what each returned; the first error of any is thrown.</summary>
    public static T[] Run<T>(int ranks, Func<Communicator, T> body)
    {
        using var shared = new ThreadRanks(ranks);
        var results = new T[ranks];
        var errors = new Exception?[ranks];
        Thread[] threads = [.. Enumerable.Range(0, ranks).Select(r => new Thread(() =>
        {
            try
            {
                using var communicator = new Communicator(new Transport(shared, r, ranks));
                results[r] = body(communicator);
            }
            catch (Exception error)
            {
                errors[r] = error;
                shared._barrier.RemoveParticipant(); // so that the others do not wait for it
            }
        }))];
        Array.ForEach(threads, t => t.Start());
        foreach (Thread thread in threads)
        {
            Assert.True(thread.Join(TimeSpan.FromSeconds(120)), "The ranks wait for one another for ever.");
        }

        Exception? first = errors.FirstOrDefault(e => e is not null and not BarrierPostPhaseException);
        if (first is not null)
        {
            ExceptionDispatchInfo.Throw(first);
        }

        return results;
    }

    public void Dispose() => _barrier.Dispose();

    /// <summary>What all ranks give, by rank.</summary>
    private object?[] Share(int rank, object mine)
    {
        _given[rank] = mine;
        _barrier.SignalAndWait(TimeSpan.FromSeconds(60));
        object?[] all = [.. _given];
        _barrier.SignalAndWait(TimeSpan.FromSeconds(60));
        return all;
    }

    private sealed class Transport(ThreadRanks shared, int rank, int ranks) : ITransport
    {
        public int Rank => rank;

        public int Ranks => ranks;

        public int LocalRank => rank;

        public int LocalRanks => ranks;

        public string Description => "threads";

        public IReadOnlyList<string> Names { get; set; } = [];

        public TimeSpan Timeout { get; set; }

        public (double Busy, double Waited) MeanSeconds => default;

        public ICollectiveMean CreateMean(IReadOnlyList<HostValues> pieces, bool narrow) => new Mean(shared, rank, ranks, pieces, narrow ? DataType.BFloat16 : DataType.Float64);

        public void AllGather(ReadOnlySpan<double> mine, Span<double> all, int members)
        {
            object?[] parts = shared.Share(rank, mine.ToArray());
            for (int r = 0; r < members; r++)
            {
                ((double[])parts[rank / members * members + r]!).CopyTo(all[(r * mine.Length)..]);
            }
        }

        public void Gather(ReadOnlySpan<byte> mine, ReadOnlySpan<long> lengths, int root, Span<byte> all)
        {
            object?[] parts = shared.Share(rank, mine.ToArray());
            int at = 0;
            for (int r = 0; r < ranks; r++)
            {
                Assert.Equal(lengths[r], ((byte[])parts[r]!).Length);
                if (root < 0 || root == rank)
                {
                    ((byte[])parts[r]!).CopyTo(all[at..]);
                    at += (int)lengths[r];
                }
            }
        }

        public void Abort(int code) => throw new InvalidOperationException($"aborted with {code}");

        public void Dispose()
        {
        }
    }

    /// <summary>Everything happens in <see cref="Wait"/>, so that what should not touch the values before would show.</summary>
    private sealed class Mean(ThreadRanks shared, int rank, int ranks, IReadOnlyList<HostValues> pieces, DataType wire) : ICollectiveMean
    {
        private double[]? _mine;

        public void Start() => _mine = [.. pieces.SelectMany(Read).Select(v => wire.Round(v))];

        public void Wait()
        {
            object?[] all = shared.Share(rank, _mine!);
            double[] mean = [.. Enumerable.Range(0, _mine!.Length).Select(i => Enumerable.Range(0, ranks).Sum(r => ((double[])all[r]!)[i]) / ranks).Select(v => wire.Round(v))];
            int at = 0;
            foreach (HostValues piece in pieces)
            {
                Write(piece, mean.AsSpan(at, (int)piece.Count));
                at += (int)piece.Count;
            }
        }

        public void Dispose()
        {
        }

        private static double[] Read(HostValues piece) => piece.Type == DataType.Float64
            ? AlignedMemory.AsSpan<double>(piece.Address, (int)piece.Count).ToArray()
            : Array.ConvertAll(AlignedMemory.AsSpan<float>(piece.Address, (int)piece.Count).ToArray(), v => (double)v);

        private static void Write(HostValues piece, ReadOnlySpan<double> values)
        {
            if (piece.Type == DataType.Float64)
            {
                values.CopyTo(AlignedMemory.AsSpan<double>(piece.Address, (int)piece.Count));
                return;
            }

            Span<float> to = AlignedMemory.AsSpan<float>(piece.Address, (int)piece.Count);
            for (int i = 0; i < to.Length; i++)
            {
                to[i] = (float)values[i];
            }
        }
    }
}
