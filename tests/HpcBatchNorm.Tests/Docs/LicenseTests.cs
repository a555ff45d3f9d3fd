using System.Text.Json;
using System.Xml.Linq;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Docs;

/// <summary>What is given away with the command is said with it: its licence, and the notices that the licences of others demand.</summary>
public class LicenseTests
{
    [Fact]
    public void Tool_HasTheLicencesOfTheNativeLibrariesInIt()
    {
        string[] native = Terms("interop/Native.Package.props"), tool = Terms("src/HpcBatchNorm.Cli/HpcBatchNorm.Cli.csproj");
        Assert.Contains("Apache-2.0", native);
        Assert.Empty(native.Except(tool));
        Assert.Contains("BSD-3-Clause", tool); // Google.Protobuf, Skia
    }

    [Fact]
    public void Notices_NameEveryPackageThatTheCommandIsBuiltWith()
    {
        string notices = File.ReadAllText(Path.Combine(RepoPaths.Root, "src/HpcBatchNorm.Cli/third-party-notices.txt"));
        using JsonDocument built = JsonDocument.Parse(File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "hpcbn.deps.json")));
        string[] packages = [.. built.RootElement.GetProperty("libraries").EnumerateObject().Where(l => l.Value.GetProperty("type").GetString() == "package").Select(l => l.Name[..l.Name.IndexOf('/')])];
        Assert.Contains("Google.Protobuf", packages);
        Assert.DoesNotContain(packages, p => !notices.Contains(p, StringComparison.Ordinal));
    }

    private static string[] Terms(string project) =>
        XDocument.Load(Path.Combine(RepoPaths.Root, project)).Descendants("PackageLicenseExpression").Single().Value.Split(" AND ");
}
