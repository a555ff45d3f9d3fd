using System.Buffers.Binary;
using System.Text;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Tests.Interchange;

public sealed class SafetensorsTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hpcbn-safetensors").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Write_ThenOpen_GivesTensorsAndMetadataBack()
    {
        string path = WriteTwoTensors();

        using SafetensorsFile file = SafetensorsFile.Open(path);

        Assert.Equal(["a", "b"], file.Tensors.Select(t => t.Name));
        Assert.Equal([2L, 3L], file["a"].Extents);
        Assert.Equal("line one\nline \"two\" €", file.Metadata["note"]);
        Assert.Equal([1f, -2f, 3.5f, float.Epsilon, float.MaxValue, -0f], Read(file, "a", 6));
        Assert.Equal([7f], Read(file, "b", 1));
        Assert.True(file.VerifyChecksum());
    }

    [Fact]
    public void Write_FileLayout_IsTheFormats()
    {
        byte[] bytes = File.ReadAllBytes(WriteTwoTensors());

        int header = (int)BinaryPrimitives.ReadUInt64LittleEndian(bytes);
        Assert.Equal(0, (8 + header) % 64);
        Assert.Equal((byte)'{', bytes[8]);
        Assert.Equal(8 + header + 7 * 4, bytes.Length);
        Assert.Equal(3.5f, BinaryPrimitives.ReadSingleLittleEndian(bytes.AsSpan(8 + header + 8)));
        Assert.Contains("\"data_offsets\":[24,28]", Encoding.UTF8.GetString(bytes, 8, header), StringComparison.Ordinal);
    }

    [Fact]
    public void VerifyChecksum_AnyByteChanged_Throws()
    {
        string path = WriteTwoTensors();
        byte[] good = File.ReadAllBytes(path);
        int header = (int)BinaryPrimitives.ReadUInt64LittleEndian(good);
        int note = good.AsSpan().IndexOf("line one"u8);

        foreach (int at in new[] { note, 8 + header - 1, 8 + header, good.Length - 1 })
        {
            byte[] bad = [.. good];
            bad[at] ^= at == 8 + header - 1 ? (byte)(' ' ^ '\t') : (byte)1;
            File.WriteAllBytes(path, bad);
            using SafetensorsFile file = SafetensorsFile.Open(path);
            UserErrorException error = Assert.ThrowsAny<UserErrorException>(() => file.VerifyChecksum());
            Assert.Contains("damaged", error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Open_TruncatedAnywhere_ThrowsOneLine()
    {
        string path = WriteTwoTensors();
        byte[] good = File.ReadAllBytes(path);
        foreach (int length in new[] { 0, 5, 8, 40, good.Length - 5, good.Length - 1 })
        {
            File.WriteAllBytes(path, good.AsSpan(0, length));
            UserErrorException error = Assert.ThrowsAny<UserErrorException>(() => SafetensorsFile.Open(path));
            Assert.Contains(path, error.Message, StringComparison.Ordinal);
            Assert.DoesNotContain('\n', error.Message);
        }
    }

    [Theory]
    [InlineData("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}""", 4, "twice")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}""", 8, "expected 0")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}""", 4, "8 bytes")]
    [InlineData("""{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}""", 4, "'F31'")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}""", 8, "longer")]
    [InlineData("""{"a":{"dtype":"F32","shape":[9999999999,9999999999,9999999999],"data_offsets":[0,4]}}""", 4, "'a' has the shape [9999999999")]
    [InlineData("""{"a":{"shape":[1],"data_offsets":[0,4]}}""", 4, "not the JSON")]
    [InlineData("not json", 4, "not the JSON")]
    public void Open_HeaderWrong_SaysWhat(string header, int dataBytes, string expected)
    {
        string path = WriteRaw(header, new byte[dataBytes]);

        UserErrorException error = Assert.ThrowsAny<UserErrorException>(() => SafetensorsFile.Open(path));

        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Open_ForeignFile_SaysSo()
    {
        string path = Path.Combine(_folder, "x.safetensors");
        File.WriteAllText(path, "PK\u0003\u0004 this is something else altogether");

        Assert.Contains("not a safetensors file", Assert.ThrowsAny<UserErrorException>(() => SafetensorsFile.Open(path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Read_OtherFloatTypes_AreConverted()
    {
        byte[] data = new byte[8 + 2 + 2];
        BinaryPrimitives.WriteDoubleLittleEndian(data, 1.25);
        BinaryPrimitives.WriteHalfLittleEndian(data.AsSpan(8), (Half)(-0.5));
        BinaryPrimitives.WriteUInt16LittleEndian(data.AsSpan(10), 0x4049);
        string path = WriteRaw(
            """{"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"h":{"dtype":"F16","shape":[1],"data_offsets":[8,10]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[10,12]}}""",
            data);

        using SafetensorsFile file = SafetensorsFile.Open(path);

        Assert.Equal([1.25f], Read(file, "d", 1));
        Assert.Equal([-0.5f], Read(file, "h", 1));
        Assert.Equal([3.140625f], Read(file, "b", 1));
        Assert.False(file.VerifyChecksum());
    }

    [Fact]
    public void Replace_WriterFails_LeavesTheOldFileAndNothingElse()
    {
        string path = Path.Combine(_folder, "kept");
        File.WriteAllText(path, "old");

        Assert.Throws<InvalidOperationException>(() => AtomicFile.Replace(path, temporary =>
        {
            File.WriteAllText(temporary, "half");
            throw new InvalidOperationException();
        }));

        Assert.Equal("old", File.ReadAllText(path));
        Assert.Equal([path], Directory.GetFiles(_folder));
    }

    private string WriteTwoTensors()
    {
        string path = Path.Combine(_folder, "two.safetensors");
        float[][] values = [[1, -2, 3.5f, float.Epsilon, float.MaxValue, -0f], [7]];
        SafetensorsTensor[] tensors = [new("a", "F32", [2, 3]), new("b", "F32", [1])];
        SafetensorsFile.Write(path, tensors, [new("note", "line one\nline \"two\" €")], (i, bytes) =>
        {
            for (int k = 0; k < values[i].Length; k++)
            {
                BinaryPrimitives.WriteSingleLittleEndian(bytes[(4 * k)..], values[i][k]);
            }
        });
        return path;
    }

    private string WriteRaw(string header, byte[] data)
    {
        string path = Path.Combine(_folder, "raw.safetensors");
        byte[] text = Encoding.UTF8.GetBytes(header);
        byte[] prefix = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(prefix, (ulong)text.Length);
        File.WriteAllBytes(path, [.. prefix, .. text, .. data]);
        return path;
    }

    private static float[] Read(SafetensorsFile file, string name, int count)
    {
        float[] values = new float[count];
        file.Read(name, values);
        return values;
    }
}
