using System.Buffers.Binary;
using System.IO.Compression;
using System.IO.Hashing;
using HpcBatchNorm.Data;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

/// <summary>A folder that disappears with its contents.</summary>
public sealed class TemporaryFolder : IDisposable
{
    public string Path { get; } = Directory.CreateTempSubdirectory("hpcbn-test-").FullName;

    public string this[string name] => System.IO.Path.Combine(Path, name);

    public string Write(string name, byte[] bytes)
    {
        string path = this[name];
        Directory.CreateDirectory(System.IO.Path.GetDirectoryName(path)!);
        File.WriteAllBytes(path, bytes);
        return path;
    }

    public void Dispose() => Directory.Delete(Path, recursive: true);
}

/// <summary>A small generated data set in the official layout, made once for a test class.</summary>
public sealed class SampleFixture : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public SampleFixture()
    {
        SampleGenerator.Write(_folder["sample"], Options);
        Train = ImageDataset.Open(_folder["sample"], DatasetSplit.Train, cacheDirectory: null);
        Validation = ImageDataset.Open(_folder["sample"], DatasetSplit.Validation, cacheDirectory: null);
    }

    internal static SampleOptions Options { get; } = new() { Classes = 4, TrainPerClass = 30, ValidationPerClass = 9, ImageSize = 48, Seed = 5 };

    public string Path => _folder["sample"];

    public ImageDataset Train { get; }

    public ImageDataset Validation { get; }

    public void Dispose()
    {
        Train.Dispose();
        Validation.Dispose();
        _folder.Dispose();
    }
}

internal static class TestImages
{
    public static byte[] Encode(int width, int height, Func<int, int, SKColor> color, SKEncodedImageFormat format = SKEncodedImageFormat.Jpeg, bool grey = false)
    {
        using var bitmap = new SKBitmap(new SKImageInfo(width, height, grey ? SKColorType.Gray8 : SKColorType.Rgba8888, SKAlphaType.Opaque));
        for (int y = 0; y < height; y++)
        {
            for (int x = 0; x < width; x++)
            {
                bitmap.SetPixel(x, y, color(x, y));
            }
        }

        using SKData data = bitmap.Encode(format, 95);
        return data.ToArray();
    }

    public static byte[] Jpeg(int width, int height, SKColor color) => Encode(width, height, (_, _) => color);

    /// <summary>A photograph-like JPEG: smooth colours and some texture.</summary>
    public static byte[] Texture(int width, int height) => Encode(width, height, (x, y) => new SKColor(
        (byte)(128 + 100 * Math.Sin(x * 0.05)), (byte)(128 + 100 * Math.Cos(y * 0.07 + x * 0.02)), (byte)(128 + 60 * Math.Sin((x + y) * 0.3))));

    /// <summary>A PNG of R, G, B values written by hand, so that its header may claim what it likes.</summary>
    /// <param name="width">What the header says.</param>
    /// <param name="height">What the header says.</param>
    /// <param name="bitDepth">Bits per value.</param>
    /// <param name="rows">Rows as PNG has them before compression: a filter byte, then the values, the high byte first.</param>
    public static byte[] Png(int width, int height, byte bitDepth, byte[] rows)
    {
        const byte TrueColor = 2;
        using var compressed = new MemoryStream();
        using (var zlib = new ZLibStream(compressed, CompressionLevel.Fastest, leaveOpen: true))
        {
            zlib.Write(rows);
        }

        byte[] header = new byte[13];
        BinaryPrimitives.WriteInt32BigEndian(header, width);
        BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(4), height);
        (header[8], header[9]) = (bitDepth, TrueColor);
        return [0x89, .. "PNG\r\n"u8, 0x1A, .. "\n"u8, .. Chunk("IHDR"u8, header), .. Chunk("IDAT"u8, compressed.ToArray()), .. Chunk("IEND"u8, [])];

        static byte[] Chunk(ReadOnlySpan<byte> type, byte[] data)
        {
            byte[] length = new byte[4], checksum = new byte[4], body = [.. type, .. data];
            BinaryPrimitives.WriteInt32BigEndian(length, data.Length);
            BinaryPrimitives.WriteUInt32BigEndian(checksum, Crc32.HashToUInt32(body));
            return [.. length, .. body, .. checksum];
        }
    }

    /// <summary>
    /// An 8 x 8 baseline JPEG of one colour in four components with Adobe's marker, written by hand because no codec here encodes CMYK.
    /// Adobe stores 255 minus the amount of ink, which is what the arguments are.
    /// </summary>
    public static byte[] AdobeCmyk(byte cyan, byte magenta, byte yellow, byte black)
    {
        var bytes = new List<byte> { 0xFF, 0xD8 };
        void Segment(byte marker, params byte[] body) =>
            bytes.AddRange([0xFF, marker, (byte)((body.Length + 2) >> 8), (byte)(body.Length + 2), .. body]);

        Segment(0xEE, [.. "Adobe"u8, 0, 100, 0, 0, 0, 0, 0]);
        // Every quantum 8: the DC coefficient then counts in steps of one grey level.
        Segment(0xDB, [0, .. Enumerable.Repeat((byte)8, 64)]);
        Segment(0xC0, 8, 0, 8, 0, 8, 4, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0);
        // DC: the twelve categories as codes of four bits. AC: end of block as the one code of one bit.
        Segment(0xC4, [0x00, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, .. Enumerable.Range(0, 12).Select(i => (byte)i)]);
        Segment(0xC4, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        Segment(0xDA, 4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0);
        string bits = "";
        foreach (byte value in (byte[])[cyan, magenta, yellow, black])
        {
            int level = value - 128, category = level == 0 ? 0 : (int)Math.Log2(Math.Abs(level)) + 1;
            bits += Convert.ToString(category, 2).PadLeft(4, '0');
            if (category > 0)
            {
                bits += Convert.ToString(level > 0 ? level : level + (1 << category) - 1, 2).PadLeft(category, '0');
            }

            bits += "0";
        }

        bits = bits.PadRight((bits.Length + 7) / 8 * 8, '1');
        for (int i = 0; i < bits.Length; i += 8)
        {
            byte value = Convert.ToByte(bits.Substring(i, 8), 2);
            bytes.Add(value);
            if (value == 0xFF)
            {
                bytes.Add(0);
            }
        }

        bytes.AddRange([0xFF, 0xD9]);
        return [.. bytes];
    }
}
