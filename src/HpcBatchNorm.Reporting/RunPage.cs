using System.Globalization;
using System.Net;
using System.Text;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Reporting;

/// <summary>
/// The page of one run, made from its folder alone: <c>report.html</c>, and what the dashboard serves while the run goes on.
/// </summary>
internal static class RunPage
{
    /// <summary>The title, plain text.</summary>
    public static string Title(RunFolder run) => run.Log.Start?.Title is { Length: > 0 } title ? $"{title}: {run.Name}" : run.Name;

    /// <summary>The content, HTML.</summary>
    public static string Main(RunFolder run)
    {
        RunLog log = run.Log;
        string config = run.Config;
        var html = new StringBuilder();
        AppendHead(html, run);
        AppendCards(html, run);
        AppendCharts(html, log);
        DriftSection.Append(html, log.Drift);
        PredictionSection.Append(html, run.Predictions);
        AppendEvaluations(html, log.Evaluations);
        AppendRun(html, run, config);
        return html.ToString();
    }

    /// <summary>The state of a run in words for people.</summary>
    public static string Describe(string state) => state switch
    {
        "running" => "running",
        "completed" => "complete",
        "interrupted" => "stopped, can go on",
        "time_limit" => "time limit reached, can go on",
        "stopped_early" => "stopped early",
        "loss_not_finite" => "diverged: loss not finite",
        "killed" => "ended without a word",
        _ => state,
    };

    /// <summary>The badge that says so.</summary>
    public static string Badge(string state) => $"<span class=\"state {Encode(state)}\">{Encode(Describe(state))}</span>";

    private static void AppendHead(StringBuilder html, RunFolder run)
    {
        RunLog log = run.Log;
        html.Append("<h1>").Append(Encode(log.Start?.Title is { Length: > 0 } title ? title : run.Name)).Append(' ').Append(Badge(run.State)).Append("</h1>\n<p class=\"sub\">").Append(Encode(run.Name));
        if (log.Train.Count > 0)
        {
            TrainPoint last = log.Train[^1];
            html.Append(Invariant($" · epoch {last.Epoch:0.##} · step {last.Step}"));
            if (log.Start is { TotalSteps: > 0 } start)
            {
                html.Append(Invariant($" of {start.TotalSteps}"));
                if (run.State == "running" && Remaining(log) is TimeSpan remaining)
                {
                    html.Append(" · about ").Append(Clock(remaining)).Append(" left");
                }

                html.Append(Invariant($"</p>\n<progress max=\"{start.TotalSteps}\" value=\"{last.Step}\" aria-label=\"steps done\"></progress>\n"));
                AppendSkipped(html, log);
                return;
            }
        }

        html.Append("</p>\n");
        AppendSkipped(html, log);
    }

    private static void AppendSkipped(StringBuilder html, RunLog log)
    {
        if (log.Skipped > 0)
        {
            html.Append(Invariant($"<p class=\"note\">The run's metrics.jsonl is long; its first {log.Skipped / 1e6:0} MB are not shown.</p>\n"));
        }
    }

    private static void AppendCards(StringBuilder html, RunFolder run)
    {
        RunLog log = run.Log;
        html.Append("<div class=\"cards\">\n");
        if (log.Evaluations.Count > 0)
        {
            EvaluationPoint best = log.Evaluations.MaxBy(e => e.Top1);
            Card(html, "best top-1", Invariant($"{100 * best.Top1:0.00} %"));
            Card(html, "its error", Invariant($"{100 * (1 - best.Top1):0.00} %"));
            Card(html, "its top-5", Invariant($"{100 * best.Top5:0.00} %"));
            Card(html, "at epoch", Invariant($"{best.Epoch:0.##}"));
        }

        if (log.Train.Count > 0)
        {
            Card(html, "training loss, last", Invariant($"{log.Train[^1].Loss:0.000}"));
            Card(html, "images/s, median", Invariant($"{log.Train.Select(t => t.ImagesPerSecond).Order().ElementAt(log.Train.Count / 2):0.0}"));
            Card(html, "waiting for data", Invariant($"{100 * log.Train.Average(t => t.DataWaitShare):0.0} %"));
            Card(html, "peak memory", Invariant($"{log.Train.Max(t => t.PeakMemoryMb):0} MB"));
        }

        html.Append("</div>\n");
    }

