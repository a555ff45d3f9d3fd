using System.Globalization;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace HpcBatchNorm.Interop.Cuda;

/// <summary>Which of a convolution's three computations.</summary>
internal enum CudnnPass
{
    Forward,
    BackwardData,
    BackwardFilter,
}

/// <summary>One of cuDNN's algorithms for a convolution, as a search found it.</summary>
/// <param name="Algorithm">cuDNN's number, meaningful together with the pass.</param>
/// <param name="MathType">cudnnMathType_t to set on the convolution.</param>
/// <param name="WorkspaceBytes">Scratch memory it needs.</param>
/// <param name="Milliseconds">Its time in the search.</param>
/// <param name="Deterministic">Whether it gives the same bits every time.</param>
internal sealed record CudnnAlgorithm(int Algorithm, int MathType, long WorkspaceBytes, float Milliseconds, bool Deterministic);

/// <summary>A cuDNN handle bound to the device's stream.</summary>
internal sealed unsafe class CudnnHandle : IDisposable
{
    private nint _handle;

    public CudnnHandle(CudnnApi api, CudaDevice device)
    {
        (Api, Device) = (api, device);
        device.Enter();
        nint handle = 0;
        Check(api.cudnnCreate(&handle), "creating the cuDNN handle");
        _handle = handle;
        Mixture = CudnnInstallations.Mixture();
        Check(api.cudnnSetStream(handle, device.Stream), "creating the cuDNN handle");
    }

    public CudnnApi Api { get; }

    public CudaDevice Device { get; }

    public string Version => CudaLibraries.CudnnVersionText(Api.cudnnGetVersion());

    /// <summary>What parts of other versions of cuDNN the process holds once this one is at work, in words; null when there are none.</summary>
    public string? Mixture { get; }

    internal nint Handle => _handle;

    /// <summary>Throws what a status means: what cuDNN does not support is NotSupportedException, a lack of memory OutOfMemoryException.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Check(int status, string operation)
    {
        if (status != CudnnApi.Success)
        {
            Fail(status, operation);
        }
    }

    /// <summary>A dense or strided 4D tensor in NHWC: position (n, h, w) is <paramref name="rowStride"/> elements after the one before it.</summary>
    public CudnnDescriptor Tensor(int type, int n, int c, int h, int w, int rowStride, string operation)
    {
        nint descriptor = 0;
        Check(Api.cudnnCreateTensorDescriptor(&descriptor), operation);
        CudnnDescriptor result = new(Api.cudnnDestroyTensorDescriptor, descriptor);
        try
        {
            // An extent of 1 leaves its stride open; cuDNN recognises NHWC by the strides that a dense tensor would have.
            Check(Api.cudnnSetTensor4dDescriptorEx(descriptor, type, n, c, h, w, checked(h * w * rowStride), 1, checked(w * rowStride), rowStride), operation);
        }
        catch
        {
            result.Dispose();
            throw;
        }

        return result;
    }

    /// <summary>Convolution weights in KRSC.</summary>
    public CudnnDescriptor Filter(int type, int k, int c, int r, int s, string operation)
    {
        nint descriptor = 0;
        Check(Api.cudnnCreateFilterDescriptor(&descriptor), operation);
        CudnnDescriptor result = new(Api.cudnnDestroyFilterDescriptor, descriptor);
        try
        {
            Check(Api.cudnnSetFilter4dDescriptor(descriptor, type, CudnnApi.Nhwc, k, c, r, s), operation);
        }
        catch
        {
            result.Dispose();
            throw;
        }

        return result;
    }

    /// <summary>A convolution with fp32 accumulation.</summary>
    public CudnnDescriptor Convolution(int padH, int padW, int strideH, int strideW, int dilationH, int dilationW, int groups, int mathType, string operation)
    {
        nint descriptor = 0;
        Check(Api.cudnnCreateConvolutionDescriptor(&descriptor), operation);
        CudnnDescriptor result = new(Api.cudnnDestroyConvolutionDescriptor, descriptor);
        try
        {
            Check(Api.cudnnSetConvolution2dDescriptor(
                descriptor, padH, padW, strideH, strideW, dilationH, dilationW, CudnnApi.CrossCorrelation, CudnnApi.Float), operation);
            Check(Api.cudnnSetConvolutionGroupCount(descriptor, groups), operation);
            Check(Api.cudnnSetConvolutionMathType(descriptor, mathType), operation);
        }
        catch
        {
            result.Dispose();
            throw;
        }

        return result;
    }

    /// <summary>ReLU as a convolution's epilogue, where cuDNN takes it in no other way: a NaN becomes 0.</summary>
    public CudnnDescriptor Relu(string operation)
    {
        nint descriptor = 0;
        Check(Api.cudnnCreateActivationDescriptor(&descriptor), operation);
        CudnnDescriptor result = new(Api.cudnnDestroyActivationDescriptor, descriptor);
        try
        {
            Check(Api.cudnnSetActivationDescriptor(descriptor, CudnnApi.ActivationRelu, CudnnApi.NotPropagateNan, 0), operation);
        }
        catch
        {
            result.Dispose();
            throw;
        }

        return result;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_handle != 0)
        {
            if (Device.EnterToFree())
            {
                _ = Api.cudnnDestroy(_handle);
            }

            _handle = 0;
        }
    }

    private void Fail(int status, string operation)
    {
        string name = (Marshal.PtrToStringUTF8((nint)Api.cudnnGetErrorString(status)) ?? "unknown status") + string.Create(CultureInfo.InvariantCulture, $" ({status})");
        Span<byte> text = stackalloc byte[2048];
        text.Clear();
        fixed (byte* first = text)
        {
            Api.cudnnGetLastErrorString(first, (nuint)text.Length - 1);
        }

        string detail = Encoding.UTF8.GetString(text[..text.IndexOf((byte)0)]);
        detail = detail.Length == 0 ? Meaning(status) : detail;
        if (CudnnInstallations.Mixture() is { } mixture)
        {
            detail += "; " + mixture;
        }

        if (status is >= 5000 and < 6000)
        {
            // The library saw the driver fail; when the context is dead that error is the one to keep.
            Device.CheckContextAlive(operation);
        }

        throw status switch
        {
            >= 3000 and < 4000 => new NotSupportedException($"{operation}: cuDNN {Version} does not support it: {name}: {detail}."),
            4003 or 4004 => NativeException.OutOfMemory($"{operation}: cuDNN: {name}: {detail}. Use a smaller batch."),
            _ => new NativeException($"cuDNN {Version}", name, operation, detail),
        };
    }

    private static string Meaning(int status) => status switch
    {
        1002 => "its parts are of different versions; two installations are mixed in this process",
        1008 => "one of its parts cannot be loaded",
        3005 => "the driver is too old for this cuDNN",
        3007 => "the device's compute capability is not supported by this cuDNN",
        _ => "it gives no details",
    };
}

/// <summary>A cuDNN descriptor and how to destroy it.</summary>
internal sealed unsafe class CudnnDescriptor(delegate* unmanaged<nint, int> destroy, nint handle) : IDisposable
{
    private readonly delegate* unmanaged<nint, int> _destroy = destroy;

    public nint Handle { get; private set; } = handle;

    public void Dispose()
    {
        if (Handle != 0)
        {
            _ = _destroy(Handle);
            Handle = 0;
        }
    }
}
