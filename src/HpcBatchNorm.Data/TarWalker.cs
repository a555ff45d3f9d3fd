using System.Buffers.Binary;
using System.Globalization;

namespace HpcBatchNorm.Data;

/// <summary>
/// Walks the headers of a tar archive that lies at a place inside a file, giving the exact position of every regular member's data. The library
/// reader (System.Formats.Tar) does not tell positions inside nested archives, and reading 138 GB through streams would take an hour; this reads
/// 512 bytes per member. Understands ustar prefixes, GNU long names and base-256 sizes, and pax path, linkpath and size records. Whatever else an archive
/// holds (sparse members, devices, bytes behind its end) is told to <see cref="PassedOver"/>.
/// </summary>
internal sealed class TarWalker
{
    public const int BlockBytes = 512;
    private const long LongestHeaderData = 1 << 20;

    private readonly ITarSource _source;
    private readonly string _name;
    private readonly long _end;
    private readonly PassedOver _passedOver;
    private readonly byte[] _header = new byte[BlockBytes];
    private long _position;

    /// <param name="source">What holds the archive.</param>
    /// <param name="name">What to call the archive in errors.</param>
    /// <param name="start">Where the archive begins in the source.</param>
    /// <param name="length">How long it is.</param>
    /// <param name="passedOver">Told what is not a regular member.</param>
    public TarWalker(ITarSource source, string name, long start, long length, PassedOver passedOver)
    {
        _source = source;
        _name = name;
        _position = start;
        _end = start + length;
        _passedOver = passedOver;
    }

