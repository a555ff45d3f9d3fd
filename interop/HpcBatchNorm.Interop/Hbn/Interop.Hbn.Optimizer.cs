using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

internal static unsafe partial class Hbn
{
    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_sgd_create(
        HbnEngineHandle engine, in HbnOptimizerDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_adam_create(
        HbnEngineHandle engine, in HbnOptimizerDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_clip_create(
        HbnEngineHandle engine, in HbnOptimizerDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_accumulate_create(
        HbnEngineHandle engine, in HbnOptimizerDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_average_create(
        HbnEngineHandle engine, in HbnOptimizerDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_convert_create(HbnEngineHandle engine, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);
}

/// <summary>hbn_optimizer_desc.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct HbnOptimizerDesc
{
    public int StructSize;
    public int Nesterov;
    public float Mu;
    public float WeightDecay;
    public float MaximumNorm;
    public float Decay;
    public int Count;
    public int RateOutside;
    public float RateFactor;
    public float Epsilon;
    public int TrustRatio;
    public int Reserved;
    public double Beta1;
    public double Beta2;
}
