using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <content>
/// Batch normalization: our own kernels (a reducing and an applying launch in each direction), or cuDNN's where it fits
/// (<see cref="BatchNormAlgorithm.Library"/>: batch statistics, no residual, dense tensors).
/// </content>
internal sealed partial class CudnnBackend
{
    /// <inheritdoc/>
    protected override Kernel CreateCore(BatchNormForward operation, BufferMap buffers)
    {
        CudnnBuffer src = Buffer(buffers, operation.Src), dst = Buffer(buffers, operation.Dst), scale = Buffer(buffers, operation.Scale);
        CudnnBuffer shift = Buffer(buffers, operation.Shift);
        CudnnBuffer? residual = Optional(buffers, operation.Residual);
        CheckTypes(operation, src, dst);
        bool batch = operation.Statistics == BatchNormStatistics.Batch;
        if (_options.BatchNormAlgorithm == BatchNormAlgorithm.Library && batch && residual is null && src.IsDense && dst.IsDense)
        {
            return LibraryForward(operation, buffers, src, dst);
        }

        string name = CudnnKernel.Describe(operation);
        BatchNormSpec spec = operation.Spec;
        CudnnBuffer mean = Buffer(buffers, (batch ? operation.Mean : operation.RunningMean)!), variance = Buffer(buffers, (batch ? operation.Variance : operation.RunningVariance)!);
        (int positions, int rows) = Population(spec);
        bool wide = IsWide(src, dst, residual);
        int width = Width(src.Tensor.DataType, wide);
        List<CudnnStep> steps = [];
        long scratch = 0, elements = spec.Src.Count;
        if (batch)
        {
            LaunchShape reduce = Columns(src.Columns, rows, width, positions, blocksPerMultiprocessor: 4, sharedFloatsPerThread: 2 * width);
            scratch = (long)reduce.GridZ * reduce.GridY * 2 * src.Columns * sizeof(float);
            steps.Add(Launch(Form("batch_norm_statistics", wide), src.Tensor.DataType, reduce, name)
                .Matrix(src).Number(src.Columns).Number(positions).Number(rows).Scratch().Number(_counters).Address(mean).Address(variance)
                .Address(Optional(buffers, operation.RunningMean)).Address(Optional(buffers, operation.RunningVariance))
                .Number(operation.AveragingFactor).Number((float)spec.UnbiasedFactor));
        }

        steps.Add(Launch(Form("batch_norm_apply", wide), src.Tensor.DataType, Columns(src.Columns, rows, width, positions, 8, 0), name)
            .Matrix(src).Matrix(residual).Matrix(dst).Number(src.Columns).Number(positions).Number(rows)
            .Address(mean).Address(variance).Address(scale).Address(shift).Number(spec.Epsilon).Flag(spec.Relu));
        long passes = (batch ? 3 : 2) + (residual is null ? 0 : 1);
        return new CudnnKernel(this, operation, "native", scratch, passes * elements * src.ElementBytes, [.. steps]);
    }

