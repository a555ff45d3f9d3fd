using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Native;

/// <summary>
/// Our own Winograd convolution, taken wherever it can be. Small convolutions, of which the hard cases are made, are otherwise computed directly.
/// </summary>
[Collection(NativeProcessState.Name)]
public sealed class WinogradTests
{
    private const string Ours = "winograd:hbn";
    private static readonly string[] Passes = ["dst", "diffSrc", "diffWeights"];

    /// <summary>A wrong constant, a tile out of place, a padded row that is read or an epilogue left out exceeds a bound by orders of magnitude.</summary>
    [Fact]
    public void HardCases_EveryConvolution_AgreesWithTheReference()
    {
        using Backend backend = Create(out string why);
        Assert.SkipWhen(why.Length > 0, why);
        using var reference = new ReferenceBackend();
        int ours = 0;
        foreach (VerificationCase hard in HardCases.For(backend.Traits).Where(c => c.Name.StartsWith("convolution/", StringComparison.Ordinal)))
        {
            CaseResult result = Verifier.Run(backend, reference, hard);
            Assert.True(result.Passed, result.Describe());
            ours += result.Tensors.Count(t => t.Implementation.StartsWith(Ours, StringComparison.Ordinal));
        }

        Assert.InRange(ours, 80, int.MaxValue);
    }

    /// <summary>Every number of channels up to five blocks: padded lanes, panels of one to three blocks and what is left of them, in all three passes.</summary>
    [Fact]
    public void Channels_OneToForty_AgreeWithTheReference()
    {
        using Backend backend = Create(out string why);
        Assert.SkipWhen(why.Length > 0, why);
        using var reference = new ReferenceBackend();
        for (int channels = 1; channels <= 40; channels++)
        {
            VerificationCase one = new CaseBuilder($"channels {channels}", InputKind.Random, Precision.Fp32)
                .Convolution(ConvolutionSpec.Square(new(2, channels, 7, 5), 41 - channels, 3, pad: channels % 3)).Build();
            CaseResult result = Verifier.Run(backend, reference, one);
            Assert.True(result.Passed, result.Describe());
            Assert.All(result.Tensors.Where(t => Passes.Contains(t.Role)), t => Assert.StartsWith(Ours, t.Implementation, StringComparison.Ordinal));
        }
    }

    /// <summary>Where a sum is cut, and how, must depend on the shape alone: a sum per thread would differ in its last bits.</summary>
    [Fact]
    public void Result_AnyNumberOfThreadsAndSecondRun_SameBits()
    {
        using Backend probe = Create(out string why);
        Assert.SkipWhen(why.Length > 0, why);
        foreach (ConvolutionSpec spec in new[]
        {
            ConvolutionSpec.Square(new(3, 40, 14, 14), 72, 3, pad: 1), ConvolutionSpec.Square(new(1, 64, 7, 7), 96, 3, pad: 1),
            ConvolutionSpec.Square(new(2, 16, 96, 96), 24, 3, pad: 1), // backward-weights: 1152 tiles, in two parts
        })
        {
            List<double[]> first = Run(spec, 1);
            foreach (int threads in new[] { 1, 2, 3 })
            {
                Assert.Equal(first, Run(spec, threads));
            }
        }
    }

    [Theory]
    [InlineData(ConvolutionAlgorithm.Auto, true)]
    [InlineData(ConvolutionAlgorithm.Winograd, true)]
    [InlineData(ConvolutionAlgorithm.Direct, false)]
    public void Algorithm_OfLargeConvolution_IsWhatWasAskedFor(ConvolutionAlgorithm algorithm, bool expected)
    {
        using Backend backend = Create(out string why, algorithm);
        Assert.SkipWhen(why.Length > 0, why);
        Assert.All(Implementations(backend, ConvolutionSpec.Square(new(32, 96, 28, 28), 128, 3, pad: 1)), i => Assert.Equal(expected, i.StartsWith(Ours, StringComparison.Ordinal)));
    }

