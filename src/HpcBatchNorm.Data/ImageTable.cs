using System.Buffers;
using System.Globalization;
using System.Text;

namespace HpcBatchNorm.Data;

/// <summary>
/// The images of a data set without an object per image: 1.3 million names are one block of bytes. Sorted by name (bytes, ordinal), except those of a
/// packed set, whose order is its point. Sorting makes the order, and with it every seeded shuffle, the same for an archive and for the folders extracted from it.
/// </summary>
internal sealed class ImageTable
{
    private const int BytesPerImage = sizeof(int) + sizeof(long) + sizeof(int);

    private static readonly Dictionary<string, string> NoLabels = [];

    private readonly byte[] _names;
    private readonly int[] _nameEnds;

    private ImageTable(byte[] names, int[] nameEnds, long[] offsets, int[] sizes)
    {
        _names = names;
        _nameEnds = nameEnds;
        Offsets = offsets;
        Sizes = sizes;
    }

    public int Count => _nameEnds.Length;

    /// <summary>Where each image begins in the archive; -1 when it is a file of its own.</summary>
    public long[] Offsets { get; }

    /// <summary>Bytes of each image; -1 when it is a file of its own.</summary>
    public int[] Sizes { get; }

    /// <summary>What the archive holds besides, a line for each kind.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];

    /// <summary>Labels that lie in the archive beside the images, by the image's path without its extension.</summary>
    public IReadOnlyDictionary<string, string> Labels { get; init; } = NoLabels;

    public ReadOnlySpan<byte> NameBytes(int index)
    {
        int start = index == 0 ? 0 : _nameEnds[index - 1];
        return _names.AsSpan(start, _nameEnds[index] - start);
    }

    public string Name(int index) => Text(NameBytes(index));

    /// <summary>
    /// A name of bytes as text: UTF-8, and bytes that are none, or that a terminal would obey, as <c>\xE9</c>, so that two names are the same text only
    /// where they are the same bytes (or somebody names files like that), and every line that holds a name is one.
    /// </summary>
    public static string Text(ReadOnlySpan<byte> name)
    {
        if (System.Text.Unicode.Utf8.IsValid(name) && Encoding.UTF8.GetString(name) is var whole && !whole.Any(char.IsControl))
        {
            return whole;
        }

        var text = new StringBuilder(name.Length);
        while (!name.IsEmpty)
        {
            if (Rune.DecodeFromUtf8(name, out Rune rune, out int bytes) == OperationStatus.Done && !Rune.IsControl(rune))
            {
                text.Append(rune.ToString());
            }
            else
            {
                foreach (byte invalid in name[..bytes])
                {
                    text.Append(CultureInfo.InvariantCulture, $"\\x{invalid:X2}");
                }
            }

            name = name[bytes..];
        }

        return text.ToString();
    }

    /// <summary>The table of some of the images, in the order given.</summary>
    public ImageTable Select(IReadOnlyList<int> indices)
    {
        var images = new Builder();
        foreach (int index in indices)
        {
            images.Add(NameBytes(index), Offsets[index], Sizes[index]);
        }

        return images.BuildInOrder(Notes);
    }

    /// <summary>One table after the other.</summary>
    public static ImageTable Concatenate(IReadOnlyList<ImageTable> tables)
    {
        var images = new Builder();
        foreach (ImageTable table in tables)
        {
            for (int i = 0; i < table.Count; i++)
            {
                images.Add(table.NameBytes(i), table.Offsets[i], table.Sizes[i]);
            }
        }

        return images.BuildInOrder([.. tables.SelectMany(table => table.Notes).Distinct()]);
    }

    public void Write(BinaryWriter writer)
    {
        writer.Write(Count);
        writer.Write(_names.Length);
        writer.Write(_names);
        for (int i = 0; i < Count; i++)
        {
            writer.Write(_nameEnds[i]);
            writer.Write(Offsets[i]);
            writer.Write(Sizes[i]);
        }

        writer.Write(Notes.Count);
        foreach (string note in Notes)
        {
            writer.Write(note);
        }

        writer.Write(Labels.Count);
        foreach ((string key, string label) in Labels)
        {
            writer.Write(key);
            writer.Write(label);
        }
    }

