using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Native;

/// <summary>
/// libhbn's own pooling beside the reference where comparisons with tolerances say nothing: values that are no numbers, signs of zeros, who wins a tie,
/// channels beside a slice, bits for any number of threads.
/// </summary>
public sealed class PoolingTests
{
    // Small whole numbers, so that sums are exact, and everything that a maximum could get wrong.
    private static readonly double[] Special =
        [double.NaN, double.PositiveInfinity, double.NegativeInfinity, double.NegativeInfinity, 0.0, -0.0, -0.0, 1, 1, 2, 2, -1, -3, 3, 3, 3];

    private static readonly double[] Plain = [0, 1, 2, 3, -1, -2, 3, 3];

    public static TheoryData<string, PoolingSpec> Specs
    {
        get
        {
            TheoryData<string, PoolingSpec> rows = [];
            foreach (PoolingKind kind in Enum.GetValues<PoolingKind>())
            {
                rows.Add($"{kind} 3x3, stride 2", PoolingSpec.Square(new(2, 17, 9, 12), kind, 3, 2));
                rows.Add($"{kind} 3x3, stride 2, up", PoolingSpec.Square(new(2, 32, 12, 8), kind, 3, 2, ceil: true));
                rows.Add($"{kind} 3x3, stride 1, padded", PoolingSpec.Square(new(3, 24, 7, 5), kind, 3, 1, pad: 1));
                rows.Add($"{kind} 3x3, stride 2, padded, up", PoolingSpec.Square(new(1, 63, 10, 8), kind, 3, 2, pad: 1, ceil: true));
                rows.Add($"{kind} 5x5, stride 3, padded by 2", PoolingSpec.Square(new(1, 16, 14, 11), kind, 5, 3, pad: 2));
                rows.Add($"{kind} 2x4, uneven", new PoolingSpec(new(2, 9, 8, 11), kind, 2, 4, 1, 3, 0, 3, 1, 2));
                rows.Add($"{kind} 2x2, stride 3", PoolingSpec.Square(new(1, 8, 10, 10), kind, 2, 3));
                rows.Add($"{kind} one position", PoolingSpec.Square(new(2, 5, 1, 1), kind, 3, 1, pad: 1));
                rows.Add($"{kind} whole map", PoolingSpec.GlobalAverage(new(2, 48, 7, 6)) with { Kind = kind });
                rows.Add($"{kind} more than 256 positions", new PoolingSpec(new(1, 19, 18, 20), kind, 17, 17, 1, 2, 2, 3, 2, 1));
                rows.Add($"{kind} long rows", PoolingSpec.Square(new(1, 8, 5, 140), kind, 3, 1, pad: 1));
            }

            return rows;
        }
    }

    [Theory]
    [MemberData(nameof(Specs))]
    public void Pooling_OfInfinitiesZerosAndNaN_IsTheReferences(string name, PoolingSpec spec)
    {
        using Backend backend = OneDnn.Create();
        foreach (TensorLayout layout in new[] { TensorLayout.Blocked, TensorLayout.Plain })
        {
            AssertSame($"{name}, {layout}", backend, spec, layout, Special, 0);
        }
    }

    /// <summary>Whole blocks go by vectors, slices within a block channel by channel; the channels around them are as before.</summary>
    [Theory]
    [MemberData(nameof(Specs))]
    public void Pooling_OfSlices_IsTheReferencesAndLeavesOthersAlone(string name, PoolingSpec spec)
    {
        using Backend backend = OneDnn.Create();
        foreach (int offset in new[] { backend.Traits.ChannelBlock, 3 })
        {
            AssertSame($"{name}, from channel {offset} on", backend, spec, TensorLayout.Blocked, Special, offset);
            AssertSame($"{name}, plain, from channel {offset} on", backend, spec, TensorLayout.Plain, Plain, offset);
        }
    }

    [Theory]
    [InlineData(PoolingKind.Max)]
    [InlineData(PoolingKind.AverageExcludePadding)]
    public void Pooling_OnOneOrMoreThreads_GivesTheSameBits(PoolingKind kind)
    {
        foreach (PoolingSpec spec in new[] { PoolingSpec.Square(new(1, 32, 56, 55), kind, 3, 2, pad: 1), PoolingSpec.Square(new(5, 40, 15, 14), kind, 3, 1, pad: 1) })
        {
            using Backend one = OneDnn.Create(new BackendOptions { Threads = 1 });
            using Backend three = OneDnn.Create(new BackendOptions { Threads = 3 });
            Random random = new(5);
            double[] src = [.. Enumerable.Range(0, (int)spec.Src.Count).Select(_ => random.NextDouble() - 0.5)];
            double[] diffDst = [.. Enumerable.Range(0, (int)spec.Dst.Count).Select(_ => random.NextDouble() - 0.5)];
            Results first = Run(one, spec, TensorLayout.Blocked, src, diffDst, 0), second = Run(three, spec, TensorLayout.Blocked, src, diffDst, 0);
            Assert.Equal(first.Dst, second.Dst);
            Assert.Equal(first.DiffSrc, second.DiffSrc);
        }
    }

