using System.Runtime.CompilerServices;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.OneDnn;

/// <summary>
/// Operations on the CPU by libhbn: oneDNN's primitives for convolution, LRN, fully connected layers and nonlinearities, libhbn's own
/// kernels for batch normalization, pooling, data movement, loss and optimizer. One file per group of operations turns operations into libhbn's
/// descriptors; everything executes through <see cref="OneDnnKernel"/>.
/// </summary>
internal sealed partial class OneDnnBackend : Backend
{
    private readonly BackendOptions _options;
    private readonly HbnEngineHandle _engine;
    private readonly HbnEngineInfo _info;
    private readonly ThreadTeam _team;

    /// <summary>Creates the engine; <see cref="NativeLibraries.Hbn"/> has been found.</summary>
    public OneDnnBackend(BackendOptions options)
    {
        _options = options;
        _team = ThreadTeam.Choose(options.Threads, Environment.GetEnvironmentVariable("OMP_NUM_THREADS"), new ControlGroups());
        HbnEngineDesc desc = new() { StructSize = Unsafe.SizeOf<HbnEngineDesc>(), Threads = _team.Wanted, MostThreads = _team.Most };
        try
        {
            NativeException.ThrowIfFailed(Hbn.hbn_engine_create(desc, out _engine), "creating the onednn backend");
        }
        catch (NotSupportedException error)
        {
            throw new UserErrorException($"The backend 'onednn' cannot compute with these threads: {error.Message}", error);
        }

        _info.StructSize = Unsafe.SizeOf<HbnEngineInfo>();
        NativeException.ThrowIfFailed(Hbn.hbn_engine_query(_engine, ref _info), "creating the onednn backend");
    }

    /// <inheritdoc/>
    public override string Name => "onednn";

    /// <inheritdoc/>
    public override string Description
    {
        get
        {
            string threads = _info.Threads == 1 ? "1 thread" : FormattableString.Invariant($"{_info.Threads} threads");
            string limited = _info.Threads == _info.WantedThreads ? "" : FormattableString.Invariant($" of the {_info.WantedThreads} wanted (OpenMP gives no more)");
            string cap = NativeLibraries.InstructionSetCap is { Length: > 0 } limit ? $" ({limit})" : "";
            return $"oneDNN {NativeLibraries.Hbn.Version}, {Isa}{(_info.Bf16 == Hbn.Bf16Native ? " with BF16" : "")}{cap}, {threads}{limited}";
        }
    }

    /// <summary>oneDNN executes different primitives on different threads at once, each with a team of OpenMP threads of its own.</summary>
    public override bool ConcurrentSessions => true;

    /// <inheritdoc/>
    public override int Threads => _info.Threads;

    /// <inheritdoc/>
    public override string ThreadsReason => _team.Describe(_info.Threads, _info.WantedThreads);

    private string Isa => _info.Isa switch { 2 => "AVX-512", 1 => "AVX2", _ => "SSE" };

    /// <inheritdoc/>
    internal override BackendTraits Traits => new(
        _info.ChannelBlock, _options.BatchNormAlgorithm == BatchNormAlgorithm.Native, BatchNormVariants: true, CustomOperations: true, PoolingTakesSlices: true, TrainingVariants: true,
        ConvolutionNormalizes: _options.BatchNormAlgorithm == BatchNormAlgorithm.Native, NarrowConvolutionNormalizes: _info.Bf16 == Hbn.Bf16Storage, ConvolutionTakesSlices: true);

    /// <inheritdoc/>
    public override bool Supports(Precision precision, out string reason)
    {
        const string Instead = "Use precision fp32";
        reason = (precision, _info.Bf16) switch
        {
            (Precision.Fp32, _) or (Precision.Bf16, Hbn.Bf16Native) => "",
            (Precision.Bf16, Hbn.Bf16Emulated) => "this CPU has no AVX-512 BF16 products, so oneDNN converts around fp32 ones: half the memory, but slower than fp32.",
            (Precision.Bf16, _) => $"oneDNN has no bf16 products for {Isa}, which is what this CPU has (or HBN_MAX_CPU_ISA allows), so bf16 is stored and computed with in fp32: half the memory, but no faster than fp32.",
            (Precision.Fp16, _) => $"oneDNN trains in bf16 or fp32 on CPUs. {Instead}, or bf16 to save memory.",
            _ => $"tf32 is a format of NVIDIA GPUs. {Instead}.",
        };
        return precision is Precision.Fp32 or Precision.Bf16;
    }

