using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

internal static unsafe partial class Hbn
{
    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_inner_product_forward_create(
        HbnEngineHandle engine, in HbnInnerProductDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_inner_product_backward_data_create(
        HbnEngineHandle engine, in HbnInnerProductDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_inner_product_backward_weights_create(
        HbnEngineHandle engine, in HbnInnerProductDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);
}

/// <summary>hbn_inner_product_desc.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct HbnInnerProductDesc
{
    public int StructSize;
    public int Reserved;
}