    /// <summary>One byte an output, padded channels too: what the plan counts.</summary>
    [Theory]
    [InlineData(3, 1)]
    [InlineData(17, 4)]
    public void Workspace_OfMaximum_IsOneIndexAnOutput(int kernel, int bytes)
    {
        using Backend backend = OneDnn.Create();
        PoolingSpec spec = PoolingSpec.Square(new(2, 17, 20, 20), PoolingKind.Max, kernel, 2);
        Tensor workspace = new("workspace", spec.Dst, TensorRole.Workspace, TensorLayout.Opaque, DataType.UInt8);
        using OperationRunner runner = new(backend, new PoolingForward("pool", spec, Blocked("src", spec.Src), Blocked("dst", spec.Dst), workspace));
        int block = backend.Traits.ChannelBlock;
        Assert.Equal(2L * ((17 + block - 1) / block * block) * spec.Dst.Area * bytes, runner[workspace].Bytes);
        Assert.Equal(0, runner.Kernels[0].ScratchBytes);
        Assert.Empty(runner.Kernels[0].Conversions);
    }

    private static void AssertSame(string what, Backend backend, PoolingSpec spec, TensorLayout layout, double[] values, int offset)
    {
        Random random = new(3);
        double[] src = [.. Enumerable.Range(0, (int)spec.Src.Count).Select(_ => values[random.Next(values.Length)])];
        double[] diffDst = [.. Enumerable.Range(0, (int)spec.Dst.Count).Select(_ => values[random.Next(values.Length)])];
        using ReferenceBackend reference = new();
        Results expected = Run(reference, spec, layout, src, diffDst, offset), actual = Run(backend, spec, layout, src, diffDst, offset);
        Compare($"{what}: dst", expected.Dst, actual.Dst, spec.Kind == PoolingKind.Max);
        Compare($"{what}: diffSrc", expected.DiffSrc, actual.DiffSrc, spec.Kind == PoolingKind.Max);
    }

    /// <summary>A maximum and its gradient are exact here, the sign of a zero that is selected included; averages are off by their roundings.</summary>
    private static void Compare(string what, double[] expected, double[] actual, bool exact)
    {
        for (int i = 0; i < expected.Length; i++)
        {
            bool same = double.IsNaN(expected[i]) ? double.IsNaN(actual[i])
                : exact || double.IsInfinity(expected[i]) ? actual[i].Equals(expected[i]) && double.IsNegative(actual[i]) == double.IsNegative(expected[i])
                : Math.Abs(actual[i] - expected[i]) <= 1e-5;
            Assert.True(same, $"{what}, element {i}: {actual[i]:R} where the reference has {expected[i]:R}");
        }
    }

    private sealed record Results(double[] Dst, double[] DiffSrc);

    /// <summary>Both directions; with an offset on slices, whose surroundings must keep their value. Values are of the whole tensors, surroundings included.</summary>
    private static Results Run(Backend backend, PoolingSpec spec, TensorLayout layout, double[] srcValues, double[] diffDstValues, int offset)
    {
        const double Around = 77;
        Tensor src = Of("src", spec.Src), dst = Of("dst", spec.Dst), diffDst = Of("diffDst", spec.Dst), diffSrc = Of("diffSrc", spec.Src);
        Tensor? workspace = spec.Kind == PoolingKind.Max ? new Tensor("workspace", spec.Dst, TensorRole.Workspace, TensorLayout.Opaque, DataType.UInt8) : null;
        using OperationRunner runner = new(
            backend, new PoolingForward("pool", spec, src, dst, workspace), new PoolingBackward("pool", spec, diffDst, workspace, diffSrc));
        foreach (Tensor root in new[] { src.Root, dst.Root, diffDst.Root, diffSrc.Root })
        {
            double[] around = new double[root.Shape.Count];
            Array.Fill(around, Around);
            runner.Write(root, (ReadOnlySpan<double>)around);
        }

        runner.Write(src, (ReadOnlySpan<double>)srcValues);
        runner.Write(diffDst, (ReadOnlySpan<double>)diffDstValues);
        runner.Execute(default);
        return new Results(runner.ReadDouble(dst.Root), runner.ReadDouble(diffSrc.Root));

        Tensor Of(string name, Shape shape) => offset == 0
            ? new Tensor(name, shape, TensorRole.Activation, layout)
            : new Tensor($"{name}.whole", shape.WithChannels(shape.C + 2 * offset), TensorRole.Activation, layout).Slice(name, offset, shape.C);
    }

    private static Tensor Blocked(string name, Shape shape) => new(name, shape, TensorRole.Activation, TensorLayout.Blocked);
}
