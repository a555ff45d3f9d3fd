using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Native;

/// <summary>
/// bfloat16 that is stored and computed with in single precision: what our own convolutions read and write themselves, and what the library is given copies of. That the
/// numbers are right everywhere is the contract suite's business.
/// </summary>
[Collection(NativeProcessState.Name)]
public sealed class Bf16StorageTests
{
    private const string Ours = "winograd:hbn", Widened = " on widened bf16";
    private static readonly string[] Passes = ["dst", "diffSrc", "diffWeights"];

    /// <summary>
    /// On any processor with our Winograd convolution, where it is asked for: weights that oneDNN lays out in pairs are copied to float32, activations are read and stored as
    /// they are. A store that does not round, or filters out of place, exceed the bounds.
    /// </summary>
    [Theory]
    [InlineData(64, 96, 14, false)]
    [InlineData(61, 77, 11, true)]
    public void WinogradInBf16_WhereAskedFor_AgreesWithTheReference(int channels, int outputs, int extent, bool bias)
    {
        using Backend backend = OneDnn.Create(new BackendOptions { ConvolutionAlgorithm = ConvolutionAlgorithm.Winograd });
        using var reference = new ReferenceBackend();
        VerificationCase one = new CaseBuilder("winograd in bf16", InputKind.Random, Precision.Bf16)
            .Convolution(ConvolutionSpec.Square(new(2, channels, extent, extent), outputs, 3, pad: 1, bias: bias)).Build();

        CaseResult result = Verifier.Run(backend, reference, one);

        Assert.True(result.Passed, result.Describe());
        Assert.SkipUnless(backend.Description.Contains("AVX", StringComparison.Ordinal), "Our Winograd convolution needs AVX2.");
        Assert.All(result.Tensors.Where(t => Passes.Take(2).Contains(t.Role)), t => Assert.StartsWith(Ours, t.Implementation, StringComparison.Ordinal));
    }

    /// <summary>Activations of 25 and 77 MB in float32: had they been copied, scratch would show it.</summary>
    [Fact]
    public void OwnConvolutions_InStoredBf16_CopyNoActivations()
    {
        using Backend backend = CreateOrSkip(ConvolutionAlgorithm.Auto);
        Assert.SkipUnless(backend.Description.Contains("AVX2", StringComparison.Ordinal), "Our convolutions need AVX2.");
        foreach ((string name, ConvolutionSpec spec, string[] wanted) in new[]
        {
            ("3x3", ConvolutionSpec.Square(new(32, 64, 56, 56), 192, 3, pad: 1), new[] { Ours, Ours, Ours }),
            ("1x1", ConvolutionSpec.Square(new(32, 256, 28, 28), 192, 1), [Widened, "gather:hbn", "gather:hbn"]),
        })
        {
            Kernel[] kernels = Kernels(backend, spec);
            foreach ((Kernel kernel, string expected) in kernels.Zip(wanted))
            {
                Assert.True(kernel.Implementation.Contains(expected, StringComparison.Ordinal), $"{name} {kernel.Operation.Kind}: {kernel.Implementation}, expected {expected}");
                if (expected != Widened)
                {
                    Assert.InRange(kernel.ScratchBytes, 1, 24L << 20);
                    Assert.DoesNotContain("src", kernel.Conversions, StringComparison.OrdinalIgnoreCase);
                    Assert.DoesNotContain("dst", kernel.Conversions, StringComparison.OrdinalIgnoreCase);
                }

                kernel.Dispose();
            }
        }
    }

    /// <summary>What the library computes says so, tensor by tensor; gradients of weights are float32 and not copied for their type.</summary>
    [Fact]
    public void ConvolutionsOfTheLibrary_InStoredBf16_NameTheirCopies()
    {
        using Backend backend = CreateOrSkip(ConvolutionAlgorithm.Direct);
        Kernel[] kernels = Kernels(backend, ConvolutionSpec.Square(new(2, 64, 14, 14), 96, 3, pad: 1));

        Assert.All(kernels, k => Assert.EndsWith(Widened, k.Implementation, StringComparison.Ordinal));
        Assert.Equal([true, true, false], kernels.Select(k => k.Conversions.Contains("weights bf16", StringComparison.OrdinalIgnoreCase)));
        Assert.All(kernels, k => Assert.Contains("src", k.Conversions, StringComparison.OrdinalIgnoreCase));
        foreach (Kernel kernel in kernels)
        {
            kernel.Dispose();
        }
    }

    /// <summary>Weights that lie in oneDNN's blocks are half as large, and what is written to them is rounded to nearest, ties to even, in its place.</summary>
    [Fact]
    public void Weights_InBlocks_TakeTwoBytesEachAndRoundOnce()
    {
        using Backend backend = OneDnn.Create();
        ConvolutionSpec spec = ConvolutionSpec.Square(new(1, 16, 8, 8), 32, 3, pad: 1);
        Tensor weights = new("weights", spec.Weights, TensorRole.Parameter, TensorLayout.Opaque, DataType.BFloat16);
        using var runner = new OperationRunner(backend, new ConvolutionForward("conv", spec, Activation("src", spec.Src), weights, null, Activation("dst", spec.Dst)));
        float[] values = [.. Enumerable.Range(0, (int)weights.Shape.Count).Select(i => 1 + i / 1024f)];
        runner.Write(weights, values);

        Assert.Equal(values.Select(v => DataType.BFloat16.Round(v)), runner.ReadDouble(weights));
        using BufferMap buffers = new(backend);
        using Kernel kernel = backend.CreateKernel(runner.Kernels[0].Operation, buffers);
        Assert.Equal(2 * weights.Shape.Count, buffers[weights].Bytes);
    }

    private static Backend CreateOrSkip(ConvolutionAlgorithm algorithm)
    {
        Backend backend = OneDnn.Create(new BackendOptions { ConvolutionAlgorithm = algorithm });
        if (!backend.Traits.NarrowConvolutionNormalizes)
        {
            backend.Dispose();
            Assert.Skip("oneDNN multiplies bf16 here, so nothing is widened for it.");
        }

        return backend;
    }

    private static Kernel[] Kernels(Backend backend, ConvolutionSpec spec)
    {
        using BufferMap buffers = new(backend);
        Tensor weights = new("weights", spec.Weights, TensorRole.Parameter, TensorLayout.Opaque, DataType.BFloat16);
        Tensor diffWeights = new("diffWeights", spec.Weights, TensorRole.ParameterGradient, TensorLayout.Opaque);
        Tensor src = Activation("src", spec.Src), diffDst = Activation("diffDst", spec.Dst);
        Operation[] operations =
        [
            new ConvolutionForward("conv", spec, src, weights, null, Activation("dst", spec.Dst)),
            new ConvolutionBackwardData("conv", spec, diffDst, weights, Activation("diffSrc", spec.Src)),
            new ConvolutionBackwardWeights("conv", spec, src, diffDst, diffWeights, null),
        ];
        return [.. operations.Select(o => backend.CreateKernel(o, buffers))];
    }

    private static Tensor Activation(string name, Shape shape) => new(name, shape, TensorRole.Activation, TensorLayout.Blocked, DataType.BFloat16);
}
