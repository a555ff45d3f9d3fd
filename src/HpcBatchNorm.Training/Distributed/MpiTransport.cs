using System.Diagnostics;
using System.Runtime.InteropServices;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Training.Distributed;

/// <summary>
/// Ranks connected by MPI. A thread of its own makes every call of MPI and moves all exchanges on that are under way, so that averages travel while the
/// training thread computes; where nothing moves it sleeps for moments, since on CPUs the cores belong to the computation.
/// </summary>
internal sealed class MpiTransport : ITransport
{
    private const int Yields = 32, LongestPause = 100;

    private readonly object _gate = new();
    private readonly Queue<Exchange> _begun = new();
    private readonly List<Exchange> _active = [];
    private readonly Dictionary<(int Bytes, int Members), Exchange> _gathers = [];
    private readonly Thread _thread;
    private HbnMpiInfo _info = HbnMpiInfo.Empty;
    private Exception? _failure;
    private bool _ready, _stopping;
    private int _nextTag = 1; // 0 is that of gathers, of which one at a time is under way
    private long _busy, _waited;

    /// <summary>Initializes MPI, which waits for all ranks to do so.</summary>
    /// <exception cref="NativeException">MPI does not work here.</exception>
    public MpiTransport()
    {
        _thread = new Thread(Work) { IsBackground = true, Name = "hpcbn ranks" };
        _thread.Start();
        lock (_gate)
        {
            while (!_ready && _failure is null)
            {
                Monitor.Wait(_gate);
            }
        }

        ThrowIfFailed();
        Names = [.. Enumerable.Range(0, Ranks).Select(r => FormattableString.Invariant($"rank {r}"))];
    }

    public int Rank => _info.Rank;

    public int Ranks => _info.Size;

    public int LocalRank => _info.LocalRank;

    public int LocalRanks => _info.LocalSize;

    public string Description => _info.LibraryText;

    public IReadOnlyList<string> Names { get; set; } = [];

    public TimeSpan Timeout { get; set; }

    public (double Busy, double Waited) MeanSeconds => (Seconds(Volatile.Read(ref _busy)), Seconds(Volatile.Read(ref _waited)));

    public ICollectiveMean CreateMean(IReadOnlyList<HostValues> pieces, bool narrow)
    {
        HbnMpiPiece[] native = [.. pieces.Select(p => new HbnMpiPiece(p.Address, p.Count))];
        int type = pieces[0].Type == DataType.Float64 ? MpiApi.Float64 : MpiApi.Float32;
        type += narrow ? MpiApi.AsBFloat16 : 0;
        int tag = _nextTag < MpiApi.Tags ? _nextTag++ : throw new InvalidOperationException("Too many averages were made in one process.");
        MpiApi.ThrowIfFailed(MpiApi.hbn_mpi_average_create(native, native.Length, type, tag, out nint exchange), "averaging over ranks");
        return new Mean(this, new Exchange(exchange) { IsMean = true });
    }

    public void AllGather(ReadOnlySpan<double> mine, Span<double> all, int members)
    {
        ReadOnlySpan<byte> bytes = MemoryMarshal.AsBytes(mine);
        if (!_gathers.TryGetValue((bytes.Length, members), out Exchange? exchange))
        {
            long[] lengths = new long[Ranks];
            Array.Fill(lengths, MpiApi.NoMember);
            Array.Fill(lengths, bytes.Length, Rank / members * members, members);
            _gathers[(bytes.Length, members)] = exchange = CreateGather(lengths, -1);
        }

        Run(exchange, bytes, MemoryMarshal.AsBytes(all));
    }

    public void Gather(ReadOnlySpan<byte> mine, ReadOnlySpan<long> lengths, int root, Span<byte> all)
    {
        using Exchange exchange = CreateGather(lengths, root);
        Run(exchange, mine, all);
    }

    public void Abort(int code) => _ = MpiApi.hbn_mpi_abort(code); // what fails in ending has nobody to tell

    public void Dispose()
    {
        lock (_gate)
        {
            _stopping = true;
            Monitor.PulseAll(_gate);
        }

        // Where something has failed the ranks are not in step any more, and MPI's end would wait for them for ever.
        if (_failure is null)
        {
            _thread.Join();
        }

        foreach (Exchange exchange in _gathers.Values)
        {
            exchange.Dispose();
        }

        _gathers.Clear();
    }

    private Exchange CreateGather(ReadOnlySpan<long> lengths, int root)
    {
        MpiApi.ThrowIfFailed(MpiApi.hbn_mpi_gather_create(lengths, root, 0, out nint exchange), "gathering from ranks");
        long all = 0;
        foreach (long length in lengths)
        {
            all += Math.Max(0, length);
        }

        // Never empty, so that they have addresses.
        return new Exchange(exchange)
        {
            Mine = GC.AllocateUninitializedArray<byte>((int)Math.Max(1, lengths[Rank]), pinned: true),
            All = root < 0 || root == Rank ? GC.AllocateUninitializedArray<byte>(checked((int)Math.Max(1, all)), pinned: true) : [],
        };
    }

    private static nint AddressOf(byte[] pinned) => pinned.Length == 0 ? 0 : Marshal.UnsafeAddrOfPinnedArrayElement(pinned, 0);

    private static double Seconds(long ticks) => ticks / (double)Stopwatch.Frequency;

    private void Run(Exchange exchange, ReadOnlySpan<byte> mine, Span<byte> all)
    {
        mine.CopyTo(exchange.Mine);
        Begin(exchange);
        Wait(exchange);
        exchange.All.AsSpan(0, all.Length).CopyTo(all);
    }

