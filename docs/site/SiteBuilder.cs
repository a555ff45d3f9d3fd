using System.Reflection;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace HpcBatchNorm.Site;

/// <summary>The documentation as web pages that need no server: they can be opened from a disk, searched there, and read on a telephone.</summary>
internal sealed class SiteBuilder
{
    /// <summary>The pages of docs/ in the order they are listed, under their headings; a test says which are missing here.</summary>
    internal static readonly (string Group, string[] Files)[] Contents =
    [
        ("Getting started", ["README.md", "docs/package.md", "docs/samples/README.md", "docs/cli.md"]),
        ("How to", ["docs/fine-tuning.md", "docs/imagenet.md", "docs/training.md", "docs/long-runs.md", "docs/distributed.md", "docs/evaluation.md", "docs/import.md", "docs/export.md", "docs/serving.md", "docs/dashboard.md", "docs/networks.md", "docs/gpu.md", "docs/containers.md", "docs/platforms.md", "docs/precision.md"]),
        ("Concepts", ["docs/batch-normalization.md", "docs/architecture.md", "docs/metrics.md", "docs/experiments.md", "docs/experiments/results.md", "docs/decisions/README.md"]),
        ("Reference", ["docs/settings.md", "bench/README.md", "CONTRIBUTING.md", "CHANGELOG.md"]),
    ];

    private static readonly Regex Links = new("(?:href|src)=\"([^\"]*)\"");
    private static readonly Regex Ids = new(" id=\"([^\"]*)\"");

    private readonly Dictionary<string, string> _files = new(StringComparer.Ordinal);

    private SiteBuilder()
    {
    }

    /// <summary>All pages.</summary>
    public IReadOnlyList<SitePage> Pages { get; private set; } = [];

    /// <summary>Makes all pages of a repository.</summary>
    public static SiteBuilder Build(string root)
    {
        var site = new SiteBuilder();
        var markdown = new MarkdownPages(Path.GetFullPath(root), site._files);
        SitePage[] prose = [.. Contents.SelectMany(g => g.Files.Where(f => File.Exists(Path.Combine(root, f))).Select(f => markdown.Render(f, g.Group)))];
        SitePage[] decisions = [.. Directory.EnumerateFiles(Path.Combine(root, "docs", "decisions"), "0*.md").Order(StringComparer.Ordinal).Select(f => markdown.Render(Path.GetRelativePath(root, f), ""))];
        SitePage[] others = [.. markdown.Linked()];
        site.Pages = [.. prose.Where(p => p.Group != "Reference"), .. CliReference.Pages(), .. ApiReference.Pages(), .. prose.Where(p => p.Group == "Reference"), .. decisions, .. others];
        site._files["docs/icon.svg"] = Path.Combine(root, "docs", "icon.svg");
        return site;
    }

    /// <summary>Every link within the site that has no page, file or fragment to lead to, as <c>page: link</c>.</summary>
    public IReadOnlyList<string> FindBrokenLinks() => FindBrokenLinks(Pages.Select(p => (p.Address, p.Render(Pages))), [.. _files.Keys, "site.css", "site.js", "search-index.js"]);

    /// <summary>The same of any pages and the other files beside them.</summary>
    internal static IReadOnlyList<string> FindBrokenLinks(IEnumerable<(string Address, string Html)> pages, IReadOnlyCollection<string> files)
    {
        List<(string Address, string Html)> all = [.. pages];
        Dictionary<string, HashSet<string>> ids = all.ToDictionary(p => p.Address, p => Ids.Matches(p.Html).Select(m => m.Groups[1].Value).ToHashSet(StringComparer.Ordinal), StringComparer.Ordinal);
        List<string> broken = [];
        foreach ((string address, string html) in all)
        {
            foreach (string link in Links.Matches(html).Select(m => System.Net.WebUtility.HtmlDecode(m.Groups[1].Value)).Distinct().Where(l => !Regex.IsMatch(l, "^[a-z]+:")))
            {
                string[] parts = link.Split('#', 2);
                string target = parts[0].Length == 0 ? address : Resolve(address, Uri.UnescapeDataString(parts[0]));
                bool found = parts.Length == 2 ? ids.TryGetValue(target, out HashSet<string>? there) && there.Contains(Uri.UnescapeDataString(parts[1])) : ids.ContainsKey(target) || files.Contains(target);
                if (!found)
                {
                    broken.Add($"{address}: {link}");
                }
            }
        }

        return broken;
    }

    /// <summary>Writes all pages, pictures and the index of the search.</summary>
    public void Write(string folder)
    {
        foreach (SitePage page in Pages)
        {
            Put(page.Address, page.Render(Pages));
        }

        foreach ((string address, string source) in _files)
        {
            string path = Path.Combine(folder, address);
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            File.Copy(source, path, overwrite: true);
        }

        Put("site.css", Resource("site.css"));
        Put("site.js", Resource("site.js"));
        Put("search-index.js", SearchIndex());

        void Put(string address, string text)
        {
            string path = Path.Combine(folder, address);
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            File.WriteAllText(path, text);
        }
    }

    /// <summary>JSON in a script, since a page that was opened from a disk may not fetch a file.</summary>
    internal string SearchIndex()
    {
        using var bytes = new MemoryStream();
        using (var json = new Utf8JsonWriter(bytes, new JsonWriterOptions { Encoder = JavaScriptEncoder.Default }))
        {
            json.WriteStartArray();
            foreach (SitePage page in Pages)
            {
                json.WriteStartArray();
                json.WriteStringValue(page.Address);
                json.WriteStringValue(page.Title);
                string text = Regex.Replace(page.Text, @"\s+", " ");
                json.WriteStringValue(text.Length > 20_000 ? text[..20_000] : text);
                json.WriteEndArray();
            }

            json.WriteEndArray();
        }

        return $"window.searchIndex = {Encoding.UTF8.GetString(bytes.ToArray())};\n";
    }

    /// <summary>The address that a link from a page means.</summary>
    internal static string Resolve(string from, string link)
    {
        List<string> parts = [.. from.Split('/')[..^1]];
        foreach (string part in link.Split('/'))
        {
            if (part == "..")
            {
                if (parts.Count == 0)
                {
                    return link;
                }

                parts.RemoveAt(parts.Count - 1);
            }
            else if (part is not ("." or ""))
            {
                parts.Add(part);
            }
        }

        return string.Join('/', parts);
    }

    private static string Resource(string name)
    {
        using var reader = new StreamReader(Assembly.GetExecutingAssembly().GetManifestResourceStream(name)!);
        return reader.ReadToEnd();
    }
}
