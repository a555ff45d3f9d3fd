using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.Cudnn;

/// <content>Inference: a convolution, what is added to it and ReLU as one call of cuDNN (<see cref="BackendOptions.LibraryRelu"/>).</content>
internal sealed partial class CudnnBackend
{
    /// <summary>
    /// dst = ReLU(convolution + bias + residual) in one call; null where cuDNN cannot say it or refuses it. Its rules (cudnnConvolutionBiasActivationForward):
    /// the bias is of dst's type, what is added lies as dst does and may be dst, and ReLU lets no NaN through.
    /// </summary>
    private CudnnKernel? ConvolveWithRelu(
        Operation operation, Problem problem, CudnnBuffer src, CudnnBuffer weights, CudnnBuffer dst, CudnnBuffer bias, CudnnBuffer? residual)
    {
        if (bias.Tensor.DataType != problem.Type || (residual is not null && (residual.Tensor.DataType != problem.Type || residual.RowStride != dst.RowStride)))
        {
            return null;
        }

        const string Call = "cudnn convolution bias relu";
        long moved = Traffic(src, weights, bias, dst) + (residual is null ? 0 : Traffic(residual));
        if (_device is null)
        {
            return problem.HasEvenPadding ? new CudnnKernel(this, operation, "cudnn with ReLU, chosen by search on the device", 0, moved, new CudnnCall(Call, problem.Type, _ => { })) : null;
        }

        if (Choose(problem, src, weights, dst, 0) is not { } found)
        {
            return null;
        }

        (CudnnConvolution convolution, CudnnAlgorithm choice) = found;
        try
        {
            convolution.AddRelu(
                _cudnn!.Tensor(TypeCode(problem.Type), 1, bias.Columns, 1, 1, bias.Columns, problem.Operation), _cudnn.Relu(problem.Operation));
            if (!TakesRelu(convolution, choice, src, weights, dst, bias))
            {
                convolution.Dispose();
                return null;
            }
        }
        catch
        {
            convolution.Dispose();
            throw;
        }

        void Execute(nint scratch)
        {
            if (!convolution.TryExecuteWithRelu(
                src.Address, weights.Address, dst.Address, bias.Address, (residual ?? dst).Address, choice.Algorithm, scratch, choice.WorkspaceBytes, residual is not null))
            {
                throw new NotSupportedException($"{problem.Operation}: cuDNN refuses a convolution with ReLU that it took when the plan was made. Leave the option library-relu out.");
            }
        }

        return new CudnnKernel(this, operation, AlgorithmText(problem, choice) + " with ReLU", choice.WorkspaceBytes, moved, new CudnnCall(Call, problem.Type, Execute, convolution));
    }

    /// <summary>Whether cuDNN takes the call, which no query tells: it is made once, on memory of its own.</summary>
    private bool TakesRelu(CudnnConvolution convolution, CudnnAlgorithm choice, CudnnBuffer src, CudnnBuffer weights, CudnnBuffer dst, CudnnBuffer bias)
    {
        long end = 0;
        nint Place(CudnnBuffer buffer)
        {
            long at = end + buffer.Misalignment;
            end = (at + Span(buffer) * buffer.ElementBytes + 255) & ~255L;
            return (nint)at;
        }

        nint a = Place(src), b = Place(weights), c = Place(dst), shift = Place(bias), workspace = (nint)end;
        using CudaDeviceMemory memory = new(_device!, end + choice.WorkspaceBytes);
        nint first = memory.Address;
        bool takes = convolution.TryExecuteWithRelu(first + a, first + b, first + c, first + shift, first + c, choice.Algorithm, first + workspace, choice.WorkspaceBytes, add: false);
        _device!.Synchronize();
        return takes;
    }
}
