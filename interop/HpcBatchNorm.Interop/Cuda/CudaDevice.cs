using System.Collections.Concurrent;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;

namespace HpcBatchNorm.Interop.Cuda;

/// <summary>
/// A device's primary context (which cuDNN and other users of the runtime API share) and one stream of ours. Used by one thread at a time; every
/// entry makes the context current, because it belongs to the operating system's thread and tasks change threads. The first error that kills the
/// context is kept and thrown again by every later call. What finalizers give back is freed at the next entry, by the thread that uses the device.
/// </summary>
internal sealed unsafe partial class CudaDevice : IDisposable
{
    /// <summary>The primary contexts this process has retained, by driver and device; see <see cref="PrimaryContext"/>.</summary>
    private static readonly Dictionary<(CudaDriverApi Api, int Device), nint> Retained = [];

    private readonly CudaDriverApi _api;
    private readonly bool _owns;
    private readonly ConcurrentQueue<nint> _abandoned = new();
    private NativeException? _fault;
    private bool _wasReset;
    private bool _disposed;

    private CudaDevice(CudaDriverApi api, int ordinal, nint context, nint stream, bool owns)
    {
        (_api, Context, Stream, _owns) = (api, context, stream, owns);
        Name = DeviceName(api, ordinal);
        Major = Attribute(api, ordinal, CudaDriverApi.AttributeMajor);
        Minor = Attribute(api, ordinal, CudaDriverApi.AttributeMinor);
        Multiprocessors = Attribute(api, ordinal, CudaDriverApi.AttributeMultiprocessors);
        L2Bytes = Attribute(api, ordinal, CudaDriverApi.AttributeL2Bytes);
        LaunchesCooperatively = Attribute(api, ordinal, CudaDriverApi.AttributeCooperativeLaunch) != 0;
        int version = 0;
        Check(_api.cuDriverGetVersion(&version), "asking the driver's version");
        DriverVersion = version;
    }

    /// <summary>For example <c>NVIDIA H200</c>.</summary>
    public string Name { get; }

    /// <summary>Compute capability.</summary>
    public int Major { get; }

    /// <inheritdoc cref="Major"/>
    public int Minor { get; }

    public int Multiprocessors { get; }

    public int L2Bytes { get; }

    /// <summary>True where a launch can promise that all of its blocks run at a time.</summary>
    public bool LaunchesCooperatively { get; }

    /// <summary>The CUDA version the driver is for: 13000 is 13.0.</summary>
    public int DriverVersion { get; }

    /// <summary>The CUcontext.</summary>
    public nint Context { get; }

    /// <summary>The CUstream on which everything is enqueued.</summary>
    public nint Stream { get; }

    /// <summary>The error that made the device unusable, or null.</summary>
    public NativeException? Fault => _fault;

    /// <summary>Devices the driver knows.</summary>
    public static int Count(CudaDriverApi api)
    {
        int count = 0;
        int status = api.cuDeviceGetCount(&count);
        return status == CudaDriverApi.NoDevice ? 0 : status == CudaDriverApi.Success ? count : throw Failed(api, status, "counting devices");
    }

    /// <summary>Name, compute capability and memory of a device.</summary>
    public static string Describe(CudaDriverApi api, int ordinal)
    {
        int device = Handle(api, ordinal);
        nuint bytes = 0;
        Check(api, api.cuDeviceTotalMem(&bytes, device), "asking the device's memory");
        return string.Create(CultureInfo.InvariantCulture,
            $"{DeviceName(api, device)}, compute capability {Attribute(api, device, CudaDriverApi.AttributeMajor)}.{Attribute(api, device, CudaDriverApi.AttributeMinor)}, {Attribute(api, device, CudaDriverApi.AttributeMultiprocessors)} multiprocessors, {bytes / 1e9:F1} GB");
    }

    /// <summary>The primary context of a device, with a new stream that does not wait for the legacy one.</summary>
    public static CudaDevice Open(CudaDriverApi api, int ordinal)
    {
        int device = Handle(api, ordinal);
        nint context = PrimaryContext(api, device), stream = 0;
        Check(api, api.cuCtxSetCurrent(context), "opening the device");
        Check(api, api.cuStreamCreate(&stream, CudaDriverApi.StreamNonBlocking), "creating a stream");
        return new CudaDevice(api, device, context, stream, owns: true);
    }

    /// <summary>Uses a context and a stream that somebody else owns and keeps alive.</summary>
    public static CudaDevice Share(CudaDriverApi api, nint context, nint stream)
    {
        int device = 0;
        Check(api, api.cuCtxSetCurrent(context), "entering the given context");
        Check(api, api.cuCtxGetDevice(&device), "entering the given context");
        return new CudaDevice(api, device, context, stream, owns: false);
    }

