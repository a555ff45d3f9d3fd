using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Reference;

/// <summary>Operations on a reference backend of their own: <c>run[src] = values; run.Execute(); run[dst]</c>.</summary>
internal sealed class ReferenceRun : IDisposable
{
    private readonly ReferenceBackend _backend;
    private readonly OperationRunner _runner;

    public ReferenceRun(params IReadOnlyList<Operation> operations)
        : this(new BackendOptions(), operations)
    {
    }

    public ReferenceRun(BackendOptions options, params IReadOnlyList<Operation> operations)
    {
        _backend = new ReferenceBackend(options);
        _runner = new OperationRunner(_backend, operations);
    }

    public double[] this[Tensor tensor]
    {
        get => _runner.ReadDouble(tensor);
        set => _runner.Write(tensor, value);
    }

    public OperationRunner Runner => _runner;

    public void Execute(long step = 0, float learningRate = 0) => _runner.Execute(new StepContext(step, learningRate));

    public void Dispose()
    {
        _runner.Dispose();
        _backend.Dispose();
    }

    /// <summary>A tensor that keeps all digits; values written to single-precision ones would be rounded.</summary>
    public static Tensor Float64(string name, Shape shape, TensorRole role = TensorRole.Activation) =>
        new(name, shape, role, TensorLayout.Plain, DataType.Float64);

    /// <summary>As many values as the tensor has, uniform in [low, high), the same for the same seed.</summary>
    public static double[] Random(Tensor tensor, uint seed, double low = -1, double high = 1)
    {
        RandomSequence random = new(seed, stream: 7);
        double[] values = new double[tensor.Shape.Count];
        foreach (ref double value in values.AsSpan())
        {
            value = random.NextDouble(low, high);
        }

        return values;
    }

    public static void AssertEqual(double[] expected, double[] actual, double relativeError = 1e-12)
    {
        Assert.Equal(expected.Length, actual.Length);
        double scale = Math.Max(1e-300, expected.Max(Math.Abs));
        for (int i = 0; i < expected.Length; i++)
        {
            double error = Math.Abs(expected[i] - actual[i]) / scale;
            Assert.True(error <= relativeError, FormattableString.Invariant($"element {i}: expected {expected[i]:R}, found {actual[i]:R} (relative error {error:E2})"));
        }
    }

    public static double Dot(double[] x, double[] y) => x.Zip(y, (a, b) => a * b).Sum();
}
