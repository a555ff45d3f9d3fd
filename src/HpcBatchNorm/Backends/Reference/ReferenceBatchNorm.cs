using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>
/// The values x_1 .. x_m behind each statistic. In the convolutional form statistic k is channel k and its values are that channel's plane in every
/// image; in the per-activation form it is one (channel, row, column) and its values are that element of every image. Both are the same walk:
/// images of Statistics * Positions values each.
/// </summary>
internal readonly struct BatchNormPopulation(in BatchNormSpec spec)
{
    /// <summary>Number of statistics: extent of mean, variance, scale and shift.</summary>
    public int Statistics { get; } = (int)spec.Parameters.Count;

    /// <summary>Images in the mini-batch.</summary>
    public int Images { get; } = spec.Src.N;

    /// <summary>Values per image and statistic.</summary>
    public int Positions { get; } = spec.PerActivation ? 1 : spec.Src.Area;

    /// <summary>Groups of consecutive images, each with statistics of its own.</summary>
    public int Groups { get; } = spec.Groups;

    /// <summary>Images in a group.</summary>
    public int GroupImages { get; } = spec.Src.N / spec.Groups;

    /// <summary>m, values per statistic.</summary>
    public double Count => (double)GroupImages * Positions;

    /// <summary>Elements of the whole tensor.</summary>
    public long Elements => (long)Statistics * Images * Positions;

    /// <summary>The values of statistic <paramref name="k"/> in image <paramref name="n"/>.</summary>
    public Span<double> Values(ReferenceBuffer buffer, int n, int k) => buffer.Image(n).Slice(k * Positions, Positions);
}

/// <summary>Algorithm 1 (and, with running statistics, step 11 of Algorithm 2): y = scale * xhat + shift, xhat = (x - mean) / sqrt(variance + epsilon).</summary>
internal sealed class ReferenceBatchNormForward(BatchNormForward operation, BufferMap buffers, ParallelOptions parallel, ICollectives? ranks)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly BatchNormPopulation _population = new(operation.Spec);
    private readonly ReferenceBuffer _src = Buffer(buffers, operation.Src);
    private readonly ReferenceBuffer _scale = Buffer(buffers, operation.Scale);
    private readonly ReferenceBuffer _shift = Buffer(buffers, operation.Shift);
    private readonly ReferenceBuffer? _residual = Optional(buffers, operation.Residual);
    private readonly ReferenceBuffer? _dst = Optional(buffers, operation.Dst);
    private readonly ReferenceBuffer? _mean = Optional(buffers, operation.Mean);
    private readonly ReferenceBuffer? _variance = Optional(buffers, operation.Variance);
    private readonly ReferenceBuffer? _runningMean = Optional(buffers, operation.RunningMean);
    private readonly ReferenceBuffer? _runningVariance = Optional(buffers, operation.RunningVariance);
    private readonly ReferenceBuffer? _r = Optional(buffers, operation.R);
    private readonly ReferenceBuffer? _d = Optional(buffers, operation.D);
    private readonly JoinedStatistics? _joined = ranks is null ? null : new JoinedStatistics(ranks, operation.SynchronizedRanks, (int)operation.Spec.Parameters.Count, operation.Spec.StatisticCount);
    private (double R, double D) _limits;

    protected override void Run(in StepContext context)
    {
        _limits = operation.Renormalization?.LimitsAt(context.Step) ?? (1, 0);
        if (_joined is not null)
        {
            ForEach(_population.Statistics, _population.Elements * 2, k => (_joined.First[k], _joined.Second[k]) = Moments(k, 0));
            _joined.JoinMoments();
        }

        ForEach(_population.Statistics, _population.Elements * 4, Normalize);
    }

    /// <summary>One group after the other, so that each updates the running statistics in turn.</summary>
    private void Normalize(int k)
    {
        for (int group = 0; group < _population.Groups; group++)
        {
            Normalize(k, group);
        }
    }

    private void Normalize(int k, int group)
    {
        (double mean, double variance) = operation.Statistics == BatchNormStatistics.Batch
            ? MeasureBatch(k, group)
            : (_runningMean!.Image(group)[k], _runningVariance!.Image(group)[k]);
        if (_dst is null)
        {
            return;
        }

        double scale = _scale.Vector[k], shift = _shift.Vector[k];
        if (_r is not null)
        {
            // scale * (xhat * r + d) + shift
            (scale, shift) = (scale * _r.Image(group)[k], shift + scale * _d!.Image(group)[k]);
        }

        double inverseDeviation = operation.Spec.InverseDeviation(variance);
        int first = group * _population.GroupImages;
        for (int n = first; n < first + _population.GroupImages; n++)
        {
            Span<double> x = _population.Values(_src, n, k);
            Span<double> y = _population.Values(_dst, n, k);
            Span<double> residual = _residual is null ? default : _population.Values(_residual, n, k);
            for (int p = 0; p < x.Length; p++)
            {
                double normalized = (x[p] - mean) * inverseDeviation;
                double value = scale * normalized + shift;
                if (operation.Spec.Residual)
                {
                    value += residual[p];
                }

                y[p] = operation.Spec.Relu ? Math.Max(0, value) : value;
            }
        }
    }

    /// <summary>Mean and biased variance of a group in two passes.</summary>
    private (double Mean, double Variance) Moments(int k, int group)
    {
        double m = _population.Count;
        int first = group * _population.GroupImages, end = first + _population.GroupImages;

        double sum = 0;
        for (int n = first; n < end; n++)
        {
            foreach (double x in _population.Values(_src, n, k))
            {
                sum += x;
            }
        }

        double mean = sum / m;

        double squares = 0;
        for (int n = first; n < end; n++)
        {
            foreach (double x in _population.Values(_src, n, k))
            {
                squares += (x - mean) * (x - mean);
            }
        }

        return (mean, squares / m);
    }

    /// <summary>Mean and biased variance of the mini-batch, of all ranks where they are joined; updates the running statistics, whose variance is unbiased.</summary>
    private (double Mean, double Variance) MeasureBatch(int k, int group)
    {
        (double mean, double variance) = _joined is null ? Moments(k, group) : (_joined.First[k], _joined.Second[k]);
        _mean!.Image(group)[k] = mean;
        _variance!.Image(group)[k] = variance;
        if (operation.Renormalization is not null)
        {
            (_r!.Image(group)[k], _d!.Image(group)[k]) = BatchRenormalization.Correction(
                mean, variance, _runningMean!.Vector[k], _runningVariance!.Vector[k], operation.Spec.Epsilon, _limits);
        }

        if (_runningMean is not null)
        {
            double a = operation.AveragingFactor;
            ref double runningMean = ref _runningMean.Vector[k];
            ref double runningVariance = ref _runningVariance!.Vector[k];
            runningMean = (1 - a) * runningMean + a * mean;
            runningVariance = (1 - a) * runningVariance + a * variance * (_joined?.UnbiasedFactor ?? operation.Spec.UnbiasedFactor);
        }

        return (mean, variance);
    }
}

