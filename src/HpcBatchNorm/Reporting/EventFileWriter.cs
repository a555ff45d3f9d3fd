using System.Buffers;
using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Numerics;
using System.Text;

namespace HpcBatchNorm.Reporting;

/// <summary>
/// Writes scalars to a TensorBoard event file. The file is a sequence of records (length, masked CRC-32C of the length, bytes, masked CRC-32C of the
/// bytes), each an <c>Event</c> protocol buffer; the six fields needed are encoded here. Every event reaches the operating system before the method
/// returns, so the file of a killed process is readable up to its last event.
/// </summary>
internal sealed class EventFileWriter : IDisposable
{
    /// <summary>TensorBoard finds event files by this part of their name.</summary>
    public const string Prefix = "events.out.tfevents.";

    // The version that makes TensorBoard heed restarts.
    private const string FileVersion = "brain.Event:2";

    // Protocol buffers: a field's key is its number times 8 plus its wire type.
    private const byte Varint = 0, Fixed64 = 1, Bytes = 2, Fixed32 = 5;
    private const byte EventWallTime = 1 << 3 | Fixed64, EventStep = 2 << 3 | Varint, EventFileVersion = 3 << 3 | Bytes;
    private const byte EventSummary = 5 << 3 | Bytes, EventSessionLog = 7 << 3 | Bytes;
    private const byte SummaryValue = 1 << 3 | Bytes, ValueTag = 1 << 3 | Bytes, ValueSimple = 2 << 3 | Fixed32;
    private const byte SessionStatus = 1 << 3 | Varint, SessionStart = 1;

    private readonly FileStream _file;
    private readonly ArrayBufferWriter<byte> _event = new(256), _summary = new(256), _value = new(64), _record = new(256);

    /// <summary>
    /// Begins a new file in <paramref name="folder"/>. A run that goes on after <paramref name="firstStep"/> steps tells TensorBoard to forget later
    /// steps of earlier files, which a killed process may have written.
    /// </summary>
    public EventFileWriter(string folder, long firstStep, TimeProvider? clock = null)
    {
        Clock = clock ?? TimeProvider.System;
        _file = Create(folder);
        BeginEvent(step: 0);
        WriteText(_event, EventFileVersion, FileVersion);
        EndEvent();
        if (firstStep > 0)
        {
            BeginEvent(firstStep + 1);
            WriteBytes(_event, EventSessionLog, [SessionStatus, SessionStart]);
            EndEvent();
        }
    }

    /// <summary>The file.</summary>
    public string Path => _file.Name;

    private TimeProvider Clock { get; }

    /// <summary>Adds a scalar to the event that <see cref="Write"/> writes.</summary>
    public void Add(string tag, double value)
    {
        _value.ResetWrittenCount();
        WriteText(_value, ValueTag, tag);
        WriteByte(_value, ValueSimple);
        BinaryPrimitives.WriteSingleLittleEndian(Take(_value, sizeof(float)), (float)value);
        WriteBytes(_summary, SummaryValue, _value.WrittenSpan);
    }

    /// <summary>Writes the scalars added since the last call, as one event.</summary>
    public void Write(long step)
    {
        BeginEvent(step);
        WriteBytes(_event, EventSummary, _summary.WrittenSpan);
        EndEvent();
        _summary.ResetWrittenCount();
    }

    public void Dispose() => _file.Dispose();

    /// <summary>CRC-32C, rotated and shifted by a constant so that a checksum of data that hold checksums stays a good one.</summary>
    internal static uint MaskedCrc(ReadOnlySpan<byte> data)
    {
        uint crc = uint.MaxValue;
        for (; data.Length >= sizeof(ulong); data = data[sizeof(ulong)..])
        {
            crc = BitOperations.Crc32C(crc, BinaryPrimitives.ReadUInt64LittleEndian(data));
        }

        foreach (byte value in data)
        {
            crc = BitOperations.Crc32C(crc, value);
        }

        return unchecked(BitOperations.RotateRight(~crc, 15) + 0xA282EAD8u);
    }

    /// <summary>TensorBoard reads files in the order of their names, which therefore begin with the time; the process tells two of a second apart.</summary>
    private FileStream Create(string folder)
    {
        string name = string.Create(CultureInfo.InvariantCulture, $"{Prefix}{Clock.GetUtcNow().ToUnixTimeSeconds():D10}.{Environment.MachineName}.{Environment.ProcessId}");
        for (int i = 0; ; i++)
        {
            string path = System.IO.Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"{name}.{i}"));
            if (!File.Exists(path))
            {
                return new FileStream(path, FileMode.CreateNew, FileAccess.Write, FileShare.Read, bufferSize: 0);
            }
        }
    }

    private void BeginEvent(long step)
    {
        _event.ResetWrittenCount();
        WriteByte(_event, EventWallTime);
        BinaryPrimitives.WriteDoubleLittleEndian(Take(_event, sizeof(double)), (Clock.GetUtcNow() - DateTimeOffset.UnixEpoch).TotalSeconds);
        if (step > 0)
        {
            WriteByte(_event, EventStep);
            WriteVarint(_event, (ulong)step);
        }
    }

    private void EndEvent()
    {
        ReadOnlySpan<byte> data = _event.WrittenSpan;
        _record.ResetWrittenCount();
        BinaryPrimitives.WriteUInt64LittleEndian(Take(_record, sizeof(ulong)), (ulong)data.Length);
        uint lengthCrc = MaskedCrc(_record.WrittenSpan);
        BinaryPrimitives.WriteUInt32LittleEndian(Take(_record, sizeof(uint)), lengthCrc);
        _record.Write(data);
        BinaryPrimitives.WriteUInt32LittleEndian(Take(_record, sizeof(uint)), MaskedCrc(data));
        Debug.Assert(_record.WrittenCount == data.Length + 16, "two checksums and a length");
        _file.Write(_record.WrittenSpan);
    }

    private static void WriteText(ArrayBufferWriter<byte> to, byte key, string text)
    {
        WriteByte(to, key);
        WriteVarint(to, (ulong)Encoding.UTF8.GetByteCount(text));
        Encoding.UTF8.GetBytes(text, to);
    }

    private static void WriteBytes(ArrayBufferWriter<byte> to, byte key, ReadOnlySpan<byte> bytes)
    {
        WriteByte(to, key);
        WriteVarint(to, (ulong)bytes.Length);
        to.Write(bytes);
    }

    private static void WriteVarint(ArrayBufferWriter<byte> to, ulong value)
    {
        for (; value >= 0x80; value >>= 7)
        {
            WriteByte(to, (byte)(value | 0x80));
        }

        WriteByte(to, (byte)value);
    }

    private static void WriteByte(ArrayBufferWriter<byte> to, byte value) => Take(to, 1)[0] = value;

    private static Span<byte> Take(ArrayBufferWriter<byte> from, int bytes)
    {
        Span<byte> span = from.GetSpan(bytes)[..bytes];
        from.Advance(bytes);
        return span;
    }
}
