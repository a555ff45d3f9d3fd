using System.Globalization;
using System.Text.RegularExpressions;

namespace HpcBatchNorm.Training;

/// <summary>Lengths of time as people and queues write them: <c>90s</c>, <c>15m</c>, <c>1d12h</c>, <c>11:45:00</c>, <c>1-12:00:00</c>, 0.</summary>
public static partial class DurationText
{
    /// <summary>The longest there is: what the system's timers can count.</summary>
    public static TimeSpan Longest { get; } = TimeSpan.FromDays(45);

    /// <summary>Reads a length of time, 0 to <see cref="Longest"/>.</summary>
    /// <exception cref="FormatException">It is none; the message says what is.</exception>
    public static TimeSpan Parse(string text)
    {
        text = text.Trim().ToLowerInvariant();
        if (text == "0")
        {
            return TimeSpan.Zero;
        }

        Match match = Units().Match(text) is { Success: true } units ? units : Clock().Match(text);
        TimeSpan time = TimeSpan.Zero;
        if (match.Success && match.Length > 0)
        {
            double Part(string name) => match.Groups[name].Success ? double.Parse(match.Groups[name].Value, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture) : 0;
            double seconds = 86400 * Part("d") + 3600 * Part("h") + 60 * Part("m") + Part("s");
            time = seconds <= Longest.TotalSeconds ? TimeSpan.FromSeconds(seconds) : TimeSpan.MaxValue;
        }

        return match.Success && match.Length > 0 && time <= Longest ? time : throw new FormatException(FormattableString.Invariant(
            $"a time with its unit such as 90s, 15m, 11h45m or 2d, or as 11:45:00 or 1-12:00:00, of at most {Longest.TotalDays} days; or 0"));
    }

    /// <summary>Writes a length of time so that <see cref="Parse"/> gives it again.</summary>
    public static string Format(TimeSpan time)
    {
        if (time == TimeSpan.Zero)
        {
            return "0";
        }

        if (time < TimeSpan.Zero)
        {
            // None of this kind can be read again: it is for the message that says so.
            return time == TimeSpan.MinValue ? time.ToString("c", CultureInfo.InvariantCulture) : "-" + Format(-time);
        }

        string text = "";
        foreach ((long part, string unit) in new[] { ((long)time.TotalDays, "d"), (time.Hours, "h"), (time.Minutes, "m") })
        {
            text += part > 0 ? string.Create(CultureInfo.InvariantCulture, $"{part}{unit}") : "";
        }

        decimal seconds = time.Ticks % TimeSpan.TicksPerMinute / (decimal)TimeSpan.TicksPerSecond;
        return seconds > 0 ? text + seconds.ToString("0.#######", CultureInfo.InvariantCulture) + "s" : text;
    }

    [GeneratedRegex(@"^(?:(?<d>\d+(?:\.\d+)?)d)?\s*(?:(?<h>\d+(?:\.\d+)?)h)?\s*(?:(?<m>\d+(?:\.\d+)?)m(?:in)?)?\s*(?:(?<s>\d+(?:\.\d+)?)s)?$")]
    private static partial Regex Units();

    [GeneratedRegex(@"^(?:(?<d>\d+)-)?(?<h>\d+):(?<m>\d{1,2}):(?<s>\d{1,2})$")]
    private static partial Regex Clock();
}
