using HpcBatchNorm.Interop.Cuda;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>
/// The door between this library and other users of CUDA in the process (ManagedCuda, ILGPU, own bindings): contexts, streams and device memory as raw
/// handles, without a dependency on anybody's types. Rules: both sides use one device and its primary context (cuDNN lives there); work is ordered by a
/// shared stream, or by events of the caller's; who allocated memory frees it, after the other side is done. docs/gpu.md has a sample.
/// </summary>
public static class CudaInterop
{
    /// <summary>
    /// A cudnn backend in an existing context and on an existing stream. Both must outlive it; the stream must not be the legacy default one (0) and should
    /// be non-blocking.
    /// </summary>
    /// <param name="context">A CUcontext: the primary context of its device.</param>
    /// <param name="stream">A CUstream of that context.</param>
    /// <param name="options">As for <see cref="Backend.Create"/>.</param>
    /// <exception cref="ArgumentException">A handle is 0.</exception>
    /// <exception cref="UserErrorException">The backend cannot be used here; the message holds the report of what was looked for.</exception>
    public static Backend Share(nint context, nint stream, BackendOptions? options = null)
    {
        if (context == 0 || stream == 0)
        {
            throw new ArgumentException($"The {(context == 0 ? "context" : "stream")} is 0; a shared backend needs a live context and a stream that is not the default one.");
        }

        CudaLibraries libraries = CudaLibraries.Shared;
        return libraries.Available
            ? CudnnBackend.Share(CudnnBackend.Remembering(options ?? new BackendOptions()), libraries, context, stream)
            : throw new UserErrorException($"The backend 'cudnn' cannot be used here.\n{libraries.Text}");
    }

    /// <summary>The backend's CUcontext.</summary>
    /// <exception cref="ArgumentException">The backend is not cudnn on a device.</exception>
    public static nint Context(Backend backend) => Device(backend).Context;

    /// <summary>The backend's CUstream, on which all of its work is enqueued.</summary>
    /// <exception cref="ArgumentException">The backend is not cudnn on a device.</exception>
    public static nint Stream(Backend backend) => Device(backend).Stream;

    /// <summary>
    /// Device memory that the caller owns (a CUdeviceptr) and frees, after whatever uses it here has been disposed of: for tensors of an
    /// <see cref="OperationRunner"/> (<see cref="OperationRunner.Place"/>), or as a session's shared arena.
    /// </summary>
    public static DeviceMemory Borrow(nint address, long bytes) => new BorrowedDeviceMemory(address, bytes);

    private static CudaDevice Device(Backend backend) =>
        (backend as CudnnBackend)?.Device ?? throw new ArgumentException($"The backend '{backend.Name}' has no CUDA context: it is not cudnn on a device.", nameof(backend));
}
