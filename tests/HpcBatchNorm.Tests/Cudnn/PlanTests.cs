using System.Text.RegularExpressions;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Cudnn;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Cudnn;

/// <summary>The plan for a GPU, made without one, against what must move: every bound here is counted from the network alone.</summary>
public sealed class PlanTests
{
    private const int Batch = 32;

    /// <summary>Outputs of all convolutions, values per image at 224 px; the parallel 1x1 convolutions change none of them.</summary>
    private const double ConvolutionOutputs = 3.724e6;

    [Fact]
    public void BnInception_Bf16_MovesWhatItsOperationsMust()
    {
        using Backend backend = Backend.CreateForPlanning("cudnn");
        using PreparedPlan prepared = Prepare(backend, Precision.Bf16);
        double activations = ConvolutionOutputs * Batch * 2;

        // Forward: src twice, dst once; backward: src and diffDst twice, diffSrc once. The width 608 of the default has some more channels than 576.
        Assert.InRange(Bytes<BatchNormForward>(prepared) / activations, 3 * 0.95, 3 * 1.15);
        Assert.InRange(Bytes<BatchNormBackward>(prepared) / activations, 5 * 0.95, 5 * 1.15);

        // Momentum, parameter and gradient: 20 bytes a parameter, of which a gradient of 16 bits saves 2, and 6 for the 16-bit copy of the weights.
        long parameters = prepared.Plan.Shapes.ParameterCount;
        long weights = prepared.Plan.Shapes.Parameters.Where(p => p.Spec.Kind == ParameterKind.Weights).Sum(p => p.Spec.Shape.Count);
        Assert.Equal(20L * parameters - 2L * weights, Bytes<SgdUpdate>(prepared));
        Assert.InRange(Bytes<ConvertParameters>(prepared), 5.9 * parameters, 6.0 * parameters);

        // Batch normalization and pooling write and read their channels of a concatenation in place.
        Assert.Equal(0, Bytes<Copy>(prepared));
    }

    [Theory]
    [InlineData(Precision.Fp32)]
    [InlineData(Precision.Bf16)]
    public void BnInception_LaunchesPerStep_AreFew(Precision precision)
    {
        using Backend backend = Backend.CreateForPlanning("cudnn");
        using PreparedPlan prepared = Prepare(backend, precision);
        Kernel[] forward = [.. prepared.Kernels.Where(k => k.Operation is BatchNormForward)];

        // One launch for each of 69 in each direction, except after the first convolutions, whose outputs are larger than an L2 cache.
        Assert.Equal(69, forward.Length);
        Assert.All(forward, k => Assert.Equal(((BatchNormForward)k.Operation).Spec.Src.Count * (precision == Precision.Fp32 ? 4 : 2) > 32 << 20 ? 2 : 1, k.Launches));
        Assert.InRange(forward.Sum(k => k.Launches), 69, 74);
        Assert.Equal(forward.Sum(k => k.Launches), prepared.Kernels.Where(k => k.Operation is BatchNormBackward).Sum(k => k.Launches));

        // Convolutions are one call each: what they give is not copied into another type. In 16 bits the first one's weights get zeros behind their three channels, as
        // the images have, and their gradient loses them.
        Assert.All(prepared.Kernels.Where(k => k.Operation is ConvolutionForward or ConvolutionBackwardData or ConvolutionBackwardWeights),
            k => Assert.Equal(k.Operation.Name == "conv1/conv" && precision == Precision.Bf16 ? 2 : 1, k.Launches));
        Assert.InRange(prepared.Kernels.Sum(k => k.Launches), 300, 330);
        Assert.Contains(PlanPrinter.Summary(prepared), line => line.StartsWith("device: ", StringComparison.Ordinal));
    }

