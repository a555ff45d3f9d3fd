using System.Text;
using System.Text.Json;
using Microsoft.Win32.SafeHandles;

namespace HpcBatchNorm.Data;

/// <summary>One walk over an archive and the archives inside it, which finds the images and says what else there was.</summary>
/// <param name="file">The archive.</param>
/// <param name="path">Its path, for messages.</param>
/// <param name="passedOver">Told what is no image.</param>
internal sealed class ArchiveWalk(SafeFileHandle file, string path, PassedOver passedOver)
{
    private readonly FileTarSource _source = new(file);

    /// <summary>Links, which can be followed only when all members are known.</summary>
    private readonly List<TarMember> _links = [];

    /// <summary>Where links may lead to; kept only once there has been a link, because hard links stand behind what they are links to.</summary>
    private readonly Dictionary<string, (long Offset, long Size)> _members = new(StringComparer.Ordinal);

    /// <summary>Far above what a label takes, with what else a shard's JSON may say of an image.</summary>
    private const long LongestLabel = 1 << 16;

    /// <summary>The labels that lie beside images: of <c>a/KEY.cls</c> and <c>a/KEY.json</c>, under <c>a/KEY</c>.</summary>
    public Dictionary<string, string> Labels { get; } = new(StringComparer.Ordinal);

    /// <summary>Adds the images, in the archive's order, links last.</summary>
    /// <param name="images">Where they go.</param>
    public void Add(ImageTable.Builder images)
    {
        long length = RandomAccess.GetLength(file);
        var outer = new TarWalker(_source, $"'{path}'", 0, length, passedOver);
        while (outer.TryNext(out TarMember member))
        {
            ReadOnlySpan<byte> name = Plain(member.NameBytes);
            if (member.Target is not null)
            {
                _links.Add(member);
            }
            else if (ImageNames.WhyNotIn(member.Name) is { } folder)
            {
                passedOver.Add(folder, name);
            }
            else if (name.EndsWith(".tar"u8) || name.EndsWith(".TAR"u8))
            {
                if (name[(name.LastIndexOf((byte)'/') + 1)] == (byte)'.')
                {
                    // A Mac puts a file of its own beside each, which is no archive.
                    passedOver.Add(ImageNames.Hidden, name);
                    continue;
                }

                AddInner(images, [.. name[..^4], (byte)'/'], member);
            }
            else if (!AddLabel(outer, member, ImageTable.Text(name)) && IsImage(outer, member))
            {
                images.Add(name, member.Offset, member.Size);
            }
        }

        AddLinks(images, length);
    }

    /// <summary>A class's own archive: its images are named after it.</summary>
    private void AddInner(ImageTable.Builder images, byte[] prefix, in TarMember archive)
    {
        var inner = new TarWalker(_source, $"'{archive.Name}' in '{path}'", archive.Offset, archive.Size, passedOver);
        while (inner.TryNext(out TarMember image))
        {
            if (ImageNames.WhyNotIn(image.Name) is { } folder)
            {
                passedOver.Add(folder, image.NameBytes);
            }
            else if (image.Target is not null)
            {
                passedOver.Add("links in archives inside the archive, which are not followed", image.NameBytes);
            }
            else if (IsImage(inner, image))
            {
                images.Add((byte[])[.. prefix, .. image.NameBytes.AsSpan(image.NameBytes.AsSpan().LastIndexOf((byte)'/') + 1)], image.Offset, image.Size);
            }
        }
    }

    private bool AddLabel(TarWalker walker, in TarMember member, string name)
    {
        bool json = name.EndsWith(".json", StringComparison.Ordinal);
        if ((!json && !name.EndsWith(".cls", StringComparison.Ordinal)) || member.Size > LongestLabel)
        {
            return false;
        }

        string? label = json ? LabelInJson(walker.ReadAll(member)) : Encoding.UTF8.GetString(walker.ReadAll(member)).Trim();
        if (label is not { Length: > 0 } || label.Any(char.IsControl))
        {
            return false;
        }

        int dot = name.IndexOf('.', name.LastIndexOf('/') + 1);
        // Where both are there, the shorter way says it.
        if (!json || !Labels.ContainsKey(name[..dot]))
        {
            Labels[name[..dot]] = label;
        }

        return true;
    }

    private static string? LabelInJson(byte[] text)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            JsonElement root = document.RootElement;
            foreach (string key in (string[])["cls", "label", "class", "class_id"])
            {
                if (root.ValueKind == JsonValueKind.Object && root.TryGetProperty(key, out JsonElement value) && value.ValueKind is JsonValueKind.Number or JsonValueKind.String)
                {
                    return value.ToString();
                }
            }
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException)
        {
            // It says something else, or nothing.
        }

        return null;
    }

    private bool IsImage(TarWalker walker, in TarMember member)
    {
        bool? image = ImageNames.IsImage(member.Name, out string reason);
        if (image is null)
        {
            Span<byte> first = stackalloc byte[ImageNames.PrefixBytes];
            image = ImageNames.IsImageContent(first[..walker.ReadPrefix(member, first)], member.Size, out reason);
        }

        if (image == false)
        {
            passedOver.Add(reason, Plain(member.NameBytes));
        }

        return image == true;
    }

    /// <summary>An image under a second name is an image, as it is once the archive is extracted.</summary>
    private void AddLinks(ImageTable.Builder images, long length)
    {
        if (_links.Count == 0)
        {
            return;
        }

        var again = new TarWalker(_source, $"'{path}'", 0, length, new PassedOver());
        while (again.TryNext(out TarMember member))
        {
            if (member.Target is null)
            {
                _members[Key(Plain(member.NameBytes))] = (member.Offset, member.Size);
            }
        }

        foreach (TarMember link in _links)
        {
            ReadOnlySpan<byte> name = Plain(link.NameBytes);
            if (ImageNames.WhyNotIn(link.Name) is { } folder)
            {
                passedOver.Add(folder, name);
            }
            else if (ImageNames.IsImage(link.Name, out string reason) == false)
            {
                passedOver.Add(reason, name);
            }
            else if (_members.TryGetValue(Key(link.IsSymbolic ? Follow(name, link.Target!) : Plain(link.Target!)), out (long Offset, long Size) data))
            {
                images.Add(name, data.Offset, data.Size);
            }
            else
            {
                passedOver.Add("links that lead to no file in the archive", name);
            }
        }
    }

    /// <summary>Where a symbolic link leads to, from the folder it lies in.</summary>
    private static byte[] Follow(ReadOnlySpan<byte> name, byte[] target)
    {
        // Latin-1 maps bytes to characters and back one to one.
        var parts = new List<string>();
        if (target is not [(byte)'/', ..])
        {
            parts.AddRange(Encoding.Latin1.GetString(name).Split('/')[..^1]);
        }

        foreach (string part in Encoding.Latin1.GetString(target).Split('/'))
        {
            if (part == ".." && parts.Count > 0)
            {
                parts.RemoveAt(parts.Count - 1);
            }
            else if (part is not ("" or "." or ".."))
            {
                parts.Add(part);
            }
        }

        return Encoding.Latin1.GetBytes(string.Join('/', parts));
    }

    private static string Key(ReadOnlySpan<byte> name) => Encoding.Latin1.GetString(name);

    private static ReadOnlySpan<byte> Plain(ReadOnlySpan<byte> name) => name.StartsWith("./"u8) ? name[2..] : name;
}
