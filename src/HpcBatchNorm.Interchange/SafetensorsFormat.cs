using System.Buffers;
using System.Text.Json;

namespace HpcBatchNorm.Interchange;

/// <summary>A tensor as a safetensors header describes it: its element type in the format's own spelling (<c>F32</c>, <c>BF16</c>), and its extents.</summary>
/// <param name="Name">Unique in the file.</param>
/// <param name="DataType"><c>F32</c>, <c>F64</c>, <c>F16</c>, <c>BF16</c>, <c>I64</c>, <c>I32</c>, <c>I16</c>, <c>I8</c>, <c>U8</c> or <c>BOOL</c>.</param>
/// <param name="Extents">Row-major extents, outermost first.</param>
public sealed record SafetensorsTensor(string Name, string DataType, IReadOnlyList<long> Extents)
{
    /// <summary>Number of elements.</summary>
    public long Count => Extents.Aggregate(1L, (product, extent) => checked(product * extent));

    /// <summary>Bytes of the data.</summary>
    public long Bytes => checked(Count * SafetensorsFormat.ElementBytes(DataType));

    /// <summary>For example <c>F32 [192, 64, 3, 3]</c>.</summary>
    public override string ToString() => FormattableString.Invariant($"{DataType} [{string.Join(", ", Extents)}]");
}

/// <summary>
/// The safetensors header: 8 bytes little-endian length, a JSON object of that length padded with spaces, then the tensors' bytes without gaps.
/// </summary>
internal static class SafetensorsFormat
{
    /// <summary>The format's own limit, which keeps a damaged length from asking for the whole memory.</summary>
    public const long LargestHeader = 100_000_000;

    /// <summary>Data begins at a multiple of this, so that a mapped file can be used in place.</summary>
    private const int Alignment = 64;

    public static int ElementBytes(string dataType) => dataType switch
    {
        "F64" or "I64" or "U64" => 8,
        "F32" or "I32" or "U32" => 4,
        "F16" or "BF16" or "I16" or "U16" => 2,
        "I8" or "U8" or "BOOL" or "F8_E4M3" or "F8_E5M2" => 1,
        _ => throw new FormatException($"the data type '{UserErrorException.Excerpt(dataType)}' is unknown"),
    };

    /// <summary>The header's JSON, padded; tensors lie in the order given.</summary>
    public static byte[] WriteHeader(IReadOnlyList<SafetensorsTensor> tensors, IEnumerable<KeyValuePair<string, string>> metadata)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer))
        {
            json.WriteStartObject();
            json.WriteStartObject("__metadata__");
            foreach ((string key, string value) in metadata)
            {
                json.WriteString(key, value);
            }

            json.WriteEndObject();
            long offset = 0;
            foreach (SafetensorsTensor tensor in tensors)
            {
                json.WriteStartObject(tensor.Name);
                json.WriteString("dtype", tensor.DataType);
                json.WriteStartArray("shape");
                foreach (long extent in tensor.Extents)
                {
                    json.WriteNumberValue(extent);
                }

                json.WriteEndArray();
                json.WriteStartArray("data_offsets");
                json.WriteNumberValue(offset);
                offset += tensor.Bytes;
                json.WriteNumberValue(offset);
                json.WriteEndArray();
                json.WriteEndObject();
            }

            json.WriteEndObject();
        }

        int unpadded = buffer.WrittenCount;
        int padded = (unpadded + 8 + Alignment - 1) / Alignment * Alignment - 8;
        buffer.GetSpan(padded - unpadded)[..(padded - unpadded)].Fill((byte)' ');
        buffer.Advance(padded - unpadded);
        return buffer.WrittenSpan.ToArray();
    }

    /// <summary>Reads a header and checks that the tensors fill <paramref name="dataBytes"/> exactly.</summary>
    /// <exception cref="FormatException">Says what is wrong, as the end of a sentence that begins with the file's name.</exception>
    public static (List<(SafetensorsTensor Tensor, long Offset)> Tensors, Dictionary<string, string> Metadata) ReadHeader(ReadOnlyMemory<byte> header, long dataBytes)
    {
        var tensors = new List<(SafetensorsTensor Tensor, long Offset)>();
        var metadata = new Dictionary<string, string>(StringComparer.Ordinal);
        var names = new HashSet<string>(StringComparer.Ordinal);
        try
        {
            using JsonDocument document = JsonDocument.Parse(header);
            foreach (JsonProperty property in document.RootElement.EnumerateObject())
            {
                if (!names.Add(property.Name))
                {
                    throw new FormatException($"the header names '{UserErrorException.Excerpt(property.Name)}' twice");
                }

                if (property.Name == "__metadata__")
                {
                    foreach (JsonProperty entry in property.Value.EnumerateObject())
                    {
                        metadata[entry.Name] = entry.Value.GetString() ?? "";
                    }
                }
                else
                {
                    tensors.Add(ReadTensor(property));
                }
            }
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException or KeyNotFoundException or OverflowException)
        {
            throw new FormatException($"the header is not the JSON of a safetensors file ({error.Message.ReplaceLineEndings(" ")})", error);
        }

        long end = 0;
        foreach ((SafetensorsTensor tensor, long offset) in tensors.OrderBy(t => t.Offset).ThenBy(t => t.Tensor.Bytes))
        {
            if (offset != end)
            {
                throw new FormatException($"'{UserErrorException.Excerpt(tensor.Name)}' begins at byte {offset} of the data, expected {end}");
            }

            end += tensor.Bytes;
        }

        if (end != dataBytes)
        {
            throw new FormatException(
                $"the tensors take {end} bytes but the file holds {dataBytes}; it is {(dataBytes < end ? "truncated" : "longer than its header says")}");
        }

        return (tensors, metadata);
    }

    private static (SafetensorsTensor Tensor, long Offset) ReadTensor(JsonProperty property)
    {
        long[] extents = [.. property.Value.GetProperty("shape").EnumerateArray().Select(e => e.GetInt64())];
        long[] offsets = [.. property.Value.GetProperty("data_offsets").EnumerateArray().Select(e => e.GetInt64())];
        var tensor = new SafetensorsTensor(property.Name, property.Value.GetProperty("dtype").GetString() ?? "", extents);
        if (extents.All(e => e >= 0) && extents.Aggregate(8.0, (bytes, e) => bytes * e) >= long.MaxValue)
        {
            throw new FormatException($"'{UserErrorException.Excerpt(tensor.Name)}' has the shape [{UserErrorException.Excerpt(string.Join(", ", extents))}], which is more than any file holds");
        }

        if (offsets.Length != 2 || extents.Any(e => e < 0) || offsets[0] < 0 || offsets[1] - offsets[0] != tensor.Bytes)
        {
            throw new FormatException($"'{UserErrorException.Excerpt(tensor.Name)}' {UserErrorException.Excerpt(tensor.ToString())} takes {tensor.Bytes} bytes but its data_offsets are [{UserErrorException.Excerpt(string.Join(", ", offsets))}]");
        }

        return (tensor, offsets[0]);
    }
}