    /// <inheritdoc/>
    protected override Kernel CreateCore(BatchNormBackward operation, BufferMap buffers)
    {
        CudnnBuffer src = Buffer(buffers, operation.Src), diffDst = Buffer(buffers, operation.DiffDst), diffSrc = Buffer(buffers, operation.DiffSrc);
        CudnnBuffer? dst = operation.Spec.Relu ? Optional(buffers, operation.Dst) : null, diffResidual = Optional(buffers, operation.DiffResidual);
        CheckTypes(operation, src, diffDst, diffSrc);
        bool batch = operation.Statistics == BatchNormStatistics.Batch;
        if (_options.BatchNormAlgorithm == BatchNormAlgorithm.Library && batch && diffResidual is null && src.IsDense && diffDst.IsDense && diffSrc.IsDense)
        {
            return LibraryBackward(operation, buffers, src, diffDst, diffSrc);
        }

        string name = CudnnKernel.Describe(operation);
        BatchNormSpec spec = operation.Spec;
        (int positions, int rows) = Population(spec);
        bool wide = IsWide(src, dst, diffDst, diffSrc, diffResidual);
        int width = Width(src.Tensor.DataType, wide);
        LaunchShape reduce = Columns(src.Columns, rows, width, positions, blocksPerMultiprocessor: 4, sharedFloatsPerThread: 2 * width);
        long scratch = (long)reduce.GridZ * reduce.GridY * 2 * src.Columns * sizeof(float);
        CudnnBuffer mean = Buffer(buffers, operation.Mean), variance = Buffer(buffers, operation.Variance);
        CudnnBuffer scale = Buffer(buffers, operation.Scale), shift = Buffer(buffers, operation.Shift);
        CudnnBuffer diffScale = Buffer(buffers, operation.DiffScale), diffShift = Buffer(buffers, operation.DiffShift);
        CudnnLaunch sums = Launch(Form("batch_norm_gradient_sums", wide), src.Tensor.DataType, reduce, name)
            .Matrix(src).Matrix(dst).Matrix(diffDst).Number(src.Columns).Number(positions).Number(rows)
            .Address(mean).Address(variance).Address(scale).Address(shift).Number(spec.Epsilon).Flag(spec.Relu)
            .Scratch().Number(_counters).Address(diffScale).Address(diffShift);
        CudnnLaunch apply = Launch(Form("batch_norm_gradient", wide), src.Tensor.DataType, Columns(src.Columns, rows, width, positions, 8, 0), name)
            .Matrix(src).Matrix(dst).Matrix(diffDst).Matrix(diffSrc).Matrix(diffResidual).Number(src.Columns).Number(positions).Number(rows)
            .Address(mean).Address(variance).Address(scale).Address(shift).Number(spec.Epsilon).Flag(spec.Relu).Flag(batch).Address(diffScale).Address(diffShift);
        long passes = 5 + (dst is null ? 0 : 2) + (diffResidual is null ? 0 : 1);
        return new CudnnKernel(this, operation, "native", scratch, passes * spec.Src.Count * src.ElementBytes, sums, apply);
    }

    /// <summary>Statistics per channel: one position, all (n, h, w) as rows. Per activation: each position by itself, the images as rows.</summary>
    private static (int Positions, int Rows) Population(in BatchNormSpec spec) =>
        spec.PerActivation ? (spec.Src.Area, spec.Src.N) : (1, spec.Src.N * spec.Src.Area);

    private CudnnKernel LibraryForward(BatchNormForward operation, BufferMap buffers, CudnnBuffer src, CudnnBuffer dst)
    {
        string name = CudnnKernel.Describe(operation);
        BatchNormSpec spec = operation.Spec;
        CudnnBuffer scale = Buffer(buffers, operation.Scale), shift = Buffer(buffers, operation.Shift);
        CudnnBuffer mean = Buffer(buffers, operation.Mean!), variance = Buffer(buffers, operation.Variance!);
        CudnnBuffer? runningMean = Optional(buffers, operation.RunningMean), runningVariance = Optional(buffers, operation.RunningVariance);
        CudnnBatchNorm? library = DescribeBatchNorm(src, spec, name);
        int statistics = (int)spec.Parameters.Count;
        List<CudnnStep> steps =
        [
            new CudnnCall(
                scratch => library!.ForwardTraining(
                    src.Address, dst.Address, scale.Address, shift.Address, operation.AveragingFactor, runningMean?.Address ?? 0, runningVariance?.Address ?? 0,
                    mean.Address, scratch), library),
            Launch("variance_from_inverse", src.Tensor.DataType, new LaunchShape((statistics + 255) / 256, 1, 1, 256, 1, 0), name)
                .Scratch().Address(variance).Number(statistics).Number(spec.Epsilon),
        ];
        if (spec.Relu)
        {
            steps.Add(Activation(dst, dst, ActivationKind.Relu, name));
        }

        return new CudnnKernel(this, operation, "cudnn batch-norm", statistics * sizeof(float), (spec.Relu ? 5 : 3) * spec.Src.Count * src.ElementBytes, [.. steps]);
    }

