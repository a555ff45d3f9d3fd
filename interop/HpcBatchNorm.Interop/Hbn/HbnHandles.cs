using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

/// <summary>
/// Owners of libhbn's objects. A kernel keeps what it needs of its engine on the native side, so handles may be released in any order, and from
/// the finalizer thread: destruction only frees memory.
/// </summary>
internal sealed class HbnEngineHandle() : SafeHandle(0, ownsHandle: true)
{
    public override bool IsInvalid => handle == 0;

    protected override bool ReleaseHandle()
    {
        Hbn.hbn_engine_destroy(handle);
        return true;
    }
}

/// <inheritdoc cref="HbnEngineHandle"/>
internal sealed class HbnKernelHandle() : SafeHandle(0, ownsHandle: true)
{
    public override bool IsInvalid => handle == 0;

    protected override bool ReleaseHandle()
    {
        Hbn.hbn_kernel_destroy(handle);
        return true;
    }
}

/// <inheritdoc cref="HbnEngineHandle"/>
internal sealed class HbnFormatHandle() : SafeHandle(0, ownsHandle: true)
{
    public override bool IsInvalid => handle == 0;

    protected override bool ReleaseHandle()
    {
        Hbn.hbn_format_destroy(handle);
        return true;
    }
}
