using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <content>Loss and optimizer.</content>
internal static partial class ErrorModel
{
    private static OutputBound Probabilities(Operation o, Tensor logits, Tensor probabilities, OperationValues values)
    {
        Tolerance tolerance = Tolerances.Of(o.Kind, "probabilities");
        double[] x = values.Inputs[logits];
        int classes = logits.Shape.C * logits.Shape.Area;
        double[] largest = LargestPerRow(x, classes);
        return new OutputBound("probabilities", probabilities, Map(values.Expected[probabilities],
            (p, i) => tolerance.Bound(values.Kind, p * (1 + Math.Abs(x[i] - largest[i / classes])), p, classes)));
    }

    private static List<OutputBound> CrossEntropy(SoftmaxCrossEntropy o, OperationValues values)
    {
        OutputBound probabilities = Probabilities(o, o.Logits, o.Probabilities, values);
        double[] x = values.Inputs[o.Logits], labels = values.Inputs[o.Labels], p = values.Expected[o.Probabilities];
        int images = o.Logits.Shape.N, classes = o.Logits.Shape.C;
        double[] largest = LargestPerRow(x, classes);
        double smoothing = o.LabelSmoothing, weight = Math.Abs(o.Weight), magnitude = 0;
        double[]? second = o.SecondLabels is null ? null : values.Inputs[o.SecondLabels], shares = o.LabelWeights is null ? null : values.Inputs[o.LabelWeights];
        double Share(int n) => shares is null ? 1 : shares[n];
        double Mixed(int i) => smoothing / classes + (i % classes == (int)labels[i / classes] ? (1 - smoothing) * Share(i / classes) : 0)
            + (second is not null && i % classes == (int)second[i / classes] ? (1 - smoothing) * (1 - Share(i / classes)) : 0);
        double Target(int i) => o.Binary && o.TargetThreshold > 0 ? (Mixed(i) > o.TargetThreshold ? 1 : 0) : Mixed(i);
        if (o.Binary)
        {
            double sum = 0;
            for (int i = 0; i < x.Length; i++)
            {
                sum += Math.Abs(x[i]) * (1 + Target(i)) + 1;
            }

            double scale = o.LossScale is null ? 1 : values.Inputs[o.LossScale][0], part = weight / ((double)images * classes);
            List<OutputBound> binary = [probabilities, new("loss", o.Loss, [Tolerances.Of(o.Kind, "loss").Bound(values.Kind, part * sum, part * sum, images)])];
            if (o.DiffLogits is not null)
            {
                Tolerance ofGradient = Tolerances.Of(o.Kind, "diffLogits");
                binary.Add(new OutputBound("diffLogits", o.DiffLogits, Map(x, (v, i) => ofGradient.Bound(values.Kind, scale * part * (1 / (1 + Math.Exp(-v)) + Target(i)), 0, 1))));
            }

            return binary;
        }

        for (int n = 0; n < images; n++)
        {
            double sum = 0;
            for (int i = n * classes; i < (n + 1) * classes; i++)
            {
                magnitude += Target(i) * Math.Abs(x[i] - largest[n]);
                sum += Math.Exp(x[i] - largest[n]);
            }

            magnitude += Math.Log(sum) + 1;
        }

        magnitude *= weight / images;
        List<OutputBound> bounds =
        [
            probabilities,
            new("loss", o.Loss, [Tolerances.Of(o.Kind, "loss").Bound(values.Kind, magnitude, magnitude, images)]),
        ];
        if (o.DiffLogits is not null)
        {
            Tolerance tolerance = Tolerances.Of(o.Kind, "diffLogits");
            double factor = weight / images * (o.LossScale is null ? 1 : values.Inputs[o.LossScale][0]);
            bounds.Add(new OutputBound("diffLogits", o.DiffLogits, Map(p,
                (v, i) => factor * probabilities.Bound[i] + tolerance.Bound(values.Kind, factor * (v + Target(i)), 0, 1))));
        }

        return bounds;
    }

