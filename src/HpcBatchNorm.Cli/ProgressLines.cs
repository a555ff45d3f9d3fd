using System.Diagnostics;
using System.Globalization;

namespace HpcBatchNorm.Cli;

/// <summary>A line about long work, at most every few seconds, so that logs stay readable. For one thread at a time.</summary>
internal sealed class ProgressLines(TextWriter output)
{
    private const double SecondsBetweenLines = 5;

    private readonly long _start = Stopwatch.GetTimestamp();
    private double _last;

    public void Report(string what, long done, long total)
    {
        double elapsed = Stopwatch.GetElapsedTime(_start).TotalSeconds;
        if (elapsed - _last >= SecondsBetweenLines)
        {
            _last = elapsed;
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{what} {done}/{total} ({100.0 * done / Math.Max(1, total):0.0} %), {elapsed:0} s"));
        }
    }
}
