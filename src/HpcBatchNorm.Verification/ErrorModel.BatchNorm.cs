using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <content>Batch normalization.</content>
internal static partial class ErrorModel
{
    /// <summary>Which statistic an element (n, c, position) of src belongs to: its channel, or its place in the image, of its group of images.</summary>
    private static int StatisticOf(in BatchNormSpec spec, int index)
    {
        int group = index / spec.Src.ImageCount / (spec.Src.N / spec.Groups);
        return (group * (int)spec.Parameters.Count) + (spec.PerActivation ? index % spec.Src.ImageCount : index / spec.Src.Area % spec.Src.C);
    }

    /// <summary>Scale and shift as batch renormalization leaves them, per statistic: scale * r and shift + scale * d.</summary>
    private static (double[] Scale, double[] Shift) Corrected(in BatchNormSpec spec, double[] scale, double[] shift, double[]? r, double[]? d)
    {
        int parameters = scale.Length;
        double[] scales = new double[spec.Statistics.Count], shifts = new double[scales.Length];
        for (int s = 0; s < scales.Length; s++)
        {
            double ofScale = scale[s % parameters];
            (scales[s], shifts[s]) = (ofScale * (r?[s] ?? 1), shift[s % parameters] + ofScale * (d?[s] ?? 0));
        }

        return (scales, shifts);
    }

    /// <summary>Sums statistics' values over groups: one per parameter.</summary>
    private static double[] SumOverGroups(in BatchNormSpec spec, Func<int, double> ofStatistic)
    {
        double[] sums = new double[spec.Parameters.Count];
        for (int s = 0; s < spec.Statistics.Count; s++)
        {
            sums[s % sums.Length] += ofStatistic(s);
        }

        return sums;
    }

    /// <summary>Sum per statistic of a term per element.</summary>
    private static double[] SumPerStatistic(in BatchNormSpec spec, Func<int, int, double> term)
    {
        double[] sums = new double[spec.Statistics.Count];
        for (int i = 0; i < spec.Src.Count; i++)
        {
            int s = StatisticOf(spec, i);
            sums[s] += term(i, s);
        }

        return sums;
    }

    private static List<OutputBound> BatchNorm(BatchNormForward o, OperationValues values, Arithmetic arithmetic)
    {
        BatchNormSpec spec = o.Spec;
        bool batch = o.Statistics == BatchNormStatistics.Batch;
        double[] x = values.Inputs[o.Src];
        IReadOnlyDictionary<Tensor, double[]> corrections = batch ? values.Expected : values.Inputs;
        (double[] scale, double[] shift) = Corrected(
            spec, values.Inputs[o.Scale], values.Inputs[o.Shift], o.R is null ? null : corrections[o.R], o.D is null ? null : corrections[o.D]);
        double[]? residual = o.Residual is null ? null : values.Inputs[o.Residual];
        double[] mean = batch ? values.Expected[o.Mean!] : values.Inputs[o.RunningMean!];
        double[] variance = batch ? values.Expected[o.Variance!] : values.Inputs[o.RunningVariance!];
        List<OutputBound> bounds = [];
        if (batch)
        {
            AddStatistics(bounds, o, values, arithmetic, x, mean, variance);
        }

        if (o.Dst is null)
        {
            return bounds;
        }

        Tolerance tolerance = Tolerances.Of(o.Kind, "dst"), ofCorrection = Tolerances.Of(o.Kind, "correction");
        double[] plainScale = values.Inputs[o.Scale];
        double[] bound = new double[x.Length];
        for (int i = 0; i < bound.Length; i++)
        {
            int s = StatisticOf(spec, i);
            double inverse = spec.InverseDeviation(variance[s]), slope = Math.Abs(scale[s]) * inverse;
            double distance = Math.Abs(x[i] - mean[s]) + (batch ? values.Deviation(o.Mean, s) : 0);
            double rounded = slope * distance + Math.Abs(shift[s]) + (residual is null ? 0 : Math.Abs(residual[i]));
            bound[i] = tolerance.Bound(values.Kind, rounded, 0, 1);
            if (batch)
            {
                // d(dst) = -slope*d(mean) - slope*(x-mean)/(2*(variance+eps))*d(variance). ReLU only shrinks it.
                bound[i] += slope * values.Deviation(o.Mean, s)
                    + slope * distance * (inverse * inverse / 2) * values.Deviation(o.Variance, s);
            }

            if (o.R is not null)
            {
                double ofScale = Math.Abs(plainScale[s % plainScale.Length]);
                bound[i] += ofCorrection.Bound(values.Kind, rounded + ofScale * Math.Abs(corrections[o.D!][s]), 0, 1)
                    + (batch ? ofScale * (distance * inverse * values.Deviation(o.R, s) + values.Deviation(o.D, s)) : 0);
            }
        }

        bounds.Add(new OutputBound("dst", o.Dst, bound));
        return bounds;
    }

