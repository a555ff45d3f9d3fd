using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

internal static unsafe partial class Hbn
{
    public const int ConvAuto = 0;
    public const int ConvDirect = 1;
    public const int ConvWinograd = 2;

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_conv_forward_create(
        HbnEngineHandle engine, in HbnConvDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_conv_backward_data_create(
        HbnEngineHandle engine, in HbnConvDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_conv_backward_weights_create(
        HbnEngineHandle engine, in HbnConvDesc desc, ReadOnlySpan<HbnTensor> tensors, int count, out HbnKernelHandle kernel);
}

/// <summary>hbn_conv_desc.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct HbnConvDesc
{
    public int StructSize;
    public int StrideH;
    public int StrideW;
    public int PadTop;
    public int PadLeft;
    public int PadBottom;
    public int PadRight;
    public int DilationH;
    public int DilationW;
    public int Groups;
    public int Relu;
    public int Algorithm;
    public int SrcRelu;
    public float SrcEpsilon;
}
