using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Native;

/// <summary>What is particular to this backend; that its numbers are right is the contract suite's business.</summary>
[Collection(NativeProcessState.Name)]
public sealed class OneDnnBackendTests
{
    /// <summary>oneDNN falls back to code that is 10 to 2000 times slower without a word; the names are the only sign.</summary>
    [Theory]
    [InlineData(ConvolutionAlgorithm.Auto)]
    [InlineData(ConvolutionAlgorithm.Direct)]
    public void Kernels_OfBnInceptionTraining_AreNoReferenceCode(ConvolutionAlgorithm algorithm)
    {
        using Backend backend = OneDnn.Create(new BackendOptions { ConvolutionAlgorithm = algorithm });
        Plan plan = TrainingSession.PlanFor(backend.Traits, NetworkCatalog.Create("bn-inception", new NetworkOptions()), new TrainingOptions { Batch = 2 });
        List<string> reference = [], conversions = [];
        using BufferMap buffers = new(backend);
        foreach (Operation operation in plan.Operations)
        {
            using Kernel kernel = backend.CreateKernel(operation, buffers);
            if (kernel.Implementation.Contains("ref", StringComparison.Ordinal))
            {
                reference.Add($"{operation.Kind} '{operation.Name}': {kernel.Implementation}");
            }

            if (kernel.Conversions.Length > 0)
            {
                conversions.Add($"{operation.Kind} '{operation.Name}': {kernel.Conversions}");
            }
        }

        Assert.Empty(reference);

        // Weights for backward-data are the only thing that may lie otherwise; never an activation, but for gradients of convolutions on SSE, which oneDNN has on plain layouts only.
        bool plain = backend.Description.Contains(", SSE", StringComparison.Ordinal);
        Assert.DoesNotContain(conversions.Where(c => !(plain && c.StartsWith("convolution backward", StringComparison.Ordinal))), c => !c.Contains("weights", StringComparison.Ordinal) || c.Contains("src", StringComparison.Ordinal) || c.Contains("dst", StringComparison.Ordinal));
    }

