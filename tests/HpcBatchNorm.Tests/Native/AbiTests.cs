using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Tests.Native;

[Collection(NativeProcessState.Name)]
public sealed class AbiTests
{
    private static readonly ConvolutionSpec Small = ConvolutionSpec.Square(new(1, 16, 6, 6), 32, 3, pad: 1);

    [Fact]
    public void Structs_SizesAndOffsets_AreThoseOfTheHeader()
    {
        using Backend backend = OneDnn.Create();
        int[] sizes =
        [
            Unsafe.SizeOf<HbnEngineDesc>(), Unsafe.SizeOf<HbnEngineInfo>(), Unsafe.SizeOf<HbnTensor>(), Unsafe.SizeOf<HbnConvDesc>(),
            Unsafe.SizeOf<HbnInnerProductDesc>(), Unsafe.SizeOf<HbnBatchNormDesc>(), Unsafe.SizeOf<HbnPoolDesc>(), Unsafe.SizeOf<HbnLrnDesc>(),
            Unsafe.SizeOf<HbnActivationDesc>(), Unsafe.SizeOf<HbnDropoutDesc>(), Unsafe.SizeOf<HbnLossDesc>(), Unsafe.SizeOf<HbnOptimizerDesc>(),
        ];
        for (int i = 0; i < sizes.Length; i++)
        {
            Assert.Equal(Hbn.Ok, Hbn.hbn_struct_size(i, out int bytes));
            Assert.Equal(sizes[i], bytes);
        }

        Assert.Equal(Hbn.InvalidArgument, Hbn.hbn_struct_size(sizes.Length, out _));
        Assert.Equal(40, Marshal.OffsetOf<HbnTensor>(nameof(HbnTensor.Format)));
        Assert.Equal(16, Marshal.OffsetOf<HbnDropoutDesc>(nameof(HbnDropoutDesc.Seed)));
    }

