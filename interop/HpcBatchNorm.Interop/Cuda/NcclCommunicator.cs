using System.Globalization;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop.Cuda;

/// <summary>The GPUs that train one network together, one per rank: averages of device memory, enqueued on a stream like any other work.</summary>
internal sealed unsafe class NcclCommunicator : IDisposable
{
    private readonly NcclApi _api;
    private readonly CudaDevice _device;
    private nint _handle;

    /// <summary>Connects this rank; returns when all have come.</summary>
    /// <param name="api">NCCL.</param>
    /// <param name="device">This rank's.</param>
    /// <param name="id">Rank 0's <see cref="NewId"/>, the same on all.</param>
    /// <param name="rank">This rank.</param>
    /// <param name="ranks">How many there are.</param>
    /// <exception cref="NativeException">NCCL cannot connect them; the message has its reason.</exception>
    public NcclCommunicator(NcclApi api, CudaDevice device, NcclUniqueId id, int rank, int ranks)
    {
        (_api, _device) = (api, device);
        device.Enter();
        nint handle = 0;
        Check(api, 0, api.ncclCommInitRank(&handle, ranks, id, rank), FormattableString.Invariant($"connecting rank {rank} of {ranks}"));
        _handle = handle;
    }

    /// <summary>The library's version: 22809 is 2.28.9.</summary>
    public static string VersionText(int version) => string.Create(CultureInfo.InvariantCulture, $"{version / 10000}.{version / 100 % 100}.{version % 100}");

    /// <summary>What rank 0 gives the others, by whatever they are connected with already.</summary>
    public static NcclUniqueId NewId(NcclApi api)
    {
        NcclUniqueId id = default;
        Check(api, 0, api.ncclGetUniqueId(&id), "making an id for the ranks");
        return id;
    }

    /// <summary>Enqueues the means over all ranks of single-precision values, in their place. All ranks enqueue the same ones in the same order.</summary>
    /// <param name="values">Addresses on the device, and how many values lie there.</param>
    /// <param name="stream">Where.</param>
    /// <param name="operation">For the message of a failure.</param>
    public void Average(ReadOnlySpan<(nint Address, long Count)> values, CudaStream stream, string operation)
    {
        ThrowIfLost(operation);
        Check(_api, _handle, _api.ncclGroupStart(), operation);
        int failed = NcclApi.Success;
        foreach ((nint address, long count) in values)
        {
            int status = _api.ncclAllReduce((void*)address, (void*)address, (nuint)count, NcclApi.Float32, NcclApi.Average, _handle, stream.Handle);
            failed = failed == NcclApi.Success ? status : failed;
        }

        // A group that was begun is ended, or the next one would be part of it.
        int end = _api.ncclGroupEnd();
        Check(_api, _handle, failed == NcclApi.Success ? end : failed, operation);
    }

    /// <summary>Throws what has happened to the ranks since: what is enqueued fails later, and only here.</summary>
    /// <exception cref="NativeException">Another rank is gone, or the network between them.</exception>
    public void ThrowIfLost(string operation)
    {
        ObjectDisposedException.ThrowIf(_handle == 0, this);
        int error = NcclApi.Success;
        Check(_api, _handle, _api.ncclCommGetAsyncError(_handle, &error), operation);
        if (error is not (NcclApi.Success or NcclApi.InProgress))
        {
            // Ends the kernels that wait for ranks which will not come; the communicator is gone with it.
            string text = Describe(_api, _handle, error);
            _ = _api.ncclCommAbort(_handle);
            _handle = 0;
            throw new NativeException("NCCL", Name(_api, error), operation, text);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_handle == 0)
        {
            return;
        }

        // Only idle streams may be left; with a dead context there is nothing to give back.
        if (_device.EnterToFree())
        {
            _device.Synchronize();
            _ = _api.ncclCommDestroy(_handle);
        }

        _handle = 0;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Check(NcclApi api, nint handle, int status, string operation)
    {
        if (status != NcclApi.Success)
        {
            throw new NativeException("NCCL", Name(api, status), operation, Describe(api, handle, status));
        }
    }

    private static string Name(NcclApi api, int status) => string.Create(
        CultureInfo.InvariantCulture, $"{Marshal.PtrToStringUTF8((nint)api.ncclGetErrorString(status)) ?? "unknown status"} ({status})");

    private static string Describe(NcclApi api, nint handle, int status)
    {
        string detail = api.ncclGetLastError == null ? "" : Marshal.PtrToStringUTF8((nint)api.ncclGetLastError(handle)) ?? "";
        return (detail.Length == 0 ? "it gives no details" : detail.Trim()) + (status == 5 ? "; two ranks may have been given the same GPU" : "") + ". NCCL_DEBUG=INFO makes it say more";
    }
}