    /// <summary>To be called at the start of every public operation: throws what made the device unusable, makes the context current, frees what finalizers left.</summary>
    public void Enter()
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (_fault is not null)
        {
            ThrowFault();
        }

        Check(_api.cuCtxSetCurrent(Context), "entering the device");
        while (!_abandoned.IsEmpty && _abandoned.TryDequeue(out nint address))
        {
            FreeNow(address);
        }
    }

    /// <summary>As <see cref="Enter"/>, for taking things down: false, and nothing thrown, where the context is dead and has freed everything itself.</summary>
    internal bool EnterToFree()
    {
        if (_fault is null && !_disposed)
        {
            try
            {
                Enter();
            }
            catch (NativeException) when (_fault is not null)
            {
                return false;
            }
        }

        return _fault is null && !_disposed;
    }

    /// <summary>A stream beside the one for computing.</summary>
    public CudaStream CreateStream()
    {
        Enter();
        nint handle = 0;
        Check(_api.cuStreamCreate(&handle, CudaDriverApi.StreamNonBlocking), "creating a stream");
        return new CudaStream(this, handle);
    }

    internal void Wait(nint stream, nint handle) => Check(_api.cuStreamWaitEvent(stream, handle, 0), "waiting for an event");

    internal void DestroyStream(nint handle)
    {
        if (EnterToFree())
        {
            Check(_api.cuStreamDestroy(handle), "freeing a stream");
        }
    }

    /// <summary>Waits until everything enqueued is done.</summary>
    public void Synchronize()
    {
        Enter();
        Check(_api.cuStreamSynchronize(Stream), "waiting for the device");
    }

    /// <summary>Loads a CUBIN.</summary>
    public nint LoadModule(ReadOnlySpan<byte> image)
    {
        Enter();
        nint module = 0;
        fixed (byte* bytes = image)
        {
            Check(_api.cuModuleLoadData(&module, bytes), "loading the kernels");
        }

        return module;
    }

    public void UnloadModule(nint module)
    {
        if (EnterToFree())
        {
            Check(_api.cuModuleUnload(module), "unloading the kernels");
        }
    }

    /// <summary>A kernel of a module.</summary>
    public nint Function(nint module, string name)
    {
        Enter();
        nint function = 0;
        fixed (byte* text = Encoding.ASCII.GetBytes(name + '\0'))
        {
            Check(_api.cuModuleGetFunction(&function, module, text), $"looking up the kernel '{name}'");
        }

        return function;
    }

    /// <summary>Blocks of a kernel that the whole device holds at a time.</summary>
    public int ResidentBlocks(nint function, int threads, int sharedBytes)
    {
        Enter();
        int blocks = 0;
        Check(_api.cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, threads, (nuint)sharedBytes), "asking how many blocks the device holds");
        return blocks * Multiprocessors;
    }

    /// <summary>Enqueues a kernel. <paramref name="operation"/> is for the message of a failure.</summary>
    internal void Launch(nint function, in LaunchShape shape, nint* parameters, Func<string> operation)
    {
        int status = shape.Cooperative
            ? _api.cuLaunchCooperativeKernel(
                function, (uint)shape.GridX, (uint)shape.GridY, (uint)shape.GridZ, (uint)shape.BlockX, (uint)shape.BlockY, 1, (uint)shape.SharedBytes, Stream,
                (void**)parameters)
            : _api.cuLaunchKernel(
                function, (uint)shape.GridX, (uint)shape.GridY, (uint)shape.GridZ, (uint)shape.BlockX, (uint)shape.BlockY, 1, (uint)shape.SharedBytes, Stream,
                (void**)parameters, null);
        if (status != CudaDriverApi.Success)
        {
            Check(status, operation());
        }
    }

    /// <summary>Starts to record what this thread enqueues, instead of running it.</summary>
    public void BeginCapture() => Check(_api.cuStreamBeginCapture(Stream, CudaDriverApi.CaptureThreadLocal), "recording a step");

    /// <summary>Ends the recording and makes it executable.</summary>
    public CudaGraph EndCapture()
    {
        nint graph = 0, executable = 0;
        nuint nodes = 0;
        Check(_api.cuStreamEndCapture(Stream, &graph), "recording a step");
        try
        {
            Check(_api.cuGraphGetNodes(graph, null, &nodes), "recording a step");
            Check(_api.cuGraphInstantiateWithFlags(&executable, graph, 0), "recording a step");
            Check(_api.cuGraphUpload(executable, Stream), "recording a step");
        }
        finally
        {
            _ = _api.cuGraphDestroy(graph);
        }

        return new CudaGraph(this, executable, (long)nodes);
    }

    /// <summary>Ends a recording that failed half way.</summary>
    public void AbandonCapture()
    {
        nint graph = 0;
        if (_api.cuStreamEndCapture(Stream, &graph) == CudaDriverApi.Success && graph != 0)
        {
            _ = _api.cuGraphDestroy(graph);
        }
    }

    internal void LaunchGraph(nint executable) => Check(_api.cuGraphLaunch(executable, Stream), "running a recorded step");

    internal void DestroyGraph(nint executable)
    {
        if (EnterToFree())
        {
            Check(_api.cuGraphExecDestroy(executable), "freeing a recorded step");
        }
    }

    /// <summary>An event; with <paramref name="timing"/> one that times can be taken between.</summary>
    public CudaEvent CreateEvent(bool timing = false)
    {
        Enter();
        nint handle = 0;
        Check(_api.cuEventCreate(&handle, timing ? 0u : CudaDriverApi.EventDisableTiming), "creating an event");
        return new CudaEvent(this, handle);
    }

    internal void Record(nint handle, nint stream) => Check(_api.cuEventRecord(handle, stream), "recording an event");

    internal void WaitOnHost(nint handle) => Check(_api.cuEventSynchronize(handle), "waiting for an event");

    internal float Elapsed(nint start, nint end)
    {
        float milliseconds = 0;
        Check(_api.cuEventElapsedTime(&milliseconds, start, end), "timing");
        return milliseconds;
    }

    internal void DestroyEvent(nint handle)
    {
        if (EnterToFree())
        {
            Check(_api.cuEventDestroy(handle), "freeing an event");
        }
    }

    /// <summary>Throws what a status means; a sticky error is kept, and makes every later call throw it again.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Check(int status, string operation)
    {
        if (status != CudaDriverApi.Success)
        {
            Fail(status, operation);
        }
    }

    /// <summary>Keeps an error of another library (cuDNN) that left the context dead.</summary>
    public void CheckContextAlive(string operation)
    {
        int status = _api.cuStreamSynchronize(Stream);
        if (CudaErrors.IsSticky(status))
        {
            Fail(status, operation);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        // A context that an error has killed refuses everything; the process's end frees it.
        if (_fault is null && _api.cuCtxSetCurrent(Context) == CudaDriverApi.Success)
        {
            _ = _api.cuStreamSynchronize(Stream);
            while (_abandoned.TryDequeue(out nint address))
            {
                _ = _api.cuMemFree(address);
            }

            if (_owns)
            {
                _ = _api.cuStreamDestroy(Stream);
            }
        }

        _disposed = true;
    }

    /// <summary>
    /// The primary context, retained at the first use and kept until the process ends. The last release would reset it, under cuDNN, which keeps what it
    /// loaded into it, and under other threads on which it is current; and the next backend would wait for a new one.
    /// </summary>
    private static nint PrimaryContext(CudaDriverApi api, int device)
    {
        lock (Retained)
        {
            if (!Retained.TryGetValue((api, device), out nint context))
            {
                Check(api, api.cuDevicePrimaryCtxRetain(&context, device), "opening the device");
                Retained.Add((api, device), context);
            }

            return context;
        }
    }

    private static int Handle(CudaDriverApi api, int ordinal)
    {
        int device = 0;
        Check(api, api.cuDeviceGet(&device, ordinal), FormattableString.Invariant($"opening device {ordinal}"));
        return device;
    }

    private static string DeviceName(CudaDriverApi api, int device)
    {
        Span<byte> name = stackalloc byte[256];
        fixed (byte* text = name)
        {
            Check(api, api.cuDeviceGetName(text, name.Length, device), "asking the device's name");
        }

        return Encoding.UTF8.GetString(name[..name.IndexOf((byte)0)]);
    }

    private static int Attribute(CudaDriverApi api, int device, int attribute)
    {
        int value = 0;
        Check(api, api.cuDeviceGetAttribute(&value, attribute, device), FormattableString.Invariant($"asking the device's attribute {attribute}"));
        return value;
    }

    private static void Check(CudaDriverApi api, int status, string operation)
    {
        if (status != CudaDriverApi.Success)
        {
            throw Failed(api, status, operation);
        }
    }

    private static NativeException Failed(CudaDriverApi api, int status, string operation) =>
        new("the CUDA driver", CudaErrors.Name(api, status), operation, CudaErrors.Text(api, status));

    private void Fail(int status, string operation)
    {
        NativeException error = Failed(_api, status, operation);
        if (CudaErrors.IsSticky(status))
        {
            _wasReset |= _fault is null && status == CudaErrors.ContextIsDestroyed;
            _fault ??= error;
            ThrowFault();
        }

        throw error;
    }

    private void ThrowFault() => throw new NativeException(
        _fault!.Library, _fault.Status, _fault.Operation,
        $"{_fault.Detail}. The device takes no more work from this process; start it again (a run continues from its last checkpoint). " + (_wasReset
            ? "Something else in this process has reset the device (cudaDeviceReset, or a reset of its primary context), which destroys what all have there"
            : "The cause may lie in an earlier kernel: set CUDA_LAUNCH_BLOCKING=1 to see which"));
}
