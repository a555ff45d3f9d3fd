using System.Globalization;
using System.Net;
using System.Text;

namespace HpcBatchNorm.Reporting;

/// <summary>
/// A line chart of a page as inline SVG: axes with round numbers, units, a legend, a table of its values for the page's script to show beneath the
/// pointer. Colours come from the page's style sheet.
/// </summary>
internal static class LineChart
{
    private static readonly ChartBox Box = new(Width: 460, Height: 270, Left: 58, Right: 14, Top: 10, Bottom: 26);

    /// <summary>The chart as a <c>figure</c> element; a note instead of a drawing when no series has a point.</summary>
    public static string Render(string title, string unit, string xLabel, IReadOnlyList<ChartSeries> series) =>
        Render(new ChartContent(title, unit, xLabel, series));

    /// <inheritdoc cref="Render(string, string, string, IReadOnlyList{ChartSeries})"/>
    public static string Render(ChartContent content)
    {
        var drawing = new ChartDrawing(content, Box);
        var html = new StringBuilder();
        html.Append("<figure class=\"chart\"><figcaption><b>").Append(Encode(content.Title)).Append("</b> <span>").Append(Encode(content.Unit)).Append("</span></figcaption>\n");
        if (drawing.Lines.Count == 0)
        {
            return html.Append("<p class=\"none\">nothing yet</p></figure>\n").ToString();
        }

        html.Append(CultureInfo.InvariantCulture, $"<div class=\"plot\"><svg viewBox=\"0 0 {Box.Width} {Box.Height}\" role=\"img\" aria-label=\"{Encode(content.Title)}, {Encode(content.Unit)}, by {Encode(content.XLabel)}\">\n");
        // The axis' name stands at the right end of the line of its ticks.
        drawing.AppendAxes(html, clear: Box.Right + 7 * content.XLabel.Length + 12);
        html.Append(CultureInfo.InvariantCulture, $"<text text-anchor=\"end\" x=\"{Box.Width - Box.Right}\" y=\"{Box.Height - 8}\">{Encode(content.XLabel)}</text>\n");
        drawing.AppendLines(html);
        html.Append("</svg></div>\n<ul class=\"legend\">");
        foreach (ChartDrawing.Line line in drawing.Lines)
        {
            html.Append(CultureInfo.InvariantCulture, $"<li class=\"s{line.Style}{(line.Series.Dashed ? " dash" : "")}\">{Encode(line.Series.Name)} <b>{Short(line.Points[^1].Y)}</b></li>");
        }

        html.Append("</ul>\n");
        AppendValues(html, drawing, content.XLabel);
        return html.Append("</figure>\n").ToString();
    }

    /// <summary>Axis bounds and values, from which the script finds what lies beneath the pointer.</summary>
    private static void AppendValues(StringBuilder html, ChartDrawing drawing, string xLabel)
    {
        string List(IEnumerable<double> values) => $"[{string.Join(',', values.Select(v => v.ToString("G6", CultureInfo.InvariantCulture)))}]";
        html.Append("<script type=\"application/json\">");
        html.Append(CultureInfo.InvariantCulture, $"{{\"box\":[{Box.Left},{Box.Width - Box.Right},{Box.Top},{Box.Height - Box.Bottom}],\"x\":{List([drawing.X.Low, drawing.X.High])},\"y\":{List([drawing.Y.Low, drawing.Y.High])},\"log\":{(drawing.X.Logarithmic ? "true" : "false")},\"label\":\"{Json(xLabel)}\",\"series\":[");
        for (int i = 0; i < drawing.Lines.Count; i++)
        {
            ChartDrawing.Line line = drawing.Lines[i];
            html.Append(i > 0 ? "," : "");
            html.Append(CultureInfo.InvariantCulture, $"{{\"name\":\"{Json(line.Series.Name)}\",\"style\":{line.Style},\"x\":{List(line.Points.Select(p => p.X))},\"y\":{List(line.Points.Select(p => p.Y))}}}");
        }

        html.Append("]}</script>\n");
    }

    private static string Short(double value) => value.ToString("G4", CultureInfo.InvariantCulture);

    private static string Encode(string text) => WebUtility.HtmlEncode(text);

    // Inside a script element, where the end of the element must not appear.
    private static string Json(string text) => System.Text.Json.JsonEncodedText.Encode(text).ToString();
}
