using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text;
using System.Xml.Linq;

namespace HpcBatchNorm.Site;

/// <summary>A page for every public type of the packages, of its metadata and its XML documentation.</summary>
internal sealed class ApiReference
{
    private const string Index = "api/index.html";
    private const BindingFlags Members = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;

    /// <summary>The assemblies that are packages, and a line about each.</summary>
    internal static readonly string[] Assemblies =
        ["HpcBatchNorm", "HpcBatchNorm.Models", "HpcBatchNorm.Data", "HpcBatchNorm.Interchange", "HpcBatchNorm.Training", "HpcBatchNorm.Reporting", "HpcBatchNorm.Verification"];

    private readonly Dictionary<string, XElement> _docs = new(StringComparer.Ordinal);
    private readonly Dictionary<string, Type> _types = new(StringComparer.Ordinal);

    /// <summary>The members that pages show: documentation speaks of others too, which are not public.</summary>
    private readonly HashSet<string> _members = new(StringComparer.Ordinal);

    /// <summary>The list of all types, and their pages.</summary>
    public static IEnumerable<SitePage> Pages()
    {
        var reference = new ApiReference();
        foreach (Assembly assembly in Assemblies.Select(Assembly.Load))
        {
            foreach (XElement member in XDocument.Load(Path.ChangeExtension(assembly.Location, ".xml")).Descendants("member"))
            {
                reference._docs[(string)member.Attribute("name")!] = member;
            }

            foreach (Type type in assembly.GetExportedTypes())
            {
                reference._types[DocumentId.Of(type)] = type;
                reference._members.UnionWith(Visible(type).SelectMany(s => s.Members).Select(DocumentId.Of));
            }
        }

        return reference.All();
    }

    private IEnumerable<SitePage> All()
    {
        var body = new StringBuilder("<h1 id=\"api\">API reference</h1>\n<p>Shapes are N x C x H x W (images, channels, rows, columns) unless said otherwise.</p>\n");
        foreach (IGrouping<string, Type> space in _types.Values.GroupBy(t => t.Namespace ?? "").OrderBy(g => g.Key, StringComparer.Ordinal))
        {
            body.Append($"<h2 id=\"{space.Key}\">{space.Key}</h2>\n<div class=\"wide\"><table><tbody>\n");
            foreach (Type type in space.OrderBy(t => t.Name, StringComparer.Ordinal))
            {
                body.Append($"<tr><td><a href=\"../{AddressOf(type)}\">{Encode(DocumentId.ShortName(type))}</a></td><td>{Summary(DocumentId.Of(type), type)}</td></tr>\n");
            }

            body.Append("</tbody></table></div>\n");
        }

        yield return new SitePage(Index, "API reference", "All types", body.ToString());
        foreach (Type type in _types.Values.OrderBy(t => t.FullName, StringComparer.Ordinal))
        {
            yield return new SitePage(AddressOf(type), "", DocumentId.ShortName(type), Page(type));
        }
    }

    private static string AddressOf(Type type) => $"api/{type.FullName!.Replace('+', '.').Replace('`', '-')}.html";

    private string Page(Type type)
    {
        string kind = type.IsEnum ? "enum" : typeof(Delegate).IsAssignableFrom(type) ? "delegate" : type.IsInterface ? "interface" : type.IsValueType ? "struct"
            : type is { IsAbstract: true, IsSealed: true } ? "static class" : type.IsAbstract ? "abstract class" : "class";
        var body = new StringBuilder($"<p class=\"where\"><a href=\"../{Index}#{type.Namespace}\">{type.Namespace}</a>, {type.Assembly.GetName().Name}.dll</p>\n");
        body.Append($"<h1 id=\"type\">{Encode(DocumentId.ShortName(type))} <small>{kind}</small></h1>\n").Append(Documentation(DocumentId.Of(type), type));
        if (type.BaseType is { } parent && parent != typeof(object) && parent != typeof(ValueType) && parent != typeof(Enum) && parent != typeof(MulticastDelegate))
        {
            body.Append($"<p>Derives from {Reference(DocumentId.Of(parent), DocumentId.ShortName(parent))}.</p>\n");
        }

        foreach ((string heading, IEnumerable<MemberInfo> members) in Visible(type))
        {
            Section(body, heading, type, members);
        }

        return body.ToString();
    }