    /// <summary>
    /// What the reference is given in the place of absolute values when an operation's magnitudes are wanted (<see cref="OperationValues.Magnitudes"/>), where that is something
    /// else: a convolution that normalizes src reads the magnitudes that the normalization rounds at, with a normalization that leaves them as they are.
    /// </summary>
    public static IReadOnlyDictionary<Tensor, double[]> MagnitudesInPlace(Operation operation, OperationValues values)
    {
        (Tensor Src, SourceNormalization Normalization)? reads = operation switch
        {
            ConvolutionForward { Normalization: { } n } o => (o.Src, n),
            ConvolutionBackwardWeights { Normalization: { } n } o => (o.Src, n),
            _ => null,
        };
        Dictionary<Tensor, double[]> inPlace = new(ReferenceEqualityComparer.Instance);
        if (reads is var (src, normalization))
        {
            double[] Filled(double value) => [.. Enumerable.Repeat(value, normalization.Spec.Src.C)];
            inPlace[src] = NormalizedMagnitudes(src, normalization, values);
            inPlace[normalization.Scale] = Filled(1);
            inPlace[normalization.Shift] = inPlace[normalization.Mean] = Filled(0);
            inPlace[normalization.Variance] = Filled(1 - normalization.Spec.Epsilon);
        }

        return inPlace;
    }

    /// <summary>|scale|/sqrt(variance+eps) * |x-mean| + |shift|, where ReLU does not surely make it 0: no less than the normalized value, and what its rounding acts on.</summary>
    private static double[] NormalizedMagnitudes(Tensor src, SourceNormalization normalization, OperationValues values)
    {
        BatchNormSpec spec = normalization.Spec;
        double[] scale = values.Inputs[normalization.Scale], shift = values.Inputs[normalization.Shift], mean = values.Inputs[normalization.Mean],
            variance = values.Inputs[normalization.Variance];
        Tolerance tolerance = Tolerances.Of("batch-norm forward", "dst");
        return Map(values.Inputs[src], (x, i) =>
        {
            int c = i / spec.Src.Area % spec.Src.C;
            double slope = scale[c] * spec.InverseDeviation(variance[c]), rounded = Math.Abs(slope * (x - mean[c])) + Math.Abs(shift[c]);
            return spec.Relu && slope * (x - mean[c]) + shift[c] < -tolerance.Bound(InputKind.Random, rounded, 0, 1) ? 0 : rounded;
        });
    }

