using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;

namespace HpcBatchNorm.Data;

/// <summary>
/// As much of the MAT-file level 5 format as the ILSVRC development kit uses: little-endian, one struct array, its fields text or real numbers,
/// compressed with zlib or not. Text is read as <see cref="string"/>, numbers as <see cref="double"/>[], anything else as null.
/// </summary>
internal static class MatFile
{
    private const int HeaderBytes = 128;

    /// <summary>What a compressed variable may become: the kit's takes about 2 MB.</summary>
    private const int MostInflatedBytes = 16 << 20;

    // Data element types (mi...) and array classes (mx..._CLASS) of the published format description.
    private const int Int8 = 1, UInt8 = 2, Int16 = 3, UInt16 = 4, Int32 = 5, UInt32 = 6, Single = 7, Double = 9, Int64 = 12, UInt64 = 13;
    private const int Matrix = 14, Compressed = 15, Utf8 = 16, Utf16 = 17;
    private const int StructClass = 2, CharClass = 4, DoubleClass = 6, LastNumericClass = 15;

    /// <summary>The elements of the struct array <paramref name="variable"/>.</summary>
    /// <exception cref="InvalidDataException">The bytes are not such a file or hold no such variable.</exception>
    public static MatStructArray ReadStructArray(byte[] file, string variable)
    {
        if (file.Length < HeaderBytes || file[126] != 'I' || file[127] != 'M')
        {
            throw new InvalidDataException("not a little-endian MAT-file of level 5");
        }

        ReadOnlyMemory<byte> rest = file.AsMemory(HeaderBytes);
        int inflatedBytes = 0;
        while (!rest.IsEmpty)
        {
            Element element = Element.Read(ref rest);
            if (element.Type == Compressed)
            {
                ReadOnlyMemory<byte> inflated = Inflate(element.Data, MostInflatedBytes - inflatedBytes);
                inflatedBytes += inflated.Length;
                element = Element.Read(ref inflated);
            }

            if (TryReadStructArray(element, variable) is { } found)
            {
                return found;
            }
        }

        throw new InvalidDataException($"holds no struct array '{variable}'");
    }

    /// <summary>A file with one N x 1 struct array; each row holds one <see cref="string"/> or <see cref="double"/>[] per field.</summary>
    public static byte[] WriteStructArray(string variable, IReadOnlyList<string> fields, IReadOnlyList<object[]> rows)
    {
        const int FieldNameBytes = 32;
        byte[] names = new byte[FieldNameBytes * fields.Count];
        for (int i = 0; i < fields.Count; i++)
        {
            Encoding.ASCII.GetBytes(fields[i], names.AsSpan(i * FieldNameBytes, FieldNameBytes - 1));
        }

        var content = new MemoryStream();
        WriteArrayHead(content, StructClass, [rows.Count, 1], variable);
        WriteElement(content, Int32, Bytes(FieldNameBytes));
        WriteElement(content, Int8, names);
        foreach (object[] row in rows)
        {
            foreach (object value in row)
            {
                var field = new MemoryStream();
                if (value is string text)
                {
                    // Characters are UTF-16 in memory; the file takes UTF-8, whose length equals the dimension for ASCII only.
                    WriteArrayHead(field, CharClass, [1, text.Length], "");
                    WriteElement(field, Utf16, Encoding.Unicode.GetBytes(text));
                }
                else
                {
                    double[] numbers = (double[])value;
                    WriteArrayHead(field, DoubleClass, [numbers.Length > 0 ? 1 : 0, numbers.Length], "");
                    byte[] data = new byte[numbers.Length * sizeof(double)];
                    for (int i = 0; i < numbers.Length; i++)
                    {
                        BinaryPrimitives.WriteDoubleLittleEndian(data.AsSpan(i * sizeof(double)), numbers[i]);
                    }

                    WriteElement(field, Double, data);
                }

                WriteElement(content, Matrix, field.ToArray());
            }
        }

        var matrix = new MemoryStream();
        WriteElement(matrix, Matrix, content.ToArray());
        var packed = new MemoryStream();
        using (var zlib = new ZLibStream(packed, CompressionLevel.Optimal, leaveOpen: true))
        {
            matrix.WriteTo(zlib);
        }

        byte[] header = new byte[HeaderBytes];
        header.AsSpan(0, 116).Fill((byte)' ');
        Encoding.ASCII.GetBytes("MATLAB 5.0 MAT-file", header);
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(124), 0x0100);
        header[126] = (byte)'I';
        header[127] = (byte)'M';

