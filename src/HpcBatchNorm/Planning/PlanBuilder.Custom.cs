using HpcBatchNorm.Networks;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Planning;

/// <content>What operations of one's own need: a backend that runs managed code, and values as such code reads them.</content>
internal abstract partial class PlanBuilder
{
    private readonly Dictionary<Tensor, Tensor> _managed = new(ReferenceEqualityComparer.Instance);

    /// <exception cref="UserErrorException">The backend's memory is not the host's.</exception>
    private void RequireManagedCode(Node node, string function)
    {
        if (!Traits.CustomOperations)
        {
            throw new UserErrorException(
                $"The layer '{node.Name}' ({function}) is an operation of one's own: managed code, which runs on the processor's memory only, not on this backend. " +
                "Use the backend onednn or reference, or put the layer together from built-in ones.");
        }
    }

    /// <summary>The tensor as managed code reads it: whole, plain and in single precision; one copy for all readers.</summary>
    private Tensor AsManaged(Tensor tensor)
    {
        if (!tensor.DataType.IsNarrow())
        {
            return InLayout(tensor, TensorLayout.Plain);
        }

        if (!_managed.TryGetValue(tensor, out Tensor? converted))
        {
            converted = new Tensor($"{tensor.Name} (plain float32)", tensor.Shape, tensor.Role);
            Emit(new Operations.Copy(tensor.Name, tensor, converted));
            _managed[tensor] = converted;
        }

        return converted;
    }
}
