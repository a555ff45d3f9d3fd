using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop.Cuda;

/// <summary>Statuses of the driver, NVRTC and cuDNN as exceptions.</summary>
internal static class CudaErrors
{
    /// <summary>CUDA_ERROR_CONTEXT_IS_DESTROYED: a primary context after its reset.</summary>
    public const int ContextIsDestroyed = 709;

    /// <summary>
    /// True for errors after which the context is dead: every later call returns the same, and only a new process helps. Illegal address and its
    /// kin (700, 702, 710 to 720), an uncorrectable memory error (214), a context that is gone (709) and lost devices.
    /// </summary>
    public static bool IsSticky(int status) => status is 214 or 220 or 226 or 700 or 702 or ContextIsDestroyed or (>= 710 and <= 720) or 999;

    /// <summary>The driver's name and text of an error: <c>CUDA_ERROR_NO_DEVICE (100): no CUDA-capable device is detected</c>.</summary>
    public static unsafe string Describe(CudaDriverApi api, int status) => $"{Name(api, status)}: {Text(api, status)}";

    /// <summary>For example <c>CUDA_ERROR_OUT_OF_MEMORY (2)</c>.</summary>
    public static unsafe string Name(CudaDriverApi api, int status)
    {
        byte* name = null;
        return api.cuGetErrorName(status, &name) == CudaDriverApi.Success && name != null
            ? $"{Marshal.PtrToStringUTF8((nint)name)} ({status})"
            : FormattableString.Invariant($"CUDA error {status}");
    }

    public static unsafe string Text(CudaDriverApi api, int status)
    {
        byte* text = null;
        return api.cuGetErrorString(status, &text) == CudaDriverApi.Success && text != null ? Marshal.PtrToStringUTF8((nint)text)! : "unknown error";
    }
}
