using System.Globalization;
using System.Net;
using System.Text;

namespace HpcBatchNorm.Training;

/// <summary>One line of a chart.</summary>
internal sealed record ChartSeries(string Name, IReadOnlyList<(double X, double Y)> Points);

/// <summary>A line chart as inline SVG: axes with round numbers, a legend, nothing to load. Colours come from the page's style sheet.</summary>
internal static class SvgChart
{
    private const int Width = 560, Height = 300, Left = 56, Right = 16, Top = 34, Bottom = 40;

    public static string Render(string title, string xLabel, string yLabel, IReadOnlyList<ChartSeries> series)
    {
        ChartSeries[] drawn = [.. series.Select(s => s with { Points = [.. s.Points.Where(p => double.IsFinite(p.Y))] }).Where(s => s.Points.Count > 0)];
        if (drawn.Length == 0)
        {
            return "";
        }

        (double xLow, double xHigh, double xStep) = Axis(drawn.SelectMany(s => s.Points).Select(p => p.X));
        (double yLow, double yHigh, double yStep) = Axis(drawn.SelectMany(s => s.Points).Select(p => p.Y));
        double X(double x) => Left + (x - xLow) / (xHigh - xLow) * (Width - Left - Right);
        double Y(double y) => Height - Bottom - (y - yLow) / (yHigh - yLow) * (Height - Top - Bottom);

        var svg = new StringBuilder();
        svg.Append(CultureInfo.InvariantCulture, $"<svg viewBox=\"0 0 {Width} {Height}\" role=\"img\" aria-label=\"{WebUtility.HtmlEncode(title)}\">\n");
        svg.Append(CultureInfo.InvariantCulture, $"<text class=\"title\" x=\"{Left}\" y=\"18\">{WebUtility.HtmlEncode(title)}</text>\n");
        for (double y = yLow; y <= yHigh + yStep / 2; y += yStep)
        {
            svg.Append(CultureInfo.InvariantCulture, $"<line class=\"grid\" x1=\"{Left}\" x2=\"{Width - Right}\" y1=\"{Y(y):0.#}\" y2=\"{Y(y):0.#}\"/>");
            svg.Append(CultureInfo.InvariantCulture, $"<text class=\"tick\" text-anchor=\"end\" x=\"{Left - 6}\" y=\"{Y(y) + 4:0.#}\">{Label(y)}</text>\n");
        }

        for (double x = xLow; x <= xHigh + xStep / 2; x += xStep)
        {
            svg.Append(CultureInfo.InvariantCulture, $"<text class=\"tick\" text-anchor=\"middle\" x=\"{X(x):0.#}\" y=\"{Height - Bottom + 16}\">{Label(x)}</text>\n");
        }

        svg.Append(CultureInfo.InvariantCulture, $"<text class=\"tick\" text-anchor=\"end\" x=\"{Width - Right}\" y=\"{Height - 6}\">{WebUtility.HtmlEncode(xLabel)}</text>\n");
        svg.Append(CultureInfo.InvariantCulture, $"<text class=\"tick\" text-anchor=\"end\" x=\"{Width - Right}\" y=\"18\">{WebUtility.HtmlEncode(yLabel)}</text>\n");
        int legend = Left + 10;
        for (int i = 0; i < drawn.Length; i++)
        {
            IEnumerable<string> points = drawn[i].Points.Select(p => string.Create(CultureInfo.InvariantCulture, $"{X(p.X):0.#},{Y(p.Y):0.#}"));
            svg.Append(CultureInfo.InvariantCulture, $"<polyline class=\"series s{i}\" points=\"{string.Join(' ', points)}\"/>\n");
            if (drawn[i].Points.Count <= 40)
            {
                foreach ((double x, double y) in drawn[i].Points)
                {
                    svg.Append(CultureInfo.InvariantCulture, $"<circle class=\"dot s{i}\" cx=\"{X(x):0.#}\" cy=\"{Y(y):0.#}\" r=\"2.5\"><title>{Label(x)}: {y:0.####}</title></circle>");
                }
            }

            svg.Append(CultureInfo.InvariantCulture, $"<text class=\"legend s{i}\" x=\"{legend}\" y=\"{Height - 6}\">{WebUtility.HtmlEncode(drawn[i].Name)}</text>\n");
            legend += 8 * drawn[i].Name.Length + 18;
        }

        return svg.Append("</svg>\n").ToString();
    }

    /// <summary>Bounds at multiples of a round step (1, 2 or 5 times a power of ten) that give about five intervals.</summary>
    private static (double Low, double High, double Step) Axis(IEnumerable<double> values)
    {
        double[] all = [.. values];
        double low = all.Min(), high = all.Max();
        double span = high > low ? high - low : Math.Max(Math.Abs(high), 1) * 0.1;
        double power = Math.Pow(10, Math.Floor(Math.Log10(span / 5)));
        double step = power * (span / 5 / power) switch { <= 1 => 1, <= 2 => 2, <= 5 => 5, _ => 10 };
        low = Math.Floor(low / step) * step;
        high = Math.Ceiling(high / step) * step;
        return (low, high > low ? high : low + step, step);
    }

    private static string Label(double value) =>
        (Math.Abs(value) >= 1e4 ? value.ToString("0.##e+0", CultureInfo.InvariantCulture) : Math.Round(value, 6).ToString("0.####", CultureInfo.InvariantCulture));
}
