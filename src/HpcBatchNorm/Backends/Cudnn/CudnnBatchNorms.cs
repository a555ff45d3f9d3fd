using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <content>
/// Batch normalization: our own kernels (in each direction a launch that reduces and applies, or one for each: decision 029), or cuDNN's where it fits
/// (<see cref="BatchNormAlgorithm.Library"/>: batch statistics, no residual, dense tensors). Ghost batches are the same launches once per group of images;
/// batch renormalization is the same launches on corrected scale and shift.
/// </content>
internal sealed partial class CudnnBackend
{
    /// <inheritdoc/>
    private protected override Kernel CreateCore(BatchNormForward operation, BufferMap buffers)
    {
        CudnnBuffer src = Buffer(buffers, operation.Src), dst = Buffer(buffers, operation.Dst!); // its convolutions do not normalize what they read
        CudnnBuffer? residual = Optional(buffers, operation.Residual);
        CheckTypes(operation, src, dst);
        bool batch = operation.Statistics == BatchNormStatistics.Batch;
        BatchNormSpec spec = operation.Spec;
        if (_options.BatchNormAlgorithm == BatchNormAlgorithm.Library && spec.Epsilon > 0 && batch && residual is null && spec.Groups == 1 && operation.R is null && src.IsDense && dst.IsDense)
        {
            return LibraryForward(operation, buffers, src, dst);
        }

        string name = CudnnKernel.Describe(operation);
        DataType type = src.Tensor.DataType;
        CudnnBuffer scale = Buffer(buffers, operation.Scale), shift = Buffer(buffers, operation.Shift);
        CudnnBuffer mean = Buffer(buffers, (batch ? operation.Mean : operation.RunningMean)!), variance = Buffer(buffers, (batch ? operation.Variance : operation.RunningVariance)!);
        CudnnBuffer? runningMean = batch ? Optional(buffers, operation.RunningMean) : null, runningVariance = batch ? Optional(buffers, operation.RunningVariance) : null;
        CudnnBuffer? r = Optional(buffers, operation.R), d = Optional(buffers, operation.D);
        (int positions, int rows) = Population(spec);
        int count = (int)spec.Parameters.Count;
        bool wide = IsWide(src, dst, residual);
        int width = Width(type, wide);
        LaunchShape reduce = Reduction(src.Columns, rows, width, positions, sums: 2);
        LaunchShape apply = Columns(src.Columns, rows, width, positions);
        ScratchLayout scratch = new();
        long partials = batch ? scratch.Floats(Partials(reduce, src.Columns)) : 0;
        long? corrected = r is null ? null : scratch.Floats(2 * count);
        List<CudnnStep> steps = [];
        long pass = spec.Src.Count * src.ElementBytes, passes = (batch ? 3 : 2) + (residual is null ? 0 : 1);
        bool inOne = batch && operation.Renormalization is null && r is null && InOneLaunch(Form("batch_norm_forward", wide), type, reduce, pass / spec.Groups);
        for (int group = 0; group < spec.Groups; group++)
        {
            long row = group * ((long)positions * rows), statistic = (long)group * count;
            if (inOne)
            {
                steps.AddRange(Slabs(positions, src.Columns).Select(slab => Parameters(
                    Launch(Form("batch_norm_forward", wide), type, Together(reduce, slab), name)
                        .Matrix(src, row + slab.Row).Matrix(residual, row + slab.Row).Matrix(dst, row + slab.Row).Number(src.Columns).Number(positions).Number(rows)
                        .Scratch(partials).Number(_counters).Number(_generations)
                        .Address(mean, statistic + slab.Statistic).Address(variance, statistic + slab.Statistic)
                        .Address(runningMean, slab.Statistic).Address(runningVariance, slab.Statistic)
                        .Number(operation.AveragingFactor).Number((float)spec.UnbiasedFactor), null, scale, shift, count, slab.Statistic)
                    .Number(spec.Epsilon).Flag(spec.Relu).Moves(Share(passes * pass, spec, slab, positions))));
                continue;
            }

            if (batch)
            {
                // Batch renormalization reads the running statistics as they were, and updates them itself.
                bool update = operation.Renormalization is null;
                steps.AddRange(Slabs(positions, src.Columns).Select(slab => Launch(Form("batch_norm_statistics", wide), type, reduce with { GridZ = slab.Layers }, name)
                    .Matrix(src, row + slab.Row).Number(src.Columns).Number(positions).Number(rows).Scratch(partials).Number(_counters)
                    .Address(mean, statistic + slab.Statistic).Address(variance, statistic + slab.Statistic)
                    .Address(update ? runningMean : null, slab.Statistic).Address(update ? runningVariance : null, slab.Statistic)
                    .Number(operation.AveragingFactor).Number((float)spec.UnbiasedFactor).Moves(Share(pass, spec, slab, positions))));
            }

            if (operation.Renormalization is { } limits)
            {
                steps.Add(Launch("batch_renormalize", type, PerStatistic(count), name)
                    .Address(mean, statistic).Address(variance, statistic).Address(runningMean).Address(runningVariance).Address(r, statistic).Address(d, statistic)
                    .Number(count).Number(spec.Epsilon).Number(operation.AveragingFactor).Number((float)spec.UnbiasedFactor).Number(_stepState)
                    .Number(limits.MaximumR).Number(limits.MaximumD).Number(limits.Start).Number(limits.EndR).Number(limits.EndD).Moves(0));
            }

            AddCorrection(steps, corrected, scale, shift, r, d, statistic, count, type, name);
            steps.AddRange(Slabs(positions, src.Columns).Select(slab => Parameters(
                Launch(Form("batch_norm_apply", wide), type, apply with { GridZ = slab.Layers }, name)
                    .Matrix(src, row + slab.Row).Matrix(residual, row + slab.Row).Matrix(dst, row + slab.Row).Number(src.Columns).Number(positions).Number(rows)
                    .Address(mean, statistic + slab.Statistic).Address(variance, statistic + slab.Statistic), corrected, scale, shift, count, slab.Statistic)
                .Number(spec.Epsilon).Flag(spec.Relu).Moves(Share((passes - (batch ? 1 : 0)) * pass, spec, slab, positions))));
        }

        return new CudnnKernel(this, operation, Variant(spec, r), scratch.Bytes, steps.Sum(s => s.Bytes ?? 0), [.. steps]);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(BatchNormBackward operation, BufferMap buffers)
    {
        CudnnBuffer src = Buffer(buffers, operation.Src), diffDst = Buffer(buffers, operation.DiffDst), diffSrc = Buffer(buffers, operation.DiffSrc);
        BatchNormSpec spec = operation.Spec;
        CudnnBuffer? dst = spec.Relu ? Optional(buffers, operation.Dst) : null, diffResidual = Optional(buffers, operation.DiffResidual);
        CudnnBuffer? second = Optional(buffers, operation.SecondDiffDst);
        CheckTypes(operation, src, diffDst, diffSrc);
        bool batch = operation.Statistics == BatchNormStatistics.Batch;
        if (_options.BatchNormAlgorithm == BatchNormAlgorithm.Library && spec.Epsilon > 0 && batch && diffResidual is null && spec.Groups == 1 && operation.R is null
            && src.IsDense && diffDst.IsDense && diffSrc.IsDense)
        {
            return LibraryBackward(operation, buffers, src, diffDst, diffSrc);
        }

        string name = CudnnKernel.Describe(operation);
        DataType type = src.Tensor.DataType;
        CudnnBuffer mean = Buffer(buffers, operation.Mean), variance = Buffer(buffers, operation.Variance);
        CudnnBuffer scale = Buffer(buffers, operation.Scale), shift = Buffer(buffers, operation.Shift);
        CudnnBuffer diffScale = Buffer(buffers, operation.DiffScale), diffShift = Buffer(buffers, operation.DiffShift);
        CudnnBuffer? r = Optional(buffers, operation.R), d = Optional(buffers, operation.D);
        (int positions, int rows) = Population(spec);
        int count = (int)spec.Parameters.Count;
        bool wide = IsWide(src, dst, diffDst, second, diffSrc, diffResidual), parted = spec.Groups > 1 || r is not null;
        int width = Width(type, wide);
        LaunchShape reduce = Reduction(src.Columns, rows, width, positions, sums: 2);
        LaunchShape apply = Columns(src.Columns, rows, width, positions);
        ScratchLayout scratch = new();
        long partials = scratch.Floats(Partials(reduce, src.Columns));
        long? corrected = r is null ? null : scratch.Floats(2 * count);
        long parts = parted ? scratch.Floats(2L * spec.Groups * count) : 0;
        List<CudnnStep> steps = [];
        long pass = spec.Src.Count * src.ElementBytes;
        long sumPasses = 2 + (dst is null ? 0 : 1) + (second is null ? 0 : 1), applyPasses = sumPasses + 1 + (diffResidual is null ? 0 : 1);
        bool inOne = InOneLaunch(Form("batch_norm_backward", wide), type, reduce, pass / spec.Groups);
        for (int group = 0; group < spec.Groups; group++)
        {
            // Where the gradients of this group's scale and shift go: to those of all, or to parts of them.
            CudnnLaunch Gradients(CudnnLaunch launch, Slab slab) => parted
                ? launch.Scratch(parts + (2L * group * count + slab.Statistic) * sizeof(float)).Scratch(parts + ((2L * group + 1) * count + slab.Statistic) * sizeof(float))
                : launch.Address(diffScale, slab.Statistic).Address(diffShift, slab.Statistic);

            long row = group * ((long)positions * rows), statistic = (long)group * count;
            AddCorrection(steps, corrected, scale, shift, r, d, statistic, count, type, name);
            if (inOne)
            {
                steps.AddRange(Slabs(positions, src.Columns).Select(slab => Gradients(Parameters(
                    Launch(Form("batch_norm_backward", wide), type, Together(reduce, slab), name)
                        .Matrix(src, row + slab.Row).Matrix(dst, row + slab.Row).Matrix(diffDst, row + slab.Row).Matrix(second, row + slab.Row)
                        .Matrix(diffSrc, row + slab.Row).Matrix(diffResidual, row + slab.Row).Number(src.Columns).Number(positions).Number(rows)
                        .Address(mean, statistic + slab.Statistic).Address(variance, statistic + slab.Statistic), corrected, scale, shift, count, slab.Statistic)
                    .Number(spec.Epsilon).Flag(spec.Relu).Flag(batch).Scratch(partials).Number(_counters).Number(_generations), slab)
                    .Moves(Share((sumPasses + applyPasses) * pass, spec, slab, positions))));
                continue;
            }

            steps.AddRange(Slabs(positions, src.Columns).Select(slab => Gradients(Parameters(
                Launch(Form("batch_norm_gradient_sums", wide), type, reduce with { GridZ = slab.Layers }, name)
                    .Matrix(src, row + slab.Row).Matrix(dst, row + slab.Row).Matrix(diffDst, row + slab.Row).Matrix(second, row + slab.Row)
                    .Number(src.Columns).Number(positions).Number(rows)
                    .Address(mean, statistic + slab.Statistic).Address(variance, statistic + slab.Statistic), corrected, scale, shift, count, slab.Statistic)
                .Number(spec.Epsilon).Flag(spec.Relu).Scratch(partials).Number(_counters), slab).Moves(Share(sumPasses * pass, spec, slab, positions))));
            steps.AddRange(Slabs(positions, src.Columns).Select(slab => Gradients(Parameters(
                Launch(Form("batch_norm_gradient", wide), type, apply with { GridZ = slab.Layers }, name)
                    .Matrix(src, row + slab.Row).Matrix(dst, row + slab.Row).Matrix(diffDst, row + slab.Row).Matrix(second, row + slab.Row)
                    .Matrix(diffSrc, row + slab.Row).Matrix(diffResidual, row + slab.Row).Number(src.Columns).Number(positions).Number(rows)
                    .Address(mean, statistic + slab.Statistic).Address(variance, statistic + slab.Statistic), corrected, scale, shift, count, slab.Statistic)
                .Number(spec.Epsilon).Flag(spec.Relu).Flag(batch), slab).Moves(Share(applyPasses * pass, spec, slab, positions))));
        }

        if (parted)
        {
            steps.Add(Launch("batch_norm_combine", type, PerStatistic(count), name)
                .Scratch(parts).Address(r).Address(d).Number(spec.Groups).Number(count).Address(diffScale).Address(diffShift).Moves(0));
        }

        return new CudnnKernel(this, operation, Variant(spec, r), scratch.Bytes, steps.Sum(s => s.Bytes ?? 0), [.. steps]);
    }

    private static string Variant(in BatchNormSpec spec, CudnnBuffer? r) =>
        "native" + (spec.Groups > 1 ? FormattableString.Invariant($", {spec.Groups} groups of {spec.GhostBatch}") : "") + (r is null ? "" : ", renormalized");

    /// <summary>
    /// What one statistic belongs to, in each group of images. Per channel: one position, all (n, h, w) as rows. Per activation: each position by itself,
    /// the images as rows.
    /// </summary>
    private static (int Positions, int Rows) Population(in BatchNormSpec spec)
    {
        int images = spec.Src.N / spec.Groups;
        return spec.PerActivation ? (spec.Src.Area, images) : (1, images * spec.Src.Area);
    }

    /// <summary>Positions that one launch takes: the first by its row and by its first statistic, and how many.</summary>
    private readonly record struct Slab(int Row, long Statistic, int Layers);

    /// <summary>All positions in as many launches as it takes, one unless there are more than a grid has layers.</summary>
    private static IEnumerable<Slab> Slabs(int positions, int columns)
    {
        for (int first = 0; first < positions; first += MostLayers)
        {
            yield return new Slab(first, (long)first * columns, Math.Min(MostLayers, positions - first));
        }
    }

    /// <summary>
    /// True where one launch both reduces and applies: where no block shares its columns with another, or the activation is not so large that two are as
    /// good, and the device holds all blocks at a time, so that they may wait for one another.
    /// </summary>
    private bool InOneLaunch(string kernel, DataType type, in LaunchShape reduce, long bytes)
    {
        if (reduce.GridY == 1)
        {
            return true;
        }

        int resident = _device is null ? ResidentBlocks * Multiprocessors
            : _device.LaunchesCooperatively ? _device.ResidentBlocks(_modules!.Function(type, kernel), reduce.BlockX * reduce.BlockY, reduce.SharedBytes) : 0;
        return bytes <= MostBytesInOneLaunch && reduce.GridX * reduce.GridY <= resident;
    }

    private static LaunchShape Together(in LaunchShape reduce, Slab slab) => reduce with { GridZ = slab.Layers, Cooperative = reduce.GridY > 1 };

    /// <summary>A launch's part of the bytes of all groups and positions.</summary>
    private static long Share(long bytes, in BatchNormSpec spec, Slab slab, int positions) => bytes / spec.Groups * slab.Layers / positions;

    /// <summary>Floats for two partial sums of every column in each block of a launch.</summary>
    private static long Partials(in LaunchShape reduce, int columns) => (long)Math.Min(reduce.GridZ, MostLayers) * reduce.GridY * 2 * columns;

    private static LaunchShape PerStatistic(int count) => new((count + 255) / 256, 1, 1, 256, 1, 0);

    /// <summary>With r and d: the launch that writes the corrected scale and shift to scratch memory.</summary>
    private void AddCorrection(
        List<CudnnStep> steps, long? corrected, CudnnBuffer scale, CudnnBuffer shift, CudnnBuffer? r, CudnnBuffer? d, long statistic, int count, DataType type, string name)
    {
        if (corrected is long at)
        {
            steps.Add(Launch("batch_norm_correct", type, PerStatistic(count), name)
                .Address(scale).Address(shift).Address(r, statistic).Address(d, statistic).Scratch(at).Scratch(at + count * sizeof(float)).Number(count).Moves(0));
        }
    }

    /// <summary>Scale and shift from statistic <paramref name="first"/> on, or the corrected ones in scratch memory.</summary>
    private static CudnnLaunch Parameters(CudnnLaunch launch, long? corrected, CudnnBuffer scale, CudnnBuffer shift, int count, long first) => corrected is long at
        ? launch.Scratch(at + first * sizeof(float)).Scratch(at + (count + first) * sizeof(float))
        : launch.Address(scale, first).Address(shift, first);

    /// <summary>Gives out scratch memory, each piece at a multiple of 256 bytes.</summary>
    private sealed class ScratchLayout
    {
        public long Bytes { get; private set; }

        public long Floats(long count)
        {
            long at = Bytes;
            Bytes += (count * sizeof(float) + 255) & ~255L;
            return at;
        }
    }

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
                "cudnn batch norm forward", src.Tensor.DataType, scratch => library!.ForwardTraining(
                    src.Address, dst.Address, scale.Address, shift.Address, operation.AveragingFactor, runningMean?.Address ?? 0, runningVariance?.Address ?? 0,
                    mean.Address, scratch), library),
            Launch("variance_from_inverse", src.Tensor.DataType, PerStatistic(statistics), name)
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
            Launch("inverse_from_variance", type, PerStatistic(statistics), name)
                .Address(variance).Scratch().Number(statistics).Number(spec.Epsilon),
        ];
        if (spec.Relu)
        {
            bool wide = IsWide(src);
            if (dst is null)
            {
                // The library cannot recompute ReLU's mask: the normalised values are computed once more, by us, exactly as they were.
                (int positions, int rows) = Population(spec);
                LaunchShape apply = Columns(src.Columns, rows, Width(type, wide), positions);
                steps.AddRange(Slabs(positions, src.Columns).Select(slab => Launch(Form("batch_norm_apply", wide), type, apply with { GridZ = slab.Layers }, name)
                    .Matrix(src, slab.Row).Matrix(null).Scratch(masked + slab.Statistic * src.ElementBytes).Number((uint)src.Columns).Number(src.Columns).Number(positions).Number(rows)
                    .Address(mean, slab.Statistic).Address(variance, slab.Statistic).Address(scale, slab.Statistic).Address(shift, slab.Statistic)
                    .Number(spec.Epsilon).Flag(false)));
            }

            CudnnLaunch mask = Launch(Form("activation_backward", wide), type, Spread(spec.Src.Count / Width(type, wide)), name);
            mask = dst is null ? mask.Scratch(masked).Number((uint)src.Columns) : mask.Matrix(dst);
            steps.Add(mask.Matrix(diffDst).Scratch(masked).Number((uint)src.Columns).Number(src.Rows).Number(src.Columns).Number(FunctionCode(ActivationKind.Relu)));
        }

        bool relu = spec.Relu;
        steps.Add(new CudnnCall(
            "cudnn batch norm backward", type, scratch => library!.Backward(
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
        int type = TypeCode(src.Tensor.DataType);
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
