using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends;

/// <summary>
/// A call of an operation of one's own, for the kernels of the backends whose memory is the host's: tensors in one list, an address for each, and the error
/// that names the layer when the code throws.
/// </summary>
internal sealed class CustomCall
{
    private readonly Operation _operation;
    private readonly CustomArguments _arguments;
    private readonly bool _backward;
    private readonly List<Slot> _slots = [];

    public CustomCall(CustomForward operation)
    {
        _operation = operation;
        _arguments = new CustomArguments(operation.Spec)
        {
            Statistics = operation.Statistics,
            Training = operation.Training,
            Population = operation.Population,
        };
        Add(operation.Srcs, read: true, (a, i, address) => a.Srcs[i].Address = address);
        Add(operation.Parameters, read: true, (a, i, address) => a.Parameters[i].Address = address);
        bool updates = operation.Statistics == BatchNormStatistics.Batch;
        Add(operation.RunningStatistics, read: true, (a, i, address) => a.RunningStatistics[i].Address = address, written: updates);
        Add([operation.Dst], read: false, (a, _, address) => a.Dst.Address = address);
        Add(operation.Saved, read: false, (a, i, address) => a.Saved[i].Address = address);
    }

    public CustomCall(CustomBackward operation)
    {
        _operation = operation;
        _backward = true;
        _arguments = new CustomArguments(operation.Spec) { Statistics = operation.Statistics, Training = true };
        Add(operation.Srcs, read: true, (a, i, address) => a.Srcs[i].Address = address);
        Add([operation.DiffDst], read: true, (a, _, address) => a.DiffDst.Address = address);
        Add(operation.Parameters, read: true, (a, i, address) => a.Parameters[i].Address = address);
        Add(operation.RunningStatistics, read: true, (a, i, address) => a.RunningStatistics[i].Address = address);
        Add(operation.Saved, read: true, (a, i, address) => a.Saved[i].Address = address);
        Add(operation.DiffSrcs, read: false, (a, i, address) => a.DiffSrcs[i].Address = address);
        Add(operation.DiffParameters, read: false, (a, i, address) => a.DiffParameters[i].Address = address);
    }

    /// <summary>The name of the function: what stands for the implementation in tables.</summary>
    public string FunctionName => _arguments.Spec.Function.FunctionName;

    /// <summary>Everything the call touches.</summary>
    public IReadOnlyList<Slot> Slots => _slots;

    /// <summary>A tensor of the call.</summary>
    /// <param name="Tensor">The tensor.</param>
    /// <param name="Index">Its number among those of its kind.</param>
    /// <param name="Reads">Its values are read.</param>
    /// <param name="Writes">Its values are set.</param>
    /// <param name="SetAddress">Says where it lies.</param>
    public sealed record Slot(Tensor Tensor, int Index, bool Reads, bool Writes, Action<CustomArguments, int, nint> SetAddress);

    /// <summary>Says where a tensor's values lie, dense and in single precision, until the end of the next call.</summary>
    public void SetAddress(Slot slot, nint address) => slot.SetAddress(_arguments, slot.Index, address);

    /// <summary>Calls the function.</summary>
    /// <exception cref="InvalidOperationException">It threw; the message names the layer, the inner exception is its own.</exception>
    public void Run(in StepContext context)
    {
        _arguments.Step = context.Step;
        try
        {
            if (_backward)
            {
                _arguments.Spec.Function.Backward(new BackwardContext(_arguments));
            }
            else
            {
                _arguments.Spec.Function.Forward(new ForwardContext(_arguments));
            }
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw new InvalidOperationException(
                $"The layer '{_operation.Name}' failed: {(_backward ? "Backward" : "Forward")} of {FunctionName} threw {e.GetType().Name}: {e.Message}", e);
        }
    }

    private void Add(IReadOnlyList<Tensor> tensors, bool read, Action<CustomArguments, int, nint> setAddress, bool? written = null)
    {
        for (int i = 0; i < tensors.Count; i++)
        {
            _slots.Add(new Slot(tensors[i], i, read, written ?? !read, setAddress));
        }
    }
}
