using System.Globalization;
using System.Net;
using System.Text;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Reporting;

namespace HpcBatchNorm.Experiments;

/// <summary>
/// What all experiments in a folder found, in one place: <c>index.html</c>, self-contained, and <c>results.md</c>, which shows the figures' SVG files.
/// Made from their results alone.
/// </summary>
internal static class ExperimentPage
{
    /// <summary>The page.</summary>
    public const string HtmlFile = "index.html";

    /// <summary>The same as Markdown.</summary>
    public const string MarkdownFile = "results.md";

    /// <summary>Writes both files anew.</summary>
    /// <param name="folder">The folder that holds a folder for each experiment.</param>
    /// <returns>The path of the page.</returns>
    /// <exception cref="UserErrorException">A result is damaged.</exception>
    public static string Write(string folder)
    {
        List<ExperimentRecord> records = Find(folder);
        string page = Path.Combine(folder, HtmlFile);
        AtomicFile.ReplaceText(page, WebPage.Render("The paper's experiments", Html(records)).Html);
        AtomicFile.ReplaceText(Path.Combine(folder, MarkdownFile), Markdown(records));
        return page;
    }

    /// <summary>In the catalog's order; then others by name.</summary>
    private static List<ExperimentRecord> Find(string folder)
    {
        string[] known = [.. ExperimentCatalog.All.Select(e => e.Name)];
        return
        [
            .. (Directory.Exists(folder) ? Directory.GetDirectories(folder) : []).Select(ExperimentRunner.Read).OfType<ExperimentRecord>()
                .OrderBy(r => Array.IndexOf(known, r.Experiment) is var i and >= 0 ? i : known.Length).ThenBy(r => r.Experiment, StringComparer.Ordinal),
        ];
    }

    private static string Html(List<ExperimentRecord> records)
    {
        var html = new StringBuilder("<h1>The paper's experiments</h1>\n<p class=\"sub\">Ioffe and Szegedy, <i>Batch Normalization</i>, <a href=\"https://arxiv.org/abs/1502.03167v3\">arXiv 1502.03167v3</a></p>\n");
        html.Append("<div class=\"scroll\"><table><tr><th class=\"text\">experiment</th><th class=\"text\">the paper's claim</th><th class=\"text\">findings</th></tr>\n");
        foreach (ExperimentRecord record in records)
        {
            html.Append(CultureInfo.InvariantCulture,
                $"<tr><td class=\"text\"><a href=\"#{Encode(record.Experiment)}\">{Encode(record.Experiment)}</a></td><td class=\"text\">{Encode(record.Claim)}</td><td class=\"text\">{Encode(Summary(record))}</td></tr>\n");
        }

        html.Append("</table></div>\n");
        foreach (ExperimentRecord record in records)
        {
            html.Append(CultureInfo.InvariantCulture, $"<h2 id=\"{Encode(record.Experiment)}\">{Encode(record.Title)}</h2>\n<p class=\"note\">{Encode(record.Claim)}{(record.Quick ? " <b>Quick form: a direction, not the paper's numbers.</b>" : "")}</p>\n");
            Table(html, ["", "quantity", "paper", "ours", "acceptance"],
                record.Result.Findings.Select(f => new[] { Mark(f.Verdict), Encode(f.Quantity), Encode(f.Paper), $"<b>{Encode(f.Ours)}</b>", Encode(f.Acceptance) }));
            foreach (string line in record.Result.NotRun)
            {
                html.Append("<p>").Append(Encode(line)).Append("</p>\n");
            }

            html.Append("<div class=\"figures\">\n").AppendJoin('\n', record.Result.Figures.Select(f => LineChart.Render(f.Content))).Append("</div>\n");
            foreach (ResultTable table in record.Result.Tables)
            {
                html.Append("<h3>").Append(Encode(table.Title)).Append("</h3>\n");
                Table(html, table.Head, table.Rows.Select(r => r.Select(Encode)));
            }

            foreach (string note in record.Result.Notes)
            {
                html.Append("<p class=\"note\">").Append(Encode(note)).Append("</p>\n");
            }

            html.Append("<p class=\"note\">").Append(Encode(Conditions(record))).Append("</p>\n");
        }

        return html.ToString();
    }

    private static string Markdown(List<ExperimentRecord> records)
    {
        var text = new StringBuilder("# The paper's experiments: results\n\nWritten by `hpcbn experiment`; [experiments.md](../experiments.md) says how to run them.\n");
        foreach (ExperimentRecord record in records)
        {
            text.Append(CultureInfo.InvariantCulture, $"\n## {record.Experiment}: {record.Title}\n\n{record.Claim}\n\n");
            Rows(text, ["quantity", "paper", "ours", "acceptance", "verdict"],
                record.Result.Findings.Select(f => new[] { f.Quantity, f.Paper, f.Ours, f.Acceptance, f.Verdict == Verdict.NotShown ? $"**{f.Verdict.Word()}**" : f.Verdict.Word() }));
            foreach (string line in record.Result.NotRun)
            {
                text.Append('\n').Append(line).Append('\n');
            }

            foreach (Figure figure in record.Result.Figures)
            {
                text.Append(CultureInfo.InvariantCulture, $"\n![{figure.Title}]({record.Experiment}/{figure.Name}.svg)\n");
            }

            foreach (ResultTable table in record.Result.Tables)
            {
                text.Append("\n**").Append(table.Title).Append("**\n\n");
                Rows(text, table.Head, table.Rows);
            }

            foreach (string note in record.Result.Notes)
            {
                text.Append('\n').Append(note).Append('\n');
            }

            text.Append('\n').Append(Conditions(record)).Append('\n');
        }

        return text.ToString();
    }

    private static void Table(StringBuilder html, IReadOnlyList<string> head, IEnumerable<IEnumerable<string>> rows)
    {
        html.Append("<div class=\"scroll\"><table><tr>").AppendJoin("", head.Select(h => $"<th class=\"text\">{Encode(h)}</th>")).Append("</tr>\n");
        foreach (IEnumerable<string> row in rows)
        {
            html.Append("<tr>").AppendJoin("", row.Select(cell => $"<td class=\"text\">{cell}</td>")).Append("</tr>\n");
        }

        html.Append("</table></div>\n");
    }

    private static void Rows(StringBuilder text, IReadOnlyList<string> head, IEnumerable<IEnumerable<string>> rows)
    {
        text.Append("| ").AppendJoin(" | ", head).Append(" |\n|").Insert(text.Length, "---|", head.Count).Append('\n');
        foreach (IEnumerable<string> row in rows)
        {
            text.Append("| ").AppendJoin(" | ", row.Select(cell => cell.Replace("|", "\\|", StringComparison.Ordinal))).Append(" |\n");
        }
    }

    private static string Mark(Verdict verdict) => verdict switch
    {
        Verdict.Shown => $"<span class=\"pass\">{verdict.Word()}</span>",
        Verdict.NotContradicted => verdict.Word(),
        _ => $"<span class=\"fail\">{verdict.Word()}</span>",
    };

    private static string Summary(ExperimentRecord record) =>
        FormattableString.Invariant($"{VerdictText.Count(record.Result.Findings)}{(record.Result.NotRun.Count > 0 ? $", {record.Result.NotRun.Count} not run" : "")}{(record.Quick ? ", quick form" : "")}");

    private static string Conditions(ExperimentRecord record) => string.Join("; ", record.Conditions.Select(c => $"{c.Key} {c.Value}")) + ".";

    private static string Encode(string text) => WebUtility.HtmlEncode(text);
}
