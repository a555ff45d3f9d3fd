using System.Globalization;
using System.Net;
using System.Text;

namespace HpcBatchNorm.Reporting;

/// <summary>One line of a chart. Points are ordered by X.</summary>
/// <param name="Name">What the legend says.</param>
/// <param name="Points">The points; those that an axis cannot show are left out.</param>
/// <param name="Style">Number of its colour, the same in all charts of a page.</param>
/// <param name="Dashed">Drawn with gaps.</param>
internal sealed record ChartSeries(string Name, IReadOnlyList<(double X, double Y)> Points, int Style = 0, bool Dashed = false);

/// <summary>A value to compare with: a vertical line at X, a horizontal one at Y, or a point when both are given.</summary>
internal sealed record ChartMark(string Label, double? X, double? Y, int? Style = null);

/// <summary>What a chart shows.</summary>
internal sealed record ChartContent(string Title, string Unit, string XLabel, IReadOnlyList<ChartSeries> Series)
{
    public IReadOnlyList<ChartMark> Marks { get; init; } = [];

    public IReadOnlyList<double> Including { get; init; } = [];

    public bool LogarithmicX { get; init; }

    public bool LogarithmicY { get; init; }
}

/// <summary>Where in a drawing the lines go, in its own units.</summary>
internal readonly record struct ChartBox(int Width, int Height, int Left, int Right, int Top, int Bottom);

/// <summary>
/// The inside of every chart as SVG: grid, ticks, marks, lines. Colours come from a style sheet: the page's, or the one within a figure's file. Long
/// series are drawn as the mean of each of <see cref="MostPoints"/> spans, with the range from the smallest to the largest value behind it, so that no
/// spike is lost.
/// </summary>
internal sealed class ChartDrawing
{
    /// <summary>More than a chart has columns of pixels.</summary>
    public const int MostPoints = 400;

    /// <summary>Colours that the style sheets have.</summary>
    public const int Styles = 8;

    private const int MostCircles = 30;

    private readonly ChartBox _box;
    private readonly ChartContent _content;

    /// <summary>A series as it is drawn.</summary>
    public sealed record Line(ChartSeries Series, List<(double X, double Y)> Points, List<(double X, double Low, double High)> Range)
    {
        public int Style => Series.Style % Styles;
    }

    /// <summary>Lays out a chart; <see cref="Lines"/> is empty when no series has a point, and nothing else may be asked then.</summary>
    public ChartDrawing(ChartContent content, ChartBox box)
    {
        (_content, _box) = (content, box);
        Lines = [.. content.Series.Select(s => Reduce(s, content.LogarithmicX, content.LogarithmicY)).Where(d => d.Points.Count > 0)];
        if (Lines.Count == 0)
        {
            return;
        }

        X = ChartAxis.Around(
            Lines.SelectMany(d => d.Points).Select(p => p.X).Concat(Shown(content.Marks.Select(m => m.X), content.LogarithmicX)), tight: true, content.LogarithmicX);
        Y = ChartAxis.Around(
            Lines.SelectMany(d => d.Points.Select(p => p.Y).Concat(d.Range.SelectMany(r => new[] { r.Low, r.High })))
                .Concat(Shown(content.Marks.Select(m => m.Y), content.LogarithmicY)).Concat(content.Including),
            tight: false, content.LogarithmicY);
    }

    /// <summary>The series that have points.</summary>
    public IReadOnlyList<Line> Lines { get; }

    /// <summary>The horizontal axis.</summary>
    public ChartAxis X { get; } = null!;

    /// <summary>The vertical axis.</summary>
    public ChartAxis Y { get; } = null!;

    private double Across(double x) => _box.Left + X.At(x) * (_box.Width - _box.Left - _box.Right);

    private double Up(double y) => _box.Height - _box.Bottom - Y.At(y) * (_box.Height - _box.Top - _box.Bottom);

    /// <summary>Grid lines and the labels of both axes' ticks; those of X end <paramref name="clear"/> before the right edge.</summary>
    public void AppendAxes(StringBuilder svg, int clear)
    {
        foreach ((double y, string label) in Y.Ticks)
        {
            svg.Append(CultureInfo.InvariantCulture, $"<path class=\"grid\" d=\"M{_box.Left} {Up(y):0.#}H{_box.Width - _box.Right}\"/>");
            svg.Append(CultureInfo.InvariantCulture, $"<text text-anchor=\"end\" x=\"{_box.Left - 6}\" y=\"{Up(y) + 4:0.#}\">{label}</text>\n");
        }

        foreach ((double x, string label) in X.Ticks.Where(t => Across(t.Value) < _box.Width - clear))
        {
            svg.Append(CultureInfo.InvariantCulture, $"<text text-anchor=\"middle\" x=\"{Across(x):0.#}\" y=\"{_box.Height - _box.Bottom + 18}\">{label}</text>\n");
        }
    }

