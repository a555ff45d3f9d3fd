using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

internal static unsafe partial class Hbn
{
    public const int PoolMax = 0;
    public const int PoolAverageIncludePadding = 1;
    public const int PoolAverageExcludePadding = 2;

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_pool_forward_create(
        HbnEngineHandle engine, in HbnPoolDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_pool_backward_create(
        HbnEngineHandle engine, in HbnPoolDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_lrn_forward_create(
        HbnEngineHandle engine, in HbnLrnDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_lrn_backward_create(
        HbnEngineHandle engine, in HbnLrnDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);
}

/// <summary>hbn_pool_desc.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct HbnPoolDesc
{
    public int StructSize;
    public int Kind;
    public int KernelH;
    public int KernelW;
    public int StrideH;
    public int StrideW;
    public int PadTop;
    public int PadLeft;
    public int PadBottom;
    public int PadRight;
}

/// <summary>hbn_lrn_desc.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct HbnLrnDesc
{
    public int StructSize;
    public int Size;
    public float Alpha;
    public float Beta;
    public float K;
}
