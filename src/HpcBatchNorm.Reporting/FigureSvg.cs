using System.Globalization;
using System.Net;
using System.Text;

namespace HpcBatchNorm.Reporting;

/// <summary>
/// A chart as a file of its own, to be looked at by itself or set into a text: title, both axes' names, legend and style within the SVG. Drawn by
/// <see cref="ChartDrawing"/>, like the charts of pages.
/// </summary>
internal static class FigureSvg
{
    private const int Width = 720, PlotHeight = 330, Left = 70, Right = 32, Top = 46, BelowPlot = 50, LegendRow = 21, LegendLine = 30;

    // About the mean advance of a sans-serif letter at the legend's size.
    private const double LetterWidth = 7.6;

    private static readonly Lazy<string> Style = new(() => WebPage.Resource("figure.css"));

    /// <summary>The document.</summary>
    public static string Render(ChartContent content)
    {
        List<(double X, int Row, ChartSeries Series)> legend = LayOutLegend(content.Series);
        int rows = legend.Count == 0 ? 0 : legend[^1].Row + 1;
        int height = Top + PlotHeight + BelowPlot + rows * LegendRow + 8;
        var box = new ChartBox(Width, height, Left, Right, Top, height - Top - PlotHeight);
        var drawing = new ChartDrawing(content, box);
        var svg = new StringBuilder();
        svg.Append(CultureInfo.InvariantCulture, $"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {Width} {height}\" width=\"{Width}\" height=\"{height}\" role=\"img\">\n");
        svg.Append("<title>").Append(Encode(content.Title)).Append("</title>\n<style>\n").Append(Style.Value).Append("</style>\n");
        svg.Append(CultureInfo.InvariantCulture, $"<rect class=\"back\" width=\"{Width}\" height=\"{height}\"/>\n");
        svg.Append(CultureInfo.InvariantCulture, $"<text class=\"title\" x=\"{Left}\" y=\"26\">{Encode(content.Title)}</text>\n");
        if (drawing.Lines.Count > 0)
        {
            drawing.AppendAxes(svg, clear: 0);
            drawing.AppendLines(svg);
        }

        svg.Append(CultureInfo.InvariantCulture, $"<path class=\"frame\" d=\"M{Left} {Top}V{Top + PlotHeight}H{Width - Right}\"/>\n");
        svg.Append(CultureInfo.InvariantCulture, $"<text text-anchor=\"middle\" x=\"{(Left + Width - Right) / 2}\" y=\"{Top + PlotHeight + 40}\">{Encode(content.XLabel)}</text>\n");
        int middle = Top + PlotHeight / 2;
        svg.Append(CultureInfo.InvariantCulture, $"<text text-anchor=\"middle\" x=\"18\" y=\"{middle}\" transform=\"rotate(-90 18 {middle})\">{Encode(content.Unit)}</text>\n");
        foreach ((double x, int row, ChartSeries series) in legend)
        {
            int y = Top + PlotHeight + BelowPlot + row * LegendRow + 10;
            string dashes = series.Dashed ? " dash" : "";
            svg.Append(CultureInfo.InvariantCulture, $"<path class=\"line s{series.Style % ChartDrawing.Styles}{dashes}\" d=\"M{x:0.#} {y}h{LegendLine - 8}\"/>");
            svg.Append(CultureInfo.InvariantCulture, $"<text x=\"{x + LegendLine:0.#}\" y=\"{y + 4}\">{Encode(series.Name)}</text>\n");
        }

        return svg.Append("</svg>\n").ToString();
    }

    /// <summary>Entries one after the other, in as many rows as they need.</summary>
    private static List<(double X, int Row, ChartSeries Series)> LayOutLegend(IReadOnlyList<ChartSeries> series)
    {
        List<(double, int, ChartSeries)> places = [];
        (double x, int row) = (Left, 0);
        foreach (ChartSeries entry in series)
        {
            double width = LegendLine + entry.Name.Length * LetterWidth + 18;
            if (x > Left && x + width > Width - Right + 30)
            {
                (x, row) = (Left, row + 1);
            }

            places.Add((x, row, entry));
            x += width;
        }

        return places;
    }

    private static string Encode(string text) => WebUtility.HtmlEncode(text);
}
