using System.Text;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.OneDnn;

/// <summary>Any operation as a plan of the shim: one native call per execution, nothing allocated, no reference counted.</summary>
internal sealed class OneDnnKernel : Kernel
{
    private delegate int GetText(HbnPlanHandle plan, Span<byte> text, int capacity);

    private readonly HbnPlanHandle _plan;
    private readonly OneDnnBuffer?[] _slots;
    private readonly nint[] _addresses;
    private nint _raw;

    /// <summary>Takes over the plan; slots are its tensors in order, null where absent.</summary>
    public OneDnnKernel(Operation operation, HbnPlanHandle plan, OneDnnBuffer?[] slots)
        : base(operation)
    {
        string description = Describe(operation);
        NativeException.ThrowIfFailed(Hbn.hbn_plan_scratch_bytes(plan, out long scratchBytes), description);
        ScratchBytes = scratchBytes;
        Implementation = Text(Hbn.hbn_plan_implementation, plan, description);
        Conversions = Text(Hbn.hbn_plan_conversions, plan, description);
        _plan = plan;
        _slots = slots;
        _addresses = new nint[slots.Length];
        _raw = plan.DangerousGetHandle();
    }

    /// <inheritdoc/>
    public override string Implementation { get; }

    /// <inheritdoc/>
    public override string Conversions { get; }

    /// <inheritdoc/>
    public override long ScratchBytes { get; }

    /// <summary>How messages name an operation: <c>convolution forward 'conv1'</c>.</summary>
    public static string Describe(Operation operation) => $"{operation.Kind} '{operation.Name}'";

    /// <inheritdoc/>
    public override void Execute(in StepContext context)
    {
        ThrowIfDisposed();
        nint[] addresses = _addresses;
        for (int i = 0; i < addresses.Length; i++)
        {
            addresses[i] = _slots[i]?.Address ?? 0;
        }

        int status = Hbn.hbn_plan_execute(_raw, addresses, addresses.Length, Scratch, context.Step, context.LearningRate);
        if (status != Hbn.Ok)
        {
            throw NativeException.FromHbn(status, Describe(Operation));
        }

        GC.KeepAlive(_plan);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        _raw = 0;
        if (disposing)
        {
            _plan.Dispose();
        }

        base.Dispose(disposing);
    }

    private static string Text(GetText get, HbnPlanHandle plan, string description)
    {
        Span<byte> text = stackalloc byte[512];
        NativeException.ThrowIfFailed(get(plan, text, text.Length), description);
        return Encoding.UTF8.GetString(text[..text.IndexOf((byte)0)]);
    }
}
