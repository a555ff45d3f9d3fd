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

    // Data element types (mi...) and array classes (mx..._CLASS) of the published format description.
    private const int Int8 = 1, UInt8 = 2, Int16 = 3, UInt16 = 4, Int32 = 5, UInt32 = 6, Single = 7, Double = 9, Int64 = 12, UInt64 = 13;
    private const int Matrix = 14, Compressed = 15, Utf8 = 16, Utf16 = 17;
    private const int StructClass = 2, CharClass = 4, DoubleClass = 6, LastNumericClass = 15;

    /// <summary>The elements of the struct array <paramref name="variable"/>: field name to value.</summary>
    /// <exception cref="InvalidDataException">The bytes are not such a file or hold no such variable.</exception>
    public static List<Dictionary<string, object?>> ReadStructArray(byte[] file, string variable)
    {
        try
        {
            if (file.Length < HeaderBytes || file[126] != 'I' || file[127] != 'M')
            {
                throw new InvalidDataException("not a little-endian MAT-file of level 5");
            }

            int position = HeaderBytes;
            while (position < file.Length)
            {
                Element element = Element.Read(file, ref position);
                if (element.Type == Compressed)
                {
                    byte[] inflated = Inflate(file.AsMemory(element.Start, element.Size));
                    int inner = 0;
                    if (TryReadStructArray(inflated, Element.Read(inflated, ref inner), variable) is { } found)
                    {
                        return found;
                    }
                }
                else if (TryReadStructArray(file, element, variable) is { } found)
                {
                    return found;
                }
            }
        }
        catch (Exception exception) when (exception is ArgumentException or IndexOutOfRangeException or OverflowException)
        {
            throw new InvalidDataException("damaged or cut short", exception);
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

    private static List<Dictionary<string, object?>>? TryReadStructArray(byte[] data, Element element, string variable)
    {
        if (element.Type != Matrix)
        {
            return null;
        }

        int position = element.Start;
        (int arrayClass, int count, string name) = ReadArrayHead(data, ref position);
        if (arrayClass != StructClass || name != variable)
        {
            return null;
        }

        Element nameLength = Element.Read(data, ref position);
        int bytesPerName = BinaryPrimitives.ReadInt32LittleEndian(nameLength.In(data));
        Element names = Element.Read(data, ref position);
        string[] fields = new string[names.Size / bytesPerName];
        for (int i = 0; i < fields.Length; i++)
        {
            fields[i] = Encoding.ASCII.GetString(names.In(data).Slice(i * bytesPerName, bytesPerName)).TrimEnd('\0');
        }

        var rows = new List<Dictionary<string, object?>>(Math.Min(count, data.Length));
        for (int row = 0; row < count; row++)
        {
            var values = new Dictionary<string, object?>(fields.Length);
            foreach (string field in fields)
            {
                values[field] = ReadValue(data, Element.Read(data, ref position));
            }

            rows.Add(values);
        }

        return rows;
    }

    private static object? ReadValue(byte[] data, Element element)
    {
        if (element.Type != Matrix || element.Size == 0)
        {
            return null;
        }

        int position = element.Start;
        (int arrayClass, _, _) = ReadArrayHead(data, ref position);
        if (arrayClass is not CharClass and not (>= DoubleClass and <= LastNumericClass))
        {
            return null;
        }

        Element values = Element.Read(data, ref position);
        ReadOnlySpan<byte> bytes = values.In(data);
        return arrayClass != CharClass
            ? Numbers(values.Type, bytes)
            : values.Type is UInt16 or Utf16 ? Encoding.Unicode.GetString(bytes) : Encoding.UTF8.GetString(bytes);
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

    private static (int Class, int Count, string Name) ReadArrayHead(byte[] data, ref int position)
    {
        int arrayClass = Element.Read(data, ref position).In(data)[0];
        int count = 1;
        ReadOnlySpan<byte> dimensions = Element.Read(data, ref position).In(data);
        for (int i = 0; i + sizeof(int) <= dimensions.Length; i += sizeof(int))
        {
            count = checked(count * BinaryPrimitives.ReadInt32LittleEndian(dimensions[i..]));
        }

        return (arrayClass, count, Encoding.ASCII.GetString(Element.Read(data, ref position).In(data)));
    }

    private static byte[] Inflate(ReadOnlyMemory<byte> packed)
    {
        using var zlib = new ZLibStream(new MemoryStream(packed.ToArray()), CompressionMode.Decompress);
        var inflated = new MemoryStream();
        zlib.CopyTo(inflated);
        return inflated.ToArray();
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

    /// <summary>One data element: where its bytes lie.</summary>
    private readonly record struct Element(int Type, int Start, int Size)
    {
        public static Element Read(byte[] data, ref int position)
        {
            uint first = BinaryPrimitives.ReadUInt32LittleEndian(data.AsSpan(position));
            Element element;
            if (first >> 16 != 0)
            {
                // Small data element: size, type and up to four bytes in eight.
                element = new Element((int)(first & 0xFFFF), position + 4, (int)(first >> 16));
                position += 8;
            }
            else
            {
                int size = checked((int)BinaryPrimitives.ReadUInt32LittleEndian(data.AsSpan(position + 4)));
                element = new Element((int)first, position + 8, size);
                position = checked(position + 8 + (element.Type == Compressed ? size : (size + 7) & ~7));
            }

            _ = element.In(data);
            return element;
        }

        public ReadOnlySpan<byte> In(byte[] data) => data.AsSpan(Start, Size);
    }
}
