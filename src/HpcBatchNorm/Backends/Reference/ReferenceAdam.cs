using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>AdamW's update, and LAMB's, as <see cref="AdamUpdate"/> writes them.</summary>
internal sealed class ReferenceAdamUpdate(AdamUpdate operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer[] _parameters = Buffers(buffers, operation.Parameters);
    private readonly ReferenceBuffer[] _gradients = Buffers(buffers, operation.Gradients);
    private readonly ReferenceBuffer[] _firstMoments = Buffers(buffers, operation.FirstMoments);
    private readonly ReferenceBuffer[] _secondMoments = Buffers(buffers, operation.SecondMoments);
    private readonly ReferenceBuffer? _gradientScale = Optional(buffers, operation.GradientScale);
    private readonly ReferenceBuffer? _lossScale = Optional(buffers, operation.LossScale);

    protected override void Run(in StepContext context)
    {
        if (_lossScale is not null && _lossScale.Vector[2] != 0)
        {
            return;
        }

        double number = AdamUpdate.UpdateNumber(context.Step, _lossScale is null ? 0 : _lossScale.Vector[3]);
        double gradientScale = _gradientScale is null ? 1 : _gradientScale.Vector[0];
        double rate = (double)operation.RateFactor * context.LearningRate;
        (double first, double second) = (1 - Math.Pow(operation.Beta1, number), 1 - Math.Pow(operation.Beta2, number));
        for (int t = 0; t < _parameters.Length; t++)
        {
            int images = _parameters[t].Tensor.Shape.N;
            double ofParameter = 0, ofStep = 0;
            for (int n = 0; n < images; n++)
            {
                Average(_gradients[t].Image(n), _firstMoments[t].Image(n), _secondMoments[t].Image(n), gradientScale);
                Span<double> w = _parameters[t].Image(n), m = _firstMoments[t].Image(n), v = _secondMoments[t].Image(n);
                for (int i = 0; i < w.Length; i++)
                {
                    double u = Step(w[i], m[i] / first, v[i] / second);
                    (ofParameter, ofStep) = (ofParameter + w[i] * w[i], ofStep + u * u);
                }
            }

            double trust = operation.TrustRatio && ofParameter > 0 && ofStep > 0 ? Math.Sqrt(ofParameter / ofStep) : 1;
            for (int n = 0; n < images; n++)
            {
                Span<double> w = _parameters[t].Image(n), m = _firstMoments[t].Image(n), v = _secondMoments[t].Image(n);
                for (int i = 0; i < w.Length; i++)
                {
                    w[i] -= rate * trust * Step(w[i], m[i] / first, v[i] / second);
                }
            }
        }
    }

    private void Average(ReadOnlySpan<double> gradients, Span<double> first, Span<double> second, double gradientScale)
    {
        (double beta1, double beta2) = (operation.Beta1, operation.Beta2);
        for (int i = 0; i < first.Length; i++)
        {
            double g = gradientScale * gradients[i];
            first[i] = beta1 * first[i] + (1 - beta1) * g;
            second[i] = beta2 * second[i] + (1 - beta2) * g * g;
        }
    }

    private double Step(double parameter, double first, double second) => first / (Math.Sqrt(second) + operation.Epsilon) + operation.WeightDecay * parameter;
}