    /// <summary>The next regular member or link, or false at the end of the archive.</summary>
    /// <exception cref="UserErrorException">The archive is cut short or damaged; the line names it and the offset in the file.</exception>
    public bool TryNext(out TarMember member)
    {
        var extended = default(Extended);
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
            if (type is not ('x' or 'g' or 'L' or 'K') && extended.Size is { } paxSize)
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
            byte[] name = extended.Name ?? HeaderName();
            switch (type)
            {
                case 'L':
                    extended.Name = Trim(ReadData(data, size, header));
                    continue;
                case 'K':
                    extended.Target = Trim(ReadData(data, size, header));
                    continue;
                case 'x':
                    ReadPaxRecords(ReadData(data, size, header), header, ref extended);
                    continue;
                case 'g':
                    continue;
                case '0' or '\0' or '7' when extended.IsSparse:
                    _passedOver.Add("sparse members, whose data lie in pieces (make the archive without them)", name);
                    break;
                case '0' or '\0' or '7' when name is not [.., (byte)'/']:
                    member = new TarMember(name, data, size, null, IsSymbolic: false);
                    return true;
                case '1' or '2':
                    // A symbolic link has no data, whatever its size says; some writers repeat a hard link's.
                    member = new TarMember(name, data, size, extended.Target ?? Field(_header.AsSpan(157, 100)), IsSymbolic: type == '2');
                    return true;
                case 'S':
                    _passedOver.Add("sparse members, whose data lie in pieces (make the archive without them)", name);
                    break;
                case '0' or '\0' or '7' or '5':
                    break;
                default:
                    _passedOver.Add("members that are no files (devices, pipes, parts of other volumes)", name);
                    break;
            }

            extended = default;
        }
    }

    /// <summary>A small member's bytes.</summary>
    public byte[] ReadAll(in TarMember member)
    {
        byte[] data = new byte[member.Size];
        return _source.Read(data, member.Offset) == data.Length ? data : throw Truncated(member.Offset, $"'{member.Name}' is incomplete");
    }

    /// <summary>The first bytes of a member, as many as there are up to the buffer's length.</summary>
    public int ReadPrefix(in TarMember member, Span<byte> buffer) => _source.Read(buffer[..(int)Math.Min(buffer.Length, member.Size)], member.Offset);

    /// <summary>Reads the header at the position; false at the end-of-archive block.</summary>
    private bool ReadHeader()
    {
        if (_end - _position < BlockBytes || _source.Read(_header, _position) < BlockBytes)
        {
            throw Truncated(_position, "a header block is incomplete");
        }

        if (!_header.AsSpan().ContainsAnyExcept((byte)0))
        {
            LookBehindEnd();
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

    /// <summary>Behind the end there should be zeros only. Programs that read tar stop there too, so what follows is not looked for by anyone.</summary>
    private void LookBehindEnd()
    {
        byte[] block = new byte[1 << 16];
        for (long at = _position + BlockBytes; at < _end;)
        {
            int count = _source.Read(block.AsSpan(0, (int)Math.Min(block.Length, _end - at)), at);
            int found = block.AsSpan(0, count).IndexOfAnyExcept((byte)0);
            if (found >= 0)
            {
                long offset = at + found;
                bool archive = offset % BlockBytes == 0 && count - found >= BlockBytes && block.AsSpan(found + 257, 5).SequenceEqual("ustar"u8);
                _passedOver.Add(
                    archive ? "archives behind the end of the first (join archives with tar -A, not with cat)" : "runs of bytes behind the end of an archive",
                    FormattableString.Invariant($"from offset {offset} of {_name.Trim('\'')} on"));
                return;
            }

            if (count == 0)
            {
                return;
            }

            at += count;
        }
    }

    private byte[] HeaderName()
    {
        byte[] name = Field(_header.AsSpan(0, 100));
        bool posix = _header.AsSpan(257, 6).SequenceEqual("ustar\0"u8);
        byte[] prefix = posix ? Field(_header.AsSpan(345, 155)) : [];
        return prefix.Length == 0 ? name : [.. prefix, (byte)'/', .. name];
    }

    private byte[] ReadData(long offset, long size, long header)
    {
        if (size > LongestHeaderData)
        {
            throw new UserErrorException($"{_name}: an extended header of {size} bytes at offset {header}; the archive is damaged, get it again.");
        }

        byte[] data = new byte[size];
        return _source.Read(data, offset) == size ? data : throw Truncated(header, "an extended header is incomplete");
    }

    private void ReadPaxRecords(ReadOnlySpan<byte> records, long header, ref Extended extended)
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
                extended.Name = record[5..].ToArray();
            }
            else if (record.StartsWith("linkpath="u8))
            {
                extended.Target = record[9..].ToArray();
            }
            else if (record.StartsWith("size="u8) && long.TryParse(record[5..], NumberStyles.None, CultureInfo.InvariantCulture, out long bytes))
            {
                extended.Size = bytes;
            }
            else if (record.StartsWith("GNU.sparse."u8))
            {
                extended.IsSparse = true;
                if (record.StartsWith("GNU.sparse.name="u8))
                {
                    extended.Name = record[16..].ToArray();
                }
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

    private static byte[] Field(ReadOnlySpan<byte> field)
    {
        int end = field.IndexOf((byte)0);
        return (end < 0 ? field : field[..end]).ToArray();
    }

    private static byte[] Trim(ReadOnlySpan<byte> text) => text.TrimEnd((byte)0).ToArray();

    private UserErrorException Truncated(long offset, string what) =>
        new($"{_name} is cut short: at offset {offset} {what}; get the archive again.");

    /// <summary>What extended headers say of the member that follows them.</summary>
    private struct Extended
    {
        public byte[]? Name;
        public byte[]? Target;
        public long? Size;
        public bool IsSparse;
    }
}

/// <summary>A regular member of a tar archive, whose data occupy [Offset, Offset + Size) of the source, or a link to one.</summary>
/// <param name="NameBytes">Its name.</param>
/// <param name="Offset">Where its data begin.</param>
/// <param name="Size">How many bytes they are.</param>
/// <param name="Target">What a link leads to: for a hard link a member's name, for a symbolic one a path from its own folder. Null for a regular member.</param>
/// <param name="IsSymbolic">True for a symbolic link.</param>
internal readonly record struct TarMember(byte[] NameBytes, long Offset, long Size, byte[]? Target, bool IsSymbolic)
{
    /// <summary>The name as text.</summary>
    public string Name => ImageTable.Text(NameBytes);
}