    private static void AppendCharts(StringBuilder html, RunLog log)
    {
        const string Epoch = "epoch";
        html.Append("<h2>Curves</h2>\n<div class=\"charts\">\n");
        html.Append(LineChart.Render("Loss", "nats per image", Epoch,
            [new ChartSeries("training", Points(log.Train, t => t.Loss), 0), new ChartSeries("validation", Points(log.Evaluations, e => e.Loss), 1)]));
        html.Append(LineChart.Render("Validation accuracy", "% of images", Epoch,
            [new ChartSeries("top-1", Points(log.Evaluations, e => 100 * e.Top1), 0), new ChartSeries("top-5", Points(log.Evaluations, e => 100 * e.Top5), 1)]));
        html.Append(LineChart.Render("Learning rate", "per step", Epoch, [new ChartSeries("learning rate", Points(log.Train, t => t.LearningRate), 2)]));
        html.Append(LineChart.Render("Throughput", "images/s, training only", Epoch, [new ChartSeries("images/s", Points(log.Train, t => t.ImagesPerSecond), 3)]));
        html.Append(LineChart.Render("Waiting for data", "% of training time", Epoch, [new ChartSeries("data wait", Points(log.Train, t => 100 * t.DataWaitShare), 4)]));
        html.Append(LineChart.Render("Peak memory", "MB, resident", Epoch, [new ChartSeries("peak memory", Points(log.Train, t => t.PeakMemoryMb), 6)]));
        html.Append("</div>\n");
    }

