namespace HpcBatchNorm.Interop.Cuda;

/// <summary>
/// The functions of the CUDA driver (libcuda.so.1) that we call, by their versioned export names: the unversioned twins of several of them are the
/// 32-bit ones of CUDA 3. Every function returns a CUresult. Handles and device addresses are <c>nint</c>, sizes <c>nuint</c>, enums <c>int</c>.
/// </summary>
internal sealed unsafe class CudaDriverApi
{
    public const int Success = 0, OutOfMemory = 2, NoDevice = 100, NotReady = 600;

    /// <summary>CUdevice_attribute values.</summary>
    public const int AttributeMultiprocessors = 16, AttributeL2Bytes = 38, AttributeMajor = 75, AttributeMinor = 76, AttributeCooperativeLaunch = 95;

    /// <summary>CU_STREAM_NON_BLOCKING, CU_EVENT_DISABLE_TIMING, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, CU_MEMHOSTALLOC_PORTABLE.</summary>
    public const int StreamNonBlocking = 1, EventDisableTiming = 2, CaptureThreadLocal = 1, HostPortable = 1;

    public readonly delegate* unmanaged<uint, int> cuInit;
    public readonly delegate* unmanaged<int*, int> cuDriverGetVersion;
    public readonly delegate* unmanaged<int, byte**, int> cuGetErrorName;
    public readonly delegate* unmanaged<int, byte**, int> cuGetErrorString;
    public readonly delegate* unmanaged<int*, int> cuDeviceGetCount;
    public readonly delegate* unmanaged<int*, int, int> cuDeviceGet;
    public readonly delegate* unmanaged<byte*, int, int, int> cuDeviceGetName;
    public readonly delegate* unmanaged<nuint*, int, int> cuDeviceTotalMem;
    public readonly delegate* unmanaged<int*, int, int, int> cuDeviceGetAttribute;
    public readonly delegate* unmanaged<nint*, int, int> cuDevicePrimaryCtxRetain;
    public readonly delegate* unmanaged<nint, int> cuCtxSetCurrent;
    public readonly delegate* unmanaged<int*, int> cuCtxGetDevice;
    public readonly delegate* unmanaged<nint*, uint, int> cuStreamCreate;
    public readonly delegate* unmanaged<nint, int> cuStreamDestroy;
    public readonly delegate* unmanaged<nint, int> cuStreamSynchronize;
    public readonly delegate* unmanaged<nint, nint, uint, int> cuStreamWaitEvent;
    public readonly delegate* unmanaged<nint, int, int> cuStreamBeginCapture;
    public readonly delegate* unmanaged<nint, nint*, int> cuStreamEndCapture;
    public readonly delegate* unmanaged<nint*, uint, int> cuEventCreate;
    public readonly delegate* unmanaged<nint, nint, int> cuEventRecord;
    public readonly delegate* unmanaged<nint, int> cuEventSynchronize;
    public readonly delegate* unmanaged<float*, nint, nint, int> cuEventElapsedTime;
    public readonly delegate* unmanaged<nint, int> cuEventDestroy;
    public readonly delegate* unmanaged<nuint*, nuint*, int> cuMemGetInfo;
    public readonly delegate* unmanaged<nint*, nuint, int> cuMemAlloc;
    public readonly delegate* unmanaged<nint, int> cuMemFree;
    public readonly delegate* unmanaged<void**, nuint, uint, int> cuMemHostAlloc;
    public readonly delegate* unmanaged<void*, int> cuMemFreeHost;
    public readonly delegate* unmanaged<nint, void*, nuint, nint, int> cuMemcpyHtoDAsync;
    public readonly delegate* unmanaged<void*, nint, nuint, nint, int> cuMemcpyDtoHAsync;
    public readonly delegate* unmanaged<nint, nint, nuint, nint, int> cuMemcpyDtoDAsync;
    public readonly delegate* unmanaged<nint, byte, nuint, nint, int> cuMemsetD8Async;
    public readonly delegate* unmanaged<nint*, void*, int> cuModuleLoadData;
    public readonly delegate* unmanaged<nint, int> cuModuleUnload;
    public readonly delegate* unmanaged<nint*, nint, byte*, int> cuModuleGetFunction;
    public readonly delegate* unmanaged<nint, uint, uint, uint, uint, uint, uint, uint, nint, void**, void**, int> cuLaunchKernel;
    public readonly delegate* unmanaged<nint, uint, uint, uint, uint, uint, uint, uint, nint, void**, int> cuLaunchCooperativeKernel;
    public readonly delegate* unmanaged<int*, nint, int, nuint, int> cuOccupancyMaxActiveBlocksPerMultiprocessor;
    public readonly delegate* unmanaged<nint*, nint, ulong, int> cuGraphInstantiateWithFlags;
    public readonly delegate* unmanaged<nint, nint*, nuint*, int> cuGraphGetNodes;
    public readonly delegate* unmanaged<nint, nint, int> cuGraphUpload;
    public readonly delegate* unmanaged<nint, nint, int> cuGraphLaunch;
    public readonly delegate* unmanaged<nint, int> cuGraphExecDestroy;
    public readonly delegate* unmanaged<nint, int> cuGraphDestroy;

