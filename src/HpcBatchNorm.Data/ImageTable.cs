using System.Text;

namespace HpcBatchNorm.Data;

/// <summary>
/// The images of a data set without an object per image: 1.3 million names are one block of bytes. Sorted by name (UTF-8, ordinal), except those of a
/// packed set, whose order is its point. Sorting makes the order, and with it every seeded shuffle, the same for an archive and for the folders extracted from it.
/// </summary>
internal sealed class ImageTable
{
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

    public ReadOnlySpan<byte> NameBytes(int index)
    {
        int start = index == 0 ? 0 : _nameEnds[index - 1];
        return _names.AsSpan(start, _nameEnds[index] - start);
    }

    public string Name(int index) => Encoding.UTF8.GetString(NameBytes(index));

    /// <summary>True for the names of image files; everything else in a folder or archive is passed over.</summary>
    public static bool IsImageName(string name) =>
        Path.GetFileName(name.AsSpan()) is [not '.', ..] &&
        Path.GetExtension(name.AsSpan()) is { Length: > 0 } extension &&
        (extension.Equals(".jpeg", StringComparison.OrdinalIgnoreCase) || extension.Equals(".jpg", StringComparison.OrdinalIgnoreCase) ||
         extension.Equals(".png", StringComparison.OrdinalIgnoreCase) || extension.Equals(".webp", StringComparison.OrdinalIgnoreCase) ||
         extension.Equals(".bmp", StringComparison.OrdinalIgnoreCase));

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
    }

    public static ImageTable Read(BinaryReader reader)
    {
        int count = reader.ReadInt32();
        byte[] names = reader.ReadBytes(reader.ReadInt32());
        int[] nameEnds = new int[count], sizes = new int[count];
        long[] offsets = new long[count];
        for (int i = 0; i < count; i++)
        {
            nameEnds[i] = reader.ReadInt32();
            offsets[i] = reader.ReadInt64();
            sizes[i] = reader.ReadInt32();
        }

        return new ImageTable(names, nameEnds, offsets, sizes);
    }

    /// <summary>Collects images in any order.</summary>
    public sealed class Builder
    {
        private readonly List<(byte[] Name, long Offset, int Size)> _images = [];

        public void Add(string name, long offset = -1, long size = -1)
        {
            if (size > Array.MaxLength)
            {
                throw new UserErrorException($"image '{name}' has {size} bytes; no image is that large.");
            }

            _images.Add((Encoding.UTF8.GetBytes(name), offset, (int)size));
        }

        /// <summary>How many there are so far.</summary>
        public int Count => _images.Count;

        /// <summary>The table of images sorted by name.</summary>
        public ImageTable Build()
        {
            _images.Sort((a, b) => a.Name.AsSpan().SequenceCompareTo(b.Name));
            return BuildInOrder();
        }

        /// <summary>The table of images in the order they were added.</summary>
        public ImageTable BuildInOrder()
        {
            byte[] names = new byte[_images.Sum(image => image.Name.Length)];
            int[] nameEnds = new int[_images.Count];
            int end = 0;
            for (int i = 0; i < _images.Count; i++)
            {
                _images[i].Name.CopyTo(names, end);
                nameEnds[i] = end += _images[i].Name.Length;
            }

            return new ImageTable(names, nameEnds, [.. _images.Select(image => image.Offset)], [.. _images.Select(image => image.Size)]);
        }
    }
}
