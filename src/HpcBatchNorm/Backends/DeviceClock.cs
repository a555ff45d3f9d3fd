namespace HpcBatchNorm.Backends;

/// <summary>Times of executed work by a device's own clock (<see cref="Backend.CreateClock"/>): without what the host spends on asking and waiting.</summary>
internal abstract class DeviceClock : IDisposable
{
    /// <summary>Notes the time at which the device comes here, in the order of executed work.</summary>
    /// <param name="mark">Which mark, from 0 on; one that was set before is set anew.</param>
    public abstract void Mark(int mark);

    /// <summary>Seconds between two marks. Waits until the device has come to the second.</summary>
    public abstract double Seconds(int from, int to);

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Frees the clock.</summary>
    protected virtual void Dispose(bool disposing)
    {
    }
}
