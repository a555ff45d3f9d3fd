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
        PaddedWeights? padded = Padded(problem, src, weights, 0);
        long before = padded?.Bytes ?? 0, moved = Traffic(src, weights, bias, dst) + (residual is null ? 0 : Traffic(residual)) + (padded?.Launch.Bytes ?? 0);
        CudnnKernel Kernel(string implementation, long scratch, Action<nint> call, CudnnConvolution? owned)
        {
            CudnnCall step = new(Call, problem.Type, call, owned);
            return new CudnnKernel(this, operation, implementation, scratch, moved, padded is { } first ? [first.Launch, step] : [step]);
        }

        if (_device is null)
        {
            return problem.HasEvenPadding ? Kernel("cudnn with ReLU, chosen by search on the device", before, _ => { }, null) : null;
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
            if (!TakesRelu(convolution, choice, src, Math.Max(before, Span(weights) * weights.ElementBytes), dst, bias))
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
                src.Address, padded is null ? weights.Address : scratch, dst.Address, bias.Address, (residual ?? dst).Address, choice.Algorithm, scratch + (nint)before,
                choice.WorkspaceBytes, residual is not null))
            {
                throw new NotSupportedException($"{problem.Operation}: cuDNN refuses a convolution with ReLU that it took when the plan was made. Leave the option library-relu out.");
            }
        }

        return Kernel(AlgorithmText(problem, choice) + " with ReLU", before + choice.WorkspaceBytes, Execute, convolution);
    }

    /// <summary>Whether cuDNN takes the call, which no query tells: it is made once, on memory of its own.</summary>
    private bool TakesRelu(CudnnConvolution convolution, CudnnAlgorithm choice, CudnnBuffer src, long weightBytes, CudnnBuffer dst, CudnnBuffer bias)
    {
        long end = 0;
        nint Place(long bytes, long misalignment)
        {
            long at = end + misalignment;
            end = (at + bytes + 255) & ~255L;
            return (nint)at;
        }

        nint Copy(CudnnBuffer buffer) => Place(Span(buffer) * buffer.ElementBytes, buffer.Misalignment);
        nint a = Copy(src), b = Place(weightBytes, 0), c = Copy(dst), shift = Copy(bias), workspace = (nint)end;
        using CudaDeviceMemory memory = new(_device!, end + choice.WorkspaceBytes);
        nint first = memory.Address;
        bool takes = convolution.TryExecuteWithRelu(first + a, first + b, first + c, first + shift, first + c, choice.Algorithm, first + workspace, choice.WorkspaceBytes, add: false);
        _device!.Synchronize();
        return takes;
    }
}