    /// <summary>Reads what <see cref="Write"/> wrote.</summary>
    /// <param name="reader">Where it lies; its stream knows its length.</param>
    /// <exception cref="FormatException">The numbers contradict one another or the length of what is read.</exception>
    /// <exception cref="IOException">There is less than the numbers say.</exception>
    public static ImageTable Read(BinaryReader reader)
    {
        long rest = reader.BaseStream.Length - reader.BaseStream.Position;
        int count = reader.ReadInt32(), nameBytes = reader.ReadInt32();
        // Before any memory is taken: a damaged number would ask for all of it.
        if (count < 0 || nameBytes < 0 || (long)count * BytesPerImage + nameBytes > rest)
        {
            throw new FormatException("more images than the file has room for");
        }

        byte[] names = reader.ReadBytes(nameBytes);
        int[] nameEnds = new int[count], sizes = new int[count];
        long[] offsets = new long[count];
        for (int i = 0; i < count; i++)
        {
            nameEnds[i] = reader.ReadInt32();
            offsets[i] = reader.ReadInt64();
            sizes[i] = reader.ReadInt32();
            if (nameEnds[i] < (i == 0 ? 0 : nameEnds[i - 1]) || nameEnds[i] > nameBytes || offsets[i] < 0 || sizes[i] < 0 || offsets[i] > long.MaxValue - sizes[i])
            {
                throw new FormatException("an image's place is none");
            }
        }

        int notes = ReadCount();
        var lines = new List<string>();
        for (int i = 0; i < notes; i++)
        {
            lines.Add(reader.ReadString());
        }

        int labelled = ReadCount();
        var labels = new Dictionary<string, string>(StringComparer.Ordinal);
        for (int i = 0; i < labelled; i++)
        {
            labels[reader.ReadString()] = reader.ReadString();
        }

        return new ImageTable(names, nameEnds, offsets, sizes) { Notes = lines, Labels = labels };

        int ReadCount() => reader.ReadInt32() is int number && number >= 0 && number <= rest ? number : throw new FormatException("more texts than the file has room for");
    }

    /// <summary>A table of images that are numbered, of one size and without gaps between them.</summary>
    public static ImageTable Numbered(int count, long start, int imageBytes)
    {
        int digits = Math.Max(5, count.ToString(CultureInfo.InvariantCulture).Length);
        byte[] names = new byte[(long)count * digits];
        int[] nameEnds = new int[count], sizes = new int[count];
        long[] offsets = new long[count];
        string format = FormattableString.Invariant($"D{digits}");
        for (int i = 0; i < count; i++)
        {
            _ = i.TryFormat(names.AsSpan(i * digits, digits), out _, format, CultureInfo.InvariantCulture);
            (nameEnds[i], offsets[i], sizes[i]) = ((i + 1) * digits, start + (long)i * imageBytes, imageBytes);
        }

        return new ImageTable(names, nameEnds, offsets, sizes);
    }

    /// <summary>Collects images in any order.</summary>
    public sealed class Builder
    {
        private readonly List<(byte[] Name, long Offset, int Size)> _images = [];

        /// <summary>How many there are so far.</summary>
        public int Count => _images.Count;

        public void Add(string name, long offset = -1, long size = -1) => Add(Encoding.UTF8.GetBytes(name), offset, size);

        public void Add(ReadOnlySpan<byte> name, long offset = -1, long size = -1)
        {
            if (size > Array.MaxLength)
            {
                throw new UserErrorException($"image '{UserErrorException.Excerpt(Text(name))}' has {size} bytes; no image is that large.");
            }

            _images.Add((name.ToArray(), offset, (int)size));
        }

        /// <summary>Sorts the images by name and drops, of those of one name, all but the one added last.</summary>
        /// <param name="replaced">Told the name of each that is dropped.</param>
        public void KeepLast(Action<byte[]> replaced)
        {
            (byte[] Name, long Offset, int Size)[] sorted = [.. _images.OrderBy(image => image.Name, Comparer<byte[]>.Create((a, b) => a.AsSpan().SequenceCompareTo(b)))];
            _images.Clear();
            for (int i = 0; i < sorted.Length; i++)
            {
                if (i + 1 < sorted.Length && sorted[i].Name.AsSpan().SequenceEqual(sorted[i + 1].Name))
                {
                    replaced(sorted[i].Name);
                }
                else
                {
                    _images.Add(sorted[i]);
                }
            }
        }

        /// <summary>The table of images sorted by name.</summary>
        public ImageTable Build(IReadOnlyList<string>? notes = null, IReadOnlyDictionary<string, string>? labels = null)
        {
            _images.Sort((a, b) => a.Name.AsSpan().SequenceCompareTo(b.Name));
            return BuildInOrder(notes, labels);
        }

        /// <summary>The table of images in the order they were added.</summary>
        public ImageTable BuildInOrder(IReadOnlyList<string>? notes = null, IReadOnlyDictionary<string, string>? labels = null)
        {
            long bytes = _images.Sum(image => (long)image.Name.Length);
            if (bytes > Array.MaxLength)
            {
                throw new UserErrorException(FormattableString.Invariant($"the names of {_images.Count} images take {bytes} bytes; make them shorter, or the data set smaller."));
            }

            byte[] names = new byte[bytes];
            int[] nameEnds = new int[_images.Count];
            int end = 0;
            for (int i = 0; i < _images.Count; i++)
            {
                _images[i].Name.CopyTo(names, end);
                nameEnds[i] = end += _images[i].Name.Length;
            }

            return new ImageTable(names, nameEnds, [.. _images.Select(image => image.Offset)], [.. _images.Select(image => image.Size)]) { Notes = notes ?? [], Labels = labels ?? NoLabels };
        }
    }
}
