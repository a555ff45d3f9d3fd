using System.Text.RegularExpressions;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Docs;

/// <summary>What the documentation names is there.</summary>
public partial class DocumentationTests
{
    [Fact]
    public void Links_PointToFilesThatExist()
    {
        List<string> broken = [];
        foreach (string page in Pages())
        {
            foreach (Match link in LinkTarget().Matches(File.ReadAllText(page)))
            {
                string target = Path.Combine(Path.GetDirectoryName(page)!, link.Groups[1].Value);
                if (!Path.Exists(target))
                {
                    broken.Add($"{Path.GetRelativePath(RepoPaths.Root, page)}: {link.Groups[1].Value}");
                }
            }
        }

        Assert.Empty(broken);
    }

    private static IEnumerable<string> Pages() => Directory.EnumerateFiles(RepoPaths.Root, "*.md")
        .Concat(new[] { "docs", "bench", "native" }.SelectMany(f => Directory.EnumerateFiles(RepoPaths.InRepo(f), "*.md", SearchOption.AllDirectories)));

    /// <summary>The target of a Markdown link, without a fragment, unless it is a web address or a fragment of its own page.</summary>
    [GeneratedRegex(@"\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)")]
    private static partial Regex LinkTarget();
}