    /// <summary>Of 69 convolutions each is a call and a launch for bias and ReLU, or one call; nothing is copied.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void BnInception_InferenceLaunches_AreFew(bool libraryRelu)
    {
        using Backend backend = Backend.CreateForPlanning("cudnn", new BackendOptions { LibraryRelu = libraryRelu });
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
        using var prepared = new PreparedPlan(backend, ForwardSession.PlanFor(backend.Traits, network, new InferenceOptions { Batch = Batch, Precision = Precision.Bf16 }));
        Kernel[] convolutions = [.. prepared.Kernels.Where(k => k.Operation is ConvolutionForward)];
        Assert.Equal(69, convolutions.Length);
        Assert.All(convolutions, k => Assert.Equal((libraryRelu ? 1 : 2) + (k.Operation.Name == "conv1/conv" ? 1 : 0), k.Launches));
        Assert.DoesNotContain(prepared.Kernels, k => k.Operation is Copy);
        Assert.InRange(prepared.Kernels.Sum(k => k.Launches) - convolutions.Sum(k => k.Launches), 10, 20);

        // Bias and ReLU read and write every output once more; 16-bit biases are less.
        double activations = ConvolutionOutputs * Batch * 2, convolved = convolutions.Sum(k => (double)k.MemoryBytes - 2 * ((ConvolutionForward)k.Operation).Spec.Src.Count - 2 * ((ConvolutionForward)k.Operation).Spec.Weights.Count);
        Assert.InRange(convolved / activations, libraryRelu ? 0.95 : 2.85, libraryRelu ? 1.15 : 3.45);
    }

