using HpcBatchNorm.Backends;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Training.Evaluation;

/// <summary>
/// Algorithm 2, lines 8 to 10: with all parameters frozen, training mini-batches B are sent through the network, every layer normalising by the
/// statistics of the batch, as in training, and per channel (or activation) E[x] = mean over B of mu_B and
/// Var[x] = m/(m-1) * mean over B of sigma_B^2, m = batch * height * width of the layer (batch alone where it normalises per activation).
/// All batches count alike and sums are kept in double, so the order of the batches matters only to rounding. Dropout is left out, as at inference; so
/// are auxiliary heads, whose statistics stay as they are.
/// </summary>
public sealed class PopulationStatistics : IDisposable
{
    private readonly Network _network;
    private readonly NetworkState _state;
    private readonly ForwardSession _session;
    private readonly List<(StateTensor Tensor, double[] Sum)> _statistics = [];
    private readonly double[] _values;

    /// <summary>Prepares passes of <see cref="PlanOptions.Batch"/> images.</summary>
    /// <param name="backend">Where the network runs.</param>
    /// <param name="network">The network.</param>
    /// <param name="options">Batch m, image size and pixel normalization.</param>
    /// <param name="state">Its parameters; its running statistics are not looked at.</param>
    /// <param name="sharedArena">As for <see cref="ForwardSession"/>.</param>
    /// <exception cref="UserErrorException">The network has no batch normalization.</exception>
    /// <exception cref="ArgumentException">A layer would normalise over a single value: the batch is too small.</exception>
    public PopulationStatistics(Backend backend, Network network, InferenceOptions options, NetworkState state, DeviceMemory? sharedArena = null)
    {
        (_network, _state) = (network, state);
        _session = new ForwardSession(backend, network, options with { Statistics = BatchNormStatistics.Batch }, state, sharedArena);
        foreach (StateTensor entry in _session.Plan.State.Where(s => s.Tensor.Role == TensorRole.RunningStatistic))
        {
            _statistics.Add((entry, new double[entry.Tensor.Shape.Count]));
        }

        if (_statistics.Count == 0)
        {
            _session.Dispose();
            throw new UserErrorException($"{network.Name} has no batch normalization in it, so it has no population statistics.");
        }

        _values = new double[_statistics.Max(s => s.Sum.Length)];
    }

    /// <summary>Mini-batches so far.</summary>
    public long Batches { get; private set; }

    /// <summary>Takes one mini-batch into account: Batch x Height x Width x Channels bytes (NHWC), all of them images.</summary>
    public void Add(ReadOnlySpan<byte> pixels)
    {
        _session.Write(_session.Plan.Pixels, pixels);
        _session.Execute(default);
        foreach ((StateTensor entry, double[] sum) in _statistics)
        {
            Span<double> values = _values.AsSpan(0, sum.Length);
            _session.Read(entry.Tensor, values);
            for (int i = 0; i < sum.Length; i++)
            {
                sum[i] += values[i];
            }
        }

        Batches++;
    }

    /// <summary>The network's parameters as they were given, with the population statistics of the batches so far in the place of its running statistics.</summary>
    /// <exception cref="InvalidOperationException">There was no batch yet.</exception>
    /// <exception cref="UserErrorException">A statistic is not finite: the network's parameters are not, or overflow.</exception>
    public NetworkState ToState()
    {
        if (Batches == 0)
        {
            throw new InvalidOperationException("Population statistics need at least one mini-batch.");
        }

        var state = new NetworkState();
        foreach (NetworkParameter parameter in _session.Plan.Shapes.Parameters)
        {
            Shape shape = parameter.Spec.Shape;
            double[]? sum = _statistics.Find(s => s.Tensor.Source.Name == parameter.Name).Sum;
            float[] values = sum is null ? _state.Get(parameter.Name, shape).ToArray() : Array.ConvertAll(sum, v => (float)(v / Batches));
            if (sum is not null && !Array.TrueForAll(values, float.IsFinite))
            {
                throw new UserErrorException($"The statistics of '{parameter.Name}' in {_network.Name} are not finite: its parameters are unusable.");
            }

            state.Take(parameter.Name, shape, values);
        }

        return state;
    }

    /// <inheritdoc/>
    public void Dispose() => _session.Dispose();
}
