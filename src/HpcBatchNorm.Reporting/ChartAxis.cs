using System.Globalization;

namespace HpcBatchNorm.Reporting;

/// <summary>An axis of a chart: its bounds, its ticks, and where between the bounds a value lies.</summary>
internal sealed class ChartAxis
{
    private const double Smallest = 1e-100;

    private ChartAxis(double low, double high, bool logarithmic, IReadOnlyList<(double Value, string Label)> ticks) =>
        (Low, High, Logarithmic, Ticks) = (low, high, logarithmic, ticks);

    /// <summary>The smallest value it shows.</summary>
    public double Low { get; }

    /// <summary>The largest value it shows.</summary>
    public double High { get; }

    /// <summary>Equal distances are equal factors.</summary>
    public bool Logarithmic { get; }

    /// <summary>Round values within the bounds, with their labels.</summary>
    public IReadOnlyList<(double Value, string Label)> Ticks { get; }

    /// <summary>True when a value can be shown at all.</summary>
    /// <remarks>Values at the ends of what a number can be would overflow the differences and powers that axes are made of.</remarks>
    public static bool CanShow(double value, bool logarithmic) => Math.Abs(value) <= 1 / Smallest && (logarithmic ? value >= Smallest : value == 0 || Math.Abs(value) >= Smallest);

    /// <summary>Where a value lies: 0 at the lower bound, 1 at the upper.</summary>
    public double At(double value) => Logarithmic
        ? (Math.Log10(value) - Math.Log10(Low)) / (Math.Log10(High) - Math.Log10(Low))
        : (value - Low) / (High - Low);

    /// <summary>An axis around values, of which there is at least one. <paramref name="tight"/>: it ends where they do.</summary>
    public static ChartAxis Around(IEnumerable<double> values, bool tight, bool logarithmic)
    {
        if (logarithmic)
        {
            return Decades(values, tight);
        }

        (double low, double high, double step) = Bounds(values, tight);
        List<(double, string)> ticks = [];
        for (double value = Math.Ceiling(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step)
        {
            ticks.Add((value, Label(value, step)));
        }

        return new ChartAxis(low, high, false, ticks);
    }

    /// <summary>
    /// Bounds and a round step (1, 2 or 5 times a power of ten) of about five intervals, for a <paramref name="tight"/> axis seven. Bounds are multiples of the step, unless the axis is
    /// tight: then they are the values'.
    /// </summary>
    internal static (double Low, double High, double Step) Bounds(IEnumerable<double> values, bool tight)
    {
        (double low, double high) = Range(values);

        // Where values hardly differ, the axis shows that they do not.
        double least = Math.Max(Math.Abs(low), Math.Abs(high)) * 0.04;
        if (least == 0)
        {
            high = 1;
        }
        else if (high - low < least)
        {
            (low, high) = (low - least / 2, high + least / 2);
        }

        double wanted = (high - low) / (tight ? 7 : 5);
        double power = Math.Pow(10, Math.Floor(Math.Log10(wanted)));
        double step = power * (wanted / power) switch { <= 1 => 1, <= 2 => 2, <= 5 => 5, _ => 10 };
        return tight ? (low, high, step) : (Math.Floor(low / step + 1e-9) * step, Math.Ceiling(high / step - 1e-9) * step, step);
    }

    /// <summary>Powers of ten; where less than three of them lie within, 1, 2 and 5 times each.</summary>
    private static ChartAxis Decades(IEnumerable<double> values, bool tight)
    {
        const int MostLabels = 8;
        (double low, double high) = Range(values);
        if (high < low * 1.5)
        {
            (low, high) = (low / 1.5, high * 1.5);
        }

        int first = (int)Math.Floor(Math.Log10(low) + 1e-9), last = (int)Math.Ceiling(Math.Log10(high) - 1e-9);
        int within = (int)Math.Floor(Math.Log10(high) + 1e-9) - (int)Math.Ceiling(Math.Log10(low) - 1e-9) + 1;
        double[] digits = within < 3 ? [1, 2, 5] : [1];
        double[] rounds = [.. Enumerable.Range(first, last - first + 1).SelectMany(power => digits.Select(d => d * Math.Pow(10, power)))];
        if (!tight)
        {
            low = rounds.Last(r => r <= low * (1 + 1e-9));
            high = rounds.First(r => r >= high * (1 - 1e-9));
        }

        double[] shown = [.. rounds.Where(r => r >= low * (1 - 1e-9) && r <= high * (1 + 1e-9))];
        int every = (shown.Length + MostLabels - 1) / MostLabels;
        return new ChartAxis(low, high, true, [.. shown.Where((_, i) => i % every == 0).Select(r => (r, Label(r, r)))]);
    }

    private static (double Low, double High) Range(IEnumerable<double> values)
    {
        (double low, double high) = (double.PositiveInfinity, double.NegativeInfinity);
        foreach (double value in values)
        {
            (low, high) = (Math.Min(low, value), Math.Max(high, value));
        }

        return (low, high);
    }

    /// <summary>As many digits as tell neighbouring ticks apart.</summary>
    private static string Label(double value, double step)
    {
        double rounded = Math.Abs(value) < step * 1e-6 ? 0 : value;
        return Math.Abs(rounded) >= 1e5 || step < 1e-4
            ? rounded.ToString("0.##e+0", CultureInfo.InvariantCulture)
            : Math.Round(rounded, 6).ToString("0.######", CultureInfo.InvariantCulture);
    }
}