    /// <summary>Several micro-batches and several ranks add gradients up: micro-batches from 16 bits into sums of single precision, ranks in single precision.</summary>
    [Fact]
    public void WeightGradients_LieInSixteenBits_WhereTheOptimizerAloneReadsThem()
    {
        using Backend backend = Backend.CreateForPlanning("cudnn");
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 10 });
        DataType[] Gradients(TrainingOptions options) =>
        [
            .. TrainingSession.PlanFor(backend.Traits, network, options).Operations.OfType<ConvolutionBackwardWeights>().Select(o => o.DiffWeights.DataType).Distinct(),
        ];
        TrainingOptions options = new() { Batch = 4, Height = 32, Width = 32, Precision = Precision.Bf16 };
        Assert.Equal([DataType.BFloat16], Gradients(options));
        Assert.Equal([DataType.Float16], Gradients(options with { Precision = Precision.Fp16 }));
        Assert.Equal([DataType.BFloat16], Gradients(options with { Accumulate = 2 }));
        Assert.Equal([DataType.Float32], Gradients(options with { Ranks = 2 }));
        Assert.Equal([DataType.Float32], Gradients(options with { Precision = Precision.Fp32 }));
    }

    /// <summary>The least times by the data sheet: 3.35 TB/s, 989.4 TFLOP/s of bf16 and 66.9 in single precision.</summary>
    [Fact]
    public void Roofline_OfAnH100_TakesTheLongerOfMemoryAndArithmetic()
    {
        using Backend backend = Backend.CreateForPlanning("cudnn");
        using PreparedPlan prepared = Prepare(backend, Precision.Bf16);
        var roofline = new DeviceRoofline(prepared, GpuModel.Find("H100"));

        // conv2: 2 * 32 images * 56 * 56 positions * 192 * 64 * 3 * 3 operations; it moves 64 and 192 channels of them, and 110592 weights.
        double flops = 2.0 * Batch * 56 * 56 * 192 * 64 * 9, bytes = 2.0 * Batch * 56 * 56 * (64 + 192) + 2 * 110592;
        int conv2 = prepared.Kernels.ToList().FindIndex(k => k.Operation is ConvolutionForward { Name: "conv2/conv" });
        Assert.Equal(flops / 989.4e12, roofline.OperationSeconds[conv2], 1e-4 * flops / 989.4e12);
        Assert.True(flops / 989.4e12 > bytes / 3.35e12);

        // Its normalization: three passes over 192 channels through the memory, in two launches.
        int normalization = prepared.Kernels.ToList().FindIndex(k => k.Operation is BatchNormForward { Name: "conv2/bn" });
        Assert.Equal(3 * 2.0 * Batch * 56 * 56 * 192 / 3.35e12, roofline.OperationSeconds[normalization], 1e-9);

        Assert.Equal(prepared.Kernels.Sum(k => k.MemoryBytes), roofline.Rows.Sum(r => r.Bytes));
        Assert.Equal(prepared.Kernels.Sum(k => k.Launches), roofline.Rows.Sum(r => r.Launches));
        Assert.Equal(roofline.OperationSeconds.Sum(), roofline.Rows.Sum(r => r.Seconds), 1e-9);
        Assert.All(roofline.Rows, r => Assert.Equal(r.Kernel.StartsWith("cudnn ", StringComparison.Ordinal), r.Resources is null));

        // In single precision without tensor cores a library's convolution is held by arithmetic alone.
        using PreparedPlan single = Prepare(backend, Precision.Fp32);
        conv2 = single.Kernels.ToList().FindIndex(k => k.Operation is ConvolutionForward { Name: "conv2/conv" });
        Assert.Equal(flops / 66.9e12, new DeviceRoofline(single, GpuModel.Find("h100")).OperationSeconds[conv2], 1e-4 * flops / 66.9e12);
        Assert.Contains("h100, h200, a100", Assert.Throws<UserErrorException>(() => GpuModel.Find("h10")).Message, StringComparison.Ordinal);
    }

    /// <summary>A kernel without a row would be printed without registers; a row without a kernel is of one that is gone.</summary>
    [Fact]
    public void KernelTable_HasARowForEveryKernel()
    {
        string[] kernels =
        [
            .. Regex.Matches(CudaModules.Source, @"HBN_KERNEL\((\w+?)(_##suffix)?\)").SelectMany<Match, string>(m =>
                !m.Groups[2].Success ? [m.Groups[1].Value]
                    : [$"{m.Groups[1].Value}_single", $"{m.Groups[1].Value}_wide", .. m.Groups[1].Value.StartsWith("pooling_", StringComparison.Ordinal) ? new[] { $"{m.Groups[1].Value}_large" } : []]),
        ];
        string[] rows = [.. KernelTable.Text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Skip(2).Select(l => l.Split(',')[0])];
        Assert.Equal(kernels.Where(k => k != "name").Order(StringComparer.Ordinal), rows.Order(StringComparer.Ordinal));
        Assert.Equal(80, KernelTable.Find("batch_norm_statistics_wide", DataType.BFloat16, 90)!.Value.Registers);
        Assert.Null(KernelTable.Find("probe_tensor_core", DataType.Float32, 90));
        Assert.Null(KernelTable.Find("cudnn convolution forward", DataType.Float32, 90));
    }

    [Fact]
    public void Plan_WithoutADevice_CannotBeExecuted()
    {
        using Backend backend = Backend.CreateForPlanning("cudnn");
        Assert.SkipWhen(Backend.Probe().Single(p => p.Name == "cudnn").Available, "there is a device");
        InvalidOperationException error = Assert.Throws<InvalidOperationException>(() => backend.Allocate(1));
        Assert.Contains("made for planning", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Tensor_BeyondThirtyTwoBits_IsRefusedWithTheWayOut()
    {
        using Backend backend = Backend.CreateForPlanning("cudnn");
        using var buffers = new BufferMap(backend);
        var tensor = new Tensor("conv1.dst", new Shape(4096, 64, 112, 112), TensorRole.Activation);
        NotSupportedException error = Assert.Throws<NotSupportedException>(() => buffers[tensor]);
        Assert.Contains("'conv1.dst' 4096x64x112x112 has 3,288,334,336 elements", error.Message, StringComparison.Ordinal);
        Assert.Contains("smaller batch", error.Message, StringComparison.Ordinal);
    }

    private static PreparedPlan Prepare(Backend backend, Precision precision)
    {
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
        return new PreparedPlan(backend, TrainingSession.PlanFor(backend.Traits, network, new TrainingOptions { Batch = Batch, Precision = precision }));
    }

    private static long Bytes<T>(PreparedPlan prepared)
        where T : Operation => prepared.Kernels.Where(k => k.Operation is T).Sum(k => k.MemoryBytes);
}
