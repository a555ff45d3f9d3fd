using System.Text;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.OneDnn;

/// <summary>Any operation as a kernel of libhbn: one native call per execution, nothing allocated, no reference counted.</summary>
internal sealed class OneDnnKernel : Kernel
{
    private delegate int GetText(HbnKernelHandle native, Span<byte> text, int capacity);

    private readonly HbnKernelHandle _native;
    private readonly OneDnnBuffer?[] _slots;
    private readonly nint[] _addresses;
    private nint _raw;

    /// <summary>Takes over the native kernel; slots are its tensors in order, null where absent.</summary>
    public OneDnnKernel(Operation operation, HbnKernelHandle native, OneDnnBuffer?[] slots)
        : base(operation)
    {
        string description = Describe(operation);
        NativeException.ThrowIfFailed(Hbn.hbn_kernel_scratch_bytes(native, out long scratchBytes), description);
        ScratchBytes = scratchBytes;
        Implementation = Text(Hbn.hbn_kernel_implementation, native, description);
        Conversions = Text(Hbn.hbn_kernel_conversions, native, description);
        _native = native;
        _slots = slots;
        _addresses = new nint[slots.Length];
        _raw = native.DangerousGetHandle();
    }

    /// <summary>Called before each execution: refuses values that the native kernel would refuse in words of its own.</summary>
    public Action? Check { get; set; }

    /// <inheritdoc/>
    public override string Implementation { get; }

    /// <inheritdoc/>
    public override string Conversions { get; }

    /// <inheritdoc/>
    public override long ScratchBytes { get; }

    /// <summary>How messages name an operation: <c>convolution forward 'conv1'</c>.</summary>
    public static string Describe(Operation operation) => $"{operation.Kind} '{operation.Name}'";

    /// <inheritdoc/>
    protected override void ExecuteCore(in StepContext context)
    {
        Check?.Invoke();
        nint[] addresses = _addresses;
        for (int i = 0; i < addresses.Length; i++)
        {
            addresses[i] = _slots[i]?.Address ?? 0;
        }

        int status = Hbn.hbn_kernel_execute(_raw, addresses, addresses.Length, Scratch, context.Step, context.LearningRate);
        if (status != Hbn.Ok)
        {
            throw NativeException.FromHbn(status, Describe(Operation));
        }

        GC.KeepAlive(_native);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        _raw = 0;
        if (disposing)
        {
            _native.Dispose();
        }

        base.Dispose(disposing);
    }

    private static string Text(GetText get, HbnKernelHandle native, string description)
    {
        Span<byte> text = stackalloc byte[512];
        NativeException.ThrowIfFailed(get(native, text, text.Length), description);
        return Encoding.UTF8.GetString(text[..text.IndexOf((byte)0)]);
    }
}
