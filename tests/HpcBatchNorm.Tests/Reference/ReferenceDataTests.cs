using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using static HpcBatchNorm.Tests.Reference.ReferenceRun;

namespace HpcBatchNorm.Tests.Reference;

/// <summary>Dropout and its random numbers, copies, sums, input preparation.</summary>
public sealed class ReferenceDataTests
{
    // The known-answer vectors published with Philox4x32-10 (Random123): counter, key, words.
    [Theory]
    [InlineData(0u, 0u, 0u, 0u, 0u, 0u, 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u)]
    [InlineData(~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu)]
    [InlineData(0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u, 0xa4093822u, 0x299f31d0u, 0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u)]
    public void CounterRandom_PublishedVectors_Match(
        uint c0, uint c1, uint c2, uint c3, uint keyLow, uint keyHigh, uint x, uint y, uint z, uint w) =>
        Assert.Equal((x, y, z, w), CounterRandom.Words(keyLow | ((ulong)keyHigh << 32), c0, c1, c2, c3));

    /// <summary>The first two words at the origin are 6627e8d5 and e169c58d: their upper 27 and 26 bits, one after the other, are the 53 of the double.</summary>
    [Fact]
    public void NextDouble_AtTheOrigin_HasTheBitsOfThePublishedWords() =>
        Assert.Equal((53559110 * (double)(1 << 26) + 59090710) / (1L << 53), new RandomSequence(0, 0).NextDouble());

    [Theory]
    [InlineData(0.5f, new double[] { 0, 4, 6, 8 })]
    [InlineData(0.75f, new double[] { 0, 8, 0, 0 })]
    [InlineData(0f, new double[] { 1, 2, 3, 4 })]
    public void Dropout_AtTheOrigin_FollowsThePublishedWords(float ratio, double[] expected)
    {
        // Seed, stream, step and counter 0: the words are 0.400, 0.881, 0.736, 0.606 of 2^32; those below the ratio are dropped, the others scaled.
        DropoutSpec spec = new(new Shape(1, 4, 1, 1), ratio, Seed: 0, Stream: 0);
        Tensor src = Float64("src", spec.Src), dst = Float64("dst", spec.Src);
        using ReferenceRun run = new(new Dropout("drop", spec, src, dst));
        run[src] = [1, 2, 3, 4];
        run.Execute();
        AssertEqual(expected, run[dst]);
    }

    [Fact]
    public void Dropout_AnyCoordinates_FollowTheSpecsCounter()
    {
        DropoutSpec spec = new(new Shape(3, 5, 7, 3), 0.4f, Seed: 0x0123456789abcdef, Stream: 17);
        const long step = (5L << 32) + 3;
        Tensor src = Float64("src", spec.Src), dst = Float64("dst", spec.Src);
        using ReferenceRun run = new(new Dropout("drop", spec, src, dst));
        run[src] = [.. Enumerable.Repeat(1.0, (int)spec.Src.Count)];
        run.Execute(step);
        double[] result = run[dst];
        for (int i = 0; i < result.Length; i++)
        {
            (uint x, uint y, uint z, uint w) = CounterRandom.Words(spec.Seed, (uint)(i / 4), 17, 3, 5);
            bool kept = new[] { x, y, z, w }[i % 4] >= 0.4 * 4294967296.0;
            Assert.Equal(kept ? 1 / 0.6 : 0, result[i], 1e-6);
        }

        Assert.InRange(result.Count(v => v > 0) / (double)result.Length, 0.5, 0.7);
        run.Execute(step + 1);
        Assert.NotEqual(result, run[dst]);
    }

    [Fact]
    public void Dropout_BackwardInPlaceOnASlice_AppliesTheSameMask()
    {
        DropoutSpec spec = new(new Shape(2, 3, 3, 3), 0.5f, Seed: 1, Stream: 2);
        Tensor src = Float64("src", spec.Src), dst = Float64("dst", spec.Src);
        Tensor gradient = Float64("wide", spec.Src.WithChannels(5)).Slice("gradient", 1, 3);
        using ReferenceRun run = new(
            new Dropout("drop", spec, src, dst),
            new Dropout("drop", spec, gradient, gradient.Alias("diffSrc", TensorRole.Gradient), Backward: true));
        double[] values = Random(src, 1);
        run[src] = values;
        run[gradient] = values;
        run.Execute(4);
        Assert.Equal(run[dst], run[gradient]);
    }

    [Fact]
    public void Copy_IntoSlices_ConcatenatesAndBack()
    {
        Tensor a = Float64("a", new Shape(2, 1, 1, 2)), b = Float64("b", new Shape(2, 2, 1, 2)), joined = Float64("joined", new Shape(2, 3, 1, 2));
        Tensor back = Float64("back", b.Shape);
        using ReferenceRun run = new(
            new Copy("a", a, joined.Slice("joined.a", 0, 1)), new Copy("b", b, joined.Slice("joined.b", 1, 2)),
            new Copy("back", joined.Slice("joined.back", 1, 2), back));
        run[a] = [1, 2, 11, 12];
        run[b] = [3, 4, 5, 6, 13, 14, 15, 16];
        run.Execute();
        Assert.Equal([1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16], run[joined]);
        Assert.Equal(run[b], run[back]);
    }

    [Fact]
    public void Slice_OfASlice_CoversTheRightChannels()
    {
        Tensor whole = Float64("whole", new Shape(2, 4, 1, 1));
        Tensor inner = whole.Slice("middle", 1, 3).Slice("inner", 1, 2), dst = Float64("dst", inner.Shape);
        using ReferenceRun run = new(new Copy("copy", inner, dst));
        run[whole] = [0, 1, 2, 3, 10, 11, 12, 13];
        run.Execute();
        Assert.Equal([2, 3, 12, 13], run[dst]);
        Assert.Equal([2, 3, 12, 13], run[inner]);
    }

    [Fact]
    public void Sum_AccumulatingOverItsFirstSource_AddsAll()
    {
        Shape shape = new(2, 2, 1, 1);
        Tensor a = Float64("a", shape), b = Float64("wide", shape.WithChannels(3)).Slice("b", 1, 2), c = Float64("c", shape);
        using ReferenceRun run = new(new Sum("sum", [a, b, c], a.Alias("total", TensorRole.Gradient)));
        run[a] = [1, 2, 3, 4];
        run[b] = [10, 20, 30, 40];
        run[c] = [100, 200, 300, 400];
        run.Execute();
        Assert.Equal([111, 222, 333, 444], run[a]);
    }

    [Fact]
    public void PrepareInput_InterleavedBytes_BecomeNormalizedPlanes()
    {
        // Pixels (10, 20) and (30, 250); channel 0: (v - 10)*0.5, channel 1: (v - 0)*2.
        Shape shape = new(1, 2, 1, 2);
        Tensor src = new("pixels", shape, TensorRole.Input, TensorLayout.Plain, DataType.UInt8), dst = Float64("dst", shape);
        using ReferenceRun run = new(new PrepareInput("input", src, dst, [10, 0], [0.5f, 2]));
        run.Runner.Write(src, [(byte)10, (byte)20, (byte)30, (byte)250]);
        run.Execute();
        Assert.Equal([0, 10, 40, 500], run[dst]);
        Assert.Equal([10, 30, 20, 250], run[src]);
    }
}
