using System.Globalization;
using System.Runtime.InteropServices;
using HpcBatchNorm.Interchange.Onnx;
using ElementType = HpcBatchNorm.Interchange.Onnx.TensorProto.Types.DataType;

namespace HpcBatchNorm.Interchange;

/// <summary>
/// A constant of an ONNX file. Values are converted each time they are asked for, so that nothing but the file's own bytes is kept, and are what the caller
/// may change. What does not fit is a <see cref="UserErrorException"/> whose message is a reason.
/// </summary>
internal sealed class OnnxTensor
{
    private readonly TensorProto _proto;
    private readonly string _folder;

    public OnnxTensor(TensorProto proto, string folder)
    {
        (_proto, _folder) = (proto, folder);
        Extents = [.. proto.Dims];
    }

    public string Name => _proto.Name;

    public IReadOnlyList<long> Extents { get; }

    /// <summary>For example <c>FLOAT 64x3x7x7</c>.</summary>
    public string Description => $"{Type.ToString().ToUpperInvariant()} {(Extents.Count == 0 ? "scalar" : string.Join('x', Extents))}";

    /// <summary>True when <see cref="ReadSingles"/> reads it.</summary>
    public bool IsReal => Type is ElementType.Float or ElementType.Double or ElementType.Float16 or ElementType.Bfloat16;

    /// <summary>True when <see cref="ReadIntegers"/> reads it.</summary>
    public bool IsWhole => Type is ElementType.Int64 or ElementType.Int32 or ElementType.Bool;

    private ElementType Type => (ElementType)_proto.DataType;

    /// <summary>A constant that has one value, whatever its rank.</summary>
    public bool TryScalar(out float value)
    {
        value = 0;
        if (Extents.Any(e => e != 1) || !IsReal)
        {
            return false;
        }

        value = ReadSingles()[0];
        return true;
    }

    /// <summary>The values of a tensor of floating-point numbers, in single precision.</summary>
    public float[] ReadSingles()
    {
        switch (Type)
        {
            case ElementType.Float:
                return _proto.FloatData.Count > 0 ? Listed(_proto.FloatData, v => v) : MemoryMarshal.Cast<byte, float>(Bytes(sizeof(float))).ToArray();
            case ElementType.Double:
                return _proto.DoubleData.Count > 0 ? Listed(_proto.DoubleData, v => (float)v) : Converted<double>(Bytes(sizeof(double)), v => (float)v);
            case ElementType.Float16:
                return _proto.Int32Data.Count > 0
                    ? Listed(_proto.Int32Data, v => (float)BitConverter.UInt16BitsToHalf((ushort)v)) : Converted<Half>(Bytes(sizeof(ushort)), v => (float)v);
            case ElementType.Bfloat16:
                return _proto.Int32Data.Count > 0
                    ? Listed(_proto.Int32Data, v => FromBfloat((ushort)v)) : Converted<ushort>(Bytes(sizeof(ushort)), FromBfloat);
            default:
                throw new UserErrorException($"its constant '{Name}' is {Description}; expected numbers of a floating-point type");
        }
    }

    /// <summary>A matrix with its rows as columns.</summary>
    public OnnxTensor Transposed() => new(
        new TensorProto
        {
            Name = Name,
            DataType = (int)ElementType.Float,
            Dims = { Extents[1], Extents[0] },
            RawData = Google.Protobuf.ByteString.CopyFrom(MemoryMarshal.AsBytes<float>(ReadTransposed())),
        },
        _folder);

    /// <summary>The values of a matrix, column after column.</summary>
    public float[] ReadTransposed()
    {
        float[] values = ReadSingles(), turned = new float[values.Length];
        (int rows, int columns) = ((int)Extents[0], (int)Extents[1]);
        for (int i = 0; i < values.Length; i++)
        {
            turned[(long)i % columns * rows + i / columns] = values[i];
        }

        return turned;
    }