    /// <summary>What a user of a type sees of it.</summary>
    internal static (string Heading, IEnumerable<MemberInfo> Members)[] Visible(Type type) =>
    [
        ("Constructors", type.GetConstructors(Members).Where(c => !c.IsStatic && IsVisible(c))),
        (type.IsEnum ? "Values" : "Fields", type.GetFields(Members).Where(f => (f.IsPublic || f.IsFamily) && !f.IsSpecialName)),
        ("Properties", type.GetProperties(Members).Where(p => p.GetAccessors(true).Any(IsVisible))),
        ("Methods", type.GetMethods(Members).Where(m => IsVisible(m) && (!m.IsSpecialName || m.Name.StartsWith("op_", StringComparison.Ordinal)))),
        ("Events", type.GetEvents(Members).Where(e => e.AddMethod is { } add && IsVisible(add))),
    ];

    private void Section(StringBuilder body, string heading, Type type, IEnumerable<MemberInfo> members)
    {
        // What the compiler makes of a record says nothing that is not known of all of them.
        (MemberInfo Member, string Id)[] shown = [.. members.Where(m => !m.IsDefined(typeof(CompilerGeneratedAttribute)) && m.Name is not ("EqualityContract" or "PrintMembers" or "<Clone>$"))
            .Select(m => (m, DocumentId.Of(m))).Where(m => type.IsEnum || _docs.ContainsKey(m.Item2))];
        if (shown.Length == 0)
        {
            return;
        }

        body.Append($"<h2 id=\"{heading.ToLowerInvariant()}\">{heading}</h2>\n");
        foreach ((MemberInfo member, string id) in shown)
        {
            body.Append($"<section id=\"{Encode(id[2..])}\"><h3><code>{Encode(DocumentId.Signature(member))}</code></h3>\n{Documentation(id, member)}</section>\n");
        }
    }

    private string Summary(string id, MemberInfo member) => Find(id, member)?.Element("summary") is { } summary ? Inline(summary) : "";

    private string Documentation(string id, MemberInfo member)
    {
        if (Find(id, member) is not { } doc)
        {
            return "";
        }

        var html = new StringBuilder();
        Paragraph("", doc.Element("summary"));
        Rows("Parameters", doc.Elements("typeparam").Concat(doc.Elements("param")), e => $"<code>{Encode((string?)e.Attribute("name") ?? "")}</code>");
        Paragraph("Returns: ", doc.Element("returns"));
        Paragraph("", doc.Element("remarks"));
        Rows("Throws", doc.Elements("exception"), e => Reference((string?)e.Attribute("cref") ?? ""));
        return html.ToString();

        void Paragraph(string label, XElement? element)
        {
            if (element is not null)
            {
                html.Append($"<p>{label}{Inline(element)}</p>\n");
            }
        }

        void Rows(string label, IEnumerable<XElement> elements, Func<XElement, string> name)
        {
            XElement[] all = [.. elements];
            if (all.Length > 0)
            {
                html.Append($"<p class=\"label\">{label}</p><dl>{string.Concat(all.Select(e => $"<dt>{name(e)}</dt><dd>{Inline(e)}</dd>"))}</dl>\n");
            }
        }
    }

