using System.Text.RegularExpressions;
using Markdig;
using Markdig.Extensions.AutoIdentifiers;
using Markdig.Syntax;
using Markdig.Syntax.Inlines;

namespace HpcBatchNorm.Site;

/// <summary>Markdown files as pages: their links to one another become links of pages, pictures come along, and names of source files lose theirs.</summary>
internal sealed class MarkdownPages(string root, Dictionary<string, string> files)
{
    private static readonly MarkdownPipeline Pipeline = new MarkdownPipelineBuilder().UsePipeTables().UseAutoLinks().UseAutoIdentifiers(AutoIdentifierOptions.GitHub).Build();

    // A file of the sources: the reader of a site has its name only.
    private const string SourceMark = "source:";

    private static readonly Regex SourceLink = new($"<a href=\"{SourceMark}([^\"]*)\">(.*?)</a>", RegexOptions.Singleline);

    private readonly HashSet<string> _rendered = new(StringComparer.Ordinal);
    private readonly SortedSet<string> _linked = new(StringComparer.Ordinal);

    /// <summary>A file of the repository as a page.</summary>
    public SitePage Render(string file, string group)
    {
        file = file.Replace('\\', '/');
        _rendered.Add(file);
        MarkdownDocument document = Markdown.Parse(File.ReadAllText(Path.Combine(root, file)), Pipeline);
        foreach (LinkInline link in document.Descendants<LinkInline>().ToList())
        {
            Rewrite(link, file);
        }

        string title = document.OfType<HeadingBlock>().FirstOrDefault() is { Inline: { } inline } ? string.Concat(inline.Descendants<LiteralInline>().Select(l => l.Content.ToString())) : file;
        // A table as wide as it must be scrolls by itself, so that the page does not.
        string body = document.ToHtml(Pipeline).Replace("<table>", "<div class=\"wide\"><table>", StringComparison.Ordinal).Replace("</table>", "</table></div>", StringComparison.Ordinal);
        body = SourceLink.Replace(body, "<span class=\"source\" title=\"$1\">$2</span>");
        return new SitePage(AddressOf(file), group, file == "README.md" ? "Introduction" : file == "docs/package.md" ? "The packages" : title, body);
    }

    /// <summary>Pages for the files that the pages so far link to and that are not among them, and so on.</summary>
    public IEnumerable<SitePage> Linked()
    {
        while (_linked.FirstOrDefault(f => !_rendered.Contains(f)) is { } next)
        {
            yield return Render(next, "");
        }
    }

    private static string AddressOf(string file) => file == "README.md" ? "index.html" : $"{file[..^3]}.html";

    private void Rewrite(LinkInline link, string file)
    {
        string url = link.Url ?? "";
        if (url.Length == 0 || url[0] == '#' || url.Contains("://", StringComparison.Ordinal) || url.StartsWith("mailto:", StringComparison.Ordinal))
        {
            return;
        }

        string[] parts = url.Split('#', 2);
        string target = SiteBuilder.Resolve(file, Uri.UnescapeDataString(parts[0]));
        string path = Path.Combine(root, target);
        if (Directory.Exists(path) && File.Exists(Path.Combine(path, "README.md")))
        {
            (target, path) = ($"{target}/README.md", Path.Combine(path, "README.md"));
        }

        if (target.EndsWith(".md", StringComparison.Ordinal) && File.Exists(path))
        {
            _linked.Add(target);
            link.Url = Relative(AddressOf(file), AddressOf(target)) + (parts.Length == 2 ? $"#{parts[1]}" : "");
        }
        else if (Path.GetExtension(target) is ".png" or ".svg" or ".json" or ".csv" && File.Exists(path))
        {
            files[target] = path;
            link.Url = Relative(AddressOf(file), target);
        }
        else if (Path.Exists(path))
        {
            link.Url = SourceMark + target;
        }
    }

    private static string Relative(string from, string to) => string.Concat(Enumerable.Repeat("../", from.Count(c => c == '/'))) + to;
}
