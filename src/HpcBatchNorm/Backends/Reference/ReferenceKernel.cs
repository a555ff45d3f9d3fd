using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>What all reference kernels share: parallel loops, and the rounding of results (see <see cref="ReferenceBackend"/>).</summary>
internal abstract class ReferenceKernel : Kernel
{
    /// <summary>Below so many elementary steps a loop is faster on one thread.</summary>
    private const long WorthSharing = 1 << 15;

    private readonly ParallelOptions _parallel;
    private readonly ReferenceBuffer[] _rounded;

    protected ReferenceKernel(Operation operation, BufferMap buffers, ParallelOptions parallel)
        : base(operation)
    {
        _parallel = parallel;
        _rounded = [.. operation.Writes.Select(t => Buffer(buffers, t)).Where(b => b.IsRounded)];
    }

    public sealed override string Implementation => "reference";

    protected sealed override void ExecuteCore(in StepContext context)
    {
        Run(context);
        foreach (ReferenceBuffer buffer in _rounded)
        {
            buffer.Round();
        }
    }

    /// <summary>Does the work in full precision.</summary>
    protected abstract void Run(in StepContext context);

    protected static ReferenceBuffer Buffer(BufferMap buffers, Tensor tensor) => (ReferenceBuffer)buffers[tensor];

    protected static ReferenceBuffer? Optional(BufferMap buffers, Tensor? tensor) => tensor is null ? null : Buffer(buffers, tensor);

    protected static ReferenceBuffer[] Buffers(BufferMap buffers, IEnumerable<Tensor> tensors) => [.. tensors.Select(t => Buffer(buffers, t))];

    /// <summary>Runs independent pieces of work, numbered from 0; <paramref name="steps"/> estimates the elementary steps of all of them.</summary>
    protected void ForEach(int pieces, long steps, Action<int> body)
    {
        if (steps < WorthSharing || pieces == 1 || _parallel.MaxDegreeOfParallelism == 1)
        {
            for (int i = 0; i < pieces; i++)
            {
                body(i);
            }
        }
        else
        {
            Parallel.For(0, pieces, _parallel, body);
        }
    }

    /// <summary>
    /// Sum of x[i] * y[i]. The order of the additions depends on the length alone; TensorPrimitives.Dot would group them by the operands' addresses,
    /// so that equal inputs could give unequal bits.
    /// </summary>
    protected static double Dot(ReadOnlySpan<double> x, ReadOnlySpan<double> y)
    {
        ReadOnlySpan<Vector512<double>> xs = MemoryMarshal.Cast<double, Vector512<double>>(x);
        ReadOnlySpan<Vector512<double>> ys = MemoryMarshal.Cast<double, Vector512<double>>(y);
        Vector512<double> even = default, odd = default;
        int i = 0;
        for (; i + 2 <= xs.Length; i += 2)
        {
            even += xs[i] * ys[i];
            odd += xs[i + 1] * ys[i + 1];
        }

        if (i < xs.Length)
        {
            even += xs[i] * ys[i];
        }

        double sum = Vector512.Sum(even + odd);
        for (i = xs.Length * Vector512<double>.Count; i < x.Length; i++)
        {
            sum += x[i] * y[i];
        }

        return sum;
    }

    /// <summary>Sum of x[i], in an order that depends on the length alone.</summary>
    protected static double Total(ReadOnlySpan<double> x)
    {
        double sum = 0;
        foreach (double value in x)
        {
            sum += value;
        }

        return sum;
    }
}
