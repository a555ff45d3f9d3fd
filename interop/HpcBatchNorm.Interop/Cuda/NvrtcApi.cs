namespace HpcBatchNorm.Interop.Cuda;

/// <summary>NVRTC, the CUDA run-time compiler (libnvrtc). Every function returns an nvrtcResult except the error text.</summary>
internal sealed unsafe class NvrtcApi
{
    public const int Success = 0, Compilation = 6;

    public readonly delegate* unmanaged<int*, int*, int> nvrtcVersion;
    public readonly delegate* unmanaged<int, byte*> nvrtcGetErrorString;
    public readonly delegate* unmanaged<nint*, byte*, byte*, int, byte**, byte**, int> nvrtcCreateProgram;
    public readonly delegate* unmanaged<nint, int, byte**, int> nvrtcCompileProgram;
    public readonly delegate* unmanaged<nint, nuint*, int> nvrtcGetCUBINSize;
    public readonly delegate* unmanaged<nint, byte*, int> nvrtcGetCUBIN;
    public readonly delegate* unmanaged<nint, nuint*, int> nvrtcGetProgramLogSize;
    public readonly delegate* unmanaged<nint, byte*, int> nvrtcGetProgramLog;
    public readonly delegate* unmanaged<nint*, int> nvrtcDestroyProgram;
    public readonly delegate* unmanaged<int*, int> nvrtcGetNumSupportedArchs;
    public readonly delegate* unmanaged<int*, int> nvrtcGetSupportedArchs;

    /// <summary>Binds every function; the names of those the library lacks go to <paramref name="exports"/>.</summary>
    public NvrtcApi(ExportTable exports)
    {
        nvrtcVersion = (delegate* unmanaged<int*, int*, int>)exports.Get(nameof(nvrtcVersion));
        nvrtcGetErrorString = (delegate* unmanaged<int, byte*>)exports.Get(nameof(nvrtcGetErrorString));
        nvrtcCreateProgram = (delegate* unmanaged<nint*, byte*, byte*, int, byte**, byte**, int>)exports.Get(nameof(nvrtcCreateProgram));
        nvrtcCompileProgram = (delegate* unmanaged<nint, int, byte**, int>)exports.Get(nameof(nvrtcCompileProgram));
        nvrtcGetCUBINSize = (delegate* unmanaged<nint, nuint*, int>)exports.Get(nameof(nvrtcGetCUBINSize));
        nvrtcGetCUBIN = (delegate* unmanaged<nint, byte*, int>)exports.Get(nameof(nvrtcGetCUBIN));
        nvrtcGetProgramLogSize = (delegate* unmanaged<nint, nuint*, int>)exports.Get(nameof(nvrtcGetProgramLogSize));
        nvrtcGetProgramLog = (delegate* unmanaged<nint, byte*, int>)exports.Get(nameof(nvrtcGetProgramLog));
        nvrtcDestroyProgram = (delegate* unmanaged<nint*, int>)exports.Get(nameof(nvrtcDestroyProgram));
        nvrtcGetNumSupportedArchs = (delegate* unmanaged<int*, int>)exports.Get(nameof(nvrtcGetNumSupportedArchs));
        nvrtcGetSupportedArchs = (delegate* unmanaged<int*, int>)exports.Get(nameof(nvrtcGetSupportedArchs));
    }
}
