using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.OneDnn;

/// <content>Operations of one's own: managed code on the session's memory, on the calling thread.</content>
internal sealed partial class OneDnnBackend
{
    /// <inheritdoc/>
    private protected override Kernel CreateCore(CustomForward operation, BufferMap buffers) => new OneDnnCustom(operation, new CustomCall(operation), buffers);

    /// <inheritdoc/>
    private protected override Kernel CreateCore(CustomBackward operation, BufferMap buffers) => new OneDnnCustom(operation, new CustomCall(operation), buffers);
}

/// <summary>Any operation of one's own. Its tensors are plain and of single precision: the code sees them where they lie.</summary>
internal sealed class OneDnnCustom(Operation operation, CustomCall call, BufferMap buffers) : Kernel(operation)
{
    private readonly DeviceBuffer[] _buffers = [.. call.Slots.Select(s => buffers[s.Tensor])];

    /// <inheritdoc/>
    public override string Implementation => call.FunctionName;

    /// <inheritdoc/>
    protected override void ExecuteCore(in StepContext context)
    {
        for (int i = 0; i < _buffers.Length; i++)
        {
            call.SetAddress(call.Slots[i], _buffers[i].Address);
        }

        call.Run(context);
    }
}
