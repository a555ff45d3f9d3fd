using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>dst = softmax(src), row by row.</summary>
internal sealed class ReferenceSoftmax(Softmax operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer _src = Buffer(buffers, operation.Src);
    private readonly ReferenceBuffer _dst = Buffer(buffers, operation.Dst);

    /// <summary>probabilities = exp(logits) / sum of exp(logits); returns the logarithm of that sum. The largest logit is taken out first, against overflow.</summary>
    public static double Row(ReadOnlySpan<double> logits, Span<double> probabilities)
    {
        double largest = double.NegativeInfinity;
        foreach (double z in logits)
        {
            largest = Math.Max(largest, z);
        }

        double sum = 0;
        for (int k = 0; k < logits.Length; k++)
        {
            probabilities[k] = Math.Exp(logits[k] - largest);
            sum += probabilities[k];
        }

        foreach (ref double p in probabilities)
        {
            p /= sum;
        }

        return largest + Math.Log(sum);
    }

    protected override void Run(in StepContext context)
    {
        for (int n = 0; n < operation.Src.Shape.N; n++)
        {
            Row(_src.Image(n), _dst.Image(n));
        }
    }
}

/// <summary>
/// Per image, with t the smoothed target: cross-entropy = -sum of t[k] * log p[k], and log p[k] = logits[k] - log(sum of exp(logits)), which stays finite
/// where p[k] itself is rounded to 0.
/// </summary>
internal sealed class ReferenceSoftmaxCrossEntropy(SoftmaxCrossEntropy operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer _logits = Buffer(buffers, operation.Logits);
    private readonly ReferenceBuffer _labels = Buffer(buffers, operation.Labels);
    private readonly ReferenceBuffer _probabilities = Buffer(buffers, operation.Probabilities);
    private readonly ReferenceBuffer _loss = Buffer(buffers, operation.Loss);
    private readonly ReferenceBuffer? _diffLogits = Optional(buffers, operation.DiffLogits);
    private readonly ReferenceBuffer? _secondLabels = Optional(buffers, operation.SecondLabels);
    private readonly ReferenceBuffer? _labelWeights = Optional(buffers, operation.LabelWeights);
    private readonly ReferenceBuffer? _lossScale = Optional(buffers, operation.LossScale);
    private readonly string _name = $"{operation.Kind} '{operation.Name}'";

    protected override void Run(in StepContext context)
    {
        int images = operation.Logits.Shape.N, classes = operation.Logits.Shape.C;
        double smoothing = operation.LabelSmoothing, weight = operation.Weight, lossScale = _lossScale is null ? 1 : _lossScale.Vector[0];
        SoftmaxCrossEntropy.CheckLabels(_name, [.. Enumerable.Range(0, images).Select(Label)], classes);
        double total = 0;
        for (int n = 0; n < images; n++)
        {
            Span<double> logits = _logits.Image(n), probabilities = _probabilities.Image(n);
            Span<double> diffLogits = _diffLogits is null ? default : _diffLogits.Image(n);
            int label = Label(n), second = _secondLabels is null ? label : (int)_secondLabels.Image(n)[0];
            double first = _labelWeights is null ? 1 : _labelWeights.Image(n)[0];
            double logSum = ReferenceSoftmax.Row(logits, probabilities);
            for (int k = 0; k < classes; k++)
            {
                double target = (1 - smoothing) * ((k == label ? first : 0) + (k == second ? 1 - first : 0)) + smoothing / classes, gradient;
                if (operation.Binary)
                {
                    target = operation.TargetThreshold == 0 ? target : target > operation.TargetThreshold ? 1 : 0;
                    double z = logits[k];
                    total += (Math.Max(z, 0) - (target == 0 ? 0 : z * target) + double.LogP1(Math.Exp(-Math.Abs(z)))) / classes;
                    gradient = (1 / (1 + Math.Exp(-z)) - target) / classes;
                }
                else
                {
                    total -= target == 0 ? 0 : target * (logits[k] - logSum);
                    gradient = probabilities[k] - target;
                }

                if (_diffLogits is not null)
                {
                    diffLogits[k] = lossScale * weight * gradient / images;
                }
            }
        }

        _loss.Vector[0] = weight * total / images;
    }

    private int Label(int n) => (int)_labels.Image(n)[0];
}