    /// <summary>Lines, points and marks.</summary>
    public void AppendLines(StringBuilder svg)
    {
        foreach (ChartMark mark in _content.Marks.Where(m => m.X is null || m.Y is null))
        {
            AppendReference(svg, mark);
        }

        foreach (Line line in Lines)
        {
            if (line.Range.Count > 0)
            {
                string upper = Path(line.Range.Select(r => (Across(r.X), Up(r.High))));
                string lower = Path(line.Range.AsEnumerable().Reverse().Select(r => (Across(r.X), Up(r.Low))));
                svg.Append(CultureInfo.InvariantCulture, $"<path class=\"range s{line.Style}\" d=\"{upper}L{lower[1..]}Z\"/>\n");
            }

            string dashes = line.Series.Dashed ? " dash" : "";
            svg.Append(CultureInfo.InvariantCulture, $"<path class=\"line s{line.Style}{dashes}\" d=\"{Path(line.Points.Select(p => (Across(p.X), Up(p.Y))))}\"/>\n");
            if (line.Points.Count <= MostCircles)
            {
                foreach ((double x, double y) in line.Points)
                {
                    svg.Append(CultureInfo.InvariantCulture, $"<circle class=\"s{line.Style}\" cx=\"{Across(x):0.#}\" cy=\"{Up(y):0.#}\" r=\"2.6\"/>");
                }
            }
        }

        foreach (ChartMark mark in _content.Marks.Where(m => m.X is not null && m.Y is not null))
        {
            (double x, double y) = (Across(mark.X!.Value), Up(mark.Y!.Value));
            string style = mark.Style is int s ? FormattableString.Invariant($"s{s % Styles}") : "ink";
            svg.Append(CultureInfo.InvariantCulture, $"<path class=\"point {style}\" d=\"M{x:0.#} {y - 6:0.#}l6 6l-6 6l-6 -6Z\"/>");
        }

        foreach (ChartMark mark in _content.Marks)
        {
            AppendLabel(svg, mark);
        }
    }

    private void AppendReference(StringBuilder svg, ChartMark mark)
    {
        if (mark.Y is double level)
        {
            svg.Append(CultureInfo.InvariantCulture, $"<path class=\"mark\" d=\"M{_box.Left} {Up(level):0.#}H{_box.Width - _box.Right}\"/>\n");
        }
        else if (mark.X is double place)
        {
            svg.Append(CultureInfo.InvariantCulture, $"<path class=\"mark\" d=\"M{Across(place):0.#} {_box.Top}V{_box.Height - _box.Bottom}\"/>\n");
        }
    }

    /// <summary>After the lines, so that none crosses it.</summary>
    private void AppendLabel(StringBuilder svg, ChartMark mark)
    {
        double x = mark.X is double place ? Across(place) : _box.Width - _box.Right, y = mark.Y is double level ? Up(level) : _box.Top;
        bool left = x > _box.Width * 0.7;
        (int aside, int below) = mark switch { { X: null } => (4, -5), { Y: null } => (5, 12), _ => (9, 14) };
        svg.Append(CultureInfo.InvariantCulture, $"<text class=\"marked\" text-anchor=\"{(left ? "end" : "start")}\" x=\"{x + (left ? -aside : aside):0.#}\" y=\"{y + below:0.#}\">{WebUtility.HtmlEncode(mark.Label)}</text>\n");
    }

    private static IEnumerable<double> Shown(IEnumerable<double?> values, bool logarithmic) =>
        values.Where(v => v is double value && ChartAxis.CanShow(value, logarithmic)).Select(v => v!.Value);

    private static Line Reduce(ChartSeries series, bool logarithmicX, bool logarithmicY)
    {
        (double X, double Y)[] points = [.. series.Points.Where(p => ChartAxis.CanShow(p.X, logarithmicX) && ChartAxis.CanShow(p.Y, logarithmicY))];
        if (points.Length <= MostPoints)
        {
            return new Line(series, [.. points], []);
        }

        var reduced = new Line(series, [], []);
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

    private static string Path(IEnumerable<(double X, double Y)> points)
    {
        var path = new StringBuilder();
        foreach ((double x, double y) in points)
        {
            path.Append(path.Length == 0 ? 'M' : 'L').Append(CultureInfo.InvariantCulture, $"{x:0.#} {y:0.#}");
        }

        return path.ToString();
    }
}
