using System.Globalization;
using System.Net;
using System.Text;

namespace HpcBatchNorm.Reporting;

/// <summary>One line of a chart. Points are ordered by X.</summary>
/// <param name="Name">What the legend says.</param>
/// <param name="Points">The points; those that are not finite are left out.</param>
/// <param name="Style">Number of its colour, the same in all charts of a page.</param>
internal sealed record ChartSeries(string Name, IReadOnlyList<(double X, double Y)> Points, int Style = 0);

/// <summary>
/// A line chart as inline SVG: axes with round numbers, units, a legend, a table of its values for the page's script to show beneath the pointer.
/// Colours come from the page's style sheet. Long series are drawn as the mean of each of <see cref="MostPoints"/> spans, with the range from the
/// smallest to the largest value behind it, so that no spike is lost.
/// </summary>
internal static class LineChart
{
    /// <summary>More than a chart has columns of pixels.</summary>
    public const int MostPoints = 400;

    /// <summary>Colours that the style sheet has.</summary>
    public const int Styles = 8;

    private const int Width = 460, Height = 270, Left = 58, Right = 14, Top = 10, Bottom = 26;

    private sealed record Drawn(ChartSeries Series, List<(double X, double Y)> Points, List<(double X, double Low, double High)> Range);

    /// <summary>The chart as a <c>figure</c> element; a note instead of a drawing when no series has a point.</summary>
    public static string Render(string title, string unit, string xLabel, IReadOnlyList<ChartSeries> series)
    {
        Drawn[] drawn = [.. series.Select(Reduce).Where(d => d.Points.Count > 0)];
        var html = new StringBuilder();
        html.Append("<figure class=\"chart\"><figcaption><b>").Append(Encode(title)).Append("</b> <span>").Append(Encode(unit)).Append("</span></figcaption>\n");
        if (drawn.Length == 0)
        {
            return html.Append("<p class=\"none\">nothing yet</p></figure>\n").ToString();
        }

        (double xLow, double xHigh, double xStep) = Axis(drawn.SelectMany(d => d.Points).Select(p => p.X), tight: true);
        (double yLow, double yHigh, double yStep) = Axis(
            drawn.SelectMany(d => d.Points.Select(p => p.Y).Concat(d.Range.SelectMany(r => new[] { r.Low, r.High }))), tight: false);
        double X(double x) => Left + (x - xLow) / (xHigh - xLow) * (Width - Left - Right);
        double Y(double y) => Height - Bottom - (y - yLow) / (yHigh - yLow) * (Height - Top - Bottom);

        html.Append(CultureInfo.InvariantCulture, $"<div class=\"plot\"><svg viewBox=\"0 0 {Width} {Height}\" role=\"img\" aria-label=\"{Encode(title)}, {Encode(unit)}, by {Encode(xLabel)}\">\n");
        for (double y = yLow; y <= yHigh + yStep / 2; y += yStep)
        {
            html.Append(CultureInfo.InvariantCulture, $"<path class=\"grid\" d=\"M{Left} {Y(y):0.#}H{Width - Right}\"/>");
            html.Append(CultureInfo.InvariantCulture, $"<text text-anchor=\"end\" x=\"{Left - 6}\" y=\"{Y(y) + 4:0.#}\">{Label(y, yStep)}</text>\n");
        }

        for (double x = Math.Ceiling(xLow / xStep - 1e-9) * xStep; x <= xHigh + xStep * 1e-9; x += xStep)
        {
            // The axis' name stands at the right end of the same line.
            if (X(x) < Width - Right - 7 * xLabel.Length - 12)
            {
                html.Append(CultureInfo.InvariantCulture, $"<text text-anchor=\"middle\" x=\"{X(x):0.#}\" y=\"{Height - 8}\">{Label(x, xStep)}</text>\n");
            }
        }

        html.Append(CultureInfo.InvariantCulture, $"<text text-anchor=\"end\" x=\"{Width - Right}\" y=\"{Height - 8}\">{Encode(xLabel)}</text>\n");
        foreach (Drawn d in drawn)
        {
            int style = d.Series.Style % Styles;
            if (d.Range.Count > 0)
            {
                string upper = Path(d.Range.Select(r => (X(r.X), Y(r.High)))), lower = Path(d.Range.AsEnumerable().Reverse().Select(r => (X(r.X), Y(r.Low))));
                html.Append(CultureInfo.InvariantCulture, $"<path class=\"range s{style}\" d=\"{upper}L{lower[1..]}Z\"/>\n");
            }

            html.Append(CultureInfo.InvariantCulture, $"<path class=\"line s{style}\" d=\"{Path(d.Points.Select(p => (X(p.X), Y(p.Y))))}\"/>\n");
            if (d.Points.Count <= 30)
            {
                foreach ((double x, double y) in d.Points)
                {
                    html.Append(CultureInfo.InvariantCulture, $"<circle class=\"s{style}\" cx=\"{X(x):0.#}\" cy=\"{Y(y):0.#}\" r=\"2.6\"/>");
                }
            }
        }

        html.Append("</svg></div>\n<ul class=\"legend\">");
        foreach (Drawn d in drawn)
        {
            html.Append(CultureInfo.InvariantCulture, $"<li class=\"s{d.Series.Style % Styles}\">{Encode(d.Series.Name)} <b>{Short(d.Points[^1].Y)}</b></li>");
        }

        html.Append("</ul>\n");
        AppendValues(html, drawn, xLabel, xLow, xHigh, yLow, yHigh);
        return html.Append("</figure>\n").ToString();
    }