/// <summary>
/// The chain rule as the paper prints it after Algorithm 1, unsimplified. With running statistics mean and variance are constants, so their two
/// gradients are zero and only the first term of dl/dx remains.
/// </summary>
internal sealed class ReferenceBatchNormBackward(BatchNormBackward operation, BufferMap buffers, ParallelOptions parallel, ICollectives? ranks)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly BatchNormPopulation _population = new(operation.Spec);
    private readonly ReferenceBuffer _src = Buffer(buffers, operation.Src);
    private readonly ReferenceBuffer? _dst = Optional(buffers, operation.Dst);
    private readonly ReferenceBuffer _diffDst = Buffer(buffers, operation.DiffDst);
    private readonly ReferenceBuffer? _secondDiffDst = Optional(buffers, operation.SecondDiffDst);
    private readonly ReferenceBuffer _scale = Buffer(buffers, operation.Scale);
    private readonly ReferenceBuffer _shift = Buffer(buffers, operation.Shift);
    private readonly ReferenceBuffer _mean = Buffer(buffers, operation.Mean);
    private readonly ReferenceBuffer _variance = Buffer(buffers, operation.Variance);
    private readonly ReferenceBuffer _diffSrc = Buffer(buffers, operation.DiffSrc);
    private readonly ReferenceBuffer _diffScale = Buffer(buffers, operation.DiffScale);
    private readonly ReferenceBuffer _diffShift = Buffer(buffers, operation.DiffShift);
    private readonly ReferenceBuffer? _diffResidual = Optional(buffers, operation.DiffResidual);
    private readonly ReferenceBuffer? _r = Optional(buffers, operation.R);
    private readonly ReferenceBuffer? _d = Optional(buffers, operation.D);

    private readonly JoinedStatistics? _joined = ranks is null ? null : new JoinedStatistics(ranks, operation.SynchronizedRanks, (int)operation.Spec.Parameters.Count, operation.Spec.StatisticCount);

    protected override void Run(in StepContext context)
    {
        if (_joined is not null)
        {
            ForEach(_population.Statistics, _population.Elements * 2, k =>
            {
                Sums sums = SumsOf(k, 0);
                (_joined.First[k], _joined.Second[k]) = (sums.DiffNormalized, sums.DiffNormalizedTimesCentred);
            });
            _joined.JoinSums();
        }

        ForEach(_population.Statistics, _population.Elements * 4, Differentiate);
    }

    private void Differentiate(int k)
    {
        double diffScale = 0, diffShift = 0;
        for (int group = 0; group < _population.Groups; group++)
        {
            (double ofScale, double ofShift) = Differentiate(k, group);
            diffScale += ofScale;
            diffShift += ofShift;
        }

        _diffScale.Vector[k] = diffScale;
        _diffShift.Vector[k] = diffShift;
    }

    /// <summary>Sums of the chain rule over i = 1 .. m, with dl/dxhat = dl/dy * scale.</summary>
    private readonly record struct Sums(double DiffScale, double DiffShift, double DiffNormalized, double DiffNormalizedTimesCentred, double Centred);

    private Sums SumsOf(int k, int group)
    {
        int first = group * _population.GroupImages, end = first + _population.GroupImages;
        double r = _r?.Image(group)[k] ?? 1, d = _d?.Image(group)[k] ?? 0;
        double scale = _scale.Vector[k] * r, shift = _shift.Vector[k] + _scale.Vector[k] * d, mean = _mean.Image(group)[k];
        double inverseDeviation = operation.Spec.InverseDeviation(_variance.Image(group)[k]);

        double diffScale = 0, diffShift = 0;
        double sumDiffNormalized = 0, sumDiffNormalizedTimesCentred = 0, sumCentred = 0;
        for (int n = first; n < end; n++)
        {
            Span<double> x = _population.Values(_src, n, k), diffDst = _population.Values(_diffDst, n, k), second = SecondDiffDst(n, k), dst = Dst(n, k);
            for (int p = 0; p < x.Length; p++)
            {
                double centred = x[p] - mean;
                double normalized = centred * inverseDeviation;
                double diffY = PassesRelu(dst, p, scale * normalized + shift) ? Sum(diffDst, second, p) : 0;
                diffScale += diffY * normalized;
                diffShift += diffY;
                sumDiffNormalized += diffY * scale;
                sumDiffNormalizedTimesCentred += diffY * scale * centred;
                sumCentred += centred;
            }
        }

        return new Sums(diffScale, diffShift, sumDiffNormalized, sumDiffNormalizedTimesCentred, sumCentred);
    }

    private (double DiffScale, double DiffShift) Differentiate(int k, int group)
    {
        double m = _population.Count;
        int first = group * _population.GroupImages, end = first + _population.GroupImages;
        double r = _r?.Image(group)[k] ?? 1, d = _d?.Image(group)[k] ?? 0;
        double scale = _scale.Vector[k] * r, shift = _shift.Vector[k] + _scale.Vector[k] * d, mean = _mean.Image(group)[k];
        double inverseDeviation = operation.Spec.InverseDeviation(_variance.Image(group)[k]);
        (double diffScale, double diffShift, double sumDiffNormalized, double sumDiffNormalizedTimesCentred, double sumCentred) = SumsOf(k, group);
        if (_joined is not null)
        {
            // Over the images of all ranks, whose deviations from their mean add up to nothing.
            (m, sumDiffNormalized, sumDiffNormalizedTimesCentred, sumCentred) = (_joined.Count, _joined.First[k], _joined.Second[k], 0);
        }

        double diffVariance = 0, diffMean = 0;
        if (operation.Statistics == BatchNormStatistics.Batch)
        {
            diffVariance = sumDiffNormalizedTimesCentred * -0.5 * inverseDeviation * inverseDeviation * inverseDeviation;
            diffMean = sumDiffNormalized * -inverseDeviation + diffVariance * (-2 * sumCentred) / m;
        }

        for (int n = first; n < end; n++)
        {
            Span<double> x = _population.Values(_src, n, k), diffDst = _population.Values(_diffDst, n, k), second = SecondDiffDst(n, k), dst = Dst(n, k);
            Span<double> diffSrc = _population.Values(_diffSrc, n, k);
            Span<double> diffResidual = _diffResidual is null ? default : _population.Values(_diffResidual, n, k);
            for (int p = 0; p < x.Length; p++)
            {
                // diffSrc may be src or diffDst itself: at each p everything is read before anything is written.
                double centred = x[p] - mean;
                double diffY = PassesRelu(dst, p, scale * (centred * inverseDeviation) + shift) ? Sum(diffDst, second, p) : 0;
                diffSrc[p] = diffY * scale * inverseDeviation + diffVariance * 2 * centred / m + diffMean / m;
                if (_diffResidual is not null)
                {
                    diffResidual[p] = diffY;
                }
            }
        }

        // The normalized value times r plus d is what scale multiplies.
        return (r * diffScale + d * diffShift, diffShift);
    }

    private Span<double> SecondDiffDst(int n, int k) => _secondDiffDst is null ? default : _population.Values(_secondDiffDst, n, k);

    /// <summary>The gradient of dst at p: one contribution, or two, whose sum a 16-bit type rounds.</summary>
    private double Sum(ReadOnlySpan<double> diffDst, ReadOnlySpan<double> second, int p) =>
        second.IsEmpty ? diffDst[p] : operation.DiffDst.DataType.IsNarrow() ? operation.DiffDst.DataType.Round(diffDst[p] + second[p]) : diffDst[p] + second[p];

    private Span<double> Dst(int n, int k) => _dst is null ? default : _population.Values(_dst, n, k);

    /// <summary>Whether the gradient passes at p: without ReLU always, else where the output is positive or NaN: dst if kept, otherwise as recomputed from src.</summary>
    private bool PassesRelu(ReadOnlySpan<double> dst, int p, double recomputed) =>
        !(operation.Spec.Relu && (dst.IsEmpty ? recomputed : dst[p]) <= 0);
}