    private static void AppendEvaluations(StringBuilder html, List<EvaluationPoint> evaluations)
    {
        if (evaluations.Count == 0)
        {
            return;
        }

        double best = evaluations.Max(e => e.Top1);
        html.Append("<h2>Evaluations</h2>\n<div class=\"scroll\"><table><tr><th>epoch</th><th>step</th><th>training loss</th><th>validation loss</th><th>top-1 %</th><th>top-5 %</th><th>images</th></tr>\n");
        foreach (EvaluationPoint e in evaluations)
        {
            html.Append(Invariant($"<tr{(e.Top1 == best ? " class=\"best\"" : "")}><td>{e.Epoch:0.##}</td><td>{e.Step}</td><td>{e.TrainLoss:0.0000}</td><td>{e.Loss:0.0000}</td><td>{100 * e.Top1:0.00}</td><td>{100 * e.Top5:0.00}</td><td>{e.Images}</td></tr>\n"));
        }

        html.Append("</table></div>\n");
    }

    private static void AppendRun(StringBuilder html, RunFolder run, string config)
    {
        if (run.Log.Start is { } start)
        {
            html.Append("<h2>Run</h2>\n<div class=\"scroll\"><table class=\"facts\">\n");
            foreach ((string name, string value) in start.Facts)
            {
                html.Append("<tr><th>").Append(Encode(name)).Append("</th><td class=\"text\">").Append(Encode(value)).Append("</td></tr>\n");
            }

            html.Append("</table></div>\n");
        }

        AppendCheckpoints(html, run);
        string folder = Quote(run.Path);
        html.Append("<h2>Commands</h2>\n<pre>");
        Command(html, run.State == "completed" ? "go on, with a larger --epochs" : "go on", $"hpcbn train --resume {folder}");
        Command(html, "again", $"hpcbn train --config {Quote(Path.Combine(run.Path, "config.yaml"))}");
        if (run.NewestCheckpoint() is string checkpoint)
        {
            Command(html, "evaluate", $"hpcbn eval --checkpoint {Quote(checkpoint)}");
        }

        Command(html, "watch", $"hpcbn dashboard {folder}");
        Command(html, "TensorBoard", $"tensorboard --logdir {folder}");
        html.Append("</pre>\n");
        if (config.Length > 0)
        {
            html.Append("<details id=\"configuration\"><summary><b>Configuration</b></summary>\n<pre>").Append(Encode(config)).Append("</pre></details>\n");
        }
    }

    private static void AppendCheckpoints(StringBuilder html, RunFolder run)
    {
        List<(long Step, string Path)> files = CheckpointStore.List(RunDirectory.CheckpointFolder(run.Path));
        if (files.Count == 0)
        {
            return;
        }

        List<EvaluationPoint> evaluations = run.Log.Evaluations;
        long best = evaluations.Count > 0 ? evaluations.MaxBy(e => e.Top1).Step : -1;
        html.Append("<h2>Checkpoints</h2>\n<div class=\"scroll\"><table><tr><th class=\"text\">file</th><th>top-1 %</th><th>MB</th><th class=\"text\"></th></tr>\n");
        foreach ((long step, string path) in files)
        {
            string top1 = string.Concat(evaluations.Where(e => e.Step == step).Select(e => Invariant($"{100 * e.Top1:0.00}")));
            string role = string.Join(", ", new[] { step == files[0].Step ? "newest" : "", step == best ? "best" : "" }.Where(r => r.Length > 0));
            html.Append(Invariant($"<tr><td class=\"text\">{Encode(Path.GetFileName(path))}</td><td>{top1}</td><td>{(new FileInfo(path) is { Exists: true } file ? file.Length / 1e6 : 0):0.0}</td><td class=\"text\">{role}</td></tr>\n"));
        }

        html.Append("</table></div>\n");
    }

    private static void Command(StringBuilder html, string what, string command) =>
        html.Append("# ").Append(what).Append('\n').Append(Encode(command)).Append('\n');

    private static string Quote(string path) => path.All(c => char.IsAsciiLetterOrDigit(c) || c is '/' or '.' or '-' or '_' or '+' or ':' or '\\')
        ? path
        : $"'{path.Replace("'", "'\\''", StringComparison.Ordinal)}'";

    /// <summary>From the last lines of the process at work, evaluations and checkpoints included.</summary>
    private static TimeSpan? Remaining(RunLog log)
    {
        const int Lines = 50;
        const double LongestRemaining = 1e10;
        TrainPoint last = log.Train[^1];
        TrainPoint first = last;
        for (int i = log.Train.Count - 2; i >= Math.Max(0, log.Train.Count - Lines) && log.Train[i].Seconds < first.Seconds && log.Train[i].Step >= log.Start!.FirstStep; i--)
        {
            first = log.Train[i];
        }

        double seconds = (last.Seconds - first.Seconds) / (last.Step - first.Step) * (log.Start!.TotalSteps - last.Step);
        return last.Step > first.Step && seconds >= 0 && seconds < LongestRemaining ? TimeSpan.FromSeconds(seconds) : null;
    }

    private static string Clock(TimeSpan time) => time.TotalDays >= 1
        ? string.Create(CultureInfo.InvariantCulture, $"{(int)time.TotalDays} d {time.Hours} h")
        : time.TotalHours >= 1 ? string.Create(CultureInfo.InvariantCulture, $"{time.Hours} h {time.Minutes} min")
        : time.TotalMinutes >= 1 ? string.Create(CultureInfo.InvariantCulture, $"{time.Minutes} min") : "a minute";

    private static (double, double)[] Points(List<TrainPoint> lines, Func<TrainPoint, double> value) => [.. lines.Select(l => (l.Epoch, value(l)))];

    private static (double, double)[] Points(List<EvaluationPoint> lines, Func<EvaluationPoint, double> value) => [.. lines.Select(l => (l.Epoch, value(l)))];

    private static void Card(StringBuilder html, string label, string value) =>
        html.Append("<div class=\"card\"><b>").Append(value).Append("</b><span>").Append(label).Append("</span></div>\n");

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);

    private static string Encode(string text) => WebUtility.HtmlEncode(text);
}
