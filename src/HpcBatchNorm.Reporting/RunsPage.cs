using System.Globalization;
using System.Net;
using System.Text;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Reporting;

/// <summary>The dashboard's first page: all runs, and the curves of those that are chosen in one plot each.</summary>
internal static class RunsPage
{
    /// <summary>How many runs are compared when none is chosen: the newest, one colour each.</summary>
    private const int ComparedAtFirst = ChartDrawing.Styles;

    /// <summary>The content, HTML.</summary>
    /// <param name="runs">All runs with their names in addresses, newest first.</param>
    /// <param name="chosen">Names of those to compare; nothing for the newest.</param>
    /// <param name="bySteps">Steps across instead of epochs.</param>
    /// <param name="unreadable">Runs that cannot be read, and why.</param>
    public static string Main(
        IReadOnlyList<(string Name, RunFolder Run)> runs, IReadOnlyCollection<string> chosen, bool bySteps, IReadOnlyList<(string Name, string Problem)>? unreadable = null)
    {
        string notes = string.Concat((unreadable ?? []).Select(run => $"<p class=\"note\">{Encode(run.Name)} cannot be read: {Encode(run.Problem)}</p>\n"));
        if (runs.Count == 0 && notes.Length > 0)
        {
            return "<h1>Runs</h1>\n" + notes;
        }

        if (runs.Count == 0)
        {
            return "<h1>Runs</h1>\n<p class=\"note\">No run yet. <code>hpcbn train</code> begins one; this page shows it as soon as it is there.</p>\n";
        }

        List<(string Name, RunFolder Run)> compared = [.. chosen.Count > 0 ? runs.Where(r => chosen.Contains(r.Name)) : runs.Take(ComparedAtFirst)];
        var html = new StringBuilder("<h1>Runs</h1>\n<form data-submit>\n<div class=\"scroll\"><table class=\"runs\"><tr><th></th><th class=\"text\">run</th><th class=\"text\">state</th><th>epoch</th><th>step</th><th>training loss</th><th>best top-1 %</th><th>top-5 %</th><th>images/s</th><th>last change</th></tr>\n");
        foreach ((string name, RunFolder run) in runs)
        {
            int style = compared.FindIndex(c => c.Name == name);
            AppendRow(html, name, run, style);
        }

        html.Append("</table></div>\n").Append(notes).Append("<p class=\"screen note\">Tick the runs to compare. Across: ")
            .Append(Radio("epoch", "epochs", !bySteps)).Append(Radio("step", "steps", bySteps))
            .Append("<noscript><button>show</button></noscript></p>\n</form>\n<h2>Compared</h2>\n<div class=\"charts\">\n");
        string across = bySteps ? "step" : "epoch";
        html.Append(Chart("Validation top-1", "% of images", across, compared, r => Points(r.Log.Evaluations, e => X(bySteps, e.Epoch, e.Step), e => 100 * e.Top1)));
        html.Append(Chart("Validation loss", "nats per image", across, compared, r => Points(r.Log.Evaluations, e => X(bySteps, e.Epoch, e.Step), e => e.Loss)));
        html.Append(Chart("Training loss", "nats per image", across, compared, r => Points(r.Log.Train, t => X(bySteps, t.Epoch, t.Step), t => t.Loss)));
        html.Append(Chart("Learning rate", "per step", across, compared, r => Points(r.Log.Train, t => X(bySteps, t.Epoch, t.Step), t => t.LearningRate)));
        html.Append(Chart("Throughput", "images/s, training only", across, compared, r => Points(r.Log.Train, t => X(bySteps, t.Epoch, t.Step), t => t.ImagesPerSecond)));
        html.Append(Chart("Waiting for data", "% of training time", across, compared, r => Points(r.Log.Train, t => X(bySteps, t.Epoch, t.Step), t => 100 * t.DataWaitShare)));
        return html.Append("</div>\n").ToString();
    }

    private static void AppendRow(StringBuilder html, string name, RunFolder run, int style)
    {
        RunLog log = run.Log;
        string colour = style >= 0 ? Invariant($" style=\"accent-color:var(--s{style % ChartDrawing.Styles})\" checked") : "";
        html.Append(Invariant($"<tr{(style < 0 ? " class=\"off\"" : "")}><td><input type=\"checkbox\" name=\"run\" value=\"{Encode(name)}\" aria-label=\"compare {Encode(name)}\"{colour}></td>"));
        html.Append(Invariant($"<td class=\"text\"><a href=\"/run?name={Uri.EscapeDataString(name)}\">{Encode(name)}</a></td><td class=\"text\">{RunPage.Badge(run.State)}</td>"));
        if (log.Train.Count > 0)
        {
            TrainPoint last = log.Train[^1];
            string total = log.Start is { TotalSteps: > 0 } start ? Invariant($" of {start.TotalSteps}") : "";
            html.Append(Invariant($"<td>{last.Epoch:0.##}</td><td>{last.Step}{total}</td><td>{last.Loss:0.000}</td>"));
        }
        else
        {
            html.Append("<td></td><td></td><td></td>");
        }

        html.Append(log.Evaluations.Count > 0 ? Invariant($"<td>{100 * log.Evaluations.Max(e => e.Top1):0.00}</td><td>{100 * log.Evaluations.MaxBy(e => e.Top1).Top5:0.00}</td>") : "<td></td><td></td>");
        html.Append(log.Train.Count > 0 ? Invariant($"<td>{log.Train[^1].ImagesPerSecond:0.0}</td>") : "<td></td>");
        html.Append("<td>").Append(run.Changed.ToString("yyyy-MM-dd HH:mm", CultureInfo.InvariantCulture)).Append("</td></tr>\n");
    }

    private static string Chart(
        string title, string unit, string across, List<(string Name, RunFolder Run)> runs, Func<RunFolder, IReadOnlyList<(double, double)>> points) =>
        LineChart.Render(title, unit, across, [.. runs.Select((r, i) => new ChartSeries(r.Name, points(r.Run), i))]);

    private static (double, double)[] Points<T>(List<T> lines, Func<T, double> x, Func<T, double> y) => [.. lines.Select(l => (x(l), y(l)))];

    private static double X(bool bySteps, double epoch, long step) => bySteps ? step : epoch;

    private static string Radio(string value, string text, bool isChecked) =>
        $"<label><input type=\"radio\" name=\"x\" value=\"{value}\"{(isChecked ? " checked" : "")}> {text}</label> ";

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);

    private static string Encode(string text) => WebUtility.HtmlEncode(text);
}
