using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <content>Nonlinearities, dropout, copies, sums, input preparation and local response normalization: one launch each.</content>
internal sealed partial class CudnnBackend
{
    /// <inheritdoc/>
    private protected override Kernel CreateCore(ActivationForward operation, BufferMap buffers)
    {
        CudnnBuffer src = Buffer(buffers, operation.Src), dst = Buffer(buffers, operation.Dst);
        CheckTypes(operation, src, dst);
        return Native(operation, Traffic(src, dst), Activation(src, dst, operation.Function, CudnnKernel.Describe(operation)));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ActivationBackward operation, BufferMap buffers)
    {
        CudnnBuffer kept = Buffer(buffers, operation.Kept), diffDst = Buffer(buffers, operation.DiffDst), diffSrc = Buffer(buffers, operation.DiffSrc);
        CheckTypes(operation, kept, diffDst, diffSrc);
        return Native(operation, Traffic(kept, diffDst, diffSrc), Spread("activation_backward", operation, kept, kept, diffDst, diffSrc)
            .Matrix(kept).Matrix(diffDst).Matrix(diffSrc).Number(kept.Rows).Number(kept.Columns).Number(FunctionCode(operation.Function)));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Dropout operation, BufferMap buffers)
    {
        CudnnBuffer src = Buffer(buffers, operation.Src), dst = Buffer(buffers, operation.Dst);
        CheckTypes(operation, src, dst);
        DropoutSpec spec = operation.Spec;
        return Native(operation, Traffic(src, dst), Launch("dropout", src.Tensor.DataType, Spread(spec.Src.Count), CudnnKernel.Describe(operation))
            .Matrix(src).Matrix(dst).Number(src.Rows).Number(src.Columns).Number(spec.Src.Area).Number(spec.Threshold).Number(spec.KeptScale)
            .Number(spec.Stream).Number((uint)spec.Seed).Number((uint)(spec.Seed >> 32)).Number(_stepState));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Copy operation, BufferMap buffers)
    {
        CudnnBuffer src = Buffer(buffers, operation.Src), dst = Buffer(buffers, operation.Dst);
        DataType from = operation.Src.DataType, to = operation.Dst.DataType;
        string name = CudnnKernel.Describe(operation);
        if (!from.IsFloat() || !to.IsFloat() || (from.IsNarrow() && to.IsNarrow() && from != to))
        {
            throw new NotSupportedException($"{name}: from {from} to {to}.");
        }

        CudnnLaunch launch = from == to ? Spread("copy", operation, src, src, dst)
            : Launch(from.IsNarrow() ? "copy_to_float" : "copy_from_float", from.IsNarrow() ? from : to, Spread(operation.Src.Shape.Count), name);
        return Native(operation, Traffic(src, dst), launch.Matrix(src).Matrix(dst).Number(src.Rows).Number(src.Columns));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Sum operation, BufferMap buffers)
    {
        // Up to four sources per launch; further ones are added to what is there.
        CudnnBuffer dst = Buffer(buffers, operation.Dst);
        CudnnBuffer[] srcs = [.. operation.Srcs.Select(s => Buffer(buffers, s))];
        CheckTypes(operation, dst, srcs);
        List<CudnnStep> steps = [];
        for (int next = 0; next < srcs.Length;)
        {
            List<CudnnBuffer> now = next == 0 ? [] : [dst];
            while (now.Count < 4 && next < srcs.Length)
            {
                now.Add(srcs[next++]);
            }

            steps.Add(Spread("sum", operation, dst, [dst, .. now])
                .Matrix(now[0]).Matrix(now[1]).Matrix(now.ElementAtOrDefault(2)).Matrix(now.ElementAtOrDefault(3)).Matrix(dst).Number(dst.Rows).Number(dst.Columns));
        }

        string name = steps.Count > 1 && dst.Tensor.DataType.IsNarrow() ? "native 16-bit-result" : "native";
        return new CudnnKernel(this, operation, name, 0, Traffic([dst, .. srcs]), [.. steps]);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(PrepareInput operation, BufferMap buffers)
    {
        CudnnBuffer src = Buffer(buffers, operation.Src), dst = Buffer(buffers, operation.Dst);
        int channels = src.Columns;
        if (operation.IsConvolvedOnly && dst.Tensor.DataType.IsNarrow() && !dst.Tensor.IsSlice && channels < TensorCoreChannels)
        {
            dst.Pad(TensorCoreChannels);
        }

        CudaDeviceMemory? constants = null;
        if (_device is not null)
        {
            constants = new CudaDeviceMemory(_device, 2L * channels * sizeof(float));
            float[] values = [.. operation.Mean, .. operation.InverseDeviation];
            _device.Upload(constants.Address, System.Runtime.InteropServices.MemoryMarshal.AsBytes(values.AsSpan()));
        }

        nint mean = constants?.Address ?? 0;
        return Native(operation, Traffic(src, dst), Launch("prepare_input", dst.Tensor.DataType, Spread((long)dst.Rows * dst.PaddedColumns), CudnnKernel.Describe(operation))
            .Address(src).Matrix(dst).Number(mean).Number(mean + channels * sizeof(float)).Number(src.Rows).Number(channels).Number(dst.PaddedColumns).Owns(constants));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(LrnForward operation, BufferMap buffers)
    {
        CudnnBuffer src = Buffer(buffers, operation.Src), dst = Buffer(buffers, operation.Dst);
        CudnnBuffer? bases = Optional(buffers, operation.Workspace);
        CheckTypes(operation, src, dst);
        LrnSpec spec = operation.Spec;
        bases?.Reserve(spec.Src.Count * sizeof(float));
        return Native(operation, Traffic(src, dst), Launch("lrn_forward", src.Tensor.DataType, Spread(spec.Src.Count), CudnnKernel.Describe(operation))
            .Matrix(src).Matrix(dst).Address(bases).Number(src.Rows).Number(src.Columns).Number(spec.Size / 2).Number(spec.Alpha / spec.Size).Number(spec.Beta).Number(spec.K));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(LrnBackward operation, BufferMap buffers)
    {
        CudnnBuffer src = Buffer(buffers, operation.Src), diffDst = Buffer(buffers, operation.DiffDst), diffSrc = Buffer(buffers, operation.DiffSrc);
        CudnnBuffer bases = Buffer(buffers, operation.Workspace);
        CheckTypes(operation, src, diffDst, diffSrc);
        LrnSpec spec = operation.Spec;
        bases.Reserve(spec.Src.Count * sizeof(float));
        return Native(operation, Traffic(src, diffDst, diffSrc), Launch("lrn_backward", src.Tensor.DataType, Spread(spec.Src.Count), CudnnKernel.Describe(operation))
            .Matrix(src).Matrix(diffDst).Matrix(diffSrc).Address(bases).Number(src.Rows).Number(src.Columns).Number(spec.Size / 2).Number(spec.Alpha / spec.Size).Number(spec.Beta));
    }

    private CudnnKernel Native(Operation operation, long memoryBytes, params CudnnStep[] steps) => new(this, operation, "native", 0, memoryBytes, steps);

    /// <summary>An element-wise launch over all of <paramref name="like"/>, wide where every tensor allows it.</summary>
    private CudnnLaunch Spread(string kernel, Operation operation, CudnnBuffer like, params ReadOnlySpan<CudnnBuffer?> all)
    {
        bool wide = IsWide(all);
        DataType type = like.Tensor.DataType;
        return Launch(Form(kernel, wide), type, Spread((long)like.Rows * like.Columns / Width(type, wide)), CudnnKernel.Describe(operation));
    }

    private CudnnLaunch Activation(CudnnBuffer src, CudnnBuffer dst, ActivationKind function, string name)
    {
        bool wide = IsWide(src, dst);
        DataType type = src.Tensor.DataType;
        return Launch(Form("activation_forward", wide), type, Spread((long)src.Rows * src.Columns / Width(type, wide)), name)
            .Matrix(src).Matrix(dst).Number(src.Rows).Number(src.Columns).Number(FunctionCode(function));
    }

    /// <summary>The function's number in the kernels (<c>Function</c> of elementwise.cu).</summary>
    private static int FunctionCode(ActivationKind function) => function switch
    {
        ActivationKind.Relu => 0,
        ActivationKind.Sigmoid => 1,
        ActivationKind.Tanh => 2,
        ActivationKind.Gelu => 3,
        ActivationKind.Silu => 4,
        ActivationKind.HardSwish => 5,
        _ => throw ActivationKinds.Unknown(function, "the functions of backend cudnn"),
    };
}
