using System.Net;
using System.Text.RegularExpressions;

namespace HpcBatchNorm.Site;

/// <summary>A page of the site.</summary>
/// <param name="Address">Where it stands, from the site's root: <c>docs/import.html</c>.</param>
/// <param name="Group">The heading it is listed under; empty for one that is found by links and search alone.</param>
/// <param name="Title">Its title, plain text.</param>
/// <param name="Body">What stands on it, HTML.</param>
internal sealed record SitePage(string Address, string Group, string Title, string Body)
{
    private static readonly Regex Tags = new("<[^>]*>");

    /// <summary>Text that is searched, besides the title.</summary>
    public string Text => WebUtility.HtmlDecode(Tags.Replace(Body, " "));

    /// <summary>The whole document.</summary>
    /// <param name="all">All pages, for the list at the side.</param>
    public string Render(IReadOnlyList<SitePage> all)
    {
        string up = string.Concat(Enumerable.Repeat("../", Address.Count(c => c == '/')));
        string list = string.Concat(all.Where(p => p.Group.Length > 0).GroupBy(p => p.Group).Select(g =>
            $"<h2>{Encode(g.Key)}</h2><ul>{string.Concat(g.Select(p => $"<li><a href=\"{up}{p.Address}\"{(p == this ? " aria-current=\"page\"" : "")}>{Encode(p.Title)}</a></li>"))}</ul>"));
        return $"""
            <!DOCTYPE html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <title>{Encode(Title)} - HpcBatchNorm</title>
            <link rel="icon" href="{up}docs/icon.svg">
            <link rel="stylesheet" href="{up}site.css">
            <script src="{up}search-index.js" defer></script>
            <script src="{up}site.js" defer data-root="{up}"></script>
            </head>
            <body>
            <header><a class="home" href="{up}index.html">HpcBatchNorm</a><input id="search" type="search" placeholder="Search" aria-label="Search the documentation" autocomplete="off"><ol id="results" hidden></ol></header>
            <details class="menu"><summary>Contents</summary><nav aria-label="Contents">{list}</nav></details>
            <nav class="side" aria-label="All pages">{list}</nav>
            <main>
            {Body}
            </main>
            </body>
            </html>

            """.ReplaceLineEndings("\n");
    }

    /// <summary>Text as HTML.</summary>
    public static string Encode(string text) => WebUtility.HtmlEncode(text);
}
