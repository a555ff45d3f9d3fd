using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Contract;

/// <summary>
/// A NaN that appears anywhere must reach the loss, where it is noticed: every operation that compares, selects or converts must let it through. Backends
/// are asked one by one, because IEEE's maximum of a NaN and 0 is 0, and compilers and libraries like that one.
/// </summary>
internal static class NotANumberCases
{
    private static readonly Shape Image = new(2, 24, 4, 4);

    /// <summary>Runs every operation but those of <paramref name="excepted"/> names.</summary>
    public static void AssertAllPass(Backend backend, Precision precision, params string[] excepted)
    {
        List<string> failures = [];
        foreach (Operation operation in Operations(precision.ActivationType()).Where(o => !excepted.Contains(o.Name)))
        {
            using var reference = new ReferenceBackend();
            double[] expected = Run(reference, precision, operation, out _), actual = Run(backend, precision, operation, out string implementation);
            int wanted = expected.Count(double.IsNaN), lost = expected.Where((e, i) => double.IsNaN(e) && !double.IsNaN(actual[i])).Count();
            Assert.True(wanted > 0, $"{operation.Kind} '{operation.Name}' loses the NaN on the reference");
            if (lost > 0)
            {
                failures.Add($"{operation.Kind} '{operation.Name}' in {precision} on {implementation}: {lost} of {wanted} NaN are lost");
            }
        }

        Assert.True(failures.Count == 0, string.Join('\n', failures));
    }

    private static IEnumerable<Operation> Operations(DataType type)
    {
        Tensor src = Activation("src"), dst = Activation("dst"), other = Activation("other");
        foreach (ActivationKind function in Enum.GetValues<ActivationKind>())
        {
            yield return new ActivationForward(function.Name(), function, src, dst);
            if (function.GradientReadsSrc())
            {
                yield return new ActivationBackward($"{function.Name()} backward", function, src, null, other, dst);
            }
        }

        yield return new Sum("sum", [src, other], dst);
        foreach (PoolingKind kind in new[] { PoolingKind.Max, PoolingKind.AverageIncludePadding })
        {
            PoolingSpec spec = PoolingSpec.Square(Image, kind, 3, 1, pad: 1);
            yield return new PoolingForward(kind.ToString(), spec, src, dst, null);
        }

        foreach ((bool batch, bool residual) in new[] { (false, false), (false, true), (true, false) })
        {
            BatchNormSpec spec = new(Image, Relu: true, Residual: residual);
            Tensor Vector(string name, TensorRole role) => new(name, spec.Parameters, role, TensorLayout.Blocked);
            yield return new BatchNormForward($"{(batch ? "batch" : "running")}{(residual ? ", residual" : "")}", spec)
            {
                Src = src, Dst = dst, Scale = Vector("scale", TensorRole.Parameter), Shift = Vector("shift", TensorRole.Parameter),
                Residual = residual ? other : null, Statistics = batch ? BatchNormStatistics.Batch : BatchNormStatistics.Running,
                Mean = batch ? Vector("mean", TensorRole.BatchStatistic) : null, Variance = batch ? Vector("variance", TensorRole.BatchStatistic) : null,
                RunningMean = Vector("runningMean", TensorRole.RunningStatistic), RunningVariance = Vector("runningVariance", TensorRole.RunningStatistic),
            };
        }

        ConvolutionSpec convolution = ConvolutionSpec.Square(Image, 24, 1, bias: true);
        yield return new ConvolutionForward(
            "convolution and relu", convolution, src, new Tensor("weights", convolution.Weights, TensorRole.Parameter, TensorLayout.Opaque, type),
            new Tensor("bias", convolution.BiasShape, TensorRole.Parameter), dst, Relu: true);
        yield return new ConvolutionForward(
            "convolution, residual and relu", convolution, other, new Tensor("weights", convolution.Weights, TensorRole.Parameter, TensorLayout.Opaque, type),
            new Tensor("bias", convolution.BiasShape, TensorRole.Parameter), dst, Relu: true, Residual: src);
        Shape logits = Shape.Matrix(2, 33);
        yield return new SoftmaxCrossEntropy(
            "loss", new Tensor("src", logits, TensorRole.Activation), new Tensor("labels", Shape.Matrix(2, 1), TensorRole.Label, TensorLayout.Plain, DataType.Int32),
            new Tensor("probabilities", logits, TensorRole.Result), new Tensor("dst", Shape.Vector(1), TensorRole.Result), null, 0, 1);
        if (type.IsNarrow())
        {
            yield return new Copy("to 16 bits", new Tensor("src", Image, TensorRole.Activation, TensorLayout.Blocked), dst);
        }

        Tensor Activation(string name) => new(name, Image, TensorRole.Activation, TensorLayout.Blocked, type);
    }

    /// <summary>The values of "dst", from ones everywhere but a NaN in the middle of "src".</summary>
    private static double[] Run(Backend backend, Precision precision, Operation operation, out string implementation)
    {
        using var runner = new OperationRunner(backend, precision, [operation]);
        foreach (Tensor tensor in operation.Reads.Distinct())
        {
            if (tensor.DataType == DataType.Int32)
            {
                runner.Write(tensor, new int[tensor.Shape.Count]);
                continue;
            }

            double[] values = [.. Enumerable.Range(0, (int)tensor.Shape.Count).Select(i => 1 + i % 5 * 0.25)];
            if (tensor.Name == "src")
            {
                values[values.Length / 2 + 5] = double.NaN;
            }

            runner.Write(tensor, (ReadOnlySpan<double>)values);
        }

        runner.Execute(default);
        implementation = $"{backend.Name}, {runner.Kernels[0].Implementation}";
        return runner.ReadDouble(operation.Writes.Single(t => t.Name == "dst"));
    }
}