    private CudnnKernel LibraryBackward(BatchNormBackward operation, BufferMap buffers, CudnnBuffer src, CudnnBuffer diffDst, CudnnBuffer diffSrc)
    {
        string name = CudnnKernel.Describe(operation);
        BatchNormSpec spec = operation.Spec;
        DataType type = src.Tensor.DataType;
        CudnnBuffer scale = Buffer(buffers, operation.Scale), shift = Buffer(buffers, operation.Shift);
        CudnnBuffer mean = Buffer(buffers, operation.Mean), variance = Buffer(buffers, operation.Variance);
        CudnnBuffer diffScale = Buffer(buffers, operation.DiffScale), diffShift = Buffer(buffers, operation.DiffShift);
        CudnnBuffer? dst = spec.Relu ? Optional(buffers, operation.Dst) : null;
        CudnnBatchNorm? library = DescribeBatchNorm(src, spec, name);
        int statistics = (int)spec.Parameters.Count;
        long masked = (statistics * sizeof(float) + 255) & ~255L;
        List<CudnnStep> steps =
        [
            Launch("inverse_from_variance", type, new LaunchShape((statistics + 255) / 256, 1, 1, 256, 1, 0), name)
                .Address(variance).Scratch().Number(statistics).Number(spec.Epsilon),
        ];
        if (spec.Relu)
        {
            bool wide = IsWide(src);
            if (dst is null)
            {
                // The library cannot recompute ReLU's mask: the normalised values are computed once more, by us, exactly as they were.
                (int positions, int rows) = Population(spec);
                steps.Add(Launch(Form("batch_norm_apply", wide), type, Columns(src.Columns, rows, Width(type, wide), positions, 8, 0), name)
                    .Matrix(src).Matrix(null).Scratch(masked).Number((uint)src.Columns).Number(src.Columns).Number(positions).Number(rows)
                    .Address(mean).Address(variance).Address(scale).Address(shift).Number(spec.Epsilon).Flag(false));
            }

            CudnnLaunch mask = Launch(Form("activation_backward", wide), type, Spread(spec.Src.Count / Width(type, wide)), name);
            mask = dst is null ? mask.Scratch(masked).Number((uint)src.Columns) : mask.Matrix(dst);
            steps.Add(mask.Matrix(diffDst).Scratch(masked).Number((uint)src.Columns).Number(src.Rows).Number(src.Columns).Number((int)ActivationKind.Relu));
        }

        bool relu = spec.Relu;
        steps.Add(new CudnnCall(
            scratch => library!.Backward(
                src.Address, relu ? scratch + (nint)masked : diffDst.Address, diffSrc.Address, scale.Address, diffScale.Address, diffShift.Address, mean.Address, scratch),
            library));
        long bytes = spec.Relu ? masked + spec.Src.Count * src.ElementBytes : masked;
        return new CudnnKernel(this, operation, "cudnn batch-norm", bytes, (spec.Relu ? 10 : 5) * spec.Src.Count * src.ElementBytes, [.. steps]);
    }

    private CudnnBatchNorm? DescribeBatchNorm(CudnnBuffer src, in BatchNormSpec spec, string name)
    {
        if (_cudnn is null)
        {
            return null;
        }

        Shape shape = spec.Src, p = spec.Parameters;
        int type = src.Tensor.DataType switch { DataType.BFloat16 => CudnnApi.BFloat16, DataType.Float16 => CudnnApi.Half, _ => CudnnApi.Float };
        CudnnDescriptor data = _cudnn.Tensor(type, shape.N, shape.C, shape.H, shape.W, shape.C, name);
        try
        {
            return new CudnnBatchNorm(_cudnn, data, _cudnn.Tensor(CudnnApi.Float, 1, p.C, p.H, p.W, p.C, name), spec.PerActivation, spec.Epsilon, name);
        }
        catch
        {
            data.Dispose();
            throw;
        }
    }
}