    /// <summary>
    /// E|x-x0| and E(x-x0)^2 of each statistic, x0 the value that sums are shifted by, which is one of the values themselves: the statistic's first on a
    /// GPU, the first of every chunk of an image in our own kernels, in which vectors hold other channels or other positions. One chunk's first value may
    /// lie far from all others (a corner, which padding reaches), so the largest over the ways there are counts.
    /// </summary>
    private static (double[] Spread, double[] Square) AroundShifts(in BatchNormSpec spec, double[] x)
    {
        BatchNormSpec s = spec;
        long m = spec.StatisticCount;
        int area = spec.Src.Area, parameters = (int)spec.Parameters.Count, groupCount = spec.Src.N / spec.Groups * spec.Src.ImageCount;

        // Element (0, c, 0) or (0, place).
        int First(int statistic) => (statistic / parameters * groupCount) + (statistic % parameters * (s.PerActivation ? 1 : area));
        double[] spread = SumPerStatistic(spec, (i, k) => Math.Abs(x[i] - x[First(k)]) / m);
        double[] square = SumPerStatistic(spec, (i, k) => (x[i] - x[First(k)]) * (x[i] - x[First(k)]) / m);
        foreach (int lanes in spec.PerActivation ? [] : (ReadOnlySpan<int>)[1, 8, 16])
        {
            // The positions of a lane are `lanes` apart, and a chunk has 256 of them.
            const int Chunk = 256;
            double Distance(int i)
            {
                int position = i % area;
                return Math.Abs(x[i] - x[i - position + (position / (Chunk * lanes) * Chunk * lanes) + (position % lanes)]);
            }

            spread = [.. spread.Zip(SumPerStatistic(spec, (i, _) => Distance(i) / m), Math.Max)];
            square = [.. square.Zip(SumPerStatistic(spec, (i, _) => Distance(i) * Distance(i) / m), Math.Max)];
        }

        return (spread, square);
    }

    private static void AddStatistics(
        List<OutputBound> bounds, BatchNormForward o, OperationValues values, Arithmetic arithmetic, double[] x, double[] mean, double[] variance)
    {
        BatchNormSpec spec = o.Spec;
        long m = spec.StatisticCount;
        Tolerance ofMean = Tolerances.Of(o.Kind, "mean"), ofVariance = Tolerances.Of(o.Kind, "variance");
        bool shifted = arithmetic != Arithmetic.UnshiftedStatistics;

        int parameters = (int)spec.Parameters.Count;
        (double[] spread, double[] square) = shifted ? AroundShifts(spec, x) : (SumPerStatistic(spec, (i, _) => Math.Abs(x[i]) / m), variance);
        double[] meanBound = Map(spread, (e, s) => ofMean.Bound(values.Kind, Math.Abs(mean[s]) + e, e, m));

        // Without a shift, libraries sum (x-mean)^2 with the rounded mean: its error enters squared.
        double[] varianceBound = Map(square, (v, s) => ofVariance.Bound(values.Kind, v, v, m) + meanBound[s] * meanBound[s]);
        bounds.Add(new OutputBound("mean", o.Mean!, meanBound));
        bounds.Add(new OutputBound("variance", o.Variance!, varianceBound));
        if (o.RunningMean is null)
        {
            return;
        }

        double a = o.AveragingFactor;
        double[] meanBefore = new double[mean.Length], varianceBefore = new double[mean.Length], meanError = new double[mean.Length], varianceError = new double[mean.Length];
        foreach ((string role, Tensor running, Tensor statistic, double factor, double[] before, double[] errorBefore) in new[]
        {
            ("running mean", o.RunningMean, o.Mean!, 1.0, meanBefore, meanError),
            ("running variance", o.RunningVariance!, o.Variance!, spec.UnbiasedFactor, varianceBefore, varianceError),
        })
        {
            Tolerance tolerance = Tolerances.Of(o.Kind, role);
            double[] old = values.Inputs[running], current = values.Expected[statistic];
            bounds.Add(new OutputBound(role, running, Map(old, (r, k) =>
            {
                // Groups update it one after the other: each keeps 1-a of the error so far.
                double error = 0;
                for (int s = k; s < current.Length; s += parameters)
                {
                    (before[s], errorBefore[s]) = (r, error);
                    error = (1 - a) * error + tolerance.Bound(values.Kind, (1 - a) * Math.Abs(r) + a * factor * Math.Abs(current[s]), 0, 1)
                        + a * factor * values.Deviation(statistic, s);
                    r = (1 - a) * r + a * factor * current[s];
                }

                return error;
            })));
        }

        if (o.Renormalization is not null)
        {
            Tolerance ofR = Tolerances.Of(o.Kind, "r"), ofD = Tolerances.Of(o.Kind, "d");
            double[] r = values.Expected[o.R!];
            double Relative(int s) => varianceError[s] / (2 * (varianceBefore[s] + spec.Epsilon));
            bounds.Add(new OutputBound("r", o.R!, Map(r, (v, s) => ofR.Bound(values.Kind, v, 0, 1)
                + v * (values.Deviation(o.Variance, s) / (2 * (variance[s] + spec.Epsilon)) + Relative(s)))));
            bounds.Add(new OutputBound("d", o.D!, Map(mean, (v, s) =>
            {
                double sigma = Math.Sqrt(varianceBefore[s] + spec.Epsilon);
                return ofD.Bound(values.Kind, (Math.Abs(v) + Math.Abs(meanBefore[s])) / sigma, 0, 1)
                    + (values.Deviation(o.Mean, s) + meanError[s]) / sigma + Math.Abs(v - meanBefore[s]) / sigma * Relative(s);
            })));
        }
    }

