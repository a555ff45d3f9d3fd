using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends;

/// <content>What a backend implements: one kernel per operation, and transfers. Arguments are already validated.</content>
public abstract partial class Backend
{
    /// <summary>Of tensors in the host's memory, as they lie there.</summary>
    private protected virtual Kernel CreateCore(AllReduceStart operation, BufferMap buffers) => new HostAllReduceStart(operation, buffers, ConnectedBy(operation), StoredType);

    /// <inheritdoc cref="CreateCore(AllReduceStart, BufferMap)"/>
    private protected virtual Kernel CreateCore(AllReduceFinish operation) => new HostAllReduceFinish(operation);

    /// <summary>Creates the kernel of a convolution.</summary>
    private protected abstract Kernel CreateCore(ConvolutionForward operation, BufferMap buffers);

    /// <summary>Creates the kernel of a convolution's gradient with respect to src.</summary>
    private protected abstract Kernel CreateCore(ConvolutionBackwardData operation, BufferMap buffers);

    /// <summary>Creates the kernel of a convolution's gradient with respect to weights and bias.</summary>
    private protected abstract Kernel CreateCore(ConvolutionBackwardWeights operation, BufferMap buffers);

    /// <summary>Creates the kernel of a batch normalization.</summary>
    private protected abstract Kernel CreateCore(BatchNormForward operation, BufferMap buffers);

    /// <summary>Creates the kernel of batch normalization's gradients.</summary>
    private protected abstract Kernel CreateCore(BatchNormBackward operation, BufferMap buffers);

    /// <summary>Creates the kernel of a nonlinearity.</summary>
    private protected abstract Kernel CreateCore(ActivationForward operation, BufferMap buffers);

    /// <summary>Creates the kernel of a nonlinearity's gradient.</summary>
    private protected abstract Kernel CreateCore(ActivationBackward operation, BufferMap buffers);

    /// <summary>Creates the kernel of a pooling.</summary>
    private protected abstract Kernel CreateCore(PoolingForward operation, BufferMap buffers);

    /// <summary>Creates the kernel of a pooling's gradient.</summary>
    private protected abstract Kernel CreateCore(PoolingBackward operation, BufferMap buffers);

    /// <summary>Creates the kernel of local response normalization.</summary>
    private protected abstract Kernel CreateCore(LrnForward operation, BufferMap buffers);

    /// <summary>Creates the kernel of local response normalization's gradient.</summary>
    private protected abstract Kernel CreateCore(LrnBackward operation, BufferMap buffers);

    /// <summary>Creates the kernel of dropout, either direction.</summary>
    private protected abstract Kernel CreateCore(Dropout operation, BufferMap buffers);

    /// <summary>Creates the kernel of a fully connected layer.</summary>
    private protected abstract Kernel CreateCore(InnerProductForward operation, BufferMap buffers);

    /// <summary>Creates the kernel of a fully connected layer's gradient with respect to src.</summary>
    private protected abstract Kernel CreateCore(InnerProductBackwardData operation, BufferMap buffers);

    /// <summary>Creates the kernel of a fully connected layer's gradient with respect to weights and bias.</summary>
    private protected abstract Kernel CreateCore(InnerProductBackwardWeights operation, BufferMap buffers);

    /// <summary>Creates the kernel of a copy or reorder.</summary>
    private protected abstract Kernel CreateCore(Copy operation, BufferMap buffers);

    /// <summary>Creates the kernel of a sum.</summary>
    private protected abstract Kernel CreateCore(Sum operation, BufferMap buffers);

    /// <summary>Creates the kernel of input preparation.</summary>
    private protected abstract Kernel CreateCore(PrepareInput operation, BufferMap buffers);

    /// <summary>Creates the kernel of softmax and cross-entropy.</summary>
    private protected abstract Kernel CreateCore(SoftmaxCrossEntropy operation, BufferMap buffers);

    /// <summary>Creates the kernel of softmax.</summary>
    private protected abstract Kernel CreateCore(Softmax operation, BufferMap buffers);

    /// <summary>Creates the kernel of the optimizer's update.</summary>
    private protected abstract Kernel CreateCore(SgdUpdate operation, BufferMap buffers);

    /// <summary>Creates the kernel of AdamW's update, or of LAMB's.</summary>
    private protected abstract Kernel CreateCore(AdamUpdate operation, BufferMap buffers);

    /// <summary>Creates the kernel of gradient clipping.</summary>
    private protected abstract Kernel CreateCore(ClipGradients operation, BufferMap buffers);

    /// <summary>Creates the kernel of gradient accumulation.</summary>
    private protected abstract Kernel CreateCore(AccumulateGradients operation, BufferMap buffers);

    /// <summary>Creates the kernel of weight averaging.</summary>
    private protected abstract Kernel CreateCore(UpdateAverage operation, BufferMap buffers);

    /// <summary>Creates the kernel of the loss scale's update; asked for only where the traits say that the loss can be scaled.</summary>
    private protected virtual Kernel CreateCore(UpdateLossScale operation, BufferMap buffers) => throw new NotSupportedException($"Backend {Name} does not scale the loss.");

    /// <summary>Creates the kernel of an operation of one's own; asked for only where the traits say that managed code can run.</summary>
    private protected virtual Kernel CreateCore(CustomForward operation, BufferMap buffers) => throw NoCustom(operation);

    /// <summary>Creates the kernel of the gradients of an operation of one's own; asked for only where the traits say that managed code can run.</summary>
    private protected virtual Kernel CreateCore(CustomBackward operation, BufferMap buffers) => throw NoCustom(operation);

    /// <summary>Creates the kernel of the parameters' rounding to 16 bits.</summary>
    private protected abstract Kernel CreateCore(ConvertParameters operation, BufferMap buffers);

    /// <summary>Sets a buffer from doubles in logical order.</summary>
    private protected abstract void WriteCore(DeviceBuffer buffer, ReadOnlySpan<double> values);

    /// <summary>Sets a buffer from floats in logical order.</summary>
    private protected abstract void WriteCore(DeviceBuffer buffer, ReadOnlySpan<float> values);

    /// <summary>Sets an Int32 buffer.</summary>
    private protected abstract void WriteCore(DeviceBuffer buffer, ReadOnlySpan<int> values);

    /// <summary>Sets a UInt8 buffer.</summary>
    private protected abstract void WriteCore(DeviceBuffer buffer, ReadOnlySpan<byte> values);

    /// <summary>Gets a buffer as doubles in logical order.</summary>
    private protected abstract void ReadCore(DeviceBuffer buffer, Span<double> values);

    /// <summary>Gets a buffer as floats in logical order.</summary>
    private protected abstract void ReadCore(DeviceBuffer buffer, Span<float> values);

    /// <summary>Implements <see cref="IsFinite"/>; this one reads the values, another may look at them where they lie.</summary>
    private protected virtual bool IsFiniteCore(DeviceBuffer buffer)
    {
        int count = checked((int)buffer.Tensor.Shape.Count);
        float[] values = System.Buffers.ArrayPool<float>.Shared.Rent(count);
        Read(buffer, values.AsSpan(0, count));
        bool finite = Tensors.FiniteCheck.AreFinite(values.AsSpan(0, count));
        System.Buffers.ArrayPool<float>.Shared.Return(values);
        return finite;
    }
}
