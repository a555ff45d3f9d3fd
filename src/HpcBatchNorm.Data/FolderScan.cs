using System.Text;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Data;

/// <summary>
/// Looks through a folder of class folders by the bytes of names, following links but none that leads back up, and says what is no image.
/// </summary>
internal sealed class FolderScan
{
    /// <summary>No data set is nested so deep; a program that makes folders without end is stopped here.</summary>
    private const int DeepestFolder = 100;

    private readonly byte[] _root;
    private readonly HashSet<string> _above = new(StringComparer.Ordinal);
    private readonly PassedOver _passedOver;

    /// <param name="root">The folder with the class folders.</param>
    /// <param name="passedOver">Told what is no image.</param>
    /// <param name="refuseSame">Whether two class folders that are one and the same, or whose names read the same, are refused.</param>
    /// <exception cref="IOException">The folder cannot be listed.</exception>
    /// <exception cref="UserErrorException">Two class folders are one.</exception>
    public FolderScan(string root, PassedOver passedOver, bool refuseSame = true)
    {
        Root = root;
        _root = Encoding.UTF8.GetBytes(Path.TrimEndingDirectorySeparator(root));
        _passedOver = passedOver;
        // The folders that this one truly lies in, which its path need not say.
        string path = root;
        for (int i = 0; i < DeepestFolder && FileStatus.Of(path).Identity is { Length: > 0 } identity && _above.Add(identity); i++)
        {
            path += "/..";
        }

        Entries = Sorted(FolderListing.Read(_root));
        Classes = FindClasses(refuseSame);
    }

    /// <summary>The folder.</summary>
    public string Root { get; }

    /// <summary>What lies in the folder, sorted by name.</summary>
    public IReadOnlyList<FolderEntry> Entries { get; }

    /// <summary>The class folders as bytes and as text, in the text's order.</summary>
    public IReadOnlyList<(byte[] Bytes, string Name)> Classes { get; }

    /// <summary>Adds all images below a folder of the root; returns how many.</summary>
    /// <param name="folder">Its path from the root.</param>
    /// <param name="images">Where they go, with their paths from the root.</param>
    public int AddImages(byte[] folder, ImageTable.Builder images) => AddImages(folder, images, []);

    /// <summary>Adds the images that lie in the root itself; returns how many.</summary>
    public int AddLooseImages(ImageTable.Builder images)
    {
        int before = images.Count;
        foreach (FolderEntry entry in Entries.Where(e => e.Kind != FileKind.Folder))
        {
            AddFile(entry.Name, entry, images);
        }

        return images.Count - before;
    }

    private int AddImages(byte[] folder, ImageTable.Builder images, List<string> path)
    {
        int before = images.Count;
        string identity = FileStatus.Of((byte[])[.. _root, (byte)'/', .. folder, 0]).Identity;
        path.Add(identity);
        foreach (FolderEntry entry in Sorted(FolderListing.Read([.. _root, (byte)'/', .. folder])))
        {
            byte[] name = [.. folder, (byte)'/', .. entry.Name];
            if (entry.Kind != FileKind.Folder)
            {
                AddFile(name, entry, images);
            }
            else if (ImageNames.WhyNoFolder(ImageTable.Text(entry.Name)) is { } reason)
            {
                _passedOver.Add(reason, name);
            }
            else if (LeadsUp(name, entry, path))
            {
                _passedOver.Add(Loops, name);
            }
            else if (path.Count >= DeepestFolder)
            {
                _passedOver.Add(FormattableString.Invariant($"folders nested more than {DeepestFolder} deep"), name);
            }
            else
            {
                AddImages(name, images, path);
            }
        }

        path.RemoveAt(path.Count - 1);
        return images.Count - before;
    }

    private const string Loops = "links to a folder that they lie in";

    private void AddFile(byte[] name, in FolderEntry entry, ImageTable.Builder images)
    {
        string text = ImageTable.Text(entry.Name);
        if (entry.Kind == FileKind.None)
        {
            _passedOver.Add("links that lead to nothing", name);
            return;
        }

        if (entry.Kind == FileKind.Other)
        {
            _passedOver.Add("named pipes, sockets and devices", name);
            return;
        }

        bool? image = ImageNames.IsImage(text, out string reason);
        if (image is null)
        {
            byte[] first = new byte[ImageNames.PrefixBytes];
            image = WholeFile.TryReadBeginning((byte[])[.. _root, (byte)'/', .. name, 0], first, out int length, out long size)
                && ImageNames.IsImageContent(first.AsSpan(0, length), size, out reason);
        }

        if (image == true)
        {
            images.Add(name);
        }
        else
        {
            _passedOver.Add(reason.Length > 0 ? reason : ImageNames.NotImagesByContent, name);
        }
    }

    private bool LeadsUp(byte[] name, in FolderEntry entry, List<string> path)
    {
        if (!entry.IsLink)
        {
            return false;
        }

        string identity = FileStatus.Of((byte[])[.. _root, (byte)'/', .. name, 0]).Identity;
        return identity.Length > 0 && (_above.Contains(identity) || path.Contains(identity));
    }

    private List<(byte[] Bytes, string Name)> FindClasses(bool refuseSame)
    {
        var classes = new List<(byte[] Bytes, string Name)>();
        var seen = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (FolderEntry entry in Entries.Where(e => e.Kind == FileKind.Folder))
        {
            string name = ImageTable.Text(entry.Name), identity = FileStatus.Of((byte[])[.. _root, (byte)'/', .. entry.Name, 0]).Identity;
            if (ImageNames.WhyNoFolder(name) is { } reason)
            {
                _passedOver.Add(reason, entry.Name);
            }
            else if (LeadsUp(entry.Name, entry, []))
            {
                _passedOver.Add(Loops, entry.Name);
            }
            else if (identity.Length > 0 && !seen.TryAdd(identity, name) && refuseSame)
            {
                throw new UserErrorException(
                    $"class folders '{seen[identity]}' and '{name}' of '{Root}' are one and the same folder, one being a link to it, so its images would be of two classes; remove the link.");
            }
            else
            {
                classes.Add((entry.Name, name));
            }
        }

        classes.Sort((a, b) => string.CompareOrdinal(a.Name, b.Name));
        int same = !refuseSame ? 0 : Enumerable.Range(1, Math.Max(0, classes.Count - 1)).FirstOrDefault(i => classes[i].Name == classes[i - 1].Name);
        return same == 0 ? classes : throw new UserErrorException($"'{Root}' has two class folders whose names read '{classes[same].Name}'; rename one.");
    }

    private static List<FolderEntry> Sorted(List<FolderEntry> entries)
    {
        entries.Sort((a, b) => a.Name.AsSpan().SequenceCompareTo(b.Name));
        return entries;
    }
}
