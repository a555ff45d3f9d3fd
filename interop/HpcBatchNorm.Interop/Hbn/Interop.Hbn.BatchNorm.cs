using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

internal static unsafe partial class Hbn
{
    public const int StageAll = 0, StageReduce = 1, StageApply = 2;
    public const int BatchNormNative = 0;
    public const int BatchNormLibrary = 1;

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_batch_norm_forward_create(
        HbnEngineHandle engine, in HbnBatchNormDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_batch_norm_backward_create(
        HbnEngineHandle engine, in HbnBatchNormDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);
}

/// <summary>hbn_batch_norm_desc.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct HbnBatchNormDesc
{
    public int StructSize;
    public float Epsilon;
    public float AveragingFactor;
    public int PerActivation;
    public int Relu;
    public int BatchStatistics;
    public int Algorithm;
    public int Stage;
}
