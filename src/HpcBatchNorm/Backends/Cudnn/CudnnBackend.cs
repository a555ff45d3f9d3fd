using System.Globalization;
using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>
/// Operations on an NVIDIA GPU: cuDNN for convolution and fully connected layers, our own CUDA kernels (native/kernels, compiled by NVRTC for the device
/// found) for everything else. All tensors are NHWC, so plain and blocked layouts are one, and weights are KRSC. One file per group of operations turns
/// operations into launches and calls; everything executes through <see cref="CudnnKernel"/>.
/// Without a device the backend plans but does not execute.
/// </summary>
internal sealed partial class CudnnBackend : Backend
{
    /// <summary>Multiprocessors assumed when planning without a device: those of an H200.</summary>
    private const int PlannedMultiprocessors = 132;

    /// <summary>Blocks that may be counted at a time; see the kernels' <c>is_last_block</c>.</summary>
    private const int Counters = 1 << 14;

    /// <summary>A grid's extent along y and z, at most.</summary>
    private const int MostLayers = 65535;

    /// <summary>
    /// Partial sums of a column at most, which one block merges, and rows that a thread adds at least: what merging costs grows with the number of partial
    /// sums, what sharing saves shrinks with the rows.
    /// </summary>
    private const int MostPartials = 128, LeastRows = 8;

    /// <summary>Blocks of a kernel that a multiprocessor holds at a time: with all the registers a thread may have (HBN_RESIDENT), and with few.</summary>
    private const int ResidentBlocks = 3, ResidentSmallBlocks = 8;

    /// <summary>
    /// Batch normalization of an activation of more bytes reduces and applies in two launches: it takes long beside a launch, its second reading comes from
    /// memory and not from the L2 cache, and the second launch may have more blocks than the first.
    /// </summary>
    private const long MostBytesInOneLaunch = 32 << 20;

    /// <summary>Above this an index does not fit the 32 bits in which kernels and cuDNN count.</summary>
    private const long MostElements = int.MaxValue;

    private readonly BackendOptions _options;
    private readonly CudaLibraries? _libraries;
    private readonly CudaDevice? _device;
    private readonly CudnnHandle? _cudnn;
    private readonly CudaModules? _modules;
    private readonly AlgorithmChoices _choices;
    private readonly UploadRing? _uploads;
    private readonly nint _counters; // those of the stream for computing: no kernel of ours runs on another
    private readonly nint _generations;
    private readonly nint _stepState;
    private CudaLaunch? _setStep;
    private StepContext _stepOnDevice = new(-1, float.NaN);

