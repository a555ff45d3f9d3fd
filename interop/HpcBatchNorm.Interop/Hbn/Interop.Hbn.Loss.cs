using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

internal static unsafe partial class Hbn
{
    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_loss_create(
        HbnEngineHandle engine, in HbnLossDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_softmax_create(
        HbnEngineHandle engine, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);
}

/// <summary>hbn_loss_desc.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct HbnLossDesc
{
    public int StructSize;
    public float LabelSmoothing;
    public float Weight;
    public int Binary;
    public float TargetThreshold;
    public int Reserved;
}