    /// <summary>One image at 14x14 is 16 tiles: filters must not go through memory, or direct convolution would be as fast.</summary>
    [Theory]
    [InlineData(192, 14, 192)]
    [InlineData(192, 7, 320)]
    public void Auto_ClassificationOfOneImage_IsOurs(int channels, int extent, int outputs)
    {
        using Backend backend = Create(out string why, ConvolutionAlgorithm.Auto);
        Assert.SkipWhen(why.Length > 0, why);
        Assert.StartsWith(Ours, Implementations(backend, ConvolutionSpec.Square(new(1, channels, extent, extent), outputs, 3, pad: 1))[0], StringComparison.Ordinal);
    }

    /// <summary>A classifier of one thread and an evaluation of two must give the same bits, so the choice is one of the shape alone.</summary>
    [Fact]
    public void Auto_WithAnyNumberOfThreads_ChoosesTheSame()
    {
        using Backend one = Create(out string why, ConvolutionAlgorithm.Auto, threads: 1), three = Create(out _, ConvolutionAlgorithm.Auto, threads: 3);
        Assert.SkipWhen(why.Length > 0, why);
        foreach (int images in new[] { 1, 2, 4, 8 })
        {
            foreach (int channels in new[] { 8, 16, 24, 40, 72, 136, 264 })
            {
                foreach (int extent in new[] { 4, 7, 8, 14, 20 })
                {
                    ConvolutionSpec spec = ConvolutionSpec.Square(new(images, channels, extent, extent), channels + 24, 3, pad: 1);
                    Assert.Equal(Implementations(one, spec), Implementations(three, spec));
                }
            }
        }
    }

    /// <summary>Where transforming the filters is most of the work, or the image is less than a tile, direct convolution is the faster.</summary>
    [Theory]
    [InlineData(1, 256, 4, 256)]
    [InlineData(32, 8, 6, 8)]
    [InlineData(32, 64, 1, 64)]
    public void Auto_WhereItDoesNotPay_IsDirect(int images, int channels, int extent, int outputs)
    {
        using Backend backend = Create(out string why, ConvolutionAlgorithm.Auto);
        Assert.SkipWhen(why.Length > 0, why);
        Assert.All(
            Implementations(backend, ConvolutionSpec.Square(new(images, channels, extent, extent), outputs, 3, pad: 1)),
            i => Assert.DoesNotContain("wino", i, StringComparison.Ordinal));
    }

    /// <summary>Forward, backward-data and backward-weights read or leave weights in the one format that direct convolution chose, and take little scratch.</summary>
    [Fact]
    public void Kernels_OfLargeConvolution_ConvertNothingAndTakeLittleScratch()
    {
        using Backend backend = Create(out string why);
        Assert.SkipWhen(why.Length > 0, why);
        ConvolutionSpec spec = ConvolutionSpec.Square(new(32, 64, 56, 56), 192, 3, pad: 1);
        using BufferMap buffers = new(backend);
        foreach (Operation operation in Operations(spec))
        {
            using Kernel kernel = backend.CreateKernel(operation, buffers);
            Assert.Equal("", kernel.Conversions);

            // The transformed filters, 1.8 MB (their gradient: in up to 12 parts), and about 1 MB a thread. oneDNN 2.6's Winograd took 245 MB.
            Assert.InRange(kernel.ScratchBytes, 36 * 64 * 192 * 4, (operation is ConvolutionBackwardWeights ? 12L : 1) * 36 * 64 * 192 * 4 + (backend.Threads * 3L << 19));
        }
    }