    /// <summary>The documentation of a member, or that of what it inherits it from.</summary>
    private XElement? Find(string id, MemberInfo? member, int depth = 0)
    {
        if (!_docs.TryGetValue(id, out XElement? doc) || doc.Element("inheritdoc") is not { } inherited || depth > 8)
        {
            return doc;
        }

        if ((string?)inherited.Attribute("cref") is { } cref)
        {
            return Find(cref, null, depth + 1);
        }

        Type? owner = member as Type ?? member?.DeclaringType;
        for (Type? parent = owner?.BaseType; parent is not null; parent = parent.BaseType)
        {
            Type definition = parent.IsGenericType ? parent.GetGenericTypeDefinition() : parent;
            string candidate = member is Type ? DocumentId.Of(definition) : $"{id[..2]}{DocumentId.Of(definition)[2..]}{id[(2 + DocumentId.Of(owner!).Length - 2)..]}";
            if (_docs.ContainsKey(candidate))
            {
                return Find(candidate, member is Type ? definition : definition.GetMember(member!.Name, Members).FirstOrDefault(), depth + 1);
            }
        }

        return (owner?.GetInterfaces() ?? []).Select(i => $"{id[..2]}{DocumentId.Of(i)[2..]}{id[DocumentId.Of(owner!).Length..]}").Where(_docs.ContainsKey).Select(c => _docs[c]).FirstOrDefault();
    }

    private string Inline(XElement element)
    {
        var html = new StringBuilder();
        foreach (XNode node in element.Nodes())
        {
            html.Append(node switch
            {
                XText text => Encode(text.Value),
                XElement { Name.LocalName: "see" or "seealso" } see => (string?)see.Attribute("cref") is { } cref ? Reference(cref, see.IsEmpty ? null : see.Value)
                    : $"<code>{Encode((string?)see.Attribute("langword") ?? see.Value)}</code>",
                XElement { Name.LocalName: "paramref" or "typeparamref" } name => $"<code>{Encode((string?)name.Attribute("name") ?? "")}</code>",
                XElement { Name.LocalName: "c" } code => $"<code>{Encode(code.Value)}</code>",
                XElement { Name.LocalName: "code" } code => $"<pre><code>{Encode(code.Value.Trim('\n', '\r'))}</code></pre>",
                XElement { Name.LocalName: "inheritdoc" } inherit when (string?)inherit.Attribute("cref") is { } cref => Find(cref, null)?.Element("summary") is { } summary ? Inline(summary) : "",
                XElement other => Inline(other),
                _ => "",
            });
        }

        return html.ToString().Trim();
    }

    /// <summary>A link where the site has a page of it, its name elsewhere.</summary>
    private string Reference(string id, string? text = null)
    {
        string full = id.Length > 2 ? id[2..] : id, bare = full.Split('(')[0];
        if (_types.TryGetValue($"T:{full}", out Type? type))
        {
            return $"<a href=\"../{AddressOf(type)}\"><code>{Encode(text ?? DocumentId.ShortName(type))}</code></a>";
        }

        int dot = bare.LastIndexOf('.');
        string name = dot > 0 ? bare[(dot + 1)..] : bare;
        if (dot > 0 && _types.TryGetValue($"T:{bare[..dot]}", out Type? owner) && !id.StartsWith("T:", StringComparison.Ordinal))
        {
            // Properties of records that their parameters make have no place of their own.
            string fragment = _members.Contains(id) && (_docs.ContainsKey(id) || owner.IsEnum) ? $"#{Uri.EscapeDataString(full)}" : "";
            string label = name == "#ctor" ? DocumentId.ShortName(owner) : $"{DocumentId.ShortName(owner)}.{name.Split('`')[0]}";
            return $"<a href=\"../{AddressOf(owner)}{fragment}\"><code>{Encode(text ?? label)}</code></a>";
        }

        return $"<code>{Encode(text ?? name.Split('`')[0])}</code>";
    }

    private static bool IsVisible(MethodBase method) => method.IsPublic || method.IsFamily || method.IsFamilyOrAssembly;

    private static string Encode(string text) => SitePage.Encode(text);
}
