using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

/// <summary>
/// native/include/hbn.h, function by function under its own names. Every function returns a status (see <see cref="NativeException"/>) unless
/// noted. One file per section of the header.
/// </summary>
internal static unsafe partial class Hbn
{
    public const string Library = "hbn";

    /// <summary>HBN_ABI_VERSION this assembly was written for.</summary>
    public const int AbiVersion = 8;

    public const int Ok = 0;
    public const int InvalidArgument = 1;
    public const int Unsupported = 2;
    public const int OutOfMemory = 3;
    public const int Runtime = 4;
    public const int Internal = 5;

    public const int Absent = 0;
    public const int Plain = 1;
    public const int Blocked = 2;
    public const int Opaque = 3;

    public const int Float32 = 0;
    public const int Int32 = 1;
    public const int UInt8 = 2;
    public const int BFloat16 = 3;

    public const int Bf16Storage = 0;
    public const int Bf16Emulated = 1;
    public const int Bf16Native = 2;

    /// <summary>Not a status.</summary>
    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_abi_version();

    /// <summary>Not a status: a constant C string.</summary>
    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial byte* hbn_status_name(int status);

    /// <summary>Not a status: the full length.</summary>
    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_last_error(Span<byte> text, int capacity);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_library_version(out int major, out int minor, out int patch);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_live_objects(out long count);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_struct_size(int which, out int bytes);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_engine_create(in HbnEngineDesc desc, out HbnEngineHandle engine);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_engine_query(HbnEngineHandle engine, ref HbnEngineInfo info);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial void hbn_engine_destroy(nint engine);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_memory_clear(HbnEngineHandle engine, nint memory, long bytes);

    public const int ProbeMultiplyAdd = 0;
    public const int ProbeDotBf16 = 1;
    public const int ProbeTriad = 2;

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_probe(HbnEngineHandle engine, int what, out double rate);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_format_query(HbnFormatHandle format, out long bytes);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial void hbn_format_destroy(nint format);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_tensor_write(HbnEngineHandle engine, in HbnTensor tensor, nint memory, ReadOnlySpan<float> values);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_tensor_read(HbnEngineHandle engine, in HbnTensor tensor, nint memory, Span<float> values);

    /// <summary>The hot call: a raw pointer, kept alive by the caller, instead of a handle's reference counting.</summary>
    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_kernel_execute(nint kernel, ReadOnlySpan<nint> addresses, int count, nint scratch, long step, float learning_rate);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_kernel_scratch_bytes(HbnKernelHandle kernel, out long bytes);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_kernel_implementation(HbnKernelHandle kernel, Span<byte> text, int capacity);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_kernel_conversions(HbnKernelHandle kernel, Span<byte> text, int capacity);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_kernel_format(HbnKernelHandle kernel, int index, out HbnFormatHandle format);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial void hbn_kernel_destroy(nint kernel);
}

[StructLayout(LayoutKind.Sequential)]
internal struct HbnEngineDesc
{
    public int StructSize;
    public int Threads;
    public int MostThreads;
}

[StructLayout(LayoutKind.Sequential)]
internal struct HbnEngineInfo
{
    public int StructSize;
    public int Threads;
    public int Isa;
    public int ChannelBlock;
    public int Bf16;
    public int WantedThreads;
}

/// <summary>hbn_tensor. The format is a raw pointer: whoever fills it keeps its handle alive over the call.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct HbnTensor
{
    public int StructSize;
    public int DataType;
    public int Layout;
    public int N;
    public int C;
    public int H;
    public int W;
    public int RootChannels;
    public int ChannelOffset;
    public int Reserved;
    public nint Format;

    /// <summary>An optional tensor that is not given.</summary>
    public static HbnTensor None => new() { StructSize = Unsafe.SizeOf<HbnTensor>() };
}
