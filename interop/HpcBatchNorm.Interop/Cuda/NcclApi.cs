using System.Runtime.CompilerServices;

namespace HpcBatchNorm.Interop.Cuda;

/// <summary>
/// NCCL (libnccl.so.2), which averages over GPUs. Typed from its header of 2.x; every function returns an ncclResult_t except the texts. A communicator is a pointer.
/// </summary>
internal sealed unsafe class NcclApi
{
    public const int Success = 0, InProgress = 7;
    public const int Float32 = 7, Average = 4;

    /// <summary>From 2.10 on there is <c>ncclAvg</c>, and all-reduces can be recorded.</summary>
    public const int OldestVersion = 21000;

    public readonly delegate* unmanaged<int*, int> ncclGetVersion;
    public readonly delegate* unmanaged<NcclUniqueId*, int> ncclGetUniqueId;
    public readonly delegate* unmanaged<nint*, int, NcclUniqueId, int, int> ncclCommInitRank;
    public readonly delegate* unmanaged<nint, int> ncclCommDestroy;
    public readonly delegate* unmanaged<nint, int> ncclCommAbort;
    public readonly delegate* unmanaged<nint, int*, int> ncclCommGetAsyncError;
    public readonly delegate* unmanaged<void*, void*, nuint, int, int, nint, nint, int> ncclAllReduce;
    public readonly delegate* unmanaged<int> ncclGroupStart;
    public readonly delegate* unmanaged<int> ncclGroupEnd;
    public readonly delegate* unmanaged<int, byte*> ncclGetErrorString;

    /// <summary>2.13 and later; 0 in older ones.</summary>
    public readonly delegate* unmanaged<nint, byte*> ncclGetLastError;

    /// <summary>Binds every function; the names of those the library lacks go to <paramref name="exports"/>.</summary>
    public NcclApi(ExportTable exports)
    {
        ncclGetVersion = (delegate* unmanaged<int*, int>)exports.Get(nameof(ncclGetVersion));
        ncclGetUniqueId = (delegate* unmanaged<NcclUniqueId*, int>)exports.Get(nameof(ncclGetUniqueId));
        ncclCommInitRank = (delegate* unmanaged<nint*, int, NcclUniqueId, int, int>)exports.Get(nameof(ncclCommInitRank));
        ncclCommDestroy = (delegate* unmanaged<nint, int>)exports.Get(nameof(ncclCommDestroy));
        ncclCommAbort = (delegate* unmanaged<nint, int>)exports.Get(nameof(ncclCommAbort));
        ncclCommGetAsyncError = (delegate* unmanaged<nint, int*, int>)exports.Get(nameof(ncclCommGetAsyncError));
        ncclAllReduce = (delegate* unmanaged<void*, void*, nuint, int, int, nint, nint, int>)exports.Get(nameof(ncclAllReduce));
        ncclGroupStart = (delegate* unmanaged<int>)exports.Get(nameof(ncclGroupStart));
        ncclGroupEnd = (delegate* unmanaged<int>)exports.Get(nameof(ncclGroupEnd));
        ncclGetErrorString = (delegate* unmanaged<int, byte*>)exports.Get(nameof(ncclGetErrorString));
        ncclGetLastError = (delegate* unmanaged<nint, byte*>)exports.Get(nameof(ncclGetLastError));
    }
}

/// <summary>ncclUniqueId: how the ranks of a communicator find one another; passed by value.</summary>
[InlineArray(Bytes)]
internal struct NcclUniqueId
{
    /// <summary>NCCL_UNIQUE_ID_BYTES.</summary>
    public const int Bytes = 128;

    private byte _first;
}