    [Fact]
    public void Convolution_ShapesThatDoNotFit_AreAnsweredWithTheShapes()
    {
        using Backend backend = OneDnn.Create();
        using HbnEngineHandle engine = Engine();
        HbnConvDesc desc = new() { StructSize = Unsafe.SizeOf<HbnConvDesc>(), StrideH = 1, StrideW = 1, DilationH = 1, DilationW = 1, Groups = 1 };
        HbnTensor[] tensors = [Blocked(2, 16, 8, 8), Opaque(32, 16, 3, 3), HbnTensor.None, Blocked(2, 32, 7, 7), HbnTensor.None];

        int status = Hbn.hbn_conv_forward_create(engine, desc, tensors, tensors.Length, out HbnKernelHandle kernel);

        using (kernel)
        {
            Assert.Equal(Hbn.InvalidArgument, status);
            Assert.True(kernel.IsInvalid);
            string text = LastError();
            Assert.Contains("shapes do not fit together", text, StringComparison.Ordinal);
            Assert.Contains("2x16x8x8 blocked", text, StringComparison.Ordinal);
            Assert.Contains("2x32x7x7 blocked", text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Descriptor_OfAnotherSize_IsRefusedWithBothSizes()
    {
        using Backend backend = OneDnn.Create();
        using HbnEngineHandle engine = Engine();
        HbnConvDesc desc = new() { StructSize = 4 };

        int status = Hbn.hbn_conv_forward_create(engine, desc, [Blocked(2, 16, 8, 8)], 1, out HbnKernelHandle kernel);

        using (kernel)
        {
            Assert.Equal(Hbn.InvalidArgument, status);
            Assert.Contains($"struct_size is 4, this library expects {Unsafe.SizeOf<HbnConvDesc>()}", LastError(), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Kernel_LayoutTheBackendCannotDo_ThrowsNamingOperationAndTensor()
    {
        using Backend backend = OneDnn.Create();
        using BufferMap buffers = new(backend);
        int block = backend.Traits.ChannelBlock;
        BatchNormSpec spec = new(new(2, block, 4, 4));
        Tensor root = new("root", new(2, 2 * block, 4, 4), TensorRole.Activation, TensorLayout.Blocked);
        Tensor Vector(string name) => new(name, spec.Parameters, TensorRole.Parameter, TensorLayout.Blocked);
        BatchNormForward operation = new("norm", spec)
        {
            Src = new("src", spec.Src, TensorRole.Activation, TensorLayout.Blocked),
            Dst = root.Slice("dst", block / 2, block),
            Scale = Vector("scale"),
            Shift = Vector("shift"),
            Statistics = BatchNormStatistics.Running,
            RunningMean = Vector("mean"),
            RunningVariance = Vector("variance"),
        };

        NotSupportedException error = Assert.Throws<NotSupportedException>(() => backend.CreateKernel(operation, buffers));

        Assert.Contains("batch-norm forward 'norm'", error.Message, StringComparison.Ordinal);
        Assert.Contains($"a slice must start and end at a multiple of {block} channels", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Kernel_LabelOutOfRange_ThrowsNamingImageAndLabel()
    {
        using Backend backend = OneDnn.Create();
        Shape shape = Shape.Matrix(4, 10);
        Tensor logits = new("logits", shape, TensorRole.Activation), labels = new("labels", Shape.Matrix(4, 1), TensorRole.Label, TensorLayout.Plain, DataType.Int32);
        using OperationRunner runner = new(backend, new SoftmaxCrossEntropy("loss", logits, labels, new("probabilities", shape, TensorRole.Result),
            new("value", Shape.Vector(1), TensorRole.Result), null, 0, 1));
        runner.Write(labels, [0, 9, 10, 3]);

        UserErrorException error = Assert.Throws<UserErrorException>(() => runner.Execute());

        Assert.Equal("softmax cross-entropy 'loss': image 2 has the label 10, expected 0 to 9.", error.Message);
    }

    [Fact]
    public void Kernel_ExecutedAfterDispose_Throws()
    {
        using Backend backend = OneDnn.Create();
        using OperationRunner runner = new(backend, Forward());
        runner.Kernels[0].Dispose();

        Assert.Throws<ObjectDisposedException>(() => runner.Execute());
    }

    [Fact]
    public void Kernels_CreatedAndDisposed10000Times_LeaveNoNativeObject()
    {
        using Backend backend = OneDnn.Create();
        Assert.Equal(Hbn.Ok, Hbn.hbn_live_objects(out long before));
        for (int i = 0; i < 10_000; i++)
        {
            using BufferMap buffers = new(backend);
            using Kernel kernel = backend.CreateKernel(Forward(), buffers);
        }

        Assert.Equal(Hbn.Ok, Hbn.hbn_live_objects(out long after));
        Assert.Equal(before, after);
    }

    [Fact]
    public void Execute_SteadyState_AllocatesNothing()
    {
        using Backend backend = OneDnn.Create();
        ConvolutionForward forward = Forward();
        BatchNormSpec spec = new(Small.Dst, Relu: true);
        Tensor Vector(string name) => new(name, spec.Parameters, TensorRole.Parameter, TensorLayout.Blocked);
        BatchNormForward norm = new("norm", spec)
        {
            Src = forward.Dst,
            Dst = new("y", spec.Src, TensorRole.Activation, TensorLayout.Blocked),
            Scale = Vector("scale"),
            Shift = Vector("shift"),
            Mean = Vector("mean"),
            Variance = Vector("variance"),
            RunningMean = Vector("rmean"),
            RunningVariance = Vector("rvariance"),
        };
        using OperationRunner runner = new(backend, forward, norm);
        runner.Execute();
        runner.Execute();

        Assert.Equal(0, ManagedAllocation.Measure(100, () =>
        {
            foreach (Kernel kernel in (Kernel[])runner.Kernels)
            {
                kernel.Execute(default);
            }
        }));
    }

    private static ConvolutionForward Forward() => new("conv", Small, new("src", Small.Src, TensorRole.Activation, TensorLayout.Blocked),
        new("weights", Small.Weights, TensorRole.Parameter, TensorLayout.Opaque), null, new("dst", Small.Dst, TensorRole.Activation, TensorLayout.Blocked));

    private static HbnEngineHandle Engine()
    {
        HbnEngineDesc desc = new() { StructSize = Unsafe.SizeOf<HbnEngineDesc>(), Threads = 1 };
        Assert.Equal(Hbn.Ok, Hbn.hbn_engine_create(desc, out HbnEngineHandle engine));
        return engine;
    }

    private static HbnTensor Blocked(int n, int c, int h, int w) => Describe(Hbn.Blocked, n, c, h, w);

    private static HbnTensor Opaque(int n, int c, int h, int w) => Describe(Hbn.Opaque, n, c, h, w);

    private static HbnTensor Describe(int layout, int n, int c, int h, int w) =>
        new() { StructSize = Unsafe.SizeOf<HbnTensor>(), Layout = layout, N = n, C = c, H = h, W = w, RootChannels = c };

    private static string LastError()
    {
        byte[] text = new byte[4096];
        int length = Hbn.hbn_last_error(text, text.Length);
        return Encoding.UTF8.GetString(text, 0, length);
    }
}
