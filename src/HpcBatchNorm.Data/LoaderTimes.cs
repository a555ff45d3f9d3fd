using System.Diagnostics;

namespace HpcBatchNorm.Data;

/// <summary>What a loader's worker is doing.</summary>
internal enum LoaderStage
{
    /// <summary>Waiting until there is room for another batch.</summary>
    Wait,

    /// <summary>Reading the encoded bytes.</summary>
    Read,

    /// <summary>Decoding.</summary>
    Decode,

    /// <summary>Resizing the crop.</summary>
    Resize,

    /// <summary>Automatic policies, photometric distortion and random erasing.</summary>
    Augment,

    /// <summary>Rounding to bytes in the batch.</summary>
    Copy,
}

/// <summary>Where the time of a loader's workers went: seconds per <see cref="LoaderStage"/>, of all workers together.</summary>
internal readonly struct LoaderTimes
{
    /// <summary>Number of stages.</summary>
    internal const int Stages = (int)LoaderStage.Copy + 1;

    private readonly double[]? _seconds;

    internal LoaderTimes(double[] seconds) => _seconds = seconds;

    /// <summary>Seconds spent in a stage.</summary>
    public double this[LoaderStage stage] => _seconds?[(int)stage] ?? 0;

    /// <summary>Seconds of all stages together.</summary>
    public double Total => _seconds?.Sum() ?? 0;

    /// <summary>What passed between two measurements.</summary>
    public static LoaderTimes operator -(LoaderTimes later, LoaderTimes earlier) => Subtract(later, earlier);

    /// <summary>What passed between two measurements.</summary>
    public static LoaderTimes Subtract(LoaderTimes later, LoaderTimes earlier)
    {
        double[] seconds = new double[Stages];
        for (int stage = 0; stage < Stages; stage++)
        {
            seconds[stage] = later[(LoaderStage)stage] - earlier[(LoaderStage)stage];
        }

        return new LoaderTimes(seconds);
    }
}

/// <summary>What one worker is doing, since when, and how long it has done what. Written by the worker, read by anybody.</summary>
internal sealed class StageClock
{
    private readonly long[] _ticks = new long[LoaderTimes.Stages];
    private long _since = Stopwatch.GetTimestamp();
    private int _stage, _image = -1;

    public LoaderStage Stage => (LoaderStage)Volatile.Read(ref _stage);

    /// <summary>The image that is worked on.</summary>
    public int Image => Volatile.Read(ref _image);

    /// <summary>How long the present stage has lasted.</summary>
    public TimeSpan Elapsed => Stopwatch.GetElapsedTime(Volatile.Read(ref _since));

    public void Begin(int image)
    {
        Volatile.Write(ref _image, image);
        Enter(LoaderStage.Read);
    }

    public void Enter(LoaderStage stage)
    {
        long now = Stopwatch.GetTimestamp();
        Volatile.Write(ref _ticks[_stage], _ticks[_stage] + now - _since);
        Volatile.Write(ref _since, now);
        Volatile.Write(ref _stage, (int)stage);
    }

    public void AddTo(double[] seconds)
    {
        for (int stage = 0; stage < seconds.Length; stage++)
        {
            seconds[stage] += Volatile.Read(ref _ticks[stage]) / (double)Stopwatch.Frequency;
        }
    }
}
