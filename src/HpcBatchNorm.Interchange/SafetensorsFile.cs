using System.Buffers.Binary;
using System.IO.Hashing;
using System.Runtime.InteropServices;
using System.Text;
using HpcBatchNorm.Interop;
using Microsoft.Win32.SafeHandles;

namespace HpcBatchNorm.Interchange;

/// <summary>Fills the bytes of the tensor at a position in the list that is being written.</summary>
/// <param name="index">Position in the list of tensors.</param>
/// <param name="bytes">Exactly the tensor's bytes, little-endian, row-major.</param>
public delegate void TensorBytesWriter(int index, Span<byte> bytes);

/// <summary>
/// A safetensors file open for reading, and the writing of one. Files written here carry in their metadata, under <see cref="ChecksumKey"/>, an
/// XXH3-128 of everything: header (with the checksum's own digits taken as zeros) and data. Other programs read them as any safetensors file.
/// </summary>
public sealed class SafetensorsFile : IDisposable
{
    /// <summary>The metadata key of the checksum.</summary>
    public const string ChecksumKey = "checksum_xxh3_128";

    private const int ChecksumDigits = 32;
    private const int ChunkBytes = 1 << 20;

    private static readonly string NoChecksum = new('0', ChecksumDigits);

    private readonly SafeFileHandle _handle;
    private readonly Dictionary<string, (SafetensorsTensor Tensor, long Offset)> _tensors;
    private readonly byte[] _header;

    private SafetensorsFile(string path, SafeFileHandle handle, byte[] header, long length)
    {
        Path = path;
        _handle = handle;
        _header = header;
        (List<(SafetensorsTensor Tensor, long Offset)> tensors, Dictionary<string, string> metadata) =
            SafetensorsFormat.ReadHeader(header, length - 8 - header.Length);
        Tensors = [.. tensors.Select(t => t.Tensor)];
        Metadata = metadata;
        _tensors = tensors.ToDictionary(t => t.Tensor.Name, StringComparer.Ordinal);
    }

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>The tensors, in the header's order.</summary>
    public IReadOnlyList<SafetensorsTensor> Tensors { get; }

    /// <summary>The free-form strings of <c>__metadata__</c>.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>True when a tensor of that name is in the file.</summary>
    public bool Contains(string name) => _tensors.ContainsKey(name);

    /// <summary>The description of a tensor.</summary>
    /// <exception cref="UserErrorException">The file has no tensor of that name.</exception>
    public SafetensorsTensor this[string name] => Find(name).Tensor;

    /// <summary>Opens a file and checks its header and its length; <see cref="VerifyChecksum"/> checks the rest.</summary>
    /// <exception cref="DamagedFileException">The file is not a safetensors file, or is cut short.</exception>
    /// <exception cref="UserErrorException">The file does not exist or cannot be read.</exception>
    public static SafetensorsFile Open(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        SafeFileHandle? handle = null;
        try
        {
            handle = RegularFile.OpenHandle(path);
            long length = RandomAccess.GetLength(handle);
            Span<byte> prefix = stackalloc byte[8];
            if (length < 8)
            {
                throw new FormatException($"it has {length} bytes; a safetensors file begins with 8 bytes that give its header's length");
            }

            ReadFully(handle, prefix, 0);
            ulong headerLength = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
            if (headerLength > (ulong)Math.Min(length - 8, SafetensorsFormat.LargestHeader))
            {
                throw new FormatException(headerLength > SafetensorsFormat.LargestHeader
                    ? "it is not a safetensors file"
                    : $"its header should have {headerLength} bytes, but only {length - 8} follow; it is truncated or not a safetensors file");
            }

            byte[] header = new byte[headerLength];
            ReadFully(handle, header, 8);
            var file = new SafetensorsFile(path, handle, header, length);
            handle = null;
            return file;
        }
        catch (Exception error) when (error is FormatException or EndOfStreamException)
        {
            throw new DamagedFileException($"'{path}' cannot be read: {error.Message}.", error);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException(File.Exists(path) ? $"'{path}' cannot be read: {error.Message}" : $"'{path}' does not exist.", error);
        }
        finally
        {
            handle?.Dispose();
        }
    }

