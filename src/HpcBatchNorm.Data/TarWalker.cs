using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace HpcBatchNorm.Data;

/// <summary>
/// Walks the headers of a tar archive that lies at a place inside a file, giving the exact position of every regular member's data. The library
/// reader (System.Formats.Tar) does not tell positions inside nested archives, and reading 138 GB through streams would take an hour; this reads
/// 512 bytes per member. Understands ustar prefixes, GNU long names and base-256 sizes, and pax path and size records.
/// </summary>
internal sealed class TarWalker
{
    public const int BlockBytes = 512;
    private const long LongestHeaderData = 1 << 20;

    private readonly SafeFileHandle _file;
    private readonly string _name;
    private readonly long _end;
    private readonly byte[] _header = new byte[BlockBytes];
    private long _position;

    /// <param name="file">The file that holds the archive.</param>
    /// <param name="name">What to call the archive in errors.</param>
    /// <param name="start">Where the archive begins in the file.</param>
    /// <param name="length">How long it is.</param>
    public TarWalker(SafeFileHandle file, string name, long start, long length)
    {
        _file = file;
        _name = name;
        _position = start;
        _end = start + length;
    }

    /// <summary>The next regular member, or false at the end of the archive.</summary>
    /// <exception cref="UserErrorException">The archive is cut short or damaged; the line names it and the offset in the file.</exception>
    public bool TryNext(out TarMember member)
    {
        string? longName = null;
        long? longSize = null;
        while (true)
        {
            if (_position == _end || !ReadHeader())
            {
                member = default;
                return false;
            }

            long header = _position;
            char type = (char)_header[156];
            long size = ReadNumber(_header.AsSpan(124, 12), header);
            // A pax size record replaces the size field of the member it precedes, not of the extended header itself.
            if (type is not ('x' or 'g' or 'L' or 'K') && longSize is { } paxSize)
            {
                size = paxSize;
            }

            long data = header + BlockBytes;
            if (size < 0 || size > _end - data)
            {
                throw Truncated(header, $"a member of {size} bytes runs past the end");
            }

            // The padding of the last member may be missing without loss.
            _position = Math.Min(data + ((size + BlockBytes - 1) & -BlockBytes), _end);
            switch (type)
            {
                case 'L':
                    longName = Encoding.UTF8.GetString(ReadData(data, size, header)).TrimEnd('\0');
                    break;
                case 'x':
                    ReadPaxRecords(ReadData(data, size, header), header, ref longName, ref longSize);
                    break;
                case '0' or '\0' or '7':
                    string name = longName ?? HeaderName();
                    longName = null;
                    longSize = null;
                    if (!name.EndsWith('/'))
                    {
                        member = new TarMember(name, data, size);
                        return true;
                    }

                    break;
                case 'g' or 'K':
                    break;
                default:
                    longName = null;
                    longSize = null;
                    break;
            }
        }
    }

    /// <summary>Reads the header at the position; false at the end-of-archive block.</summary>
    private bool ReadHeader()
    {
        if (_end - _position < BlockBytes || !TryReadExactly(_header, _position))
        {
            throw Truncated(_position, "a header block is incomplete");
        }

        if (!_header.AsSpan().ContainsAnyExcept((byte)0))
        {
            return false;
        }

        int sum = 0;
        for (int i = 0; i < BlockBytes; i++)
        {
            sum += i is >= 148 and < 156 ? ' ' : _header[i];
        }

        if (ReadNumber(_header.AsSpan(148, 8), _position) != sum)
        {
            throw new UserErrorException($"{_name}: no tar header at offset {_position} (wrong checksum); the archive is damaged, get it again.");
        }

        return true;
    }

    private string HeaderName()
    {
        string name = Text(_header.AsSpan(0, 100));
        bool posix = _header.AsSpan(257, 6).SequenceEqual("ustar\0"u8);
        string prefix = posix ? Text(_header.AsSpan(345, 155)) : "";
        return prefix.Length == 0 ? name : prefix + "/" + name;
    }

    private byte[] ReadData(long offset, long size, long header)
    {
        if (size > LongestHeaderData)
        {
            throw new UserErrorException($"{_name}: an extended header of {size} bytes at offset {header}; the archive is damaged, get it again.");
        }

        byte[] data = new byte[size];
        return TryReadExactly(data, offset) ? data : throw Truncated(header, "an extended header is incomplete");
    }

    private void ReadPaxRecords(ReadOnlySpan<byte> records, long header, ref string? path, ref long? size)
    {
        while (!records.IsEmpty)
        {
            int space = records.IndexOf((byte)' ');
            if (space <= 0 || !int.TryParse(records[..space], NumberStyles.None, CultureInfo.InvariantCulture, out int length)
                || length <= space + 1 || length > records.Length)
            {
                throw new UserErrorException($"{_name}: malformed pax record at offset {header}; the archive is damaged, get it again.");
            }

            ReadOnlySpan<byte> record = records[(space + 1)..(length - 1)];
            if (record.StartsWith("path="u8))
            {
                path = Encoding.UTF8.GetString(record[5..]);
            }
            else if (record.StartsWith("size="u8) && long.TryParse(record[5..], NumberStyles.None, CultureInfo.InvariantCulture, out long bytes))
            {
                size = bytes;
            }

            records = records[length..];
        }
    }

    /// <summary>An octal field, or base-256 when the first bit is set.</summary>
    private long ReadNumber(ReadOnlySpan<byte> field, long header)
    {
        if ((field[0] & 0x80) != 0)
        {
            return BinaryPrimitives.ReadInt64BigEndian(field[^8..]);
        }

        long value = 0;
        foreach (byte character in field.Trim(" \0"u8))
        {
            if (character is < (byte)'0' or > (byte)'7')
            {
                throw new UserErrorException($"{_name}: no tar header at offset {header} (not an octal number); the archive is damaged, get it again.");
            }

            value = (value << 3) + (character - '0');
        }

        return value;
    }

    private static string Text(ReadOnlySpan<byte> field)
    {
        int end = field.IndexOf((byte)0);
        return Encoding.UTF8.GetString(end < 0 ? field : field[..end]);
    }

    private bool TryReadExactly(Span<byte> destination, long offset)
    {
        while (!destination.IsEmpty)
        {
            int read = RandomAccess.Read(_file, destination, offset);
            if (read == 0)
            {
                return false;
            }

            destination = destination[read..];
            offset += read;
        }

        return true;
    }

    private UserErrorException Truncated(long offset, string what) =>
        new($"{_name} is cut short: at offset {offset} {what}; get the archive again.");
}

/// <summary>A regular member of a tar archive: its data occupies [Offset, Offset + Size) of the file.</summary>
internal readonly record struct TarMember(string Name, long Offset, long Size);
