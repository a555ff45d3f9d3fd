using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

internal static unsafe partial class Hbn
{
    public const int Relu = 0;
    public const int Sigmoid = 1;
    public const int Tanh = 2;
    public const int Gelu = 3;
    public const int Silu = 4;
    public const int HardSwish = 5;

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_activation_forward_create(
        HbnEngineHandle engine, in HbnActivationDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_activation_backward_create(
        HbnEngineHandle engine, in HbnActivationDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_dropout_create(
        HbnEngineHandle engine, in HbnDropoutDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_copy_create(
        HbnEngineHandle engine, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_sum_create(
        HbnEngineHandle engine, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_input_create(
        HbnEngineHandle engine, ReadOnlySpan<HbnTensor> tensors, int count, ReadOnlySpan<float> mean, ReadOnlySpan<float> inverse_deviation,
        out HbnKernelHandle kernel);
}

/// <summary>hbn_activation_desc.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct HbnActivationDesc
{
    public int StructSize;
    public int Function;
}

/// <summary>hbn_dropout_desc.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct HbnDropoutDesc
{
    public int StructSize;
    public uint Threshold;
    public float KeptScale;
    public uint Stream;
    public ulong Seed;
}