        var file = new MemoryStream();
        file.Write(header);
        file.Write(Bytes(Compressed));
        file.Write(Bytes((int)packed.Length));
        packed.WriteTo(file);
        return file.ToArray();
    }

    /// <summary>Text or numbers of a field as <see cref="string"/> or <see cref="double"/>[]; null for anything else.</summary>
    internal static object? ReadValue(ReadOnlyMemory<byte> element)
    {
        Element array = Element.Read(ref element);
        if (array.Type != Matrix || array.Data.IsEmpty)
        {
            return null;
        }

        ReadOnlyMemory<byte> rest = array.Data;
        (int arrayClass, _, _) = ReadArrayHead(ref rest);
        if (arrayClass is not CharClass and not (>= DoubleClass and <= LastNumericClass))
        {
            return null;
        }

        Element values = Element.Read(ref rest);
        return arrayClass != CharClass
            ? Numbers(values.Type, values.Data.Span)
            : values.Type is UInt16 or Utf16 ? Encoding.Unicode.GetString(values.Data.Span) : Encoding.UTF8.GetString(values.Data.Span);
    }

    private static MatStructArray? TryReadStructArray(Element element, string variable)
    {
        if (element.Type != Matrix)
        {
            return null;
        }

        ReadOnlyMemory<byte> rest = element.Data;
        (int arrayClass, long count, string name) = ReadArrayHead(ref rest);
        if (arrayClass != StructClass || name != variable)
        {
            return null;
        }

        Element nameLength = Element.Read(ref rest);
        int bytesPerName = nameLength.Data.Length == sizeof(int) ? BinaryPrimitives.ReadInt32LittleEndian(nameLength.Data.Span) : 0;
        Element names = Element.Read(ref rest);
        if (bytesPerName < 1 || names.Data.IsEmpty || names.Data.Length % bytesPerName != 0)
        {
            throw new InvalidDataException("damaged: its field names have no length");
        }

        string[] fields = new string[names.Data.Length / bytesPerName];
        for (int i = 0; i < fields.Length; i++)
        {
            fields[i] = Encoding.ASCII.GetString(names.Data.Span.Slice(i * bytesPerName, bytesPerName)).TrimEnd('\0');
        }

        // Every value takes eight bytes at least, whatever the dimensions say.
        if (count > rest.Length / (Element.LeastBytes * (long)fields.Length))
        {
            throw new InvalidDataException("damaged or cut short: it has fewer values than its dimensions say");
        }

        var values = new ReadOnlyMemory<byte>[count * fields.Length];
        for (int i = 0; i < values.Length; i++)
        {
            ReadOnlyMemory<byte> before = rest;
            _ = Element.Read(ref rest);
            values[i] = before[..(before.Length - rest.Length)];
        }

        return new MatStructArray(fields, values);
    }

    private static double[] Numbers(int type, ReadOnlySpan<byte> bytes)
    {
        int width = type switch
        {
            Int8 or UInt8 => 1,
            Int16 or UInt16 => 2,
            Int32 or UInt32 or Single => 4,
            Double or Int64 or UInt64 => 8,
            _ => throw new InvalidDataException($"numbers of type {type}"),
        };
        double[] numbers = new double[bytes.Length / width];
        for (int i = 0; i < numbers.Length; i++)
        {
            ReadOnlySpan<byte> at = bytes[(i * width)..];
            numbers[i] = type switch
            {
                Int8 => (sbyte)at[0],
                UInt8 => at[0],
                Int16 => BinaryPrimitives.ReadInt16LittleEndian(at),
                UInt16 => BinaryPrimitives.ReadUInt16LittleEndian(at),
                Int32 => BinaryPrimitives.ReadInt32LittleEndian(at),
                UInt32 => BinaryPrimitives.ReadUInt32LittleEndian(at),
                Single => BinaryPrimitives.ReadSingleLittleEndian(at),
                Int64 => BinaryPrimitives.ReadInt64LittleEndian(at),
                UInt64 => BinaryPrimitives.ReadUInt64LittleEndian(at),
                _ => BinaryPrimitives.ReadDoubleLittleEndian(at),
            };
        }

        return numbers;
    }

    private static (int Class, long Count, string Name) ReadArrayHead(ref ReadOnlyMemory<byte> rest)
    {
        ReadOnlySpan<byte> flags = Element.Read(ref rest).Data.Span, dimensions = Element.Read(ref rest).Data.Span;
        long count = 1;
        for (int i = 0; i + sizeof(int) <= dimensions.Length; i += sizeof(int))
        {
            int extent = BinaryPrimitives.ReadInt32LittleEndian(dimensions[i..]);
            // Far above what any file holds, and far below what a product of two would overflow.
            count = extent < 0 ? throw new InvalidDataException("damaged: a dimension is negative") : Math.Min(count * extent, int.MaxValue);
        }

        return (flags.IsEmpty ? 0 : flags[0], count, Encoding.ASCII.GetString(Element.Read(ref rest).Data.Span));
    }

    private static byte[] Inflate(ReadOnlyMemory<byte> packed, int most)
    {
        using var zlib = new ZLibStream(new MemoryStream(packed.ToArray()), CompressionMode.Decompress);
        try
        {
            return BoundedStream.ReadAll(zlib, most) ?? throw new InvalidDataException(FormattableString.Invariant(
                $"not the kit's: unpacked it has more than {MostInflatedBytes >> 20} MB"));
        }
        catch (IOException exception)
        {
            // What zlib answers to a head that asks for a dictionary.
            throw new InvalidDataException("damaged: its compressed part cannot be unpacked", exception);
        }
    }

    private static void WriteArrayHead(MemoryStream stream, int arrayClass, int[] dimensions, string name)
    {
        byte[] flags = new byte[8];
        flags[0] = (byte)arrayClass;
        WriteElement(stream, UInt32, flags);
        WriteElement(stream, Int32, [.. dimensions.SelectMany(Bytes)]);
        WriteElement(stream, Int8, Encoding.ASCII.GetBytes(name));
    }

    private static void WriteElement(MemoryStream stream, int type, byte[] data)
    {
        stream.Write(Bytes(type));
        stream.Write(Bytes(data.Length));
        stream.Write(data);
        stream.Write(new byte[-data.Length & 7]);
    }

    private static byte[] Bytes(int value)
    {
        byte[] bytes = new byte[sizeof(int)];
        BinaryPrimitives.WriteInt32LittleEndian(bytes, value);
        return bytes;
    }

    /// <summary>One data element: its type and its bytes, which lie wholly inside what holds it.</summary>
    private readonly record struct Element(int Type, ReadOnlyMemory<byte> Data)
    {
        /// <summary>The tag alone.</summary>
        public const int LeastBytes = 8;

        private const int SmallDataBytes = 4;

        /// <summary>Reads an element and goes on behind it.</summary>
        public static Element Read(ref ReadOnlyMemory<byte> rest)
        {
            if (rest.Length < LeastBytes)
            {
                throw CutShort();
            }

            uint first = BinaryPrimitives.ReadUInt32LittleEndian(rest.Span);
            if (first >> 16 != 0)
            {
                // Small data element: size, type and up to four bytes in eight.
                int small = (int)(first >> 16);
                Element element = small <= SmallDataBytes ? new Element((int)(first & 0xFFFF), rest.Slice(4, small)) : throw CutShort();
                rest = rest[LeastBytes..];
                return element;
            }

            uint size = BinaryPrimitives.ReadUInt32LittleEndian(rest.Span[4..]);
            if (size > rest.Length - LeastBytes)
            {
                throw CutShort();
            }

            var read = new Element((int)first, rest.Slice(LeastBytes, (int)size));
            long whole = first == Compressed ? size : (size + 7L) & ~7L;
            // The last element of a file need not be padded.
            rest = rest[(int)Math.Min(LeastBytes + whole, rest.Length)..];
            return read;
        }

        private static InvalidDataException CutShort() => new("damaged or cut short");
    }
}

/// <summary>A struct array: for each element, a value for each field. Values are read when they are asked for.</summary>
internal sealed class MatStructArray(string[] fields, ReadOnlyMemory<byte>[] values)
{
    /// <summary>Number of elements.</summary>
    public int Count => values.Length / fields.Length;

    /// <summary>Names of the fields.</summary>
    public IReadOnlyList<string> Fields => fields;

    /// <summary>A value: <see cref="string"/>, <see cref="double"/>[], or null for anything else.</summary>
    /// <exception cref="InvalidDataException">There is no such field, or the value is damaged.</exception>
    public object? this[int element, string field]
    {
        get
        {
            int index = Array.IndexOf(fields, field);
            return index >= 0 ? MatFile.ReadValue(values[element * fields.Length + index]) : throw new InvalidDataException($"without the field '{field}'");
        }
    }
}
