using System.Text;
using HpcBatchNorm.Interop;
using Microsoft.Win32.SafeHandles;

namespace HpcBatchNorm.Data;

/// <summary>Where the bytes of a data set's images lie. Read from any thread.</summary>
internal abstract class ImageStore : IDisposable
{
    /// <summary>
    /// Reads image <paramref name="index"/> into <paramref name="buffer"/>, replacing it by a larger one when it is too small, and returns its bytes.
    /// Throws <see cref="IOException"/> or <see cref="UnauthorizedAccessException"/> when that is not possible.
    /// </summary>
    public abstract int Read(int index, ref byte[] buffer);

    /// <summary>Closes what is open.</summary>
    public abstract void Dispose();

    protected static void Reserve(int size, ref byte[] buffer)
    {
        if (buffer.Length < size)
        {
            buffer = new byte[Math.Max(size, (int)Math.Min(2L * buffer.Length, Array.MaxLength))];
        }
    }

    protected static int Read(SafeFileHandle file, long offset, int size, ref byte[] buffer)
    {
        Reserve(size, ref buffer);
        Span<byte> rest = buffer.AsSpan(0, size);
        while (!rest.IsEmpty)
        {
            int read = RandomAccess.Read(file, rest, offset);
            if (read == 0)
            {
                throw new EndOfStreamException("it lies past the end of the file, which was changed since it was opened");
            }

            offset += read;
            rest = rest[read..];
        }

        return size;
    }
}

/// <summary>A file per image, named relative to a folder.</summary>
internal sealed class FolderStore(string root, ImageTable images) : ImageStore
{
    private const int LongestPath = 4096;

    private readonly byte[] _rootBytes = Encoding.UTF8.GetBytes(Path.TrimEndingDirectorySeparator(root) + '/');

    public override int Read(int index, ref byte[] buffer)
    {
        ReadOnlySpan<byte> name = images.NameBytes(index);
        int end = _rootBytes.Length + name.Length;
        if (end < LongestPath)
        {
            Span<byte> path = stackalloc byte[LongestPath];
            _rootBytes.CopyTo(path);
            name.CopyTo(path[_rootBytes.Length..]);
            path[end] = 0;
            if (WholeFile.TryRead(path[..(end + 1)], ref buffer, out int length))
            {
                return length;
            }
        }

        // What did not work above works here, or fails with words.
        using SafeFileHandle file = RegularFile.OpenHandle(Path.Combine(root, images.Name(index)));
        return Read(file, 0, checked((int)RandomAccess.GetLength(file)), ref buffer);
    }

    public override void Dispose()
    {
    }
}

/// <summary>One archive, or several that hold the images one after the other; they stay open.</summary>
internal sealed class ArchiveStore : ImageStore
{
    private readonly ImageTable _images;
    private readonly SafeFileHandle[] _archives;
    private readonly int[] _starts;

    /// <param name="images">Places within the archives.</param>
    /// <param name="archives">The archives' paths.</param>
    /// <param name="starts">The first image of each archive, ascending from 0.</param>
    public ArchiveStore(ImageTable images, string[] archives, int[] starts)
    {
        (_images, _starts) = (images, starts);
        _archives = [.. archives.Select(ArchiveIndex.Open)];
    }

    public ArchiveStore(ImageTable images, string archive)
        : this(images, [archive], [0])
    {
    }

    public override int Read(int index, ref byte[] buffer)
    {
        int archive = Shards.Of(_starts, index);
        return Read(_archives[archive], _images.Offsets[index], _images.Sizes[index], ref buffer);
    }

    public override void Dispose()
    {
        foreach (SafeFileHandle archive in _archives)
        {
            archive.Dispose();
        }
    }
}

/// <summary>All images in memory.</summary>
internal sealed class MemoryStore(ImageTable images, byte[] bytes) : ImageStore
{
    public override int Read(int index, ref byte[] buffer)
    {
        int size = images.Sizes[index];
        Reserve(size, ref buffer);
        bytes.AsSpan((int)images.Offsets[index], size).CopyTo(buffer);
        return size;
    }

    public override void Dispose()
    {
    }
}

/// <summary>Groups of neighbouring images, given by the first image of each.</summary>
internal static class Shards
{
    /// <summary>Size of the groups where a layout has none of its own: about Google's 1024 files of 1.28 million images.</summary>
    private const int RunLength = 1024;

    /// <summary>The shard of an image: the last that begins at it or before, because an empty one begins where the next does.</summary>
    public static int Of(int[] starts, int index)
    {
        (int low, int high) = (0, starts.Length);
        while (high - low > 1)
        {
            int middle = low + (high - low) / 2;
            (low, high) = starts[middle] <= index ? (middle, high) : (low, middle);
        }

        return low;
    }

    /// <summary>Runs of equal length, the last one shorter.</summary>
    public static int[] Runs(int count) => [.. Enumerable.Range(0, (count + RunLength - 1) / RunLength).Select(i => i * RunLength)];

    /// <summary>Runs of equal labels.</summary>
    public static int[] Classes(int[] labels)
    {
        var starts = new List<int>();
        for (int i = 0; i < labels.Length; i++)
        {
            if (i == 0 || labels[i] != labels[i - 1])
            {
                starts.Add(i);
            }
        }

        return [.. starts];
    }
}