    /// <inheritdoc/>
    internal override DeviceBuffer CreateBuffer(Tensor tensor, DeviceBuffer? parent, DeviceBuffer? layoutLike)
    {
        ThrowIfDisposed();
        return new OneDnnBuffer(tensor, (OneDnnBuffer?)parent, (OneDnnBuffer?)layoutLike, _info.ChannelBlock);
    }

    /// <inheritdoc/>
    internal override AvailableMemory? Available => MachineMemory.Available();

    /// <inheritdoc/>
    internal override DeviceMemory Allocate(long bytes)
    {
        ThrowIfDisposed();
        return new HostMemory(bytes, Clear);

        // By the threads that will work on it, so that on machines with several memory nodes its pages lie on all of them.
        void Clear(nint address, long size) => NativeException.ThrowIfFailed(Hbn.hbn_memory_clear(_engine, address, size), "allocating memory");
    }

    /// <inheritdoc/>
    internal override MachineLimits MeasureLimits()
    {
        ThrowIfDisposed();
        double Probe(int what)
        {
            NativeException.ThrowIfFailed(Hbn.hbn_probe(_engine, what, out double rate), "measuring the machine");
            return rate / 1e9;
        }

        double bf16 = Probe(Hbn.ProbeDotBf16);
        return new MachineLimits(Probe(Hbn.ProbeMultiplyAdd), bf16 > 0 ? bf16 : null, Probe(Hbn.ProbeTriad));
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _engine.Dispose();
        }

        base.Dispose(disposing);
    }

    /// <summary>A create function of libhbn that takes a descriptor.</summary>
    private delegate int CreateNative<TDesc>(HbnEngineHandle engine, in TDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle native);

    /// <summary>Creates a kernel for the tensors, in the order libhbn's header gives (null: absent), and lets it decide open layouts.</summary>
    private OneDnnKernel Create<TDesc>(Operation operation, BufferMap buffers, CreateNative<TDesc> create, in TDesc desc, params ReadOnlySpan<Tensor?> tensors)
        where TDesc : unmanaged
    {
        OneDnnBuffer?[] slots = Slots(buffers, tensors);
        int status = create(_engine, desc, Describe(slots), slots.Length, out HbnKernelHandle native);
        return Finish(operation, status, native, slots);
    }

    private static OneDnnBuffer?[] Slots(BufferMap buffers, ReadOnlySpan<Tensor?> tensors)
    {
        OneDnnBuffer?[] slots = new OneDnnBuffer?[tensors.Length];
        for (int i = 0; i < slots.Length; i++)
        {
            slots[i] = tensors[i] is { } tensor ? (OneDnnBuffer)buffers[tensor] : null;
        }

        return slots;
    }

    private static HbnTensor[] Describe(OneDnnBuffer?[] slots) => Array.ConvertAll(slots, s => s?.Describe() ?? HbnTensor.None);

    private static OneDnnKernel Finish(Operation operation, int status, HbnKernelHandle native, OneDnnBuffer?[] slots)
    {
        bool success = false;
        try
        {
            NativeException.ThrowIfFailed(status, OneDnnKernel.Describe(operation));
            for (int i = 0; i < slots.Length; i++)
            {
                if (slots[i] is { IsUndecided: true } slot)
                {
                    NativeException.ThrowIfFailed(Hbn.hbn_kernel_format(native, i, out HbnFormatHandle format), OneDnnKernel.Describe(operation));
                    slot.Decide(format);
                }
            }

            OneDnnKernel kernel = new(operation, native, slots);
            success = true;
            return kernel;
        }
        finally
        {
            if (!success)
            {
                native.Dispose();
            }
        }
    }
}
