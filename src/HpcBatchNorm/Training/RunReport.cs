using System.Globalization;
using System.Net;
using System.Text;
using System.Text.Json;
using HpcBatchNorm.Interchange;

namespace HpcBatchNorm.Training;

/// <summary>
/// <c>report.html</c>: one self-contained page with the curves of a run, its results and its configuration, made from <c>metrics.jsonl</c> alone so
/// that it can be made again at any time.
/// </summary>
internal static class RunReport
{
    private const string Style = """
        :root { color-scheme: light dark; --ink: #1c2430; --soft: #667; --paper: #fdfdfb; --rule: #dde; --a: #1769aa; --b: #c4501b; --c: #2c8a4b; }
        @media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --soft: #9aa; --paper: #14181e; --rule: #2c333d; --a: #6cb2eb; --b: #f0915c; --c: #6fcf8e; } }
        body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
        h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem } .sub { color: var(--soft); margin: 0 0 1.5rem }
        .cards { display: flex; flex-wrap: wrap; gap: .75rem } .card { border: 1px solid var(--rule); border-radius: 8px; padding: .6rem 1rem; min-width: 8.5rem }
        .card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums } .card span { color: var(--soft); font-size: .85rem }
        .charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1rem; margin-top: 1.5rem }
        svg { width: 100%; height: auto; border: 1px solid var(--rule); border-radius: 8px } text { font: 12px system-ui, sans-serif; fill: var(--soft) }
        .title { font-weight: 600; font-size: 14px; fill: var(--ink) } .grid { stroke: var(--rule) } .series { fill: none; stroke-width: 1.8 }
        polyline.s0 { stroke: var(--a) } polyline.s1 { stroke: var(--b) } polyline.s2 { stroke: var(--c) }
        text.s0, circle.s0 { fill: var(--a) } text.s1, circle.s1 { fill: var(--b) } text.s2, circle.s2 { fill: var(--c) }
        table { border-collapse: collapse; font-variant-numeric: tabular-nums } td, th { padding: .25rem .8rem; border-bottom: 1px solid var(--rule); text-align: right }
        td:first-child, th:first-child { text-align: left } pre { border: 1px solid var(--rule); border-radius: 8px; padding: 1rem; overflow-x: auto; font-size: 13px }
        """;

    private sealed record Line(
        double Epoch, double Step, double Loss, double ValLoss, double Top1, double Top5, double Images, double ImagesPerSecond, double DataWait, double Memory);

    public static void Write(string path, string metricsPath, string title, IReadOnlyList<(string Name, string Value)> facts, string config)
    {
        (List<Line> train, List<Line> evals) = ReadMetrics(metricsPath);
        var html = new StringBuilder();
        html.Append("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        html.Append("<title>").Append(Encode(title)).Append("</title>\n<style>\n").Append(Style).Append("\n</style></head><body>\n<h1>").Append(Encode(title)).Append("</h1>\n");
        AppendHeadline(html, train, evals);
        html.Append("<div class=\"charts\">\n");
        html.Append(SvgChart.Render("Loss", "epoch", "nats per image", [Series("training", train, l => l.Loss), Series("validation", evals, l => l.ValLoss)]));
        html.Append(SvgChart.Render("Validation accuracy", "epoch", "%", [Series("top-1", evals, l => 100 * l.Top1), Series("top-5", evals, l => 100 * l.Top5)]));
        html.Append(SvgChart.Render("Training throughput", "epoch", "images/s", [Series("images/s", train, l => l.ImagesPerSecond)]));
        html.Append(SvgChart.Render("Waiting for images", "epoch", "% of training time", [Series("data wait", train, l => 100 * l.DataWait)]));
        html.Append("</div>\n");
        AppendEvaluations(html, evals);
        html.Append("<h2>Run</h2>\n<table>\n");
        foreach ((string name, string value) in facts)
        {
            html.Append("<tr><td>").Append(Encode(name)).Append("</td><td style=\"text-align:left\">").Append(Encode(value)).Append("</td></tr>\n");
        }

        html.Append("</table>\n<h2>Configuration</h2>\n<pre>").Append(Encode(config)).Append("</pre>\n</body></html>\n");
        AtomicFile.ReplaceText(path, html.ToString());
    }

    private static void AppendHeadline(StringBuilder html, List<Line> train, List<Line> evals)
    {
        html.Append(CultureInfo.InvariantCulture, $"<p class=\"sub\">{train.LastOrDefault()?.Step ?? 0:0} steps, {train.LastOrDefault()?.Epoch ?? 0:0.##} epochs</p>\n<div class=\"cards\">\n");
        if (evals.Count > 0)
        {
            Line best = evals.MaxBy(l => l.Top1)!;
            Card(html, "best top-1", Invariant($"{100 * best.Top1:0.00} %"));
            Card(html, "its top-5", Invariant($"{100 * best.Top5:0.00} %"));
            Card(html, "at epoch", Invariant($"{best.Epoch:0.##}"));
        }

        if (train.Count > 0)
        {
            Card(html, "last training loss", Invariant($"{train[^1].Loss:0.0000}"));
            Card(html, "images/s, median", Invariant($"{train.Select(l => l.ImagesPerSecond).Order().ElementAt(train.Count / 2):0.0}"));
            Card(html, "peak memory", Invariant($"{train.Max(l => l.Memory):0} MB"));
        }

        html.Append("</div>\n");
    }

    private static void AppendEvaluations(StringBuilder html, List<Line> evals)
    {
        if (evals.Count == 0)
        {
            return;
        }

        html.Append("<h2>Evaluations</h2>\n<table><tr><th>epoch</th><th>step</th><th>loss</th><th>top-1 %</th><th>top-5 %</th><th>images</th></tr>\n");
        foreach (Line line in evals)
        {
            html.Append(CultureInfo.InvariantCulture,
                $"<tr><td>{line.Epoch:0.##}</td><td>{line.Step:0}</td><td>{line.ValLoss:0.0000}</td><td>{100 * line.Top1:0.00}</td><td>{100 * line.Top5:0.00}</td><td>{line.Images:0}</td></tr>\n");
        }

        html.Append("</table>\n");
    }

    private static (List<Line> Train, List<Line> Evals) ReadMetrics(string path)
    {
        List<Line> train = [], evals = [];
        foreach (string text in File.ReadLines(path))
        {
            using JsonDocument document = JsonDocument.Parse(text);
            JsonElement root = document.RootElement;
            double Number(string name) =>
                root.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.Number ? value.GetDouble() : double.NaN;
            var line = new Line(
                Number("epoch"), Number("step"), Number("loss"), Number("val_loss"), Number("val_top1"), Number("val_top5"), Number("images"),
                Number("images_per_second"), Number("data_wait_share"), Number("peak_memory_mb"));
            switch (root.GetProperty("type").GetString())
            {
                case "train":
                    train.Add(line);
                    break;
                case "eval":
                    evals.Add(line);
                    break;
            }
        }

        return (train, evals);
    }

    /// <summary>At most 500 points, which is more than the picture can show.</summary>
    private static ChartSeries Series(string name, List<Line> lines, Func<Line, double> value)
    {
        int stride = Math.Max(1, lines.Count / 500);
        return new ChartSeries(name, [.. lines.Where((_, i) => i % stride == 0 || i == lines.Count - 1).Select(l => (l.Epoch, value(l)))]);
    }

    private static void Card(StringBuilder html, string label, string value) =>
        html.Append("<div class=\"card\"><b>").Append(value).Append("</b><span>").Append(label).Append("</span></div>\n");

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);

    private static string Encode(string text) => WebUtility.HtmlEncode(text);
}
