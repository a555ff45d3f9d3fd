using System.Reflection;
using System.Xml.Linq;
using HpcBatchNorm.Site;

namespace HpcBatchNorm.Tests.Docs;

/// <summary>The XML documentation of the packages, as a user's editor shows it.</summary>
public sealed class XmlDocumentationTests
{
    /// <summary>What documentation refers to can be reached by who reads it: nothing internal, nothing that is gone.</summary>
    [Fact]
    public void References_OfWhatIsPublic_AreToWhatIsPublic()
    {
        Dictionary<string, XElement> docs = new(StringComparer.Ordinal);
        HashSet<string> visible = new(StringComparer.Ordinal);
        foreach (Assembly assembly in ApiReference.Assemblies.Select(Assembly.Load))
        {
            foreach (XElement member in XDocument.Load(Path.ChangeExtension(assembly.Location, ".xml")).Descendants("member"))
            {
                docs[(string)member.Attribute("name")!] = member;
            }

            foreach (Type type in assembly.GetExportedTypes())
            {
                visible.Add(DocumentId.Of(type));
                visible.UnionWith(ApiReference.Visible(type).SelectMany(s => s.Members).Select(DocumentId.Of));
            }
        }

        Assert.True(visible.Count(docs.ContainsKey) > 1000, "hardly any of the public members are documented: the names do not fit");
        Assert.Equal("", string.Join("\n", Unreachable(docs, visible)));
    }

    /// <summary>The search finds a reference to what is not there, and no other.</summary>
    [Fact]
    public void References_ToWhatIsNotPublic_AreFound()
    {
        var member = XElement.Parse(
            "<member name='M:HpcBatchNorm.A.B'><summary>As <see cref='M:HpcBatchNorm.A.Hidden'/>, <see cref='T:System.String'/> and <see cref='T:HpcBatchNorm.A'/>.</summary></member>");
        Assert.Equal(
            ["M:HpcBatchNorm.A.B refers to M:HpcBatchNorm.A.Hidden"],
            Unreachable(new Dictionary<string, XElement> { ["M:HpcBatchNorm.A.B"] = member, ["M:HpcBatchNorm.A.Hidden"] = member }, ["T:HpcBatchNorm.A", "M:HpcBatchNorm.A.B"]));
    }

    private static IEnumerable<string> Unreachable(Dictionary<string, XElement> docs, HashSet<string> visible) =>
        from id in visible.Order(StringComparer.Ordinal)
        where docs.ContainsKey(id)
        from reference in docs[id].DescendantsAndSelf().Attributes("cref").Select(a => a.Value)
        where reference.Length > 2 && reference[2..].StartsWith("HpcBatchNorm", StringComparison.Ordinal) && !visible.Contains(reference)
        select $"{id} refers to {reference}";
}