    private CudnnBackend(BackendOptions options, CudaLibraries? libraries, CudaDevice? device, string? cacheFolder = null)
    {
        _options = options;
        _libraries = libraries;
        _device = device;
        _choices = new AlgorithmChoices(options.TuningFile);
        if (device is null)
        {
            return;
        }

        try
        {
            _cudnn = new CudnnHandle(libraries!.CudnnApi!, device);
            _modules = new CudaModules(device, new NvrtcCompiler(libraries.NvrtcApi!), cacheFolder);
            _uploads = new UploadRing(device);
            _counters = device.Allocate(2 * Counters * sizeof(uint));
            _generations = _counters + Counters * sizeof(uint);
            _stepState = device.Allocate(3 * sizeof(uint));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The backend on a device, with a stream of its own. Compiled kernels are kept in <paramref name="cacheFolder"/>, null for the usual one.</summary>
    public static CudnnBackend Open(BackendOptions options, CudaLibraries libraries, string? cacheFolder = null) =>
        new(options, libraries, CudaDevice.Open(libraries.DriverApi!, options.Device % Math.Max(1, CudaDevice.Count(libraries.DriverApi!))), cacheFolder);

    /// <summary>The backend in a context and on a stream that the caller owns.</summary>
    public static CudnnBackend Share(BackendOptions options, CudaLibraries libraries, nint context, nint stream, string? cacheFolder = null) =>
        new(options, libraries, CudaDevice.Share(libraries.DriverApi!, context, stream), cacheFolder);

    /// <summary>Options that keep what is chosen by timing where no file is named for it.</summary>
    public static BackendOptions Remembering(BackendOptions options) => options.TuningFile is null ? options with { TuningFile = AlgorithmChoices.UserFile } : options;

    /// <summary>A backend that plans and needs nothing; executing anything fails.</summary>
    public static CudnnBackend ForPlanning(BackendOptions options) => new(options, null, null);

    /// <inheritdoc/>
    public override string Name => "cudnn";

    /// <inheritdoc/>
    public override string Description => _device is null
        ? "without a device, for planning only"
        : string.Create(CultureInfo.InvariantCulture,
            $"cuDNN {_cudnn!.Version}, {_device.Name}, compute capability {_device.Major}.{_device.Minor}, driver for CUDA {CudaLibraries.CudaVersionText(_device.DriverVersion)}{(_cudnn.Mixture is { } mixture ? $"; warning: {mixture}" : "")}");

    /// <inheritdoc/>
    internal override BackendTraits Traits => new(
        ChannelBlock: 8, _options.BatchNormAlgorithm == BatchNormAlgorithm.Native, BatchNormVariants: true, LossScaling: true, PoolingTakesSlices: true, NarrowWeightGradients: true,
        ConvolutionReluTakesNarrowBias: _options.LibraryRelu, ConvolutionTakesSlices: true);

    /// <summary>The device; null when planning only.</summary>
    internal CudaDevice? Device => _device;

    /// <summary>NVIDIA's libraries; null when planning only.</summary>
    internal CudaLibraries? Libraries => _libraries;

    /// <summary>Address of the step's numbers on the device.</summary>
    internal nint StepState => _stepState;

    /// <summary>Address of zeroed counters on the device.</summary>
    internal nint CounterArray => _counters;

    internal int Multiprocessors => _device?.Multiprocessors ?? PlannedMultiprocessors;

    /// <inheritdoc/>
    public override bool Supports(Precision precision, out string reason)
    {
        int needed = precision switch { Precision.Tf32 or Precision.Bf16 => 8, Precision.Fp16 => 7, _ => 0 };
        reason = _device is null || _device.Major >= needed
            ? ""
            : string.Create(CultureInfo.InvariantCulture,
                $"{_device.Name} has compute capability {_device.Major}.{_device.Minor}; {precision.Word()} needs {needed}.0. Use {(needed == 8 && _device.Major >= 7 ? "fp16 or fp32" : "fp32")}.");
        return reason.Length == 0;
    }

    /// <inheritdoc/>
    internal override DeviceBuffer CreateBuffer(Tensor tensor, DeviceBuffer? parent, DeviceBuffer? layoutLike)
    {
        ThrowIfDisposed();
        return new CudnnBuffer(tensor, (CudnnBuffer?)parent);
    }

    /// <inheritdoc/>
    internal override DeviceMemory Allocate(long bytes)
    {
        ThrowIfDisposed();
        return new CudaDeviceMemory(_device ?? throw NoDevice(), Math.Max(bytes, 1));
    }

    /// <inheritdoc/>
    internal override void Synchronize()
    {
        ThrowIfDisposed();
        _device?.Synchronize();
    }

    /// <inheritdoc/>
    internal override RecordedKernels? Record(IReadOnlyList<Kernel> kernels)
    {
        ThrowIfDisposed();
        return _device is null || !_options.RecordSteps ? null : new CudnnRecordedKernels(this, [.. kernels.Cast<CudnnKernel>()]);
    }

    /// <inheritdoc/>
    internal override MachineLimits? MeasureLimits()
    {
        ThrowIfDisposed();
        return _device is null ? null : new CudnnLimits(_device, _modules!, _cudnn!).Measure();
    }

    /// <inheritdoc/>
    internal override KernelResources? ResourcesOf(string kernel, DataType type, int architecture) => KernelTable.Find(kernel, type, architecture);

    /// <inheritdoc/>
    internal override long? PeakDeviceBytes => _device?.PeakBytes;

    /// <inheritdoc/>
    internal override DeviceClock? CreateClock(int marks)
    {
        ThrowIfDisposed();
        return _device is null ? null : new CudnnClock(_device, marks);
    }

    /// <inheritdoc/>
    internal override StagingBuffer? CreateStaging(long bytes)
    {
        ThrowIfDisposed();
        return _device is null ? null : new CudnnStaging(_device, bytes);
    }

    /// <summary>Enters the device and makes a step's numbers known to it. Before anything is enqueued.</summary>
    internal void Begin(in StepContext context)
    {
        (_device ?? throw NoDevice()).Enter();
        _choices.EndSearch();
        if (context == _stepOnDevice)
        {
            return;
        }

        _setStep ??= new CudaLaunch(_device, _modules!.Function(DataType.Float32, "set_step"), 4, new LaunchShape(1, 1, 1, 1, 1, 0), () => "setting the step");
        _setStep.Set(0, _stepState);
        _setStep.Set(1, (uint)context.Step);
        _setStep.Set(2, (uint)(context.Step >> 32));
        _setStep.Set(3, context.LearningRate);
        _setStep.Launch();
        _stepOnDevice = context;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            Disconnect();
            _choices.Dispose();
            _uploads?.Dispose();
            _modules?.Dispose();
            _cudnn?.Dispose();
            if (_device is not null)
            {
                FreeIfAny(_counters);
                FreeIfAny(_stepState);
                _device.Dispose();
            }
        }

        base.Dispose(disposing);

        void FreeIfAny(nint address)
        {
            if (address != 0)
            {
                _device.Free(address);
            }
        }
    }

    private static InvalidOperationException NoDevice() => new("This cudnn backend was made for planning, without a device; it cannot execute.");

    private static CudnnBuffer Buffer(BufferMap buffers, Tensor tensor) => (CudnnBuffer)buffers[tensor];

    private static CudnnBuffer? Optional(BufferMap buffers, Tensor? tensor) => tensor is null ? null : (CudnnBuffer)buffers[tensor];

    /// <summary>A launch of one of our kernels, compiled for an element type of activations.</summary>
    private CudnnLaunch Launch(string function, DataType type, in LaunchShape shape, string operation) =>
        new(_device, _modules?.Function(type, function) ?? 0, function, type, shape, operation);

    /// <summary>Which of a kernel's two forms: 16 bytes of channels per thread where number, strides and offsets allow it, else one.</summary>
    private static string Form(string kernel, bool wide) => $"{kernel}_{(wide ? "wide" : "single")}";

    private static bool IsWide(params ReadOnlySpan<CudnnBuffer?> activations)
    {
        foreach (CudnnBuffer? buffer in activations)
        {
            if (buffer is not null && !buffer.IsWide)
            {
                return false;
            }
        }

        return true;
    }

    private static int Width(DataType type, bool wide) => !wide ? 1 : type.IsNarrow() ? 8 : 4;

    /// <summary>Threads that share elements without minding which: a few blocks per multiprocessor, each thread taking several elements.</summary>
    private LaunchShape Spread(long items) => new((int)Math.Clamp((items + 255) / 256, 1, Multiprocessors * ResidentSmallBlocks), 1, 1, 256, 1, 0);

    /// <summary>
    /// Blocks that own columns: along x groups of <paramref name="width"/> columns per thread, along y as many blocks as share the rows, along z
    /// <paramref name="layers"/>, of which a launch takes at most <see cref="MostLayers"/>.
    /// </summary>
    private LaunchShape Columns(int columns, int rows, int width, int layers)
    {
        (int x, int lanes, int height) = Block(columns, rows, width, layers, mostLanes: 32);
        int wanted = Math.Max(1, Multiprocessors * ResidentBlocks / x / layers), most = (rows + height - 1) / height;
        return new LaunchShape(x, layers > 1 ? 1 : Math.Min(Math.Min(wanted, most), MostLayers), layers, lanes, height, ColumnBytes(width, lanes));
    }

    /// <summary>
    /// As <see cref="Columns"/>, for <paramref name="sums"/> sums of each column: the blocks along y leave one partial sum each, so there are no more of them
    /// than <see cref="MostPartials"/>, and none whose threads would add fewer than <see cref="LeastRows"/> rows. Lanes that are neighbours read 128 bytes, a
    /// line of the cache: more of them would only take rows from the block.
    /// </summary>
    private LaunchShape Reduction(int columns, int rows, int width, int layers, int sums)
    {
        (int x, int lanes, int height) = Block(columns, rows, width, layers, mostLanes: width > 1 ? 8 : 32);
        int wanted = Math.Clamp(Multiprocessors * ResidentBlocks / x / layers, 1, MostPartials), most = Math.Max(1, rows / (height * LeastRows));
        int shared = Math.Max(2 * sums * width * lanes * height * sizeof(float), ColumnBytes(width, lanes));
        return new LaunchShape(x, layers > 1 ? 1 : Math.Min(wanted, most), layers, lanes, height, shared);
    }

    /// <summary>Shared memory for what batch normalization keeps of a block's columns: six numbers each at most.</summary>
    private static int ColumnBytes(int width, int lanes) => 6 * width * lanes * sizeof(float);

    private static (int X, int Lanes, int Height) Block(int columns, int rows, int width, int layers, int mostLanes)
    {
        int groups = (columns + width - 1) / width, lanes = 1;
        while (lanes < mostLanes && lanes < groups)
        {
            lanes *= 2;
        }

        int height = 256 / lanes;
        while (layers > 1 && height >= 2 * rows)
        {
            // One block has a layer's rows to itself; threads without a row would only wait.
            height /= 2;
        }

        return ((groups + lanes - 1) / lanes, lanes, height);
    }
}