    /// <summary>Axis bounds and values, from which the script finds what lies beneath the pointer.</summary>
    private static void AppendValues(StringBuilder html, Drawn[] drawn, string xLabel, double xLow, double xHigh, double yLow, double yHigh)
    {
        string List(IEnumerable<double> values) => $"[{string.Join(',', values.Select(v => v.ToString("G6", CultureInfo.InvariantCulture)))}]";
        html.Append("<script type=\"application/json\">");
        html.Append(CultureInfo.InvariantCulture, $"{{\"box\":[{Left},{Width - Right},{Top},{Height - Bottom}],\"x\":{List([xLow, xHigh])},\"y\":{List([yLow, yHigh])},\"label\":\"{Json(xLabel)}\",\"series\":[");
        for (int i = 0; i < drawn.Length; i++)
        {
            Drawn d = drawn[i];
            html.Append(i > 0 ? "," : "");
            html.Append(CultureInfo.InvariantCulture, $"{{\"name\":\"{Json(d.Series.Name)}\",\"style\":{d.Series.Style % Styles},\"x\":{List(d.Points.Select(p => p.X))},\"y\":{List(d.Points.Select(p => p.Y))}}}");
        }

        html.Append("]}</script>\n");
    }

    private static Drawn Reduce(ChartSeries series)
    {
        (double X, double Y)[] points = [.. series.Points.Where(p => double.IsFinite(p.X) && double.IsFinite(p.Y))];
        if (points.Length <= MostPoints)
        {
            return new Drawn(series, [.. points], []);
        }

        var reduced = new Drawn(series, [], []);
        for (int i = 0; i < MostPoints; i++)
        {
            int from = (int)((long)i * points.Length / MostPoints), to = (int)((long)(i + 1) * points.Length / MostPoints);
            (double X, double Y)[] span = points[from..to];
            double x = span[^1].X;
            reduced.Points.Add((x, span.Average(p => p.Y)));
            reduced.Range.Add((x, span.Min(p => p.Y), span.Max(p => p.Y)));
        }

        return reduced;
    }

    /// <summary>
    /// Bounds and a round step (1, 2 or 5 times a power of ten) of about five intervals, for a <paramref name="tight"/> axis seven. Bounds are multiples of the step, unless the axis is
    /// tight: then they are the values'.
    /// </summary>
    internal static (double Low, double High, double Step) Axis(IEnumerable<double> values, bool tight)
    {
        (double low, double high) = (double.PositiveInfinity, double.NegativeInfinity);
        foreach (double value in values)
        {
            (low, high) = (Math.Min(low, value), Math.Max(high, value));
        }

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

    private static string Path(IEnumerable<(double X, double Y)> points)
    {
        var path = new StringBuilder();
        foreach ((double x, double y) in points)
        {
            path.Append(path.Length == 0 ? 'M' : 'L').Append(CultureInfo.InvariantCulture, $"{x:0.#} {y:0.#}");
        }

        return path.ToString();
    }

    /// <summary>As many digits as tell neighbouring ticks apart.</summary>
    private static string Label(double value, double step)
    {
        double rounded = Math.Abs(value) < step * 1e-6 ? 0 : value;
        return Math.Abs(rounded) >= 1e5 || step < 1e-4
            ? rounded.ToString("0.##e+0", CultureInfo.InvariantCulture)
            : Math.Round(rounded, 6).ToString("0.######", CultureInfo.InvariantCulture);
    }

    private static string Short(double value) => value.ToString("G4", CultureInfo.InvariantCulture);

    private static string Encode(string text) => WebUtility.HtmlEncode(text);

    // Inside a script element, where the end of the element must not appear.
    private static string Json(string text) => System.Text.Json.JsonEncodedText.Encode(text).ToString();
}
