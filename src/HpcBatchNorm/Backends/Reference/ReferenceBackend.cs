using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>
/// The oracle: every operation in plain C#, beside the paper's equations, to check the other backends against.
/// <list type="bullet">
/// <item>All tensors, whatever their <see cref="DataType"/>, are stored as doubles in dense NCHW order (UInt8 pixels: NHWC), and all sums are
/// accumulated in double.</item>
/// <item>Values written from outside are rounded to the tensor's data type. Results are not, with two exceptions, which are rounded after every
/// operation that writes them. Persistent state (<see cref="TensorRole.Parameter"/>, <see cref="TensorRole.Momentum"/>,
/// <see cref="TensorRole.RunningStatistic"/>, <see cref="TensorRole.Average"/>) of type <see cref="DataType.Float32"/>, so that training resumed from a
/// checkpoint of single-precision values continues bit for bit. And tensors of the 16-bit types, because what the next operation reads is what could
/// be stored: the rounding is the precision's own, not an error of the backend that is checked.</item>
/// <item>Operations of one's own (<see cref="ICustomFunction"/>) are code on single-precision values here as elsewhere: what they read is rounded to
/// single precision before each call, and what they are to set is NaN until they set it.</item>
/// <item>Results do not depend on the number of threads: work is divided over outputs, and each output is summed in one fixed order.</item>
/// </list>
/// </summary>
internal sealed partial class ReferenceBackend : Backend
{
    private readonly ParallelOptions _parallel;

    /// <summary>Creates the backend; of the options only <see cref="BackendOptions.Threads"/> matters here.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The number of threads is negative.</exception>
    public ReferenceBackend(BackendOptions? options = null)
    {
        int threads = options?.Threads ?? 0;
        ArgumentOutOfRangeException.ThrowIfNegative(threads, nameof(options));
        _parallel = new ParallelOptions { MaxDegreeOfParallelism = threads == 0 ? Environment.ProcessorCount : threads };
    }

    /// <inheritdoc/>
    public override string Name => "reference";

    /// <inheritdoc/>
    public override string Description => $"pure C# in double precision, {_parallel.MaxDegreeOfParallelism} threads";

    /// <inheritdoc/>
    public override bool ConcurrentSessions => true;

    /// <inheritdoc/>
    public override int Threads => _parallel.MaxDegreeOfParallelism;

    /// <inheritdoc/>
    internal override BackendTraits Traits { get; } = new(ChannelBlock: 1, BatchNormTakesSlices: true, BatchNormVariants: true, LossScaling: true, CustomOperations: true, PoolingTakesSlices: true, TrainingVariants: true,
        ConvolutionNormalizes: true);

    /// <inheritdoc/>
    private protected override DataType StoredType => DataType.Float64;

    /// <summary>All: 16-bit tensors are rounded, and what <see cref="Precision.Tf32"/> may round is computed exactly.</summary>
    public override bool Supports(Precision precision, out string reason)
    {
        reason = "";
        return true;
    }

    /// <inheritdoc/>
    internal override DeviceBuffer CreateBuffer(Tensor tensor, DeviceBuffer? parent, DeviceBuffer? layoutLike)
    {
        ThrowIfDisposed();
        return new ReferenceBuffer(tensor, (ReferenceBuffer?)parent);
    }

    /// <inheritdoc/>
    internal override AvailableMemory? Available => MachineMemory.Available();

    /// <inheritdoc/>
    internal override DeviceMemory Allocate(long bytes)
    {
        ThrowIfDisposed();
        return new HostMemory(bytes);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ConvolutionForward operation, BufferMap buffers) =>
        new ReferenceConvolutionForward(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ConvolutionBackwardData operation, BufferMap buffers) =>
        new ReferenceConvolutionBackwardData(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ConvolutionBackwardWeights operation, BufferMap buffers) =>
        new ReferenceConvolutionBackwardWeights(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(BatchNormForward operation, BufferMap buffers) =>
        new ReferenceBatchNormForward(operation, buffers, _parallel, operation.Synchronized ? ConnectedBy(operation) : null);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(BatchNormBackward operation, BufferMap buffers) =>
        new ReferenceBatchNormBackward(operation, buffers, _parallel, operation.Synchronized ? ConnectedBy(operation) : null);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ActivationForward operation, BufferMap buffers) =>
        new ReferenceActivationForward(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ActivationBackward operation, BufferMap buffers) =>
        new ReferenceActivationBackward(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(PoolingForward operation, BufferMap buffers) =>
        new ReferencePoolingForward(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(PoolingBackward operation, BufferMap buffers) =>
        new ReferencePoolingBackward(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(LrnForward operation, BufferMap buffers) =>
        new ReferenceLrnForward(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(LrnBackward operation, BufferMap buffers) =>
        new ReferenceLrnBackward(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Dropout operation, BufferMap buffers) =>
        new ReferenceDropout(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(InnerProductForward operation, BufferMap buffers) =>
        new ReferenceInnerProductForward(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(InnerProductBackwardData operation, BufferMap buffers) =>
        new ReferenceInnerProductBackwardData(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(InnerProductBackwardWeights operation, BufferMap buffers) =>
        new ReferenceInnerProductBackwardWeights(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Copy operation, BufferMap buffers) =>
        new ReferenceCopy(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Sum operation, BufferMap buffers) =>
        new ReferenceSum(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(PrepareInput operation, BufferMap buffers) =>
        new ReferencePrepareInput(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(SoftmaxCrossEntropy operation, BufferMap buffers) =>
        new ReferenceSoftmaxCrossEntropy(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Softmax operation, BufferMap buffers) =>
        new ReferenceSoftmax(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(SgdUpdate operation, BufferMap buffers) =>
        new ReferenceSgdUpdate(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(AdamUpdate operation, BufferMap buffers) =>
        new ReferenceAdamUpdate(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ClipGradients operation, BufferMap buffers) =>
        new ReferenceClipGradients(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(AccumulateGradients operation, BufferMap buffers) =>
        new ReferenceAccumulateGradients(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(UpdateAverage operation, BufferMap buffers) =>
        new ReferenceUpdateAverage(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(UpdateLossScale operation, BufferMap buffers) =>
        new ReferenceUpdateLossScale(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ConvertParameters operation, BufferMap buffers) =>
        new ReferenceConvertParameters(operation, buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(CustomForward operation, BufferMap buffers) =>
        new ReferenceCustom(operation, new CustomCall(operation), buffers, _parallel);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(CustomBackward operation, BufferMap buffers) =>
        new ReferenceCustom(operation, new CustomCall(operation), buffers, _parallel);

    /// <inheritdoc/>
    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<double> values) => ((ReferenceBuffer)buffer).Write(values);

    /// <inheritdoc/>
    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<float> values) => ((ReferenceBuffer)buffer).Write(values);

    /// <inheritdoc/>
    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<int> values) => ((ReferenceBuffer)buffer).Write(values);

    /// <inheritdoc/>
    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<byte> values) => ((ReferenceBuffer)buffer).WriteStored(values);

    /// <inheritdoc/>
    private protected override void ReadCore(DeviceBuffer buffer, Span<double> values) => ((ReferenceBuffer)buffer).Read(values);

    /// <inheritdoc/>
    private protected override void ReadCore(DeviceBuffer buffer, Span<float> values) => ((ReferenceBuffer)buffer).Read(values);
}
