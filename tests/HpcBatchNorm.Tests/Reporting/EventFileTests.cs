using System.Buffers.Binary;
using System.Text;
using HpcBatchNorm.Reporting;

namespace HpcBatchNorm.Tests.Reporting;

/// <summary>Event files, read by a parser that knows the format from its description only.</summary>
public sealed class EventFileTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("hpcbn-events").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void MaskedCrc_OfPublishedVectors()
    {
        // RFC 3720, B.4: CRC-32C of 32 zeros, 32 ones, and the bytes 0 to 31; and the customary check value of "123456789".
        Assert.Equal(Mask(0x8A9136AA), EventFileWriter.MaskedCrc(new byte[32]));
        Assert.Equal(Mask(0x62A8AB43), EventFileWriter.MaskedCrc(Enumerable.Repeat((byte)0xFF, 32).ToArray()));
        Assert.Equal(Mask(0x46DD794E), EventFileWriter.MaskedCrc([.. Enumerable.Range(0, 32).Select(i => (byte)i)]));
        Assert.Equal(Mask(0xE3069283), EventFileWriter.MaskedCrc("123456789"u8));
    }

    [Fact]
    public void FirstRecord_HasTheBytesThatTensorFlowWrites()
    {
        using var writer = new EventFileWriter(_folder, firstStep: 0);

        byte[] file = Read(writer.Path);

        // Every event file of TensorFlow begins so: 24 bytes, their masked checksum, the wall time, and the version.
        Assert.Equal([0x18, 0, 0, 0, 0, 0, 0, 0, 0xA3, 0x7F, 0x4B, 0x22, 0x09], file[..13]);
        Assert.Equal("\u001A\rbrain.Event:2"u8.ToArray(), file[21..36]);
    }

    [Fact]
    public void Scalars_ComeBack_WithTheTimeInMilliseconds()
    {
        var time = new DateTimeOffset(2026, 1, 31, 23, 59, 58, 765, TimeSpan.Zero);
        using var writer = new EventFileWriter(_folder, firstStep: 0, new StoppedClock(time));
        writer.Add("loss/train", 1.25);
        writer.Add("lr", 0.045);
        writer.Write(step: 300);
        writer.Add("acc1/val", double.NaN);
        writer.Write(step: 5_000_000_000);

        // While the writer still has the file: what is written can be read.
        List<Event> events = Parse(Read(writer.Path));

        Assert.Equal(3, events.Count);
        Assert.Equal((300, 1.25f, 0.045f), (events[1].Step, events[1].Scalars["loss/train"], events[1].Scalars["lr"]));
        Assert.Equal(5_000_000_000, events[2].Step);
        Assert.True(float.IsNaN(events[2].Scalars["acc1/val"]));
        Assert.All(events, e => Assert.Equal(1769903998.765, e.WallTime, 1e-6));
    }

    [Fact]
    public void GoingOn_MakesANewFile_ThatVoidsLaterStepsOfTheOld()
    {
        using var first = new EventFileWriter(_folder, firstStep: 0);
        using var second = new EventFileWriter(_folder, firstStep: 120);

        Assert.NotEqual(first.Path, second.Path);
        Assert.DoesNotContain(Parse(Read(first.Path)), e => e.Restarts);
        // TensorBoard drops steps from this one on that it has read before.
        Event restart = Assert.Single(Parse(Read(second.Path)), e => e.Restarts);
        Assert.Equal(121, restart.Step);
    }

    [Fact]
    public void Damage_IsNoticedByTheParser()
    {
        using var writer = new EventFileWriter(_folder, firstStep: 0);
        writer.Add("loss/train", 1);
        writer.Write(1);
        byte[] file = Read(writer.Path);
        file[^6] ^= 1;

        Assert.Throws<InvalidDataException>(() => Parse(file));
    }

    internal sealed record Event(double WallTime, long Step, string Version, bool Restarts, Dictionary<string, float> Scalars);

    internal static byte[] Read(string path)
    {
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        byte[] bytes = new byte[stream.Length];
        stream.ReadExactly(bytes);
        return bytes;
    }

    internal static List<Event> Parse(ReadOnlySpan<byte> file)
    {
        List<Event> events = [];
        while (!file.IsEmpty)
        {
            int length = (int)BinaryPrimitives.ReadUInt64LittleEndian(file);
            if (BinaryPrimitives.ReadUInt32LittleEndian(file[8..]) != Mask(Crc(file[..8])) || BinaryPrimitives.ReadUInt32LittleEndian(file[(12 + length)..]) != Mask(Crc(file.Slice(12, length))))
            {
                throw new InvalidDataException("a checksum is wrong");
            }

            events.Add(ParseEvent(file.Slice(12, length)));
            file = file[(16 + length)..];
        }

        return events;
    }

    private static Event ParseEvent(ReadOnlySpan<byte> bytes)
    {
        (double wallTime, long step, string version, bool restarts) = (0, 0, "", false);
        Dictionary<string, float> scalars = [];
        while (!bytes.IsEmpty)
        {
            (int field, ulong number, byte[] data) = Field(ref bytes);
            switch (field)
            {
                case 1:
                    wallTime = BitConverter.UInt64BitsToDouble(number);
                    break;
                case 2:
                    step = (long)number;
                    break;
                case 3:
                    version = Encoding.UTF8.GetString(data);
                    break;
                case 5:
                    for (ReadOnlySpan<byte> values = data; !values.IsEmpty;)
                    {
                        (string tag, float scalar) = ("", 0);
                        for (ReadOnlySpan<byte> value = Field(ref values).Data; !value.IsEmpty;)
                        {
                            (int part, ulong bits, byte[] text) = Field(ref value);
                            (tag, scalar) = part == 1 ? (Encoding.UTF8.GetString(text), scalar) : (tag, BitConverter.UInt32BitsToSingle((uint)bits));
                        }

                        scalars.Add(tag, scalar);
                    }

                    break;
                case 7:
                    restarts = data is [0x08, 0x01];
                    break;
                default:
                    throw new InvalidDataException($"field {field}");
            }
        }

        return new Event(wallTime, step, version, restarts, scalars);
    }

    private static (int Field, ulong Number, byte[] Data) Field(ref ReadOnlySpan<byte> bytes)
    {
        int key = bytes[0], size;
        bytes = bytes[1..];
        ulong number = 0;
        byte[] data = [];
        switch (key & 7)
        {
            case 0:
                number = Varint(ref bytes);
                return (key >> 3, number, data);
            case 1:
                (number, size) = (BinaryPrimitives.ReadUInt64LittleEndian(bytes), 8);
                break;
            case 2:
                size = (int)Varint(ref bytes);
                data = bytes[..size].ToArray();
                break;
            case 5:
                (number, size) = (BinaryPrimitives.ReadUInt32LittleEndian(bytes), 4);
                break;
            default:
                throw new InvalidDataException($"wire type {key & 7}");
        }

        bytes = bytes[size..];
        return (key >> 3, number, data);
    }

    private static ulong Varint(ref ReadOnlySpan<byte> bytes)
    {
        ulong value = 0;
        for (int shift = 0; ; shift += 7)
        {
            byte part = bytes[0];
            bytes = bytes[1..];
            value |= (ulong)(part & 0x7F) << shift;
            if (part < 0x80)
            {
                return value;
            }
        }
    }

    /// <summary>Bit by bit from the polynomial, reflected.</summary>
    private static uint Crc(ReadOnlySpan<byte> data)
    {
        uint crc = uint.MaxValue;
        foreach (byte value in data)
        {
            crc ^= value;
            for (int bit = 0; bit < 8; bit++)
            {
                crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82F63B78 : crc >> 1;
            }
        }

        return ~crc;
    }

    private static uint Mask(uint crc) => unchecked((crc >> 15 | crc << 17) + 0xA282EAD8);

    private sealed class StoppedClock(DateTimeOffset now) : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => now;
    }
}
