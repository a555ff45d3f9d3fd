using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace HpcBatchNorm.Interop;

/// <summary>native/mpi/hbn_mpi.h, whose text is not repeated here. All but <see cref="hbn_mpi_abort"/> is for the thread that called <see cref="hbn_mpi_init"/>.</summary>
internal static partial class MpiApi
{
    public const string Library = "hbn_mpi";
    public const int AbiVersion = 2;
    public const int Ok = 0, InvalidArgument = 1, OutOfMemory = 3;
    public const int Float32 = 0, Float64 = 1, AsBFloat16 = 2; // the last is added to one of the others

    /// <summary>The length that a rank which takes no part in a gather has in it.</summary>
    public const long NoMember = -1;

    /// <summary>The tags that exchanges may have: 0 to this number - 1.</summary>
    public const int Tags = 16384;

    /// <summary>Throws what a status means; nothing when it is 0.</summary>
    /// <param name="status">What a function returned on this thread just now.</param>
    /// <param name="operation">For the message.</param>
    /// <exception cref="NativeException">MPI failed.</exception>
    public static void ThrowIfFailed(int status, string operation)
    {
        if (status == Ok)
        {
            return;
        }

        Span<byte> text = stackalloc byte[2048];
        int length = hbn_mpi_last_error(text, text.Length);
        string detail = Encoding.UTF8.GetString(text[..Math.Min(length, text.Length - 1)]);
        throw status == OutOfMemory
            ? NativeException.OutOfMemory($"{operation}: {detail}.")
            : new NativeException("MPI", status == InvalidArgument ? "an invalid argument (a bug of HpcBatchNorm, please report it)" : "an error", operation, detail);
    }

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_mpi_abi_version();

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_mpi_last_error(Span<byte> text, int capacity);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_mpi_init(ref HbnMpiInfo info);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_mpi_finalize();

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_mpi_abort(int code);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_mpi_average_create(ReadOnlySpan<HbnMpiPiece> pieces, int count, int type, int tag, out nint exchange);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_mpi_gather_create(ReadOnlySpan<long> bytes, int root, int tag, out nint exchange);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_mpi_start(nint exchange, nint mine, nint all);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_mpi_progress(nint exchange, out int done);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial int hbn_mpi_waiting_for(nint exchange, Span<int> waiting);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial void hbn_mpi_pause(int microseconds);

    [LibraryImport(Library)]
    [UnmanagedCallConv(CallConvs = [typeof(CallConvCdecl)])]
    public static partial void hbn_mpi_destroy(nint exchange);
}

/// <summary>hbn_mpi_info.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct HbnMpiInfo
{
    public int StructSize;
    public int Rank;
    public int Size;
    public int LocalRank;
    public int LocalSize;
    public int Reserved;
    public MpiText Library;

    /// <summary>What <see cref="MpiApi.hbn_mpi_init"/> takes.</summary>
    public static HbnMpiInfo Empty => new() { StructSize = Unsafe.SizeOf<HbnMpiInfo>() };

    /// <summary>The library's name and version.</summary>
    public readonly string LibraryText
    {
        get
        {
            ReadOnlySpan<byte> text = Library;
            int end = text.IndexOf((byte)0);
            return Encoding.UTF8.GetString(end < 0 ? text : text[..end]);
        }
    }
}

/// <summary>A text of at most 255 bytes and a NUL.</summary>
[InlineArray(256)]
internal struct MpiText
{
    private byte _first;
}

/// <summary>hbn_mpi_piece.</summary>
[StructLayout(LayoutKind.Sequential)]
internal record struct HbnMpiPiece(nint Address, long Count);