    private static List<OutputBound> BatchNorm(BatchNormBackward o, OperationValues values, Arithmetic arithmetic)
    {
        BatchNormSpec spec = o.Spec;
        long m = spec.StatisticCount;
        double[] x = values.Inputs[o.Src], dy = values.Inputs[o.DiffDst], either = new double[x.Length];
        if (o.SecondDiffDst is not null)
        {
            // The sum of both is rounded to their type: 16 bits once and for all, single precision by the backend only.
            DataType type = o.DiffDst.DataType;
            Tolerance ofSum = Tolerances.Of("sum", "dst");
            double[] first = dy, second = values.Inputs[o.SecondDiffDst];
            dy = Map(first, (v, i) => type.IsNarrow() ? type.Round(v + second[i]) : v + second[i]);
            either = type.IsNarrow() ? either : Map(dy, v => ofSum.Bound(values.Kind, Math.Abs(v), 0, 1));
        }

        double[]? r = o.R is null ? null : values.Inputs[o.R], d = o.D is null ? null : values.Inputs[o.D];
        (double[] scale, double[] shift) = Corrected(spec, values.Inputs[o.Scale], values.Inputs[o.Shift], r, d);
        double[] mean = values.Inputs[o.Mean], variance = values.Inputs[o.Variance];
        double[] inverse = Map(variance, spec.InverseDeviation);
        double[]? dst = o.Dst is null ? null : values.Inputs[o.Dst];

        // g: diffDst after the ReLU mask. A mask from dst is the same on both sides. One recomputed from src is decided only where the
        // pre-activation is further from 0 than its own bound; elsewhere either answer is right, and `either` is what it is worth.
        double[] g = new double[x.Length];
        Tolerance preActivation = Tolerances.Of("batch-norm forward", "dst"), ofCorrection = Tolerances.Of("batch-norm forward", "correction");
        for (int i = 0; i < x.Length; i++)
        {
            int s = StatisticOf(spec, i);
            double slope = scale[s] * inverse[s], value = slope * (x[i] - mean[s]) + shift[s];
            g[i] = !spec.Relu || (dst is null ? value > 0 : dst[i] > 0) ? dy[i] : 0;
            either[i] = g[i] == 0 ? 0 : either[i];
            double magnitude = Math.Abs(slope) * Math.Abs(x[i] - mean[s]) + Math.Abs(shift[s]);
            double undecided = preActivation.Bound(values.Kind, magnitude, 0, 1)
                + (r is null ? 0 : ofCorrection.Bound(values.Kind, magnitude + Math.Abs(scale[s] * d![s] / r[s]), 0, 1));
            if (spec.Relu && dst is null && Math.Abs(value) <= undecided)
            {
                either[i] = Math.Abs(dy[i]);
            }
        }

        double Normalised(int i, int s) => Math.Abs(x[i] - mean[s]) * inverse[s];
        double[] sumG = SumPerStatistic(spec, (i, _) => g[i]), sumAbsG = SumPerStatistic(spec, (i, _) => Math.Abs(g[i]));
        double[] sumGx = SumPerStatistic(spec, (i, s) => g[i] * (x[i] - mean[s]) * inverse[s]);
        double[] sumAbsGx = SumPerStatistic(spec, (i, s) => Math.Abs(g[i]) * Normalised(i, s));

        // The formula as printed keeps the term sum (x-mean), which the simplified one drops because it is 0: but only for the exact mean, not for
        // the rounded one both are given.
        double[] centre = SumPerStatistic(spec, (i, s) => (x[i] - mean[s]) * inverse[s] / m);
        double[] eitherG = SumPerStatistic(spec, (i, _) => either[i]), eitherGx = SumPerStatistic(spec, (i, s) => either[i] * Normalised(i, s));

        Tolerance ofShift = Tolerances.Of(o.Kind, "diffShift"), ofScale = Tolerances.Of(o.Kind, "diffScale"), ofSrc = Tolerances.Of(o.Kind, "diffSrc");
        double[] bound = new double[x.Length];
        bool batch = o.Statistics == BatchNormStatistics.Batch;

        // Growth is 2: with a length of (m/2)^2 the law of the root becomes the worst case, m*u*sum|t|.
        double length = arithmetic == Arithmetic.RunningSums ? 0.25 * m * m : m;
        double ErrorOfSum(int s) => ofShift.Bound(values.Kind, sumAbsG[s], sumAbsG[s], length) + eitherG[s];
        double ErrorOfDot(int s) => ofScale.Bound(values.Kind, sumAbsGx[s], sumAbsGx[s], length) + eitherGx[s];

        // The sums of a group, and those before r and d, are not outputs: their bounds stand in for their measured errors.
        bool measured = spec.Groups == 1 && r is null;
        for (int i = 0; i < bound.Length; i++)
        {
            int s = StatisticOf(spec, i);
            double slope = Math.Abs(scale[s]) * inverse[s];
            double rounded = Math.Abs(g[i]), explained = either[i];
            if (batch)
            {
                rounded += (Math.Abs(sumG[s]) + Normalised(i, s) * Math.Abs(sumGx[s])) / m;
                explained += (Math.Abs(centre[s]) * Math.Abs(sumGx[s]) + (measured ? values.Deviation(o.DiffShift, s) : ErrorOfSum(s))
                    + Normalised(i, s) * (measured ? values.Deviation(o.DiffScale, s) : ErrorOfDot(s))) / m;
            }

            bound[i] = ofSrc.Bound(values.Kind, slope * rounded, 0, 1) + slope * explained + (r is null ? 0 : ofCorrection.Bound(values.Kind, slope * rounded, 0, 1));
        }

        List<OutputBound> bounds =
        [
            new("diffShift", o.DiffShift, SumOverGroups(spec, ErrorOfSum)),
            new("diffScale", o.DiffScale, SumOverGroups(spec, s => r is null ? ErrorOfDot(s)
                : r[s] * ErrorOfDot(s) + Math.Abs(d![s]) * ErrorOfSum(s) + ofCorrection.Bound(InputKind.Random, r[s] * sumAbsGx[s] + Math.Abs(d[s]) * sumAbsG[s], 0, 1))),
            new("diffSrc", o.DiffSrc, bound),
        ];
        if (o.DiffResidual is not null)
        {
            bounds.Add(new OutputBound("diffResidual", o.DiffResidual, either));
        }

        return bounds;
    }
}
