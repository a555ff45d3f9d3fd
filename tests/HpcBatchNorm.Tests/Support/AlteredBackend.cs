using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Support;

/// <summary>
/// The reference backend made wrong on purpose: operations are rewritten before it sees them, or their results are changed after it made them.
/// A check that does not fail on it checks nothing.
/// </summary>
internal sealed class AlteredBackend : Backend
{
    private readonly ReferenceBackend _inner = new();

    public override string Name => "altered";

    public override string Description => "the reference with a planted fault";

    public override bool ConcurrentSessions => Concurrent;

    /// <summary>Whether several sessions may compute at once, as those of ranks in one process do.</summary>
    public bool Concurrent { get; init; } = true;

    internal override BackendTraits Traits => new(ChannelBlock: 16, BatchNormTakesSlices: true, CustomOperations: true);

    /// <summary>What is executed in place of an operation.</summary>
    public Func<Operation, Operation> Rewrite { get; init; } = o => o;

    /// <summary>Called after each execution with the operation as it was asked for; may change any tensor.</summary>
    public Action<Operation, ValueAccess>? After { get; init; }

    /// <summary>Words for <see cref="Kernel.Implementation"/>.</summary>
    public string Implementation { get; init; } = "reference";

    public override bool Supports(Precision precision, out string reason) => _inner.Supports(precision, out reason);

    internal override DeviceBuffer CreateBuffer(Tensor tensor, DeviceBuffer? parent, DeviceBuffer? layoutLike) => _inner.CreateBuffer(tensor, parent, layoutLike);

    internal override DeviceMemory Allocate(long bytes) => _inner.Allocate(bytes);

    /// <summary>Memory that it says there is.</summary>
    public AvailableMemory? Memory { get; init; }

    internal override AvailableMemory? Available => Memory;

    protected override void Dispose(bool disposing)
    {
        _inner.Dispose();
        base.Dispose(disposing);
    }

    private protected override Kernel CreateCore(ConvolutionForward operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(ConvolutionBackwardData operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(ConvolutionBackwardWeights operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(BatchNormForward operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(BatchNormBackward operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(ActivationForward operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(ActivationBackward operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(PoolingForward operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(PoolingBackward operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(LrnForward operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(LrnBackward operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(Dropout operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(InnerProductForward operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(InnerProductBackwardData operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(InnerProductBackwardWeights operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(Copy operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(Sum operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(PrepareInput operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(SoftmaxCrossEntropy operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(Softmax operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(SgdUpdate operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(AdamUpdate operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(ClipGradients operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(AccumulateGradients operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(UpdateAverage operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override Kernel CreateCore(ConvertParameters operation, BufferMap buffers) => Alter(operation, buffers);

    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<double> values) => _inner.Write(buffer, values);

    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<float> values) => _inner.Write(buffer, values);

    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<int> values) => _inner.Write(buffer, values);

    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<byte> values) => _inner.Write(buffer, values);

    private protected override void ReadCore(DeviceBuffer buffer, Span<double> values) => _inner.Read(buffer, values);

    private protected override void ReadCore(DeviceBuffer buffer, Span<float> values) => _inner.Read(buffer, values);

    private AlteredKernel Alter(Operation operation, BufferMap buffers)
    {
        _inner.Collectives = Collectives;
        return new(this, operation, _inner.CreateKernel(Rewrite(operation), buffers), buffers);
    }

    /// <summary>Reads and writes the tensors of the case that is running.</summary>
    internal sealed class ValueAccess(Backend backend, BufferMap buffers)
    {
        public double[] Read(Tensor tensor)
        {
            double[] values = new double[tensor.Shape.Count];
            backend.Read(buffers[tensor], values);
            return values;
        }

        public void Write(Tensor tensor, double[] values) => backend.Write(buffers[tensor], (ReadOnlySpan<double>)values);

        public void Change(Tensor tensor, Action<double[]> change)
        {
            double[] values = Read(tensor);
            change(values);
            Write(tensor, values);
        }
    }

    private sealed class AlteredKernel(AlteredBackend backend, Operation operation, Kernel inner, BufferMap buffers) : Kernel(operation)
    {
        public override string Implementation => backend.Implementation;

        public override long ScratchBytes => inner.ScratchBytes;

        protected override void ExecuteCore(in StepContext context)
        {
            inner.Scratch = Scratch;
            inner.Execute(context);
            backend.After?.Invoke(Operation, new ValueAccess(backend, buffers));
        }

        protected override void Dispose(bool disposing)
        {
            inner.Dispose();
            base.Dispose(disposing);
        }
    }
}