    private void Begin(Exchange exchange)
    {
        lock (_gate)
        {
            ThrowIfFailed();
            exchange.Done = false;
            exchange.Since = Stopwatch.GetTimestamp();
            _begun.Enqueue(exchange);
            Monitor.PulseAll(_gate);
        }
    }

    private void Wait(Exchange exchange)
    {
        lock (_gate)
        {
            while (!exchange.Done)
            {
                ThrowIfFailed();
                Monitor.Wait(_gate);
            }
        }
    }

    private void ThrowIfFailed()
    {
        if (_failure is UserErrorException lost)
        {
            throw new UserErrorException(lost.Message, lost);
        }

        if (_failure is not null)
        {
            throw new InvalidOperationException($"MPI does not work any more: {_failure.Message}", _failure);
        }
    }

    private void Work()
    {
        try
        {
            MpiApi.ThrowIfFailed(MpiApi.hbn_mpi_init(ref _info), "initializing MPI");
            lock (_gate)
            {
                _ready = true;
                Monitor.PulseAll(_gate);
            }

            int idle = 0;
            long last = 0;
            while (Take())
            {
                bool averages = _active.Exists(e => e.IsMean);
                idle = Progress() ? 0 : idle + 1;
                long now = Stopwatch.GetTimestamp();
                if (averages)
                {
                    _busy += last == 0 ? 0 : now - last;
                }

                // Where nothing is left the next turn begins with a wait that is nobody's.
                last = _active.Count > 0 ? now : 0;
                if (idle > 0 && _active.Count > 0)
                {
                    ThrowIfOverdue(now);
                    MpiApi.hbn_mpi_pause(idle <= Yields ? 0 : Math.Min(LongestPause, idle - Yields));
                }
                else if (_active.Count == 0)
                {
                    idle = 0;
                }
            }

            MpiApi.ThrowIfFailed(MpiApi.hbn_mpi_finalize(), "finalizing MPI");
        }
        catch (Exception error)
        {
            // Whatever it is, it belongs to who waits.
            lock (_gate)
            {
                _failure = error;
                Monitor.PulseAll(_gate);
            }
        }
    }

    /// <summary>Starts what has been begun, after waiting for something to do; false when the end is asked for and nothing is left.</summary>
    private bool Take()
    {
        lock (_gate)
        {
            while (_begun.Count == 0 && _active.Count == 0 && !_stopping)
            {
                Monitor.Wait(_gate);
            }

            while (_begun.TryDequeue(out Exchange? exchange))
            {
                MpiApi.ThrowIfFailed(MpiApi.hbn_mpi_start(exchange.Native, AddressOf(exchange.Mine), AddressOf(exchange.All)), "speaking to other ranks");
                _active.Add(exchange);
            }

            return _active.Count > 0 || !_stopping;
        }
    }

    private bool Progress()
    {
        bool any = false;
        for (int i = _active.Count - 1; i >= 0; i--)
        {
            Exchange exchange = _active[i];
            MpiApi.ThrowIfFailed(MpiApi.hbn_mpi_progress(exchange.Native, out int done), "speaking to other ranks");
            if (done != 0)
            {
                any = true;
                _active.RemoveAt(i);
                lock (_gate)
                {
                    exchange.Done = true;
                    Monitor.PulseAll(_gate);
                }
            }
        }

        return any;
    }

    private void ThrowIfOverdue(long now)
    {
        if (Timeout <= TimeSpan.Zero)
        {
            return;
        }

        foreach (Exchange exchange in _active)
        {
            if (Stopwatch.GetElapsedTime(exchange.Since, now) > Timeout)
            {
                int[] waiting = new int[Ranks];
                MpiApi.ThrowIfFailed(MpiApi.hbn_mpi_waiting_for(exchange.Native, waiting), "looking for the rank that does not answer");
                List<string> silent = [];
                for (int r = 0; r < Ranks; r++)
                {
                    if (waiting[r] != 0)
                    {
                        silent.Add(Names[r]);
                    }
                }

                throw new UserErrorException(FormattableString.Invariant(
                    $"{string.Join(" and ", silent)} {(silent.Count == 1 ? "has" : "have")} not answered {Names[Rank]} for {Timeout.TotalSeconds:0.#} s (rank-timeout): stopped, hanging, dead, or cut off from the network."));
            }
        }
    }

    /// <summary>An exchange of the native library, and where it stands.</summary>
    private sealed class Exchange(nint native) : IDisposable
    {
        public nint Native { get; private set; } = native;

        /// <summary>What a gather gives; pinned.</summary>
        public byte[] Mine { get; init; } = [];

        /// <summary>What it receives; pinned.</summary>
        public byte[] All { get; init; } = [];

        public bool IsMean { get; init; }

        /// <summary>Under the gate.</summary>
        public bool Done { get; set; }

        public long Since { get; set; }

        public void Dispose()
        {
            MpiApi.hbn_mpi_destroy(Native);
            Native = 0;
        }
    }

    private sealed class Mean(MpiTransport transport, Exchange exchange) : ICollectiveMean
    {
        private bool _started;

        public void Start()
        {
            _started = true;
            transport.Begin(exchange);
        }

        public void Wait()
        {
            long start = Stopwatch.GetTimestamp();
            transport.Wait(exchange);
            _started = false;
            transport._waited += Stopwatch.GetTimestamp() - start;
        }

        public void Dispose()
        {
            // After a failure MPI may still be writing to the exchange; the process ends soon.
            if (!_started)
            {
                exchange.Dispose();
            }
        }
    }
}
