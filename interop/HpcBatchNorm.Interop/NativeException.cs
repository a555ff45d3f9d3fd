using System.Runtime.InteropServices;
using System.Text;

namespace HpcBatchNorm.Interop;

/// <summary>A native library failed in a way that neither the arguments nor the machine's limits explain.</summary>
public sealed class NativeException : Exception
{
    /// <summary>Creates the exception; the message puts the four together.</summary>
    public NativeException(string library, string status, string operation, string detail)
        : base($"{operation}: {library} reports {status}: {detail}")
    {
        Library = library;
        Status = status;
        Operation = operation;
        Detail = detail;
    }

    /// <summary>The library, with its version where known: <c>oneDNN 2.6.3</c>.</summary>
    public string Library { get; }

    /// <summary>The library's own name of what happened: <c>runtime error</c>.</summary>
    public string Status { get; }

    /// <summary>What was being done: <c>convolution forward 'conv1'</c>.</summary>
    public string Operation { get; }

    /// <summary>The library's text.</summary>
    public string Detail { get; }

    /// <summary>Throws what a status of libhbn means; nothing when it is 0.</summary>
    /// <param name="status">The status a function of libhbn returned on this thread just now.</param>
    /// <param name="operation">For the message; asked for only on failure.</param>
    internal static void ThrowIfFailed(int status, string operation)
    {
        if (status != Hbn.Ok)
        {
            throw FromHbn(status, operation);
        }
    }

    /// <summary>What callers handle as they handle the runtime's own: memory did run out, of the machine or of a device.</summary>
#pragma warning disable CA2201 // It is reserved for the runtime, which could not have said it better.
    internal static OutOfMemoryException OutOfMemory(string message) => new(message);
#pragma warning restore CA2201

    internal static Exception FromHbn(int status, string operation)
    {
        string detail = LastError();
        return status switch
        {
            Hbn.Unsupported => new NotSupportedException($"{operation}: {detail}."),
            Hbn.OutOfMemory => OutOfMemory($"{operation}: {detail}."),

            // The front end validates; what gets this far is a mistake of ours, not of the user.
            Hbn.InvalidArgument => new NativeException("libhbn", "an invalid argument (a bug of HpcBatchNorm, please report it)", operation, detail),
            _ => new NativeException("libhbn", StatusName(status), operation, detail),
        };
    }

    private static unsafe string StatusName(int status) => Marshal.PtrToStringUTF8((nint)Hbn.hbn_status_name(status)) ?? "unknown status";

    private static string LastError()
    {
        Span<byte> text = stackalloc byte[4096];
        int length = Hbn.hbn_last_error(text, text.Length);
        return Encoding.UTF8.GetString(text[..Math.Min(length, text.Length - 1)]);
    }
}
