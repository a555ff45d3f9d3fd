using System.Runtime.InteropServices;
using System.Text;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Training.Distributed;

/// <summary>
/// The processes ("ranks") that train one network together, as <c>mpirun</c> or <c>srun</c> started them; <see cref="Join()"/> makes it. A process that was started alone
/// has <see cref="Alone"/>, which costs nothing and loads nothing. Every rank makes the same calls in the same order, from one thread; a call waits for the
/// others, at most <see cref="Timeout"/>.
/// </summary>
public sealed class Communicator : IDisposable
{
    private readonly ITransport? _transport;
    private bool _disposed;

    internal Communicator(ITransport? transport)
    {
        _transport = transport;
        if (transport is not null)
        {
            string name = FormattableString.Invariant($"rank {transport.Rank} ({Environment.MachineName}, process {Environment.ProcessId})");
            transport.Names = [.. AllGather(Encoding.UTF8.GetBytes(name)).Select(Encoding.UTF8.GetString)];
        }
    }

    /// <summary>A process by itself.</summary>
    public static Communicator Alone { get; } = new(null);

    /// <summary>Number of this process, from 0. Rank 0 writes the run's files and speaks to people.</summary>
    public int Rank => _transport?.Rank ?? 0;

    /// <summary>How many processes there are.</summary>
    public int Size => _transport?.Ranks ?? 1;

    /// <summary>Number of this process among those on its machine.</summary>
    public int LocalRank => _transport?.LocalRank ?? 0;

    /// <summary>Processes on this machine.</summary>
    public int LocalSize => _transport?.LocalRanks ?? 1;

    /// <summary>What connects them, with its version; empty for one process.</summary>
    public string Description => _transport?.Description ?? "";

    /// <summary>What each rank is called in messages: its number, machine and process.</summary>
    public IReadOnlyList<string> Names => _transport?.Names ?? ["rank 0"];

    /// <summary>
    /// How long a call, or an average within a step, may wait for other ranks before it throws an exception that names them; zero, which is how it begins: for ever.
    /// </summary>
    public TimeSpan Timeout
    {
        get => _transport?.Timeout ?? TimeSpan.Zero;
        set
        {
            if (_transport is not null)
            {
                _transport.Timeout = value;
            }
        }
    }

    /// <summary>Averages and sums within a step; null for one process.</summary>
    internal ICollectives? Collectives => _transport;

    /// <summary>Seconds in which averages of steps were under way, and those of them that were waited for.</summary>
    internal (double Busy, double Waited) MeanSeconds => _transport?.MeanSeconds ?? default;

    /// <summary>
    /// Connects this process with those that the launcher started with it; <see cref="Alone"/> where it was started by itself, or as the only one. Once per process.
    /// </summary>
    /// <exception cref="UserErrorException">There are several processes, but MPI cannot be used here or sees others than the launcher started.</exception>
    public static Communicator Join() => Join(Environment.GetEnvironmentVariable, () => MpiLibrary.Found);

    /// <summary>Whether several processes can train together on this machine, and what was looked for, where, and found.</summary>
    internal static (bool Available, string Report) Probe() => (MpiLibrary.Found.Loaded, MpiLibrary.Found.Text);

    internal static Communicator Join(Func<string, string?> environment, Func<LoadReport> library)
    {
        Launcher launcher = Launcher.Detect(environment);
        if (launcher.Ranks == 1)
        {
            return Alone;
        }

        LoadReport found = library();
        if (!found.Loaded)
        {
            throw new UserErrorException(
                $"{launcher.Name} started {launcher.Ranks} processes, but MPI cannot be used here: {found.Text.ReplaceLineEndings("; ")} Or start one process by itself.");
        }

        var transport = new MpiTransport();
        if (transport.Ranks != launcher.Ranks)
        {
            // Each would take itself for the only one and write over the others' files.
            int ranks = transport.Ranks;
            transport.Dispose();
            throw new UserErrorException(FormattableString.Invariant(
                $"{launcher.Name} started {launcher.Ranks} processes, but {transport.Description} sees {ranks}: it is another MPI than the launcher's. {(launcher.Name == "srun" ? "Start with srun's option mpi set to pmix (or what 'srun --mpi=list' names), or with that MPI's mpirun." : "Start with the mpirun of that MPI.")}"));
        }

        return new Communicator(transport);
    }

    /// <summary>Waits until all ranks have come here.</summary>
    public void Barrier() => AllGather([]);

    /// <summary>What rank 0 gives, on all ranks.</summary>
    /// <param name="bytes">Looked at on rank 0 only.</param>
    public byte[] Broadcast(ReadOnlySpan<byte> bytes) => AllGather(Rank == 0 ? bytes : [])[0];

    /// <summary>What every rank gives, on all ranks, by rank.</summary>
    /// <param name="mine">Of any length, which may differ from rank to rank.</param>
    public byte[][] AllGather(ReadOnlySpan<byte> mine) => Gather(mine, root: -1)!;

    /// <summary>What every rank gives, by rank, on rank 0; null on the others.</summary>
    /// <param name="mine">Of any length, which may differ from rank to rank.</param>
    public byte[][]? Gather(ReadOnlySpan<byte> mine) => Gather(mine, root: 0);

    /// <summary>Every rank's numbers, on all ranks, one rank after the other.</summary>
    /// <param name="mine">As many on each.</param>
    /// <param name="all">Receives them: <see cref="Size"/> times as many.</param>
    /// <exception cref="ArgumentException">The lengths do not fit.</exception>
    public void AllGather(ReadOnlySpan<double> mine, Span<double> all)
    {
        if (all.Length != mine.Length * Size)
        {
            throw new ArgumentException(FormattableString.Invariant($"{mine.Length} numbers of {Size} ranks need room for {mine.Length * Size}, not {all.Length}."), nameof(all));
        }

        if (_transport is null)
        {
            mine.CopyTo(all);
        }
        else
        {
            _transport.AllGather(mine, all, Size);
        }
    }

    /// <summary>Ends the processes of all ranks at once, also of those that hang. For when a rank cannot go on and the others do not know it.</summary>
    /// <param name="exitCode">What the launcher is to report.</param>
    public void Abort(int exitCode) => _transport?.Abort(exitCode);

    /// <summary>Parts from the others, after waiting for them to do so too.</summary>
    public void Dispose()
    {
        if (!_disposed && _transport is not null)
        {
            _disposed = true;
            _transport.Dispose();
        }
    }

    private byte[][]? Gather(ReadOnlySpan<byte> mine, int root)
    {
        if (_transport is null)
        {
            return [mine.ToArray()];
        }

        long[] lengths = new long[Size];
        long[] every = new long[Size];
        Array.Fill(every, sizeof(long));
        _transport.Gather(MemoryMarshal.AsBytes((ReadOnlySpan<long>)[mine.Length]), every, -1, MemoryMarshal.AsBytes(lengths.AsSpan()));
        bool receives = root < 0 || root == Rank;
        byte[] all = new byte[receives ? lengths.Sum() : 0];
        if (lengths.Sum() > 0)
        {
            _transport.Gather(mine, lengths, root, all);
        }

        if (!receives)
        {
            return null;
        }

        byte[][] parts = new byte[Size][];
        for (int r = 0, at = 0; r < Size; at += (int)lengths[r++])
        {
            parts[r] = all.AsSpan(at, (int)lengths[r]).ToArray();
        }

        return parts;
    }
}