    /// <summary>The channels of one image lie in a concatenation as in a tensor of their own: convolutions write them there, and nothing is copied.</summary>
    [Fact]
    public void Inference_OfOneImage_CopiesNothingIntoConcatenations()
    {
        using Backend backend = OneDnn.Create();
        Plan plan = ForwardSession.PlanFor(backend.Traits, NetworkCatalog.Create("bn-inception", new NetworkOptions()), new InferenceOptions { Batch = 1 });

        Assert.Empty(plan.Operations.OfType<Copy>());
        using BufferMap buffers = new(backend);
        foreach (ConvolutionForward operation in plan.Operations.OfType<ConvolutionForward>())
        {
            using Kernel kernel = backend.CreateKernel(operation, buffers);
            Assert.DoesNotContain("dst", kernel.Conversions, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Convolution_AutoAndDirect_ChooseWhatTheyMay()
    {
        ConvolutionSpec spec = ConvolutionSpec.Square(new(2, 32, 14, 14), 32, 3, pad: 1);
        Assert.DoesNotContain("wino", Name(ConvolutionAlgorithm.Direct), StringComparison.Ordinal);
        Assert.DoesNotContain("ref", Name(ConvolutionAlgorithm.Auto), StringComparison.Ordinal);

        string Name(ConvolutionAlgorithm algorithm)
        {
            using Backend backend = OneDnn.Create(new BackendOptions { ConvolutionAlgorithm = algorithm });
            using BufferMap buffers = new(backend);
            using Kernel kernel = backend.CreateKernel(
                new ConvolutionForward("conv", spec, Blocked("src", spec.Src), new("weights", spec.Weights, TensorRole.Parameter, TensorLayout.Opaque), null,
                    Blocked("dst", spec.Dst)), buffers);
            return kernel.Implementation;
        }
    }

    /// <summary>
    /// With frozen statistics and a gradient of ones, diffSrc = a where forward let the value pass and 0 elsewhere. The mask that backward recomputes
    /// must be forward's own, bit for bit, also where the pre-activation is a rounding away from 0: values are chosen to crowd there.
    /// </summary>
    [Theory]
    [InlineData(TensorLayout.Blocked)]
    [InlineData(TensorLayout.Plain)]
    public void BatchNorm_RecomputedMask_IsForwardsOwn(TensorLayout layout)
    {
        using Backend backend = OneDnn.Create();
        BatchNormSpec spec = new(new(3, 37, 7, 9), Relu: true);
        Tensor Activation(string name) => new(name, spec.Src, TensorRole.Activation, layout);
        Tensor Vector(string name) => new(name, spec.Parameters, TensorRole.Parameter, layout);
        Tensor src = Activation("src"), dst = Activation("dst"), diffDst = Activation("diffDst"), diffSrc = Activation("diffSrc");
        Tensor scale = Vector("scale"), shift = Vector("shift"), mean = Vector("mean"), variance = Vector("variance");
        using OperationRunner runner = new(backend,
            new BatchNormForward("bn", spec)
            {
                Src = src,
                Dst = dst,
                Scale = scale,
                Shift = shift,
                Statistics = BatchNormStatistics.Running,
                RunningMean = mean,
                RunningVariance = variance,
                AveragingFactor = 0,
            },
            new BatchNormBackward("bn", spec)
            {
                Src = src,
                Scale = scale,
                Shift = shift,
                Statistics = BatchNormStatistics.Running,
                Mean = mean,
                Variance = variance,
                DiffDst = diffDst,
                DiffSrc = diffSrc,
                DiffScale = Vector("dscale"),
                DiffShift = Vector("dshift"),
            });
        RandomSequence random = new(5, 1);
        float[] scales = new float[37], shifts = new float[37], means = new float[37], variances = new float[37], values = new float[spec.Src.Count];
        for (int c = 0; c < 37; c++)
        {
            (scales[c], shifts[c], means[c], variances[c]) =
                ((float)random.NextDouble(0.1, 3), (float)random.NextDouble(-2, 2), (float)random.NextDouble(-5, 5), (float)random.NextDouble(0.1, 4));
        }

        for (int i = 0; i < values.Length; i++)
        {
            // The root of the affine function, a few units in the last place up or down.
            int c = i / spec.Src.Area % 37;
            float root = (float)(means[c] - shifts[c] * Math.Sqrt(variances[c] + spec.Epsilon) / scales[c]);
            values[i] = BitConverter.Int32BitsToSingle(BitConverter.SingleToInt32Bits(root) + (int)random.NextBelow(9) - 4);
        }

        runner.Write(src, values);
        runner.Write(scale, scales);
        runner.Write(shift, shifts);
        runner.Write(mean, means);
        runner.Write(variance, variances);
        Array.Fill(values, 1);
        runner.Write(diffDst, values);
        runner.Execute();

        double[] y = runner.ReadDouble(dst), gradient = runner.ReadDouble(diffSrc);
        Assert.InRange(y.Count(v => v > 0), y.Length / 4, 3 * y.Length / 4);
        Assert.Equal(y.Select(v => v > 0), gradient.Select(v => v != 0));
    }

    [Fact]
    public void BatchNorm_AnyNumberOfThreads_SameBits()
    {
        (double[] Dst, double[] DiffSrc, double[] Running)? first = null;
        foreach (int threads in new[] { 1, 2, 3 })
        {
            (double[] Dst, double[] DiffSrc, double[] Running) result = Run(threads);
            first ??= result;
            Assert.Equal(first.Value.Dst, result.Dst);
            Assert.Equal(first.Value.DiffSrc, result.DiffSrc);
            Assert.Equal(first.Value.Running, result.Running);
        }

        static (double[] Dst, double[] DiffSrc, double[] Running) Run(int threads)
        {
            using Backend backend = OneDnn.Create(new BackendOptions { Threads = threads });
            BatchNormSpec spec = new(new(5, 80, 13, 11), Relu: true);
            Tensor Vector(string name) => new(name, spec.Parameters, TensorRole.Parameter, TensorLayout.Blocked);
            Tensor src = Blocked("src", spec.Src), dst = Blocked("dst", spec.Src), diffDst = Blocked("diffDst", spec.Src), diffSrc = Blocked("diffSrc", spec.Src);
            Tensor scale = Vector("scale"), shift = Vector("shift"), mean = Vector("mean"), variance = Vector("variance"), running = Vector("running");
            using OperationRunner runner = new(backend,
                new BatchNormForward("bn", spec)
                {
                    Src = src,
                    Dst = dst,
                    Scale = scale,
                    Shift = shift,
                    Mean = mean,
                    Variance = variance,
                    RunningMean = running,
                    RunningVariance = Vector("runningVariance"),
                    AveragingFactor = 0.1f,
                },
                new BatchNormBackward("bn", spec)
                {
                    Src = src,
                    Scale = scale,
                    Shift = shift,
                    Mean = mean,
                    Variance = variance,
                    DiffDst = diffDst,
                    DiffSrc = diffSrc,
                    DiffScale = Vector("dscale"),
                    DiffShift = Vector("dshift"),
                });
            foreach (Tensor tensor in new[] { src, diffDst, scale, shift })
            {
                RandomSequence random = new(7, (uint)tensor.Name.Length);
                float[] values = new float[tensor.Shape.Count];
                foreach (ref float value in values.AsSpan())
                {
                    value = (float)random.NextGaussian();
                }

                runner.Write(tensor, values);
            }

            runner.Execute();
            return (runner.ReadDouble(dst), runner.ReadDouble(diffSrc), runner.ReadDouble(running));
        }
    }

    /// <summary>Padded channels are zero after every kernel that writes, or a later reduction over physical memory would count them.</summary>
    [Fact]
    public void Sigmoid_PaddedChannels_StayZero()
    {
        using Backend backend = OneDnn.Create();
        int padded = backend.Traits.ChannelBlock;
        Tensor src = Blocked("src", new(2, 3, 5, 5)), dst = Blocked("dst", src.Shape), scale = new("scale", Shape.Vector(1), TensorRole.Result), norm = new("norm", Shape.Vector(1), TensorRole.Result);
        using OperationRunner runner = new(backend, new ActivationForward("sigmoid", ActivationKind.Sigmoid, src, dst), new ClipGradients("norm", [dst], scale, norm, 1));
        runner.Execute();

        // Every real element is 1/2; a padded one would add as much.
        Assert.True(padded > 3);
        Assert.Equal(Math.Sqrt(src.Shape.Count * 0.25), runner.ReadDouble(norm)[0], 1e-5);
    }

    private static Tensor Blocked(string name, Shape shape) => new(name, shape, TensorRole.Activation, TensorLayout.Blocked);
}