    private static IEnumerable<OutputBound> Sgd(SgdUpdate o, OperationValues values)
    {
        Tolerance ofMomentum = Tolerances.Of(o.Kind, "momentum"), ofParameter = Tolerances.Of(o.Kind, "parameter"), ofStep = Tolerances.Of(o.Kind, "parameter step");
        double gradientScale = o.GradientScale is null ? 1 : Math.Abs(values.Inputs[o.GradientScale][0]);
        double rate = (double)o.RateFactor * values.Context.LearningRate;
        if (o.LossScale is not null && values.Inputs[o.LossScale][2] != 0)
        {
            // Nothing changes, bit for bit.
            return o.Parameters.Select(p => new OutputBound("parameter", p, new double[p.Shape.Count]))
                .Concat(o.Momenta.Select(m => new OutputBound("momentum", m, new double[m.Shape.Count])));
        }

        return Updated();

        IEnumerable<OutputBound> Updated()
        {
            for (int k = 0; k < o.Parameters.Count; k++)
            {
                double[] w = values.Inputs[o.Parameters[k]], g = values.Inputs[o.Gradients[k]], v = values.Inputs[o.Momenta[k]];
                // Where the rate stands: within the momentum, or before all of it.
                double inside = o.Form == MomentumForm.PyTorch ? 1 : rate, outside = o.Form == MomentumForm.PyTorch ? rate : 1;
                double Step(int i) => inside * (gradientScale * Math.Abs(g[i]) + Math.Abs(o.WeightDecay * w[i]));
                double NewMomentum(int i) => Math.Abs(o.Mu * v[i]) + Step(i);
                yield return new OutputBound("momentum", o.Momenta[k], Map(v, (_, i) => ofMomentum.Bound(values.Kind, NewMomentum(i), 0, 1)));
                yield return new OutputBound("parameter", o.Parameters[k], Map(w,
                    (p, i) => ofParameter.Bound(values.Kind, Math.Abs(p), 0, 1)
                        + ofStep.Bound(values.Kind, outside * (o.Nesterov ? Math.Abs(o.Mu) * NewMomentum(i) + Step(i) : NewMomentum(i)), 0, 1)));
            }
        }
    }

    private static IEnumerable<OutputBound> Adam(AdamUpdate o, OperationValues values)
    {
        if (o.LossScale is not null && values.Inputs[o.LossScale][2] != 0)
        {
            return o.Writes.Select(t => new OutputBound(Role(t), t, new double[t.Shape.Count])); // nothing changes, bit for bit
        }

        return Updated();

        string Role(Tensor t) => o.Parameters.Contains(t) ? "parameter" : o.FirstMoments.Contains(t) ? "first moment" : "second moment";

        IEnumerable<OutputBound> Updated()
        {
            Tolerance ofFirst = Tolerances.Of(o.Kind, "first moment"), ofSecond = Tolerances.Of(o.Kind, "second moment");
            Tolerance ofParameter = Tolerances.Of(o.Kind, "parameter"), ofStep = Tolerances.Of(o.Kind, "parameter step");
            double scale = o.GradientScale is null ? 1 : Math.Abs(values.Inputs[o.GradientScale][0]), rate = (double)o.RateFactor * values.Context.LearningRate;
            double number = AdamUpdate.UpdateNumber(values.Context.Step, o.LossScale is null ? 0 : values.Inputs[o.LossScale][3]);
            (double c1, double c2) = (1 - Math.Pow(o.Beta1, number), 1 - Math.Pow(o.Beta2, number));
            for (int k = 0; k < o.Parameters.Count; k++)
            {
                double[] w = values.Inputs[o.Parameters[k]], g = values.Inputs[o.Gradients[k]], m = values.Inputs[o.FirstMoments[k]];
                double[] first = values.Expected[o.FirstMoments[k]], second = values.Expected[o.SecondMoments[k]];
                double[] summands = Map(m, (x, i) => Math.Abs(o.Beta1 * x) + (1 - o.Beta1) * scale * Math.Abs(g[i]));
                yield return new OutputBound("first moment", o.FirstMoments[k], Map(summands, (s, _) => ofFirst.Bound(values.Kind, s, 0, 1)));
                yield return new OutputBound("second moment", o.SecondMoments[k], Map(second, (s, _) => ofSecond.Bound(values.Kind, s, 0, 1)));

                // The magnitudes of what a step is made of, and the step.
                double Root(int i) => Math.Sqrt(second[i] / c2) + o.Epsilon;
                double[] magnitude = Map(w, (x, i) => summands[i] / c1 / Root(i) + Math.Abs(o.WeightDecay * x));
                double[] step = Map(w, (x, i) => Math.Abs(first[i] / c1 / Root(i) + o.WeightDecay * x));
                double ofW = Norm(w), ofU = Norm(step);
                bool trusted = o.TrustRatio && ofW > 0 && ofU > 0;
                double trust = trusted ? ofW / ofU : 1, ofRatio = trusted ? Norm(magnitude) / ofU : 0;
                yield return new OutputBound("parameter", o.Parameters[k], Map(w,
                    (x, i) => ofParameter.Bound(values.Kind, Math.Abs(x), 0, 1)
                        + ofStep.Bound(values.Kind, rate * trust * (magnitude[i] + step[i] * ofRatio), 0, 1)));
            }
        }

        static double Norm(double[] x) => Math.Sqrt(x.Sum(v => v * v));
    }

