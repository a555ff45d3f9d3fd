using System.Text.Json;
using HpcBatchNorm.Site;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Docs;

/// <summary>The documentation as web pages: every link and fragment leads somewhere, and every page, command and type is there.</summary>
public sealed class SiteTests : IDisposable
{
    private static readonly Lazy<SiteBuilder> Site = new(() => SiteBuilder.Build(RepoPaths.Root));

    private readonly string _folder = Directory.CreateTempSubdirectory("hbn-site").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Links_LeadSomewhere() => Assert.Empty(Site.Value.FindBrokenLinks());

    [Fact]
    public void Links_ThatLeadNowhere_AreFound()
    {
        (string, string)[] pages =
        [
            ("index.html", "<a href=\"docs/a.html#here\">a</a> <a href=\"docs/a.html#gone\">b</a> <a href=\"none.html\">c</a> <a href=\"#nothing\">d</a> <a href=\"https://example.com/x\">e</a>"),
            ("docs/a.html", "<h1 id=\"here\">A</h1><a href=\"../index.html\">f</a><img src=\"x.svg\"><img src=\"y.svg\">"),
        ];

        Assert.Equal(["index.html: docs/a.html#gone", "index.html: none.html", "index.html: #nothing", "docs/a.html: y.svg"], SiteBuilder.FindBrokenLinks(pages, ["docs/x.svg"]));
    }

    [Fact]
    public void Pages_AreAllThere()
    {
        HashSet<string> addresses = [.. Site.Value.Pages.Select(p => p.Address)];
        Assert.Equal(Site.Value.Pages.Count, addresses.Count);
        string[] missing = [.. Directory.EnumerateFiles(RepoPaths.InRepo("docs"), "*.md").Select(f => Path.GetFileName(f)).Where(f => f != "README.md" && !SiteBuilder.Contents.Any(g => g.Files.Contains($"docs/{f}")))];
        Assert.Empty(missing);
        Assert.All(SiteBuilder.Contents.SelectMany(g => g.Files), f => Assert.True(File.Exists(RepoPaths.InRepo(f.Split('/'))), $"{f} does not exist"));
        Assert.Superset(
            new HashSet<string> { "index.html", "cli/hpcbn.html", "cli/hpcbn-import.html", "cli/hpcbn-data-bench.html", "api/index.html", "api/HpcBatchNorm.Layers.ConvolutionLayer.html", "docs/decisions/004-own-batch-norm-kernels.html" },
            addresses);

        // From the parser, from the metadata and from the XML documentation, inherited too.
        Assert.Contains("<code>--network NAME</code>", Page("cli/hpcbn-import.html"), StringComparison.Ordinal);
        string layer = Page("api/HpcBatchNorm.Layers.BatchNormLayer.html");
        Assert.Contains("Shape Infer(string name, IReadOnlyList&lt;Shape&gt; inputs)", layer, StringComparison.Ordinal);
        Assert.Contains("The output&#39;s shape. Throws", layer, StringComparison.Ordinal);
        Assert.Contains("PyTorchWeightsException", Page("api/HpcBatchNorm.Interchange.PyTorchWeights.html"), StringComparison.Ordinal);
    }

    /// <summary>Opened from the disk at the width of a telephone and of a screen: nothing is wider than the page, and the search finds a page.</summary>
    [Theory]
    [Trait("Category", "Slow")]
    [InlineData(390)]
    [InlineData(1280)]
    public async Task Site_InABrowser_FitsAndFinds(int width)
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        Site.Value.Write(_folder);
        await using Browser browser = await Browser.StartOrSkipAsync(token);
        await browser.ResizeAsync(width, 800, dark: false, token);
        foreach (string page in new[] { "index.html", "docs/import.html", "docs/batch-normalization.html", "cli/hpcbn-train.html", "api/index.html", "api/HpcBatchNorm.Training.RunConfig.html" })
        {
            await browser.OpenAsync($"file://{_folder}/{page}", token);
            JsonElement over = await browser.EvaluateAsync("document.documentElement.scrollWidth - document.documentElement.clientWidth", token);
            Assert.True(over.GetInt32() <= 0, $"{page} is {over} px wider than {width} px");
            await browser.ScreenshotAsync($"site-{width}-{Path.GetFileNameWithoutExtension(page)}", token);
        }

        JsonElement found = await browser.EvaluateAsync("(() => { const i = document.getElementById('search'); i.value = 'renormalization'; i.dispatchEvent(new Event('input')); return document.querySelectorAll('#results a').length; })()", token);
        Assert.True(found.GetInt32() > 0, "the search found nothing");
        Assert.Empty(browser.Errors);
    }

    private static string Page(string address) => Site.Value.Pages.Single(p => p.Address == address).Body;
}
