using HpcBatchNorm.Interop.Cuda;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>An event per mark.</summary>
internal sealed class CudnnClock(CudaDevice device, int marks) : DeviceClock
{
    private readonly CudaEvent?[] _events = new CudaEvent?[marks];

    /// <inheritdoc/>
    public override void Mark(int mark)
    {
        device.Enter();
        (_events[mark] ??= device.CreateEvent(timing: true)).Record();
    }

    /// <inheritdoc/>
    public override double Seconds(int from, int to)
    {
        device.Enter();
        CudaEvent start = _events[from] ?? throw NotSet(from), end = _events[to] ?? throw NotSet(to);
        end.WaitOnHost();
        return end.Since(start) * 1e-3;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        foreach (CudaEvent? e in _events)
        {
            e?.Dispose();
        }

        base.Dispose(disposing);
    }

    private static InvalidOperationException NotSet(int mark) => new(FormattableString.Invariant($"Mark {mark} was not set."));
}
