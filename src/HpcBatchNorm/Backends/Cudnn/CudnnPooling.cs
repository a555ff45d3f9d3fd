using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.Cudnn;

/// <content>Pooling by our own kernels: windows may hang over any edge, and gradients are gathered, so that they repeat bit for bit.</content>
internal sealed partial class CudnnBackend
{
    /// <inheritdoc/>
    private protected override Kernel CreateCore(PoolingForward operation, BufferMap buffers)
    {
        PoolingSpec spec = operation.Spec;
        CudnnBuffer src = Buffer(buffers, operation.Src), dst = Buffer(buffers, operation.Dst);
        CudnnBuffer? winners = spec.Kind == PoolingKind.Max ? Optional(buffers, operation.Workspace) : null;
        CheckTypes(operation, src, dst);
        winners?.Reserve(WinnerBytes(operation, spec));
        if (IsGlobalAverage(spec))
        {
            int lanes = 32;
            return Native(operation, Traffic(src, dst), Launch("global_average", src.Tensor.DataType,
                    new LaunchShape((src.Columns + lanes - 1) / lanes, Math.Min(spec.Src.N, MostLayers), 1, lanes, 256 / lanes, 256 * sizeof(float)), CudnnKernel.Describe(operation))
                .Matrix(src).Matrix(dst).Number(spec.Src.N).Number(spec.Src.Area).Number(src.Columns));
        }

        bool wide = IsWide(src, dst) && PlaceBytes(spec) == sizeof(byte);
        return Native(operation, Traffic(src, dst), Launch(
                PoolingForm("pooling_forward", spec, wide), src.Tensor.DataType, Spread(spec.Dst.Count / Width(src.Tensor.DataType, wide)), CudnnKernel.Describe(operation))
            .Matrix(src).Matrix(dst).Address(winners).Numbers(Numbers(spec)));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(PoolingBackward operation, BufferMap buffers)
    {
        PoolingSpec spec = operation.Spec;
        CudnnBuffer diffDst = Buffer(buffers, operation.DiffDst), diffSrc = Buffer(buffers, operation.DiffSrc);
        CudnnBuffer? winners = spec.Kind == PoolingKind.Max ? Optional(buffers, operation.Workspace) : null;
        CheckTypes(operation, diffDst, diffSrc);
        winners?.Reserve(WinnerBytes(operation, spec));
        bool wide = IsWide(diffDst, diffSrc) && PlaceBytes(spec) == sizeof(byte);
        return Native(operation, Traffic(diffDst, diffSrc), Launch(
                PoolingForm("pooling_backward", spec, wide), diffDst.Tensor.DataType, Spread(spec.Src.Count / Width(diffDst.Tensor.DataType, wide)), CudnnKernel.Describe(operation))
            .Matrix(diffDst).Address(winners).Matrix(diffSrc).Numbers(Numbers(spec)));
    }

    private static bool IsGlobalAverage(in PoolingSpec spec) =>
        spec.Kind != PoolingKind.Max && spec.Dst.Area == 1 && spec.KernelH == spec.Src.H && spec.KernelW == spec.Src.W &&
        (spec.PadTop | spec.PadLeft | spec.PadBottom | spec.PadRight) == 0;

    private static int[] Numbers(in PoolingSpec spec) =>
    [
        spec.Src.N, spec.Src.H, spec.Src.W, spec.Dst.H, spec.Dst.W, spec.KernelH, spec.KernelW, spec.StrideH, spec.StrideW, spec.PadTop, spec.PadLeft, spec.Src.C,
        spec.Kind switch { PoolingKind.Max => 0, PoolingKind.AverageIncludePadding => 1, _ => 2 },
    ];

    private static string PoolingForm(string kernel, in PoolingSpec spec, bool wide) => PlaceBytes(spec) == sizeof(byte) ? Form(kernel, wide) : kernel + "_large";

    /// <summary>What the number of a place within a window takes; an average has no winner, and is computed as small windows are.</summary>
    private static int PlaceBytes(in PoolingSpec spec) =>
        spec.Kind != PoolingKind.Max || (long)spec.KernelH * spec.KernelW <= byte.MaxValue + 1 ? sizeof(byte) : sizeof(ushort);

    /// <summary>One or two bytes per output: the winner's place in its window.</summary>
    private static long WinnerBytes(Operation operation, in PoolingSpec spec) => (long)spec.KernelH * spec.KernelW <= ushort.MaxValue + 1
        ? spec.Dst.Count * PlaceBytes(spec)
        : throw new NotSupportedException($"{CudnnKernel.Describe(operation)}: a window of {spec.KernelH}x{spec.KernelW} has more than {ushort.MaxValue + 1} places.");
}