    /// <summary>Binds every function; the names of those the library lacks go to <paramref name="exports"/>.</summary>
    public CudaDriverApi(ExportTable exports)
    {
        cuInit = (delegate* unmanaged<uint, int>)exports.Get(nameof(cuInit));
        cuDriverGetVersion = (delegate* unmanaged<int*, int>)exports.Get(nameof(cuDriverGetVersion));
        cuGetErrorName = (delegate* unmanaged<int, byte**, int>)exports.Get(nameof(cuGetErrorName));
        cuGetErrorString = (delegate* unmanaged<int, byte**, int>)exports.Get(nameof(cuGetErrorString));
        cuDeviceGetCount = (delegate* unmanaged<int*, int>)exports.Get(nameof(cuDeviceGetCount));
        cuDeviceGet = (delegate* unmanaged<int*, int, int>)exports.Get(nameof(cuDeviceGet));
        cuDeviceGetName = (delegate* unmanaged<byte*, int, int, int>)exports.Get(nameof(cuDeviceGetName));
        cuDeviceTotalMem = (delegate* unmanaged<nuint*, int, int>)exports.Get("cuDeviceTotalMem_v2");
        cuDeviceGetAttribute = (delegate* unmanaged<int*, int, int, int>)exports.Get(nameof(cuDeviceGetAttribute));
        cuDevicePrimaryCtxRetain = (delegate* unmanaged<nint*, int, int>)exports.Get(nameof(cuDevicePrimaryCtxRetain));
        cuCtxSetCurrent = (delegate* unmanaged<nint, int>)exports.Get(nameof(cuCtxSetCurrent));
        cuCtxGetDevice = (delegate* unmanaged<int*, int>)exports.Get(nameof(cuCtxGetDevice));
        cuStreamCreate = (delegate* unmanaged<nint*, uint, int>)exports.Get(nameof(cuStreamCreate));
        cuStreamDestroy = (delegate* unmanaged<nint, int>)exports.Get("cuStreamDestroy_v2");
        cuStreamSynchronize = (delegate* unmanaged<nint, int>)exports.Get(nameof(cuStreamSynchronize));
        cuStreamWaitEvent = (delegate* unmanaged<nint, nint, uint, int>)exports.Get(nameof(cuStreamWaitEvent));
        cuStreamBeginCapture = (delegate* unmanaged<nint, int, int>)exports.Get("cuStreamBeginCapture_v2");
        cuStreamEndCapture = (delegate* unmanaged<nint, nint*, int>)exports.Get(nameof(cuStreamEndCapture));
        cuEventCreate = (delegate* unmanaged<nint*, uint, int>)exports.Get(nameof(cuEventCreate));
        cuEventRecord = (delegate* unmanaged<nint, nint, int>)exports.Get(nameof(cuEventRecord));
        cuEventSynchronize = (delegate* unmanaged<nint, int>)exports.Get(nameof(cuEventSynchronize));
        cuEventElapsedTime = (delegate* unmanaged<float*, nint, nint, int>)exports.Get(nameof(cuEventElapsedTime));
        cuEventDestroy = (delegate* unmanaged<nint, int>)exports.Get("cuEventDestroy_v2");
        cuMemGetInfo = (delegate* unmanaged<nuint*, nuint*, int>)exports.Get("cuMemGetInfo_v2");
        cuMemAlloc = (delegate* unmanaged<nint*, nuint, int>)exports.Get("cuMemAlloc_v2");
        cuMemFree = (delegate* unmanaged<nint, int>)exports.Get("cuMemFree_v2");
        cuMemHostAlloc = (delegate* unmanaged<void**, nuint, uint, int>)exports.Get(nameof(cuMemHostAlloc));
        cuMemFreeHost = (delegate* unmanaged<void*, int>)exports.Get(nameof(cuMemFreeHost));
        cuMemcpyHtoDAsync = (delegate* unmanaged<nint, void*, nuint, nint, int>)exports.Get("cuMemcpyHtoDAsync_v2");
        cuMemcpyDtoHAsync = (delegate* unmanaged<void*, nint, nuint, nint, int>)exports.Get("cuMemcpyDtoHAsync_v2");
        cuMemcpyDtoDAsync = (delegate* unmanaged<nint, nint, nuint, nint, int>)exports.Get("cuMemcpyDtoDAsync_v2");
        cuMemsetD8Async = (delegate* unmanaged<nint, byte, nuint, nint, int>)exports.Get(nameof(cuMemsetD8Async));
        cuModuleLoadData = (delegate* unmanaged<nint*, void*, int>)exports.Get(nameof(cuModuleLoadData));
        cuModuleUnload = (delegate* unmanaged<nint, int>)exports.Get(nameof(cuModuleUnload));
        cuModuleGetFunction = (delegate* unmanaged<nint*, nint, byte*, int>)exports.Get(nameof(cuModuleGetFunction));
        cuLaunchKernel = (delegate* unmanaged<nint, uint, uint, uint, uint, uint, uint, uint, nint, void**, void**, int>)exports.Get(nameof(cuLaunchKernel));
        cuLaunchCooperativeKernel = (delegate* unmanaged<nint, uint, uint, uint, uint, uint, uint, uint, nint, void**, int>)exports.Get(nameof(cuLaunchCooperativeKernel));
        cuOccupancyMaxActiveBlocksPerMultiprocessor = (delegate* unmanaged<int*, nint, int, nuint, int>)exports.Get(nameof(cuOccupancyMaxActiveBlocksPerMultiprocessor));
        cuGraphInstantiateWithFlags = (delegate* unmanaged<nint*, nint, ulong, int>)exports.Get(nameof(cuGraphInstantiateWithFlags));
        cuGraphGetNodes = (delegate* unmanaged<nint, nint*, nuint*, int>)exports.Get(nameof(cuGraphGetNodes));
        cuGraphUpload = (delegate* unmanaged<nint, nint, int>)exports.Get(nameof(cuGraphUpload));
        cuGraphLaunch = (delegate* unmanaged<nint, nint, int>)exports.Get(nameof(cuGraphLaunch));
        cuGraphExecDestroy = (delegate* unmanaged<nint, int>)exports.Get(nameof(cuGraphExecDestroy));
        cuGraphDestroy = (delegate* unmanaged<nint, int>)exports.Get(nameof(cuGraphDestroy));
    }
}
