using System.Net;
using System.Text;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Reporting;

/// <summary>The part of a run's page that shows which layer's input distributions move: a row per layer, a cell per evaluation.</summary>
internal static class DriftSection
{
    private const int MostColumns = 60, MostRows = 1000;

    // Shifts are shown on a logarithmic scale from the first to the second, in standard deviations.
    private const double Least = 0.003, Most = 1;

    private const double Notable = 0.3;

    public static void Append(StringBuilder html, IReadOnlyList<DriftPoint> all)
    {
        if (all.Count == 0)
        {
            return;
        }

        html.Append("<h2>Drift of the batch normalization statistics</h2>\n");
        DriftPoint[] measured = [.. all.Where(d => d.Layers.Count > 0 && double.IsFinite(d.Layers[0].Shift))];
        if (measured.Length == 0)
        {
            html.Append("<p class=\"note\">Drift is measured from one evaluation to the next; there has been one so far.</p>\n");
            return;
        }

        html.Append("<p class=\"note\">How far the distribution of each layer's input moved between evaluations, in standard deviations (median over the channels; the paper's internal covariate shift). ")
            .Append("Early movement is learning. A layer that keeps moving when the learning rate is small has statistics that evaluation cannot trust: a smaller learning rate, a larger averaging factor or <code>hpcbn recalibrate</code> helps.</p>\n");
        html.Append("<div class=\"charts\">\n").Append(LineChart.Render("Shift per evaluation", "standard deviations", "epoch",
        [
            new ChartSeries("median layer", [.. measured.Select(d => (d.Epoch, d.Layers.Select(l => l.Shift).Order().ElementAt(d.Layers.Count / 2)))], 0),
            new ChartSeries("layer that moved most", [.. measured.Select(d => (d.Epoch, d.Layers.Max(l => l.Shift)))], 1),
        ]));
        AppendWorst(html, measured[^1]);
        html.Append("</div>\n<div class=\"key\">").Append(Invariant($"{Least}")).Append("<div>");
        for (int i = 0; i <= 20; i++)
        {
            html.Append(Invariant($"<i style=\"--v:{5 * i}%\"></i>"));
        }

        html.Append("</div>").Append(Invariant($"{Most} standard deviation")).Append("</div>\n<div class=\"heat\">\n");
        AppendRows(html, measured);
        html.Append("</div>\n");
    }

    private static void AppendWorst(StringBuilder html, DriftPoint last)
    {
        html.Append("<figure class=\"chart wide\"><figcaption><b>Moved most at the last evaluation</b> <span>")
            .Append(Invariant($"since step {last.SinceStep}")).Append("</span></figcaption>\n<div class=\"scroll\"><table class=\"narrow\"><tr><th class=\"text\">layer</th><th>shift</th><th>largest</th><th>quiet</th></tr>\n");
        foreach (LayerDrift layer in last.Layers.OrderByDescending(l => l.Shift).Take(7))
        {
            html.Append(Invariant($"<tr><td class=\"text\">{Encode(Short(layer.Layer))}</td><td>{layer.Shift:0.000}</td><td>{layer.LargestShift:0.00}</td><td>{layer.QuietChannels} of {layer.Channels}</td></tr>\n"));
        }

        long quiet = last.Layers.Sum(l => (long)l.QuietChannels), notable = last.Layers.Count(l => l.Shift > Notable);
        html.Append("</table></div>\n<p class=\"note\">").Append(Invariant($"{notable} of {last.Layers.Count} layers moved more than {Notable}; {quiet} channels are quiet (their input does not depend on the image).</p></figure>\n"));
    }

    private static void AppendRows(StringBuilder html, DriftPoint[] measured)
    {
        int columns = Math.Min(MostColumns, measured.Length);
        for (int row = 0; row < Math.Min(MostRows, measured[^1].Layers.Count); row++)
        {
            string name = measured[^1].Layers[row].Layer;
            html.Append(Invariant($"<div><span title=\"{Encode(name)}\">{Encode(Short(name))}</span><p>"));
            for (int column = 0; column < columns; column++)
            {
                int from = column * measured.Length / columns, to = (column + 1) * measured.Length / columns;
                DriftPoint most = measured[from..to].Where(d => row < d.Layers.Count).MaxBy(d => d.Layers[row].Shift) ?? measured[^1];
                double shift = most.Layers[row].Shift;
                double share = Math.Clamp(Math.Log(Math.Max(shift, Least) / Least) / Math.Log(Most / Least), 0, 1);
                html.Append(Invariant($"<i style=\"--v:{100 * share:0}%\" title=\"epoch {most.Epoch:0.##}: {shift:0.000}\"></i>"));
            }

            html.Append(Invariant($"</p><em>{measured[^1].Layers[row].Shift:0.000}</em></div>\n"));
        }
    }

    /// <summary>Every layer here is a batch normalization; its name need not say so.</summary>
    private static string Short(string layer) => layer.EndsWith("/bn", StringComparison.Ordinal) ? layer[..^3] : layer;

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);

    private static string Encode(string text) => WebUtility.HtmlEncode(text);
}