    /// <summary>An image's result does not depend on what is computed beside it, where the plan cuts the work otherwise: slice, bias and ReLU included.</summary>
    [Fact]
    public void Batch_WithSliceBiasAndRelu_HasTheBitsOfItsImages()
    {
        using Backend backend = Create(out string why);
        Assert.SkipWhen(why.Length > 0, why);
        ConvolutionSpec spec = ConvolutionSpec.Square(new Shape(5, 64, 20, 20), 192, 3, pad: 1, bias: true);
        Tensor weights = new("weights", spec.Weights, TensorRole.Parameter, TensorLayout.Opaque), bias = new("bias", spec.BiasShape, TensorRole.Parameter);
        Tensor src = Activation("src", spec.Src), image = Activation("src", spec.Src with { N = 1 }), alone = Activation("dst", spec.Dst with { N = 1 });
        Tensor dst = Activation("concat", spec.Dst with { C = 208 }).Slice("dst", 16, 192);
        using var batch = new OperationRunner(backend, new ConvolutionForward("conv", spec, src, weights, bias, dst, Relu: true));
        using var single = new OperationRunner(backend, new ConvolutionForward("conv", spec with { Src = image.Shape }, image, weights, bias, alone, Relu: true));
        var random = new RandomSequence(1, 1);
        float[] Values(long count) => [.. Enumerable.Range(0, (int)count).Select(_ => (float)random.NextDouble(-0.5, 0.5))];
        float[] images = Values(src.Shape.Count), filters = Values(weights.Shape.Count), biases = Values(192);
        batch.Write(src, images);
        batch.Write(weights, filters);
        batch.Write(bias, biases);
        batch.Execute();
        single.Write(weights, filters);
        single.Write(bias, biases);
        double[] together = batch.ReadDouble(dst);
        int size = (int)image.Shape.Count, resultSize = (int)alone.Shape.Count;
        for (int n = 0; n < spec.Src.N; n++)
        {
            single.Write(image, images.AsSpan(n * size, size));
            single.Execute();
            Assert.Equal(single.ReadDouble(alone), together[(n * resultSize)..((n + 1) * resultSize)]);
        }

        Assert.InRange(together.Count(v => v == 0), together.Length / 4, 3 * together.Length / 4);
    }

    private static Backend Create(out string why, ConvolutionAlgorithm algorithm = ConvolutionAlgorithm.Winograd, int threads = 0)
    {
        Backend backend = OneDnn.Create(new BackendOptions { ConvolutionAlgorithm = algorithm, Threads = threads });
        using Backend own = OneDnn.Create(new BackendOptions { ConvolutionAlgorithm = ConvolutionAlgorithm.Winograd });
        string found = Implementations(own, ConvolutionSpec.Square(new(1, 16, 8, 8), 16, 3, pad: 1))[0];
        why = found.StartsWith(Ours, StringComparison.Ordinal) ? "" : $"this processor has no AVX2, so a convolution is computed by {found}";
        return backend;
    }

    private static List<double[]> Run(ConvolutionSpec spec, int threads)
    {
        using Backend backend = Create(out _, threads: threads);
        Operation[] operations = Operations(spec);
        using OperationRunner runner = new(backend, operations);
        Assert.All(runner.Kernels, k => Assert.StartsWith(Ours, k.Implementation, StringComparison.Ordinal));
        foreach (Tensor tensor in operations.SelectMany(o => o.Reads).Distinct())
        {
            RandomSequence random = new(9, (uint)tensor.Name.Length);
            float[] values = new float[tensor.Shape.Count];
            foreach (ref float value in values.AsSpan())
            {
                value = (float)random.NextGaussian();
            }

            runner.Write(tensor, values);
        }

        runner.Execute();
        return [.. operations.SelectMany(o => o.Writes).Select(t => runner.ReadDouble(t))];
    }

    private static string[] Implementations(Backend backend, ConvolutionSpec spec)
    {
        using BufferMap buffers = new(backend);
        return [.. Operations(spec).Select(o =>
        {
            using Kernel kernel = backend.CreateKernel(o, buffers);
            return kernel.Implementation;
        })];
    }

    private static Operation[] Operations(ConvolutionSpec spec)
    {
        Tensor weights = new("weights", spec.Weights, TensorRole.Parameter, TensorLayout.Opaque);
        Tensor diffWeights = new("diffWeights", spec.Weights, TensorRole.ParameterGradient, TensorLayout.Opaque) { LayoutLike = weights };
        Tensor src = Activation("src", spec.Src), diffDst = Activation("diffDst", spec.Dst);
        return
        [
            new ConvolutionForward("conv", spec, src, weights, null, Activation("dst", spec.Dst)),
            new ConvolutionBackwardData("conv", spec, diffDst, weights, Activation("diffSrc", spec.Src)),
            new ConvolutionBackwardWeights("conv", spec, src, diffDst, diffWeights, null),
        ];
    }

    private static Tensor Activation(string name, Shape shape) => new(name, shape, TensorRole.Activation, TensorLayout.Blocked);
}
