using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>
/// Momentum in the form of Sutskever et al. (2013): v = mu*v - e*g; w += v, or w += mu*v - e*g with Nesterov. In PyTorch's: v = mu*v + g; w -= e*v, or
/// w -= e*(g + mu*v).
/// </summary>
internal sealed class ReferenceSgdUpdate(SgdUpdate operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer[] _parameters = Buffers(buffers, operation.Parameters);
    private readonly ReferenceBuffer[] _gradients = Buffers(buffers, operation.Gradients);
    private readonly ReferenceBuffer[] _momenta = Buffers(buffers, operation.Momenta);
    private readonly ReferenceBuffer? _gradientScale = Optional(buffers, operation.GradientScale);
    private readonly ReferenceBuffer? _lossScale = Optional(buffers, operation.LossScale);

    protected override void Run(in StepContext context)
    {
        if (_lossScale is not null && _lossScale.Vector[2] != 0)
        {
            return;
        }

        double gradientScale = _gradientScale is null ? 1 : _gradientScale.Vector[0];
        for (int t = 0; t < _parameters.Length; t++)
        {
            for (int n = 0; n < _parameters[t].Tensor.Shape.N; n++)
            {
                Update(_parameters[t].Image(n), _gradients[t].Image(n), _momenta[t].Image(n), gradientScale, (double)operation.RateFactor * context.LearningRate);
            }
        }
    }

    private void Update(Span<double> parameters, ReadOnlySpan<double> gradients, Span<double> momenta, double gradientScale, double learningRate)
    {
        double mu = operation.Mu, weightDecay = operation.WeightDecay;
        for (int i = 0; i < parameters.Length; i++)
        {
            double g = gradientScale * gradients[i] + weightDecay * parameters[i];
            if (operation.Form == MomentumForm.PyTorch)
            {
                momenta[i] = mu * momenta[i] + g;
                parameters[i] -= learningRate * (operation.Nesterov ? g + mu * momenta[i] : momenta[i]);
                continue;
            }

            double v = mu * momenta[i] - learningRate * g;
            momenta[i] = v;
            parameters[i] += operation.Nesterov ? mu * v - learningRate * g : v;
        }
    }
}

/// <summary>The global norm of all gradients, and the factor that brings it down to the maximum.</summary>
internal sealed class ReferenceClipGradients(ClipGradients operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer[] _gradients = Buffers(buffers, operation.Gradients);
    private readonly ReferenceBuffer _gradientScale = Buffer(buffers, operation.GradientScale);
    private readonly ReferenceBuffer _norm = Buffer(buffers, operation.Norm);
    private readonly ReferenceBuffer? _unscale = Optional(buffers, operation.Unscale);

    protected override void Run(in StepContext context)
    {
        double squares = 0;
        foreach (ReferenceBuffer gradient in _gradients)
        {
            for (int n = 0; n < gradient.Tensor.Shape.N; n++)
            {
                squares += Dot(gradient.Image(n), gradient.Image(n));
            }
        }

        double unscale = _unscale is null ? 1 : _unscale.Vector[0], norm = Math.Sqrt(squares) * unscale;
        _norm.Vector[0] = norm;
        _gradientScale.Vector[0] = unscale * (norm == 0 ? 1 : Math.Min(1, operation.MaximumNorm / norm));
    }
}

/// <summary>Halves the loss scale when a gradient is not finite, doubles it when none was for long.</summary>
internal sealed class ReferenceUpdateLossScale(UpdateLossScale operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer[] _gradients = Buffers(buffers, operation.Gradients);
    private readonly ReferenceBuffer _lossScale = Buffer(buffers, operation.LossScale);
    private readonly ReferenceBuffer _unscale = Buffer(buffers, operation.Unscale);

    protected override void Run(in StepContext context)
    {
        Span<double> state = _lossScale.Vector;
        _unscale.Vector[0] = 1 / state[0];
        if (AreFinite())
        {
            (state[1], state[2]) = (state[1] + 1, 0);
            if (operation.GrowthSteps > 0 && state[1] >= operation.GrowthSteps)
            {
                (state[0], state[1]) = (Math.Min(UpdateLossScale.MostScale, state[0] * 2), 0);
            }
        }
        else
        {
            (state[0], state[1], state[2]) = (Math.Max(1, state[0] / 2), 0, 1);
            state[3]++;
        }
    }

    private bool AreFinite()
    {
        foreach (ReferenceBuffer gradient in _gradients)
        {
            for (int n = 0; n < gradient.Tensor.Shape.N; n++)
            {
                foreach (double value in gradient.Image(n))
                {
                    if (!double.IsFinite(value))
                    {
                        return false;
                    }
                }
            }
        }

        return true;
    }
}

/// <summary>The mean of the gradients of several micro-batches, summed one by one.</summary>
internal sealed class ReferenceAccumulateGradients(AccumulateGradients operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer[] _gradients = Buffers(buffers, operation.Gradients);
    private readonly ReferenceBuffer[] _sums = Buffers(buffers, operation.Sums);

    protected override void Run(in StepContext context)
    {
        bool first = context.Step % operation.Count == 0;
        for (int t = 0; t < _gradients.Length; t++)
        {
            for (int n = 0; n < _gradients[t].Tensor.Shape.N; n++)
            {
                Span<double> gradient = _gradients[t].Image(n), sum = _sums[t].Image(n);
                for (int i = 0; i < sum.Length; i++)
                {
                    sum[i] = (first ? 0 : sum[i]) + gradient[i] / operation.Count;
                }
            }
        }
    }
}

/// <summary>average = decay*average + (1-decay)*source.</summary>
internal sealed class ReferenceUpdateAverage(UpdateAverage operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer[] _sources = Buffers(buffers, operation.Sources);
    private readonly ReferenceBuffer[] _averages = Buffers(buffers, operation.Averages);

    protected override void Run(in StepContext context)
    {
        double decay = operation.Decay;
        for (int t = 0; t < _sources.Length; t++)
        {
            for (int n = 0; n < _sources[t].Tensor.Shape.N; n++)
            {
                Span<double> source = _sources[t].Image(n), average = _averages[t].Image(n);
                for (int i = 0; i < source.Length; i++)
                {
                    average[i] = decay * average[i] + (1 - decay) * source[i];
                }
            }
        }
    }
}

/// <summary>copy = parameter; the rounding to the copy's type is every kernel's last step.</summary>
internal sealed class ReferenceConvertParameters(ConvertParameters operation, BufferMap buffers, ParallelOptions parallel)
    : ReferenceKernel(operation, buffers, parallel)
{
    private readonly ReferenceBuffer[] _parameters = Buffers(buffers, operation.Parameters);
    private readonly ReferenceBuffer[] _copies = Buffers(buffers, operation.Copies);

    protected override void Run(in StepContext context)
    {
        for (int t = 0; t < _parameters.Length; t++)
        {
            for (int n = 0; n < _parameters[t].Tensor.Shape.N; n++)
            {
                _parameters[t].Image(n).CopyTo(_copies[t].Image(n));
            }
        }
    }
}