    private static IEnumerable<OutputBound> Clip(ClipGradients o, OperationValues values)
    {
        Tolerance ofNorm = Tolerances.Of(o.Kind, "norm"), ofScale = Tolerances.Of(o.Kind, "gradientScale");
        long length = o.Gradients.Sum(g => g.Shape.Count);
        double norm = values.Expected[o.Norm][0], scale = values.Expected[o.GradientScale][0];
        return
        [
            new OutputBound("norm", o.Norm, [ofNorm.Bound(values.Kind, norm, norm, length)]),
            new OutputBound("gradientScale", o.GradientScale, [ofScale.Bound(values.Kind, scale, scale, length)]),
        ];
    }

    private static IEnumerable<OutputBound> Accumulated(AccumulateGradients o, OperationValues values)
    {
        Tolerance tolerance = Tolerances.Of(o.Kind, "sum");
        bool first = values.Context.Step % o.Count == 0;
        for (int k = 0; k < o.Gradients.Count; k++)
        {
            double[] sum = values.Inputs[o.Sums[k]];
            yield return new OutputBound("sum", o.Sums[k], Map(values.Inputs[o.Gradients[k]],
                (g, i) => tolerance.Bound(values.Kind, (first ? 0 : Math.Abs(sum[i])) + Math.Abs(g) / o.Count, 0, 1)));
        }
    }

    /// <summary>Powers of two and counts: exact, but for the reciprocal of a scale that is none.</summary>
    private static IEnumerable<OutputBound> Scaled(UpdateLossScale o, OperationValues values) =>
    [
        new OutputBound("lossScale", o.LossScale, new double[o.LossScale.Shape.Count]),
        new OutputBound("unscale", o.Unscale, [Tolerances.Of(o.Kind, "unscale").Bound(values.Kind, values.Expected[o.Unscale][0], 0, 1)]),
    ];

    private static IEnumerable<OutputBound> Average(UpdateAverage o, OperationValues values)
    {
        Tolerance tolerance = Tolerances.Of(o.Kind, "average");
        for (int k = 0; k < o.Sources.Count; k++)
        {
            double[] source = values.Inputs[o.Sources[k]];
            yield return new OutputBound("average", o.Averages[k], Map(values.Inputs[o.Averages[k]],
                (a, i) => tolerance.Bound(values.Kind, Math.Abs(o.Decay * a) + Math.Abs((1 - o.Decay) * source[i]), 0, 1)));
        }
    }

    private static double[] LargestPerRow(double[] values, int columns)
    {
        double[] largest = new double[values.Length / columns];
        for (int row = 0; row < largest.Length; row++)
        {
            largest[row] = values.AsSpan(row * columns, columns).ToArray().Max();
        }

        return largest;
    }
}
