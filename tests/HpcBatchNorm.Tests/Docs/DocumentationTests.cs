using System.Text.Json;
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

    [Fact]
    public void Decisions_AreAllListed()
    {
        string index = File.ReadAllText(RepoPaths.InRepo("docs", "decisions", "README.md"));
        string[] pages = [.. Directory.GetFiles(RepoPaths.InRepo("docs", "decisions"), "0*.md").Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal)];

        Assert.NotEmpty(pages);
        Assert.All(pages, page => Assert.Contains($"({page})", index, StringComparison.Ordinal));
    }

    /// <summary>What bench/update-readme.sh checks of README.md without jq: every number of its first table is in the file, with the commit it was taken at.</summary>
    [Fact]
    public void Numbers_AreThoseOfTheirFile()
    {
        using JsonDocument file = JsonDocument.Parse(File.ReadAllText(RepoPaths.InRepo("bench", "results", "numbers.json")));
        string[] readme = File.ReadAllLines(RepoPaths.InRepo("README.md"));
        int begin = Array.IndexOf(readme, "<!-- numbers -->"), end = Array.IndexOf(readme, "<!-- /numbers -->");
        string[] expected = [.. file.RootElement.GetProperty("rows").EnumerateArray().Select(r => $"| {r.GetProperty("what").GetString()} | {r.GetProperty("number").GetString()} | `{r.GetProperty("command").GetString()}` |")];

        Assert.Equal(["", "| | | command |", "|---|---|---|", .. expected, ""], readme[(begin + 1)..end]);
        Assert.All(file.RootElement.GetProperty("rows").EnumerateArray(), r => Assert.Matches("^[0-9a-f]{7,}$", r.GetProperty("commit").GetString()!));
    }

    /// <summary>ONNX Runtime has telemetry, which OnnxFile switches off; nothing else may begin a session.</summary>
    [Fact]
    public void OnnxRuntime_IsBegunInOnePlaceOfTheTests()
    {
        string[] places = [.. Directory.EnumerateFiles(RepoPaths.InRepo("tests", "HpcBatchNorm.Tests"), "*.cs", SearchOption.AllDirectories)
            .Where(f => File.ReadAllText(f).Contains("new " + "InferenceSession(", StringComparison.Ordinal)).Select(f => Path.GetFileName(f))];

        Assert.Equal(["OnnxFile.cs"], places);
        Assert.Contains("DisableTelemetryEvents", File.ReadAllText(RepoPaths.InRepo("bench", "peers", "HpcBatchNorm.Peers", "OnnxRuntimePeer.cs")), StringComparison.Ordinal);
    }

    /// <summary>Each planted fault still has its place, once, and names test classes that exist.</summary>
    [Fact]
    public void PlantedFaults_HaveTheirPlaces()
    {
        string[] lines = [.. File.ReadAllLines(RepoPaths.InRepo("tests", "mutation", "faults.txt")).Where(l => l.Length > 0 && l[0] != '#')];
        HashSet<string> classes = [.. Directory.EnumerateFiles(RepoPaths.InRepo("tests", "HpcBatchNorm.Tests"), "*Tests.cs", SearchOption.AllDirectories).Select(f => Path.GetFileNameWithoutExtension(f))];

        Assert.InRange(lines.Length / 5, 120, 1000);
        foreach (string[] fault in lines.Chunk(5))
        {
            Assert.StartsWith("= ", fault[0], StringComparison.Ordinal);
            Assert.True(File.ReadAllText(RepoPaths.InRepo(fault[1].Split('/'))).Split(fault[3][2..]).Length == 2, $"{fault[0]}: '{fault[3][2..]}' is not once in {fault[1]}");
            Assert.All(fault[2].Split(" "), name => Assert.Contains(name, classes));
        }
    }

    private static IEnumerable<string> Pages() => Directory.EnumerateFiles(RepoPaths.Root, "*.md")
        .Concat(new[] { "docs", "bench", "native" }.SelectMany(f => Directory.EnumerateFiles(RepoPaths.InRepo(f), "*.md", SearchOption.AllDirectories)));

    /// <summary>The target of a Markdown link, without a fragment, unless it is a web address or a fragment of its own page.</summary>
    [GeneratedRegex(@"\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)")]
    private static partial Regex LinkTarget();
}
