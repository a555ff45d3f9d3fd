using HpcBatchNorm.Backends;
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

        // Momentum, parameter and gradient: 20 bytes a parameter, and 6 for the 16-bit copy of the weights.
        long parameters = prepared.Plan.Shapes.ParameterCount;
        Assert.Equal(20L * parameters, Bytes<SgdUpdate>(prepared));
        Assert.InRange(Bytes<ConvertParameters>(prepared), 5.9 * parameters, 6.0 * parameters);

        // Batch normalization writes and reads its channels of a concatenation in place; only pooled branches are copied.
        Assert.InRange(Bytes<Copy>(prepared) / activations, 0, 0.1);
    }

    [Fact]
    public void BnInception_LaunchesPerStep_AreFew()
    {
        using Backend backend = Backend.CreateForPlanning("cudnn");
        using PreparedPlan prepared = Prepare(backend, Precision.Bf16);
        int normalizations = prepared.Kernels.Count(k => k.Operation is BatchNormForward);
        Assert.Equal(2 * normalizations, prepared.Kernels.Where(k => k.Operation is BatchNormForward).Sum(k => k.Launches));
        Assert.Equal(2 * normalizations, prepared.Kernels.Where(k => k.Operation is BatchNormBackward).Sum(k => k.Launches));
        Assert.InRange(prepared.Kernels.Sum(k => k.Launches), 1, 640);
        Assert.Contains(PlanPrinter.Summary(prepared), line => line.StartsWith("device: ", StringComparison.Ordinal));
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