    /// <summary>The values of a tensor of whole numbers: shapes, axes, pads.</summary>
    public long[] ReadIntegers()
    {
        switch (Type)
        {
            case ElementType.Int64:
                return _proto.Int64Data.Count > 0 ? Listed(_proto.Int64Data, v => v) : MemoryMarshal.Cast<byte, long>(Bytes(sizeof(long))).ToArray();
            case ElementType.Int32:
                return _proto.Int32Data.Count > 0 ? Listed(_proto.Int32Data, v => (long)v) : Converted<int, long>(Bytes(sizeof(int)), v => v);
            case ElementType.Bool:
                return _proto.Int32Data.Count > 0 ? Listed(_proto.Int32Data, v => (long)v) : Converted<byte, long>(Bytes(1), v => v);
            default:
                throw new UserErrorException($"its constant '{Name}' is {Description}; expected whole numbers");
        }
    }

    private static float FromBfloat(ushort bits) => BitConverter.UInt32BitsToSingle((uint)bits << 16);

    private static float[] Converted<T>(ReadOnlySpan<byte> bytes, Func<T, float> convert)
        where T : unmanaged => Converted<T, float>(bytes, convert);

    private static TResult[] Converted<T, TResult>(ReadOnlySpan<byte> bytes, Func<T, TResult> convert)
        where T : unmanaged
    {
        ReadOnlySpan<T> values = MemoryMarshal.Cast<byte, T>(bytes);
        var converted = new TResult[values.Length];
        for (int i = 0; i < converted.Length; i++)
        {
            converted[i] = convert(values[i]);
        }

        return converted;
    }

    private TResult[] Listed<T, TResult>(IReadOnlyCollection<T> values, Func<T, TResult> convert) => values.Count == CountOf(1)
        ? [.. values.Select(convert)]
        : throw new UserErrorException($"its constant '{Name}' is {Description} but has {values.Count} values");

    private ReadOnlySpan<byte> Bytes(int size)
    {
        // Fields of this format have the lowest byte first; so have all machines that this library runs on.
        long expected = (long)CountOf(size) * size;
        if (_proto.DataLocation == TensorProto.Types.DataLocation.External)
        {
            return ReadExternal(expected);
        }

        return _proto.RawData.Length == expected
            ? _proto.RawData.Span
            : throw new UserErrorException($"its constant '{Name}' is {Description} but has {_proto.RawData.Length} bytes, expected {expected}");
    }

    private int CountOf(int size)
    {
        long count = 1;
        foreach (long extent in Extents)
        {
            // Checked step by step, so that no product of a damaged file overflows.
            count = extent is >= 0 and <= int.MaxValue && count * extent * size <= Array.MaxLength
                ? count * extent
                : throw new UserErrorException($"its constant '{Name}' is {Description}, which is no shape or more than 2 GB");
        }

        return (int)count;
    }

    private byte[] ReadExternal(long expected)
    {
        string? Entry(string key) => _proto.ExternalData.FirstOrDefault(e => e.Key == key)?.Value;
        string location = Entry("location") ?? "";
        long offset = 0;
        if (Entry("offset") is string begin && !long.TryParse(begin, NumberStyles.None, CultureInfo.InvariantCulture, out offset))
        {
            throw new UserErrorException($"the place of its constant '{Name}' in '{location}' is '{begin}', which is no number");
        }

        if (Entry("length") is string length && length != expected.ToString(CultureInfo.InvariantCulture))
        {
            throw new UserErrorException($"its constant '{Name}' is {Description} but has {length} bytes in '{location}', expected {expected}");
        }

        // A model must not make its reader open what lies elsewhere.
        string root = Path.GetFullPath(_folder.Length > 0 ? _folder : "."), path = location.Contains('\0', StringComparison.Ordinal) ? "" : Path.GetFullPath(location, root);
        if (location.Length == 0 || Path.IsPathRooted(location) || !path.StartsWith(Path.EndsInDirectorySeparator(root) ? root : root + Path.DirectorySeparatorChar, StringComparison.Ordinal))
        {
            throw new UserErrorException($"the values of its constant '{Name}' are said to be in '{location}', which is not in the folder of the model");
        }

        try
        {
            using FileStream file = File.OpenRead(path);
            if (offset > file.Length || file.Length - offset < expected)
            {
                throw new UserErrorException($"the values of its constant '{Name}' end at byte {offset + expected} of '{location}', which has {file.Length}; the file is cut short or another's");
            }

            byte[] bytes = new byte[expected];
            file.Position = offset;
            file.ReadExactly(bytes);
            return bytes;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            throw new UserErrorException($"the values of its constant '{Name}' are in '{location}' beside the model, which cannot be read: {error.Message}", error);
        }
    }
}