    /// <summary>
    /// Writes a file: header, then each tensor's bytes as <paramref name="fill"/> gives them, then the checksum into the header.
    /// The bytes are on the disk when it returns.
    /// </summary>
    public static void Write(string path, IReadOnlyList<SafetensorsTensor> tensors, IEnumerable<KeyValuePair<string, string>> metadata, TensorBytesWriter fill)
    {
        byte[] header = SafetensorsFormat.WriteHeader(tensors, metadata.Where(m => m.Key != ChecksumKey).Prepend(new(ChecksumKey, NoChecksum)));
        Span<byte> prefix = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(prefix, (ulong)header.Length);

        using var stream = new FileStream(path, new FileStreamOptions { Mode = FileMode.Create, Access = FileAccess.Write, BufferSize = 0 });
        var hash = new XxHash128();
        hash.Append(prefix);
        hash.Append(header);
        stream.Write(prefix);
        stream.Write(header);
        byte[] buffer = new byte[tensors.Count == 0 ? 0 : checked((int)tensors.Max(t => t.Bytes))];
        for (int i = 0; i < tensors.Count; i++)
        {
            Span<byte> bytes = buffer.AsSpan(0, (int)tensors[i].Bytes);
            fill(i, bytes);
            hash.Append(bytes);
            stream.Write(bytes);
        }

        stream.Position = 8 + ChecksumPosition(header, NoChecksum);
        stream.Write(Encoding.ASCII.GetBytes(Convert.ToHexStringLower(hash.GetCurrentHash())));
        stream.Flush(flushToDisk: true);
    }

    /// <summary>Reads the whole file and compares it with its checksum; false when the file carries none.</summary>
    /// <exception cref="DamagedFileException">The checksum differs.</exception>
    public bool VerifyChecksum()
    {
        if (!Metadata.TryGetValue(ChecksumKey, out string? expected) || expected.Length != ChecksumDigits)
        {
            return false;
        }

        var hash = new XxHash128();
        byte[] buffer = new byte[ChunkBytes];
        BinaryPrimitives.WriteUInt64LittleEndian(buffer, (ulong)_header.Length);
        hash.Append(buffer.AsSpan(0, 8));
        byte[] header = [.. _header];
        header.AsSpan(ChecksumPosition(header, expected), ChecksumDigits).Fill((byte)'0');
        hash.Append(header);
        long position = 8 + _header.Length;
        for (int read; (read = RandomAccess.Read(_handle, buffer, position)) > 0; position += read)
        {
            hash.Append(buffer.AsSpan(0, read));
        }

        string found = Convert.ToHexStringLower(hash.GetCurrentHash());
        return found == expected
            ? true
            : throw new DamagedFileException($"'{Path}' is damaged: its checksum is {found}, expected {expected}. Use another checkpoint.");
    }

    /// <summary>Reads a tensor of floating-point type, in row-major order, rounded to single precision.</summary>
    /// <exception cref="UserErrorException">The file has no such tensor, it is not of floating-point type, or it has another number of elements.</exception>
    public void Read(string name, Span<float> values)
    {
        (SafetensorsTensor tensor, long offset) = Find(name);
        if (tensor.Count != values.Length)
        {
            throw new UserErrorException($"'{Path}': '{name}' is {tensor} with {tensor.Count} elements, expected {values.Length}.");
        }

        offset += 8 + _header.Length;
        if (tensor.DataType == "F32" && BitConverter.IsLittleEndian)
        {
            ReadFully(_handle, MemoryMarshal.AsBytes(values), offset);
            return;
        }

        byte[] bytes = new byte[tensor.Bytes];
        ReadFully(_handle, bytes, offset);
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = tensor.DataType switch
            {
                "F32" => BinaryPrimitives.ReadSingleLittleEndian(bytes.AsSpan(4 * i)),
                "F64" => (float)BinaryPrimitives.ReadDoubleLittleEndian(bytes.AsSpan(8 * i)),
                "F16" => (float)BinaryPrimitives.ReadHalfLittleEndian(bytes.AsSpan(2 * i)),
                "BF16" => BitConverter.UInt32BitsToSingle((uint)BinaryPrimitives.ReadUInt16LittleEndian(bytes.AsSpan(2 * i)) << 16),
                _ => throw new UserErrorException($"'{Path}': '{name}' is {tensor}, expected a floating-point type."),
            };
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _handle.Dispose();

    private (SafetensorsTensor Tensor, long Offset) Find(string name) =>
        _tensors.TryGetValue(name, out (SafetensorsTensor, long) found) ? found : throw new UserErrorException($"'{Path}' has no tensor '{name}'.");

    private static int ChecksumPosition(ReadOnlySpan<byte> header, string checksum) =>
        header.IndexOf(Encoding.ASCII.GetBytes($"\"{ChecksumKey}\":\"{checksum}\"")) is int at and >= 0
            ? at + ChecksumKey.Length + 4
            : throw new UserErrorException("The checksum in the header is not spelled as it was written; the file was changed by another program.");

    private static void ReadFully(SafeFileHandle handle, Span<byte> bytes, long offset)
    {
        while (bytes.Length > 0)
        {
            int read = RandomAccess.Read(handle, bytes, offset);
            if (read == 0)
            {
                throw new EndOfStreamException("it ends too early");
            }

            bytes = bytes[read..];
            offset += read;
        }
    }
}
